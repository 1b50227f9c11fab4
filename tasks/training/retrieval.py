"""Who is found for whom: embeddings, and the places of the right ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 1024
"""Of the similarities of a whole split, so many at a time."""


def normalised(embeddings: Tensor) -> Tensor:
    """To length 1, in float32 on the CPU."""
    return F.normalize(embeddings.detach().float().cpu(), dim=-1)


def ranks(similarity: Tensor, same: Tensor) -> Tensor:
    """For each row the place (from 0) of the first column that is right: ``(rows)``.

    Args:
        similarity: ``(rows, columns)``; same: True where a column is right, one of each row at least.
    """
    # Ties and NaN count against: a model that gives all pictures one vector finds nothing.
    best = similarity.masked_fill(~same, -torch.inf).amax(1, keepdim=True)
    return (~(similarity < best) & ~same).sum(1)


def partner_ranks(first: Tensor, second: Tensor, first_ids: Tensor, second_ids: Tensor) -> Tensor:
    """For each text the place (from 0) of its nearest partner among the partners of all: ``(rows)``.

    Partners of a text are all that stand with it in some row; the text itself, where it is the partner of
    another, is passed over.

    Args:
        first, second: ``(rows, dim)``, of length 1; row by row a text and its partner.
        first_ids, second_ids: ``(rows)``, whole numbers from 0, equal where a text is the same.
    """
    numbers, where = second_ids.unique(return_inverse=True)
    rows = torch.zeros_like(numbers).scatter_(0, where, torch.arange(len(where)))
    candidates = second[rows]  # each text once
    known = torch.zeros(int(first_ids.max()) + 1, len(numbers), dtype=torch.bool)
    known[first_ids, where] = True
    found = []
    for part, ids in zip(first.split(ROWS), first_ids.split(ROWS), strict=True):
        similarity, same = part @ candidates.T, known[ids]
        itself = (ids[:, None] == numbers) & ~same
        found.append(ranks(similarity.masked_fill(itself, -torch.inf), same))
    return torch.cat(found)
