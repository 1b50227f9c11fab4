"""One small module a subcommand, beside those of LightningCLI."""

from tasks.commands import (
    chat,
    classify,
    compare,
    detect,
    embed,
    export,
    generate,
    listing,
    profile,
    search,
    segment,
    translate,
    transplant,
)

COMMANDS = {
    "list": listing.run,
    "translate": translate.run,
    "generate": generate.run,
    "chat": chat.run,
    "classify": classify.run,
    "detect": detect.run,
    "segment": segment.run,
    "search": search.run,
    "embed": embed.run,
    "export": export.run,
    "compare": compare.run,
    "profile": profile.run,
    "transplant": transplant.run,
}
"""Name -> ``run(arguments, folders of configs)``."""
