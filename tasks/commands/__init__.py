"""One small module a subcommand."""
