"""The image tokenizer that a member owns, in whose tokens or latents it works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from family.inputs.patches import pair
from family.models.image_tokenizer import ImageTokenizer
from family.models.member import build


def owned_tokenizer(
    arguments: Mapping[str, Any], image_size: int | Sequence[int] | None = None
) -> ImageTokenizer:
    """An image tokenizer, frozen; its weights are to be copied in, and are saved with their owner.

    Args:
        arguments: its plain arguments, as ``describe(model)["arguments"]`` has them.
        image_size: of the owner's pictures; None is the tokenizer's.

    Raises:
        ValueError: another size than the tokenizer's, or what that refuses.
    """
    tokenizer = build(ImageTokenizer, arguments)
    own = pair(tokenizer.image_size)
    if image_size is not None and pair(image_size) != own:
        raise ValueError(
            f"image_size={pair(image_size)} is not that of the image tokenizer, {own}: give the same."
        )
    return tokenizer.requires_grad_(False).eval()


def stay_frozen(tokenizer: nn.Module | None) -> None:
    """Back to eval mode, after the owner went into another: its codes would learn."""
    if tokenizer is not None:
        tokenizer.eval()
