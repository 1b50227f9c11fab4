"""Errors that a user can mend, each one clear sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: names the field or file, the value, and what would be right."""


def closest(name: str, options: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, or nothing where no option is near."""
    near = difflib.get_close_matches(name, list(options), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
