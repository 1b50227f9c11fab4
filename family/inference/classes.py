"""Pictures or texts to classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from family.inference.batches import (
    PICTURES,
    TEXTS,
    Picture,
    class_names,
    picture_batches,
    text_batches,
)


def classify_pictures(
    model: Any, pictures: Sequence[Picture], batch_size: int = PICTURES
) -> list[dict[str, Any]]:
    """Of each picture the likeliest class and how likely each is: ``label``, ``score`` and
    ``probabilities``, a number by label."""
    return described(model, picture_probabilities(model, pictures, batch_size))


def classify_texts(
    model: Any,
    texts: Sequence[str],
    batch_size: int = TEXTS,
    pairs: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """The same of texts, or of pairs of them: ``pairs`` has the second of each."""
    return described(model, text_probabilities(model, texts, batch_size, pairs))


def rate_texts(
    model: Any,
    texts: Sequence[str],
    batch_size: int = TEXTS,
    pairs: Sequence[str] | None = None,
) -> list[float]:
    """The number that a regression gives of each text or pair."""
    return [float(row) for row in text_logits(model, texts, batch_size, pairs).flatten()]


@torch.no_grad()
def picture_probabilities(
    model: Any, pictures: Sequence[Picture], batch_size: int = PICTURES
) -> Tensor:
    """``(pictures, classes)``."""
    rows = [model(pixels).float() for _, pixels in picture_batches(model, pictures, batch_size)]
    return torch.cat(rows).softmax(-1).cpu() if rows else torch.empty(0, 0)


def text_probabilities(
    model: Any,
    texts: Sequence[str],
    batch_size: int = TEXTS,
    pairs: Sequence[str] | None = None,
) -> Tensor:
    """The probabilities of :func:`text_logits`."""
    return text_logits(model, texts, batch_size, pairs).softmax(-1)


@torch.no_grad()
def text_logits(
    model: Any,
    texts: Sequence[str],
    batch_size: int = TEXTS,
    pairs: Sequence[str] | None = None,
) -> Tensor:
    """``(texts, classes)``; a text that is too long loses its end, and any the spaces around it,
    as in training."""
    rows = [model(*inputs).float() for inputs in text_batches(model, texts, batch_size, pairs)]
    return torch.cat(rows).cpu() if rows else torch.empty(0, 0)


def described(model: Any, probabilities: Tensor) -> list[dict[str, Any]]:
    """Plain values of ``(inputs, classes)``, by :func:`distinct` names."""
    if not len(probabilities):
        return []
    names = distinct(class_names(model, probabilities.shape[1]))
    found = []
    for row in probabilities:
        best = int(row.argmax())
        chances = dict(zip(names, row.tolist(), strict=True))
        found.append(
            {"label": names[best], "score": chances[names[best]], "probabilities": chances}
        )
    return found


def distinct(names: Sequence[str]) -> list[str]:
    """Of classes that share a name each with its number behind it, as ImageNet's two cranes."""
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)]
