"""Words and cells of pictures as they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from family.inference.batches import Picture, picture_batches
from family.inference.masked import written
from family.look.view import Side

SHOWN = 448
"""Pixels of a picture's longer side on a page, at most."""
UNREADABLE = "\N{REPLACEMENT CHARACTER}"
SPACES = {
    "\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}",
    "\t": "\N{RIGHTWARDS ARROW TO BAR}",
    "": "\N{EMPTY SET}",
}
"""What stands for a token that shows nothing."""


def said(tokenizer: Any, token: int) -> str:
    """A token as text, spaces around it left out; a dot stands for a part of a character."""
    text = written(tokenizer, token)
    if UNREADABLE in text:
        return "\N{MIDDLE DOT}"
    return text.strip() or SPACES.get(text) or "\N{OPEN BOX}"


def words(tokenizer: Any, ids: Iterable[int]) -> list[str]:
    return [said(tokenizer, i) for i in ids]


def pixels_of(model: Any, picture: Picture) -> Tensor:
    """``(1, channels, height, width)``, as the model's preprocessing makes them."""
    return next(picture_batches(model, [picture]))[1]


def seen_by(model: Any, pixels: Tensor) -> Image.Image:
    """The picture that these pixels are, small enough for a page."""
    shown = transforms.to_pil_image(model.preprocess.restore(pixels[0].float()).cpu())
    factor = SHOWN / max(shown.size)
    if factor < 1:
        shown = shown.resize((round(shown.width * factor), round(shown.height * factor)))
    return shown


def patch_side(
    name: str,
    model: Any,
    embedding: Any,
    pixels: Tensor,
    before: list[str],
    covered: tuple[int, int] | None = None,
) -> Side:
    """A picture's patches, with what stands before them.

    Args:
        embedding: what made them.
        before: the names of the tokens before.
        covered: the height and width that the patches lie over; None is the picture's.
    """
    height, width = pixels.shape[-2:]
    rows, columns = embedding.grid(*(covered or (height, width)))
    down, across = embedding.patch_size
    tokens: list[str | int] = [*before, *range(rows * columns)]
    covers = rows * down / height, columns * across / width
    return Side(name, tokens, seen_by(model, pixels), (rows, columns), covers)


def prefix_names(model: Any, embedding: Any) -> list[str]:
    """Of the class token and of registers."""
    config = model.arguments.get("patches")
    classes = 1 if config is None else int(config.class_token)
    others = embedding.num_prefix_tokens - classes
    return ["[class]"] * classes + [f"[register {i + 1}]" for i in range(others)]
