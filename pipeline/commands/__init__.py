"""The subcommands of `errata`, by what they are about. Each module adds its own to a parser."""
