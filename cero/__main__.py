"""`python -m cero`."""

from cero.cli import main

main()
