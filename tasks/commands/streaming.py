"""Text that is shown while it is being written."""

from __future__ import annotations

from collections.abc import Iterable


def show(pieces: Iterable[str]) -> str:
    """Print the pieces of a text as they come, and a line's end; returns that text."""
    text = ""
    for piece in pieces:
        print(piece, end="", flush=True)
        text += piece
    print(flush=True)
    return text
