"""Sentences into another language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from family.generation.defaults import defaults_of
from family.inference.batches import TEXTS, chunks, device_of
from family.inputs.encode import encode_sources
from family.models.languages import LanguageTokens
from family.models.member import longest_text

BEAMS = 4
"""Where neither the call nor the model's ``generation`` says how many."""


@torch.no_grad()
def translate(
    model: Any,
    sentences: Sequence[str],
    beams: int | None = None,
    batch_size: int = TEXTS,
    max_new_tokens: int | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
) -> list[str]:
    """The translation of each sentence; of none but spaces, nothing. Spaces around one are left out, as
    in training.

    Args:
        beams: None are those of ``model.generation`` where it searches, or else 4.
        batch_size: sentences at a time, at most.
        max_new_tokens: of each; None is by its length, see :func:`most_new_tokens`.
        source, target: of a model of several languages (``model.language_tokens``), which these are, by
            their codes there or as ``en``. A target that is not given is the only one that the model was
            trained for, or the one that its ``generation`` begins with.

    Raises:
        ValueError: a model that cannot generate, a sentence that is too long for it, or a language that
            it does not know, or that must be said.
    """
    if not hasattr(model, "generate"):
        raise ValueError(f"a {type(model).__name__} cannot translate: it has no method generate.")
    own = defaults_of(model)
    beams = (own.beams if own.beams > 1 else BEAMS) if beams is None else beams
    if beams < 1:
        raise ValueError(f"beams must be at least 1, not {beams}.")
    tokens: LanguageTokens | None = getattr(model, "language_tokens", None)
    if tokens is None and (source or target):
        raise ValueError(
            f"the model knows no tokens of languages, and translates one way: leave {source or target} "
            "out."
        )
    if tokens is not None:
        source, target = tokens.direction(source, target, model)
    tokenizer, longest = model.tokenizer, longest_text(model)
    found = [""] * len(sentences)
    # Those of one length together: nothing is padded, and each may become as long as it would alone.
    by_length: dict[int, list[tuple[int, list[int]]]] = {}
    sentences = [sentence.strip() for sentence in sentences]
    if tokens is None:
        encoded = encode_sources(tokenizer, sentences)
    else:
        encoded = tokens.sources(tokenizer, sentences, source, target)
    for i, ids in enumerate(encoded):
        if not sentences[i]:
            continue
        if len(ids) > longest:
            raise ValueError(
                f"a sentence of {len(ids)} tokens does not fit the model's max_tokens={longest}."
            )
        by_length.setdefault(len(ids), []).append((i, ids))
    device, room = device_of(model), getattr(model, "longest_target", longest)
    for length, rows in by_length.items():
        most = most_new_tokens(length, room)
        if max_new_tokens is not None:
            most = int(min(max_new_tokens, room))
        for some in chunks(rows, batch_size):
            begin = {}
            if tokens is not None and target is not None:
                begin = tokens.begin([target] * len(some), device)
            made = model.generate(
                torch.tensor([ids for _, ids in some], device=device),
                max_new_tokens=most,
                beams=beams,
                stop_ids={tokenizer.target.eos_id, *(own.stop_ids or ())},
                pad_id=tokenizer.target.pad_id,
                **begin,
            )
            for (i, _), row in zip(some, made.tolist(), strict=True):
                found[i] = tokenizer.target.decode(row)
    return found


def most_new_tokens(source_tokens: int, max_tokens: float, max_ratio: float = 2.0) -> int:
    """How long a translation may become: some times its source, and 10 more; within the model.

    Args:
        source_tokens: of the longest sentence of a batch, with <eos>.
        max_tokens: positions of the model's decoder; <bos> takes the first, the last token none.
    """
    return int(min(source_tokens * max_ratio + 10, max_tokens))
