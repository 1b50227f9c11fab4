"""One small module a subcommand, beside those of LightningCLI."""

from tasks.commands import classify, detect, generate, listing, search, segment, translate

COMMANDS = {
    "list": listing.run,
    "translate": translate.run,
    "generate": generate.run,
    "classify": classify.run,
    "detect": detect.run,
    "segment": segment.run,
    "search": search.run,
}
"""Name -> ``run(arguments, folders of configs)``."""
