"""`python -m cero`."""

from cero.cli.main import main

main()
