"""A checkpoint at another resolution, or with another number of classes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from family.inputs.patches import PatchEmbedding, covering, pair
from family.models.member import Facts, facts_of

LOG = logging.getLogger(__name__)


def class_arguments(
    member: type[nn.Module], num_classes: int, task: str | None = None
) -> dict[str, Any]:
    """The arguments of a model that tells so many classes apart.

    Args:
        task: what they are for; None is what the model's are for already.
    """
    facts = facts_of(member) or Facts()
    head = facts.class_heads.get(task or "", {})
    return {**facts.class_arguments, **head, "num_classes": num_classes}


def fresh_head(
    member: type[nn.Module], num_classes: int, origin: str, left_out: Sequence[str] = ()
) -> tuple[str, ...]:
    """The weights that another number of classes makes anew.

    Args:
        left_out: the heads of the source that would answer in place of the classes.

    Raises:
        ValueError: a member without classes.
    """
    facts = facts_of(member)
    if facts is None or not facts.classes:
        has = "num_classes" in inspect.signature(member).parameters
        what = "whose head cannot be made anew" if has else "which has no classes"
        raise ValueError(f"num_classes={num_classes}: {origin} is a {member.__name__}, {what}.")
    said = f"{origin}: the head for {num_classes} classes starts afresh"
    LOG.warning("%s.", f"{said}, {', '.join(left_out)} left out" if left_out else said)
    return facts.classes


def class_weights(model: nn.Module) -> list[str]:
    """The names of the parameters that make up a member's head of classes."""
    facts = facts_of(model)
    heads = () if facts is None else facts.classes
    return [name for name, _ in model.named_parameters() if name.startswith(heads)]


def resize(model: Any, image_size: int | Sequence[int]) -> None:
    """Make a model one for another size of pictures, in place: its preprocessing, and its learned
    positions, by interpolation.

    Raises:
        ValueError: a model that sees no pictures, or patches that the size does not divide into and a
            model that does not fill them up, or that the model's own ``check_size`` refuses.
    """
    found = [module for module in model.modules() if isinstance(module, PatchEmbedding)]
    facts = facts_of(model)
    if getattr(model, "image_tokenizer", None) is not None:
        raise ValueError(
            f"image_size={image_size}: what a {type(model).__name__} draws is of the size of its image "
            f"tokenizer, {tuple(model.image_size)}."
        )
    if not found and not (facts and facts.any_size):
        raise ValueError(f"image_size={image_size}: a {type(model).__name__} has no patches.")
    size = pair(image_size)
    if hasattr(model, "check_size"):
        model.check_size(size)  # before anything is changed
    for embedding in found:
        inner = covering(size, embedding.patch_size) if facts and facts.any_size else size
        before = embedding.image_size
        if inner == before:
            continue
        embedding.resize(inner)
        LOG.warning("positions for %s x %s pixels interpolated to %s x %s.", *before, *inner)
    for module in model.modules():
        if hasattr(module, "image_size") and not isinstance(module, PatchEmbedding):
            own = getattr(module, "embedding", None)
            module.image_size = own.image_size if isinstance(own, PatchEmbedding) else size
        if "image_size" in getattr(module, "arguments", {}):
            module.arguments["image_size"] = image_size
    if model.preprocess is not None:
        model.preprocess = model.preprocess.at(image_size)
