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
    picture_ids: Tensor | None = None,
    caption_ids: Tensor | None = None,
) -> Tensor:
    """Symmetric cross-entropy over cosine similarities (Radford et al. 2021, figure 3).

    Args:
        image_embeddings: ``(batch, dim)``, of any length: normalised here, in float32 at least.
        text_embeddings: ``(batch, dim)``, row ``i`` belongs to row ``i`` of the pictures.
        logit_scale: the logarithm of the factor on similarities, as models hold it; a scalar.
        picture_ids, caption_ids: ids ``(batch)``, whole numbers, equal where the picture or the
            sentence is the same: what a picture goes with in one row is no negative of it in another,
            and is left out of the softmax there, see :func:`matches`. Without them each row has its
            own. With several processes an id means the same on all of them.

    Returns:
        a scalar.

    Raises:
        ValueError: embeddings or ids whose shapes do not fit each other.
    """
    _check(image_embeddings, text_embeddings, picture_ids, caption_ids)
    with torch.autocast(image_embeddings.device.type, enabled=False):
        images, texts = _normalised(image_embeddings), _normalised(text_embeddings)
        counts, first = _rows_of_processes(images)
        all_images, all_texts = _gather(torch.cat([images, texts], dim=1), counts).chunk(2, dim=1)
        scale = logit_scale.to(images.dtype).exp()
        own = first + torch.arange(len(images), device=images.device)
        alike = _alike(picture_ids, caption_ids, own, counts)
        total = images.new_zeros(())
        for rows, columns, others in (
            (images, all_texts, alike[0]),
            (texts, all_images, alike[1]),
        ):
            logits = scale * (rows @ columns.T)
            if others is not None:
                logits = logits.masked_fill(others, -math.inf)
            total = total + F.cross_entropy(logits, own, reduction="sum")
        return total * len(counts) / (2 * sum(counts))


def siglip_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor | None,
    picture_ids: Tensor | None = None,
    caption_ids: Tensor | None = None,
) -> Tensor:
    """A yes or no for each pair on its own, summed, over the batch size (Zhai et al. 2023, algorithm 1).

    Args:
        image_embeddings, text_embeddings, logit_scale: as :func:`clip_loss`.
        logit_bias: added to every logit, a scalar.
        picture_ids, caption_ids: as :func:`clip_loss`; the terms of such pairs are left out of the sum.

    Returns:
        a scalar.

    Raises:
        ValueError: ``logit_bias`` is None; shapes that do not fit each other.
    """
    _check(image_embeddings, text_embeddings, picture_ids, caption_ids)
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
        alike, _ = _alike(picture_ids, caption_ids, own, counts)
        if alike is not None:
            terms = terms.masked_fill(alike, 0.0)
        return -terms.sum() * len(counts) / sum(counts)


def matches(picture_ids: Tensor, caption_ids: Tensor) -> Tensor:
    """Which sentences each picture goes with: those of its own rows, wherever else they stand too.

    That a sentence is shared by two pictures makes no other sentence of the one right for the other.

    Args:
        picture_ids, caption_ids: ``(rows)``, whole numbers from 0; row by row what belongs together.

    Returns:
        ``(pictures, sentences)`` bool, by their ids.
    """
    shape = int(picture_ids.max()) + 1, int(caption_ids.max()) + 1
    known = torch.zeros(shape, dtype=torch.bool, device=picture_ids.device)
    known[picture_ids, caption_ids] = True
    return known


def _check(images: Tensor, texts: Tensor, *ids: Tensor | None) -> None:
    if images.dim() != 2 or images.shape != texts.shape:
        raise ValueError(
            "image_embeddings and text_embeddings must both be (batch, dim), row for row, not "
            f"{tuple(images.shape)} and {tuple(texts.shape)}."
        )
    for name, values in zip(("picture_ids", "caption_ids"), ids, strict=True):
        if values is not None and values.shape != images.shape[:1]:
            raise ValueError(
                f"{name} must hold one id a row, ({len(images)},), not {tuple(values.shape)}."
            )


def _normalised(x: Tensor) -> Tensor:
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def _alike(
    picture_ids: Tensor | None, caption_ids: Tensor | None, own: Tensor, counts: list[int]
) -> tuple[Tensor | None, Tensor | None]:
    """``(own rows, all rows)`` twice, True = matches, but is not the pair itself: pictures against all
    sentences, and sentences against all pictures."""
    if picture_ids is None and caption_ids is None:
        return None, None
    rows = torch.arange(sum(counts), device=own.device)
    pictures, captions = (
        rows if ids is None else _gather(ids[:, None], counts)[:, 0].unique(return_inverse=True)[1]
        for ids in (picture_ids, caption_ids)
    )
    known, other = matches(pictures, captions), own[:, None] != rows
    return known[pictures[own]][:, captions] & other, known[:, captions[own]].T[:, pictures] & other


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
