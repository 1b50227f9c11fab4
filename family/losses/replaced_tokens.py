"""Replaced-token detection: tokens drawn by a generator, and who finds them (Clark et al. 2020)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from family.losses.language_model import IGNORE


class Corrupted(NamedTuple):
    """A batch in which a generator has filled the gaps, each ``(batch, tokens)``."""

    input_ids: Tensor
    replaced: Tensor
    """True where another token stands than did: one that was drawn again is none."""


def corrupt(input_ids: Tensor, labels: Tensor, logits: Tensor) -> Corrupted:
    """Fill gaps by what a generator says stood there, drawn by its probabilities (section 3.1).

    Drawn by numbers that the batch itself decides: the same batch is always filled the same, in
    validation as in a run that is resumed.

    Args:
        input_ids, labels: ``(batch, tokens)``: tokens with gaps, and what stood in them, elsewhere
            ``IGNORE``.
        logits: of the gaps in turn, ``(gaps, vocab)``; no gradient comes back to them.
    """
    hidden = labels != IGNORE
    chances = logits.detach().to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
    # Where tokens trade places, or are hidden elsewhere, the sum is another.
    places = torch.arange(1, input_ids.numel() + 1, device=input_ids.device)
    number = int((torch.where(hidden, -1 - labels, input_ids).flatten() * places).sum())
    generator = torch.Generator(input_ids.device).manual_seed(number % (1 << 63))
    filled = input_ids.clone()
    if len(chances):
        filled[hidden] = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return Corrupted(filled, hidden & (filled != labels))


def replaced_loss(
    logits: Tensor, replaced: Tensor, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Binary cross-entropy over all real tokens, hidden or not (equation 2).

    Args:
        logits: ``(batch, tokens)``, over 0 where a token seems replaced.
        replaced: ``(batch, tokens)``, True where it is.
        mask: ``(batch, tokens)``, True = a token.
        reduction: "mean" over real tokens, or "none", the loss of each, ``(batch, tokens)``, 0 of padding.
    """
    working = logits.to(torch.promote_types(logits.dtype, torch.float32))
    each = F.binary_cross_entropy_with_logits(working, replaced.to(working.dtype), reduction="none")
    real = torch.ones_like(replaced) if mask is None else mask
    each = each * real
    return each if reduction == "none" else each.sum() / real.sum().clamp(min=1)
