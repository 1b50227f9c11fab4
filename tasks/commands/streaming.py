"""Text that is shown while it is being written."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from family.inputs.tokenizer import Tokenizer


def show(tokenizer: Tokenizer, tokens: Iterable[Tensor]) -> str:
    """Print the text of tokens as they come, and a line's end; returns that text."""
    written: list[int] = []
    shown = text = ""
    for token in tokens:
        written.append(int(token))
        # Decoded whole: a character may be made of several tokens.
        text = tokenizer.decode(written)
        if not text.endswith("\ufffd"):
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print(text[len(shown) :], flush=True)
    return text
