"""Contrast of pictures and sentences: matching pairs of a batch against all others.

Both losses see the whole batch where it is spread over several processes: rows are gathered with
their gradient. A process returns its own rows' part, scaled so that the mean over processes is the
loss of the whole batch. ``DistributedDataParallel`` averages gradients, which makes them equal to
those of one process with the whole batch, whether or not processes hold equally many rows. Every
process must call the loss equally often.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from family.losses.processes import gather_rows, normalised, rows_of_processes


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
        images, texts = normalised(image_embeddings), normalised(text_embeddings)
        counts, first = rows_of_processes(images)
        all_images, all_texts = gather_rows(torch.cat([images, texts], dim=1), counts).chunk(
            2, dim=1
        )
        scale = logit_scale.to(images.dtype).exp()
        own = first + torch.arange(len(images), device=images.device)
        alike = _alike(picture_ids, caption_ids, own, counts)
        total = images.new_zeros(())
        for rows, columns, others in (
            (images, all_texts, alike[0]),
            (texts, all_images, alike[1]),
        ):
            total = total + told_apart(scale * (rows @ columns.T), own, others)
        return total * len(counts) / (2 * sum(counts))


def told_apart(logits: Tensor, own: Tensor, left_out: Tensor | None) -> Tensor:
    """The cross-entropy of finding for each row its own column, summed over the rows.

    Args:
        logits: ``(rows, columns)``; own: ``(rows)``, the place of the right one.
        left_out: ``(rows, columns)``, True = neither right nor wrong; None is nowhere.
    """
    if left_out is not None:
        logits = logits.masked_fill(left_out, -math.inf)
    return F.cross_entropy(logits, own, reduction="sum")


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
        images, texts = normalised(image_embeddings), normalised(text_embeddings)
        counts, first = rows_of_processes(images)
        logits = logit_scale.to(images.dtype).exp() * (images @ gather_rows(texts, counts).T)
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


def _alike(
    picture_ids: Tensor | None, caption_ids: Tensor | None, own: Tensor, counts: list[int]
) -> tuple[Tensor | None, Tensor | None]:
    """``(own rows, all rows)`` twice, True = matches, but is not the pair itself: pictures against all
    sentences, and sentences against all pictures."""
    if picture_ids is None and caption_ids is None:
        return None, None
    rows = torch.arange(sum(counts), device=own.device)
    pictures, captions = (
        rows
        if ids is None
        else gather_rows(ids[:, None], counts)[:, 0].unique(return_inverse=True)[1]
        for ids in (picture_ids, caption_ids)
    )
    known, other = matches(pictures, captions), own[:, None] != rows
    return known[pictures[own]][:, captions] & other, known[:, captions[own]].T[:, pictures] & other
