"""How tasks read texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from family.inputs.text_pairs import segments
from family.models.member import longest_text
from tasks.errors import UserError


def check_room(model: Any, data: Any, option: str = "max_tokens") -> None:
    """Refuse data whose texts are longer than a model reads.

    Args:
        option: of the data, says how long they are.

    Raises:
        UserError: see above.
    """
    wanted, longest = getattr(data, option, 0), longest_text(model)
    if wanted > longest:
        name = "text_tokens" if hasattr(model, "text_tokens") else "max_tokens"
        raise UserError(
            f"data.{option}={wanted} is more than the model's {name}={longest}: "
            "make one smaller, or the other larger."
        )


def check_documents(model: Any, said: str) -> None:
    """Refuse a model that would let texts see each other that are packed into a row.

    Args:
        said: what packs them, the beginning of the sentence.

    Raises:
        UserError: see above.
    """
    if not takes(type(model).forward, "documents"):
        raise UserError(
            f"{said} needs a model that takes documents: {type(model).__name__} does not."
        )


@cache  # of a step on a small model a signature would be a hundredth
def takes(forward: Callable[..., Any], name: str) -> bool:
    """Whether a model's forward pass has an argument of that name."""
    return name in inspect.signature(forward).parameters


def packed(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a model needs to know of texts that are packed into a row."""
    return {name: batch[name] for name in ("documents",) if name in batch}


def read(model: Any, batch: dict[str, Any]) -> Tensor:
    """What a model makes of a batch's ``input_ids``, ``mask`` and, of pairs and if it tells them apart,
    ``token_types``, in float32 at least."""
    types = segments(model, batch.get("token_types"))
    found = model(batch["input_ids"], batch.get("mask"), *types)
    return found.to(torch.promote_types(found.dtype, torch.float32))


def said(batch: dict[str, Any]) -> list[str]:
    """The texts of a batch as samples show them, those of a pair in a line each."""
    texts, pairs = batch["text"], batch.get("pair")
    return texts if pairs is None else [f"{a}\n{b}" for a, b in zip(texts, pairs, strict=True)]
