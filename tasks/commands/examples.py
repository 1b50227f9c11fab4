"""The parser of a command: what it is for, examples to copy, and every option's default."""

from __future__ import annotations

import argparse
import textwrap


class Shown(argparse.RawDescriptionHelpFormatter):
    """Examples as they were written; beside each option its default, unless its text says it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        said, default = action.help or "", action.default
        unsaid = default is None or default is argparse.SUPPRESS or default == []
        if unsaid or "default" in said or isinstance(default, bool):
            return said
        return f"{said} (default: %(default)s)".strip()


def command_parser(
    name: str, says: str | None, *examples: str, more: str = ""
) -> argparse.ArgumentParser:
    """The parser of ``family NAME``.

    Args:
        says: what it does, in reStructuredText's marks of a docstring.
        examples: calls, as they are typed.
        more: said below them.
    """
    told = "\n".join(["examples:", *(f"  {example}" for example in examples)])
    return argparse.ArgumentParser(
        f"family {name}",
        description=" ".join((says or "").replace("``", "").split()),
        epilog=f"{told}\n\n{textwrap.fill(more, 78)}" if more else told,
        formatter_class=Shown,
        allow_abbrev=False,
    )
