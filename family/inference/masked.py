"""Gaps in texts, filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from family.heads.masked import logits_at
from family.inference.batches import TEXTS, chunks, device_of
from family.inputs.encode import pad_rows
from family.models.member import longest_text

GAP = "[MASK]"
"""What stands for a gap in any text, whatever a tokenizer calls its mask token."""


def fill_masks(
    model: Any, texts: Sequence[str], top: int = 5, batch_size: int = TEXTS
) -> list[list[list[dict[str, Any]]]]:
    """The likeliest tokens for each gap of each text, as if the others were not filled.

    Args:
        texts: with the tokenizer's mask token, or :data:`GAP`, where something is missing. What spells
            another special token is one, too.
        top: tokens of each gap, likeliest first: ``token`` (as it stands in a text), ``id`` and
            ``score``, its probability.

    Raises:
        ValueError: a model without a head for masked tokens, a tokenizer without a mask token, a text
            without a gap, or one that is longer than the model reads.
    """
    if getattr(model, "masked_head", model) is None:
        what = (
            "tells which tokens were replaced"
            if getattr(model, "replaced_head", None)
            else "guesses no tokens"
        )
        raise ValueError(
            f"this {type(model).__name__} {what}, and cannot fill gaps: it has no masked head."
        )
    found: list[list[list[dict[str, Any]]]] = []
    for rows in chunks((gapped(model, text) for text in texts), batch_size):
        places = [[i for i, token in enumerate(row) if token == mask_of(model)] for row in rows]
        chances = gap_probabilities(model, rows)
        scores, ids = (best.tolist() for best in chances.topk(min(top, chances.shape[1])))
        answers = (described(model, *pair) for pair in zip(ids, scores, strict=True))
        found += [[next(answers) for _ in row] for row in places]
    return found


def mask_of(model: Any) -> int:
    """The id of the mask token.

    Raises:
        ValueError: the tokenizer has none.
    """
    if model.tokenizer.mask_id is None:
        raise ValueError("the model's tokenizer has no mask token, so there is nothing to fill.")
    return model.tokenizer.mask_id


def gapped(model: Any, text: str) -> list[int]:
    """A text as the model reads it.

    Raises:
        ValueError: see :func:`fill_masks`.
    """
    tokenizer, mask_id = model.tokenizer, mask_of(model)
    token = tokenizer.specials["mask"]
    ids = tokenizer.encode(text.replace(GAP, token), special_tokens=True, parse_special=True)
    if mask_id not in ids:
        raise ValueError(f"the text {text!r} has no gap: write {token} where something is missing.")
    longest = min(longest_text(model), tokenizer.max_tokens or len(ids))
    if len(ids) > longest:
        raise ValueError(
            f"the text {text[:40]!r} has {len(ids)} tokens, more than the {longest} that the model "
            "reads."
        )
    return ids


@torch.no_grad()
def gap_probabilities(model: Any, rows: list[list[int]]) -> Tensor:
    """Of the gaps of all rows of ids in turn, how likely each token is, ``(gaps, vocab)``."""
    padded = pad_rows(rows, -1).to(device_of(model))
    mask = padded >= 0
    input_ids = padded.masked_fill(~mask, model.tokenizer.pad_id or 0)
    where = padded == mask_of(model)
    return logits_at(model, where, input_ids, mask).float().softmax(-1).cpu()


def described(model: Any, ids: Sequence[int], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Plain values of the tokens of a gap."""
    return [
        {"token": written(model.tokenizer, i), "id": i, "score": score}
        for i, score in zip(ids, scores, strict=True)
    ]


def written(tokenizer: Any, token: int) -> str:
    """A token as text; a special one by its name."""
    if token in tokenizer.special_ids:
        return str(tokenizer.inner.id_to_token(token))
    return str(tokenizer.decode([token]))
