"""Classes of pictures by their names alone, by a model that knows pictures and texts (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from family.inference.batches import PICTURES, TEXTS
from family.inference.embeddings import Picture, embed_captions, embed_pictures

TEMPLATES = ("a photo of a {}",)
"""How a label becomes a sentence (section 3.1.4)."""


def label_vectors(
    model: Any,
    labels: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    batch_size: int = TEXTS,
) -> Tensor:
    """A vector of length 1 for each label, ``(labels, dim)``: of several templates the mean of theirs, each of
    length 1 (an ensemble of prompts).

    Args:
        templates: sentences with ``{}`` in the label's place.

    Raises:
        ValueError: no label, one twice, or a template without a place for it.
    """
    if not labels or any(not label.strip() for label in labels):
        raise ValueError("labels must be names of classes, at least one, none of them empty.")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if list(labels).count(label) > 1)
        raise ValueError(f"the label {twice!r} is given twice.")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"template {template!r} needs one {{}}, where the label goes.")
    texts = [template.replace("{}", label) for label in labels for template in templates]
    rows = embed_captions(model, texts, batch_size).unflatten(0, (len(labels), -1))
    return F.normalize(rows.mean(1), dim=-1)


@torch.no_grad()
def zero_shot(
    model: Any, pictures: Sequence[Picture], vectors: Tensor, batch_size: int = PICTURES
) -> Tensor:
    """How likely each label is, ``(pictures, labels)``: they exclude each other and add up to 1, or, by a model
    of the sigmoid loss, which judges each pair by itself (SigLIP), do not.

    Args:
        vectors: of :func:`label_vectors`.
    """
    cosines = embed_pictures(model, pictures, batch_size) @ vectors.T
    logits = model.logit_scale.float().exp().cpu() * cosines
    if getattr(model, "logit_bias", None) is None:
        return logits.softmax(-1)
    return (logits + model.logit_bias.float().cpu()).sigmoid()
