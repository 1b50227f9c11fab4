"""Contrast of pictures and sentences: matching pairs of a batch against all others.

Both losses see the whole batch where it is spread over several processes: rows are gathered with
their gradient. A process returns its own rows' part, scaled so that the mean over processes is the
loss of the whole batch. ``DistributedDataParallel`` averages gradients, which makes them equal to
those of one process with the whole batch, whether or not processes hold equally many rows. Every
process must call the loss equally often.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def clip_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    groups: Tensor | None = None,
) -> Tensor:
    """Symmetric cross-entropy over cosine similarities (Radford et al. 2021, figure 3).

    Args:
        image_embeddings: ``(batch, dim)``, of any length: normalised here, in float32 at least.
        text_embeddings: ``(batch, dim)``, row ``i`` belongs to row ``i`` of the pictures.
        logit_scale: the logarithm of the factor on similarities, as models hold it; a scalar.
        groups: ids ``(batch)``, whole numbers: two rows of equal id (the same caption twice) are
            not negatives of each other, they are left out of the softmax. With several processes
            an id means the same on all of them.

    Returns:
        a scalar.

    Raises:
        ValueError: embeddings or groups whose shapes do not fit each other.
    """
    _check(image_embeddings, text_embeddings, groups)
    with torch.autocast(image_embeddings.device.type, enabled=False):
        images, texts = _normalised(image_embeddings), _normalised(text_embeddings)
        counts, first = _rows_of_processes(images)
        all_images, all_texts = _gather(torch.cat([images, texts], dim=1), counts).chunk(2, dim=1)
        scale = logit_scale.to(images.dtype).exp()
        own = first + torch.arange(len(images), device=images.device)
        excluded = _excluded(groups, own, counts)
        total = images.new_zeros(())
        for rows, columns in ((images, all_texts), (texts, all_images)):
            logits = scale * (rows @ columns.T)
            if excluded is not None:
                logits = logits.masked_fill(excluded, -math.inf)
            total = total + F.cross_entropy(logits, own, reduction="sum")
        return total * len(counts) / (2 * sum(counts))


def siglip_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor | None,
    groups: Tensor | None = None,
) -> Tensor:
    """A yes or no for each pair on its own, summed, over the batch size (Zhai et al. 2023, algorithm 1).

    Args:
        image_embeddings, text_embeddings, logit_scale: as :func:`clip_loss`.
        logit_bias: added to every logit, a scalar.
        groups: as :func:`clip_loss`; the terms of such pairs are left out of the sum.

    Returns:
        a scalar.

    Raises:
        ValueError: ``logit_bias`` is None; shapes that do not fit each other.
    """
    _check(image_embeddings, text_embeddings, groups)
    if logit_bias is None:
        raise ValueError("the sigmoid loss needs a logit_bias: build the model with one.")
    with torch.autocast(image_embeddings.device.type, enabled=False):
        images, texts = _normalised(image_embeddings), _normalised(text_embeddings)
        counts, first = _rows_of_processes(images)
        logits = logit_scale.to(images.dtype).exp() * (images @ _gather(texts, counts).T)
        logits = logits + logit_bias.to(images.dtype)
        own = first + torch.arange(len(images), device=images.device)
        matching = own[:, None] == torch.arange(sum(counts), device=images.device)
        terms = F.logsigmoid(torch.where(matching, logits, -logits))
        excluded = _excluded(groups, own, counts)
        if excluded is not None:
            terms = terms.masked_fill(excluded, 0.0)
        return -terms.sum() * len(counts) / sum(counts)


def _check(images: Tensor, texts: Tensor, groups: Tensor | None) -> None:
    if images.dim() != 2 or images.shape != texts.shape:
        raise ValueError(
            "image_embeddings and text_embeddings must both be (batch, dim), row for row, not "
            f"{tuple(images.shape)} and {tuple(texts.shape)}."
        )
    if groups is not None and groups.shape != images.shape[:1]:
        raise ValueError(
            f"groups must hold one id a row, ({len(images)},), not {tuple(groups.shape)}."
        )


def _normalised(x: Tensor) -> Tensor:
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def _excluded(groups: Tensor | None, own: Tensor, counts: list[int]) -> Tensor | None:
    """``(own rows, all rows)``, True = same id, but not the pair itself."""
    if groups is None:
        return None
    everyone = _gather(groups[:, None], counts)[:, 0]
    itself = own[:, None] == torch.arange(len(everyone), device=own.device)
    return (groups[:, None] == everyone) & ~itself


def _rows_of_processes(x: Tensor) -> tuple[list[int], int]:
    """How many rows each process holds, and which of all rows is the first of this one."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [len(x)], 0
    mine = torch.tensor([len(x)], device=x.device)
    counts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine)
    rows = [int(count) for count in counts]
    return rows, sum(rows[: dist.get_rank()])


def _gather(x: Tensor, counts: list[int]) -> Tensor:
    """The rows ``(all rows, dim)`` of every process, in the order of processes, with gradient."""
    if len(counts) == 1:
        return x
    longest = max(counts)  # collectives want equal shapes
    padded = F.pad(x, (0, 0, 0, longest - len(x)))
    parts: tuple[Tensor, ...] = _GatherRows.apply(padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _GatherRows(torch.autograd.Function):
    """``all_gather`` whose gradient is the sum of what every process has for these rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = torch.stack(gradients)
        dist.all_reduce(summed)
        return summed[dist.get_rank()]
