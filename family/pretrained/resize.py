"""A checkpoint at another resolution, or with another number of classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from family.inputs.patches import PatchEmbedding, pair
from family.models.detr import DETR

LOG = logging.getLogger(__name__)
CLASS_HEADS = {
    "ViT": ("head.", "distilled_head."),
    "BERT": ("class_head.", "masked_head.", "replaced_head."),
    "VideoViT": ("head.",),
    "Fusion": ("head.",),
    "DETR": ("head.classes.", "proposals.classes.", "denoising."),
    "Segmenter": ("decoder.head.", "decoder.classes.", "decoder.norm."),
}
"""Member -> the beginnings of the weights that its number of classes decides."""


def class_arguments(member: type[nn.Module], num_classes: int) -> dict[str, Any]:
    """The arguments of a model that tells so many classes apart."""
    # BERT's other heads would answer in place of the classes.
    others = {"masked_head": False, "replaced_head": False}
    more = others if member.__name__ == "BERT" else {}
    return {"num_classes": num_classes, **more}


def fresh_head(member: type[nn.Module], num_classes: int, origin: str) -> tuple[str, ...]:
    """The weights that another number of classes makes anew.

    Raises:
        ValueError: a member without classes.
    """
    if member.__name__ not in CLASS_HEADS:
        raise ValueError(
            f"num_classes={num_classes}: {origin} is a {member.__name__}, which has no classes."
        )
    LOG.warning("%s: the head for %d classes starts afresh.", origin, num_classes)
    return CLASS_HEADS[member.__name__]


def resize(model: Any, image_size: int | Sequence[int]) -> None:
    """Make a model one for another size of pictures, in place: its preprocessing, and its learned
    positions, by interpolation.

    Raises:
        ValueError: a model that sees no pictures, or patches that the size does not divide into.
    """
    found = [module for module in model.modules() if isinstance(module, PatchEmbedding)]
    if not found and not isinstance(model, DETR):  # which takes any size as it is
        raise ValueError(f"image_size={image_size}: a {type(model).__name__} has no patches.")
    for embedding in found:
        size, before = pair(image_size), embedding.image_size
        if size == before:
            continue
        embedding.resize(size)
        LOG.warning("positions for %s x %s pixels interpolated to %s x %s.", *before, *size)
    for module in model.modules():
        if hasattr(module, "image_size"):
            module.image_size = pair(image_size)
        if "image_size" in getattr(module, "arguments", {}):
            module.arguments["image_size"] = image_size
    if model.preprocess is not None:
        model.preprocess = model.preprocess.at(image_size)
