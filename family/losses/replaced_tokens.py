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

    Drawn by numbers that each row itself decides: it is always filled the same, in validation, in a run
    that is resumed, and whatever other rows there are.

    Args:
        input_ids, labels: ``(batch, tokens)``: tokens with gaps, and what stood in them, elsewhere
            ``IGNORE``.
        logits: of the gaps in turn, ``(gaps, vocab)``; no gradient comes back to them.
    """
    hidden = labels != IGNORE
    exact = torch.promote_types(logits.dtype, torch.float32)
    upto = logits.detach().to(exact).softmax(-1).cumsum(-1)
    # Where tokens trade places, or are hidden elsewhere, the sum is another.
    places = torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)
    rows = (torch.where(hidden, -1 - labels, input_ids) * places).sum(1, keepdim=True)
    drawn = uniform(mixed(rows) + places)[hidden][:, None].to(exact) * upto[:, -1:]
    filled = input_ids.clone()
    filled[hidden] = torch.searchsorted(upto, drawn, right=True)[:, 0].clamp(
        max=logits.shape[-1] - 1
    )
    return Corrupted(filled, hidden & (filled != labels))


def uniform(numbers: Tensor) -> Tensor:
    """Of whole numbers, int64, others evenly in 0..1, float32."""
    return ((mixed(numbers) >> 40) & ((1 << 24) - 1)).float() / (1 << 24)


def mixed(numbers: Tensor) -> Tensor:
    """Whole numbers, int64, that tell nothing of those they come from (SplitMix64, Steele et al. 2014)."""
    mixed = numbers * -0x61C8864680B583EB  # what is above 64 bits falls off
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return mixed ^ ((mixed >> 31) & ((1 << 33) - 1))


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
