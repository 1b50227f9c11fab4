"""Pairs of sentences: which belongs to which, or how near two of them are (Reimers & Gurevych 2019).

The batch of all processes is one, see :mod:`family.losses.processes`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from family.losses.contrastive import told_apart
from family.losses.processes import gather_rows, normalised, rows_of_processes


def ranking_loss(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor | None = None,
    scale: float = 20.0,
    symmetric: bool = False,
    text_ids: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of telling each sentence's partner from those of all others (Henderson et al. 2017,
    section 4.4), by their cosines.

    The same text is no negative of itself, and what stands with a text in some row of the batch is none
    of it: both are left out of the softmax. (sentence-transformers' ``NoDuplicatesBatchSampler`` keeps
    such rows apart instead; one batch of several processes it does not see whole.) A batch of one
    without negatives has nothing to tell apart: its loss is 0, and so is the gradient.

    Args:
        anchors, positives: ``(batch, dim)``, of any length; row by row what belongs together.
        negatives: ``(batch, dim)``, of each row a sentence that is near and does not belong to it, and
            a negative of all others too.
        scale: factor on cosines, the inverse of a temperature.
        symmetric: the mean of this and of finding the anchor of each positive among all anchors.
        text_ids: whole numbers ``(batch, 2)``, or ``(batch, 3)`` with negatives, equal where a text is
            the same, on all processes; without them each is like no other.

    Returns:
        a scalar.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    sides = [anchors, positives, *([] if negatives is None else [negatives])]
    check_rows(*sides)
    if text_ids is not None and text_ids.shape != (len(anchors), len(sides)):
        raise ValueError(
            f"text_ids must be {(len(anchors), len(sides))}, not {tuple(text_ids.shape)}."
        )
    with torch.autocast(anchors.device.type, enabled=False):
        mine = [normalised(side) for side in sides]
        counts, first = rows_of_processes(anchors)
        everyone = gather_rows(torch.cat(mine, dim=1), counts).chunk(len(sides), dim=1)
        own = first + torch.arange(len(anchors), device=anchors.device)
        ids = None if text_ids is None else gather_rows(text_ids, counts)
        others = (None, None) if ids is None else alike(ids, own)
        candidates = torch.cat(everyone[1:])
        total = told_apart(scale * (mine[0] @ candidates.T), own, others[0])
        if symmetric:
            back = told_apart(scale * (mine[1] @ everyone[0].T), own, others[1])
            total = (total + back) / 2
        return total * len(counts) / sum(counts)


def alike(ids: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """What is no negative, though it stands in another row: the same text, and what stands with it.

    Args:
        ids: ``(rows, 2 or 3)`` of all rows; own: the places of those of this process among them.

    Returns:
        ``(own rows, candidates)`` of the anchors, and ``(own rows, rows)`` of their partners, bool.
    """
    numbers = ids.unique(return_inverse=True)[1]
    anchors, partners = numbers[:, 0], numbers[:, 1]
    known = torch.eye(int(numbers.max()) + 1, dtype=torch.bool, device=ids.device)
    known[anchors, partners] = known[partners, anchors] = True
    forth = known[anchors[own]][:, numbers[:, 1:].T.flatten()]
    back = known[partners[own]][:, anchors]
    rows = torch.arange(len(own), device=ids.device)
    forth[rows, own] = back[rows, own] = False
    return forth, back


def cosine_loss(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """Mean squared difference of cosine and label (Reimers & Gurevych 2019, section 3).

    Args:
        first, second: ``(batch, dim)``, row by row the two of a pair.
        labels: ``(batch)``, how near they are, as a cosine: from 0 to 1 as a rule.

    Returns:
        a scalar.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    check_rows(first, second, labels=labels)
    with torch.autocast(first.device.type, enabled=False):
        cosine = (normalised(first) * normalised(second)).sum(1)
        counts, _ = rows_of_processes(first)
        total = (cosine - labels.to(cosine.dtype)).square().sum()
        return total * len(counts) / sum(counts)


def cosent_loss(first: Tensor, second: Tensor, labels: Tensor, scale: float = 20.0) -> Tensor:
    """``log(1 + sum exp(scale * (cosine_j - cosine_i)))`` over all pairs i that are nearer by their label
    than pairs j (CoSENT, Huang et al. 2024): it asks for an order alone, as a rank correlation does.

    Args:
        first, second, labels: as :func:`cosine_loss`; labels of any scale.
        scale: factor on cosines.

    Returns:
        a scalar, 0 where all labels are equal; on several processes that of the whole batch on each.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    check_rows(first, second, labels=labels)
    with torch.autocast(first.device.type, enabled=False):
        cosine = (normalised(first) * normalised(second)).sum(1)
        counts, _ = rows_of_processes(first)
        cosine, labels = (gather_rows(x[:, None], counts)[:, 0] for x in (cosine, labels))
        wrong = scale * (cosine[None] - cosine[:, None])
        wrong = wrong.masked_fill(labels[:, None] <= labels[None], -math.inf).flatten()
        return torch.cat([wrong.new_zeros(1), wrong]).logsumexp(0)


def check_rows(*sides: Tensor, labels: Tensor | None = None) -> None:
    """Refuse embeddings that do not go together row by row.

    Raises:
        ValueError: see above.
    """
    shapes = [tuple(side.shape) for side in sides]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1:
        said = " and ".join(map(str, shapes))
        raise ValueError(f"embeddings must all be (batch, dim), row for row, not {said}.")
    if labels is not None and tuple(labels.shape) != shapes[0][:1]:
        raise ValueError(
            f"labels must hold one number a row, ({shapes[0][0]},), not {tuple(labels.shape)}."
        )
