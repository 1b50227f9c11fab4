"""Text that is shown while it is being written."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from family.generation.window import read_to


def show(pieces: Iterable[str]) -> str:
    """Print the pieces of a text as they come, and a line's end; returns that text."""
    text = ""
    for piece in pieces:
        print(piece, end="", flush=True)
        text += piece
    print(flush=True)
    return text


def tell_window(model: Any, source: str, tokens: int) -> bool:
    """Say on standard error that a text of so many tokens is read by its end alone; whether it is."""
    window = read_to(model, tokens)
    if window is None:
        return False
    print(
        f"{source} was trained on texts of {window} tokens: of one that grows longer it reads the last "
        f"{window}.",
        file=sys.stderr,
    )
    return True
