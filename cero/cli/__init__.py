"""The `cero` command: `main`, and a module for each subcommand.

Such a module has HELP, `add_arguments(parser)` and `run(arguments)`.
"""
