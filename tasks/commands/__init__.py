"""One small module a subcommand, beside those of LightningCLI."""

from tasks.commands import generate, listing, translate

COMMANDS = {"list": listing.run, "translate": translate.run, "generate": generate.run}
"""Name -> ``run(arguments, folders of configs)``."""
