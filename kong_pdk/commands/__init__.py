"""The ``kong-pdk`` command: a module for each subcommand, imported when it is used."""
