"""Pictures or texts to classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from family.heads.problem import answers
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
    ``probabilities``, a number by label; of several labels at once, each by itself."""
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
    """The number that a head of one gives of each text or pair: by the model's ``problem_type`` itself,
    or its sigmoid."""
    return text_probabilities(model, texts, batch_size, pairs).flatten().tolist()


def rate_pictures(
    model: Any, pictures: Sequence[Picture], batch_size: int = PICTURES
) -> list[float]:
    """As :func:`rate_texts`, of pictures."""
    return picture_probabilities(model, pictures, batch_size).flatten().tolist()


@torch.no_grad()
def picture_probabilities(
    model: Any, pictures: Sequence[Picture], batch_size: int = PICTURES
) -> Tensor:
    """What the model says of each picture ``(pictures, classes)``, by
    :func:`~family.heads.problem.answers`: probabilities, or numbers."""
    rows = [model(pixels).float() for _, pixels in picture_batches(model, pictures, batch_size)]
    return answers(model, torch.cat(rows)).cpu() if rows else torch.empty(0, 0)


def text_probabilities(
    model: Any,
    texts: Sequence[str],
    batch_size: int = TEXTS,
    pairs: Sequence[str] | None = None,
) -> Tensor:
    """As :func:`picture_probabilities`, of :func:`text_logits`."""
    return answers(model, text_logits(model, texts, batch_size, pairs))


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
