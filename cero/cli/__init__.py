"""The `cero` command: `main`, and one module a subcommand with HELP, `add_arguments(parser)` and `run(arguments)`."""
