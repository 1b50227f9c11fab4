"""A policy writes answers, and reads them again: log-probabilities of the sampler and of the trainer are of
the same tokens at the same temperature."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from family.generation.defaults import defaults_of
from family.generation.hooks import TokenRules
from family.generation.inverse import InverseSampling
from family.generation.sampling import Sampling
from family.losses.language_model import IGNORE
from family.models.member import longest_text
from tasks.errors import UserError, user_errors

Rows = dict[str, Tensor]


class Answers(NamedTuple):
    """What a policy wrote, a row each."""

    labels: Tensor
    """``(answers, steps)`` int64: the tokens, the one that ends an answer too; -100 behind it."""
    log_probs: Tensor
    """``(answers, steps)``: of the labels, as the sampler found them; 0 behind an answer."""
    cut: Tensor
    """``(answers,)`` bool: it has no end."""


# --- Writing ---


def uniform_numbers(keys: Sequence[Sequence[int]], count: int) -> Tensor:
    """``(keys, count)`` float64 in [0, 1): a row depends on its key alone, on every machine."""
    rows = [np.random.default_rng(list(key)).random(count) for key in keys]
    return torch.from_numpy(np.stack(rows))


def room_of(model: Any) -> float:
    """Tokens of prompt and answer together that a model reads as a whole, when it writes too."""
    longest = longest_text(model)
    return min(longest, getattr(model, "trained_tokens", None) or longest)


def check_policy(model: Any, max_new_tokens: int) -> None:
    """Refuse a model that cannot write, or whose answers would not be drawn from what it learns by.

    Raises:
        UserError: see above.
    """
    name = type(model).__name__
    if not hasattr(model, "generate"):
        raise UserError(f"a policy writes answers: this {name} has no generate.")
    if defaults_of(model).rules != TokenRules():
        raise UserError(
            f"the generation of this {name} forces or suppresses tokens, which its answers would learn "
            "nothing of: set model.generation.rules to none."
        )
    room = room_of(model)
    if max_new_tokens >= room:
        raise UserError(
            f"model.max_new_tokens={max_new_tokens} leaves no room for a prompt in the context of "
            f"{int(room)} tokens."
        )


@torch.no_grad()
def write(
    model: Any,
    input_ids: Tensor,
    mask: Tensor,
    numbers: Tensor | None,
    *,
    temperature: float,
    max_new_tokens: int,
    stops: Collection[int],
) -> Answers:
    """An answer to each prompt ``(answers, tokens)``, by cached decoding; nothing else than the temperature
    changes what is drawn, whatever ``model.generation`` says.

    Args:
        numbers: see :class:`~family.generation.inverse.InverseSampling`.

    Raises:
        UserError: a prompt that leaves no room for its answer.
    """
    longest, room = int(mask.sum(1).max()), room_of(model)
    if longest + max_new_tokens > room:
        raise UserError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the context of "
            f"{int(room)} tokens."
        )
    drawn = InverseSampling(numbers, temperature)
    with user_errors():
        model.generate(
            input_ids,
            mask,
            max_new_tokens=max_new_tokens,
            min_new_tokens=0,
            beams=1,
            sampling=Sampling(),
            no_repeat_ngram=0,
            stop_ids=stops,
            pad_id=0,
            hook=drawn,
        )
    tokens = drawn.tokens
    ends = torch.isin(tokens, torch.tensor(list(stops), dtype=torch.long, device=tokens.device))
    behind = ends.long().cumsum(1) - ends.long() > 0
    labels = tokens.masked_fill(behind, IGNORE)
    return Answers(labels, drawn.log_probs.masked_fill(behind, 0.0), ~ends.any(1))


def text_of(tokenizer: Any, labels: Tensor, stops: Collection[int]) -> list[str]:
    """Answers as texts, without what ends them."""
    ends = {IGNORE, *stops}
    return [tokenizer.decode([i for i in row if i not in ends]) for row in labels.tolist()]


# --- Reading ---


def joined(input_ids: Tensor, mask: Tensor, labels: Tensor) -> Rows:
    """Prompts with their answers, as a model reads them: ``input_ids``, ``mask (answers, tokens)``, padded
    at the right, ``labels``, and ``first (answers,)``, the place of the token before each answer."""
    counts, written = mask.sum(1), labels != IGNORE
    lengths = counts + written.sum(1)
    rows = input_ids.new_zeros(len(labels), int(lengths.max()))
    places = torch.arange(rows.shape[1], device=rows.device)
    rows[places < counts[:, None]] = input_ids[mask]
    whole = places < lengths[:, None]
    rows[whole & (places >= counts[:, None])] = labels[written]
    return {"input_ids": rows, "mask": whole, "labels": labels, "first": counts - 1}


def read(model: Any, rows: Rows) -> tuple[Tensor, Tensor | None]:
    """What a model says before each token of the answers: logits ``(answers, steps, vocab)`` and, of a
    model that shows them, the features ``(answers, steps, dim)``; behind an answer they mean nothing.

    Args:
        rows: see :func:`joined`.
    """
    steps = torch.arange(rows["labels"].shape[1], device=rows["first"].device)
    last = rows["input_ids"].shape[1] - 1
    places = (rows["first"][:, None] + steps).clamp(max=last)[..., None]
    if shows_features(model):
        features = model.features(rows["input_ids"], rows["mask"])
        features = features.gather(1, places.expand(-1, -1, features.shape[-1]))
        return model.logits(features), features
    logits = model(rows["input_ids"], rows["mask"])
    return logits.gather(1, places.expand(-1, -1, logits.shape[-1])), None


def shows_features(model: Any) -> bool:
    """Whether a model has what its logits are made of, and that step by itself."""
    return hasattr(model, "features") and hasattr(model, "logits")


def parts(rows: Rows, count: int) -> list[Rows]:
    """So many equal parts of the rows: of part ``i`` every ``count``-th from ``i`` on, so that the parts of
    several processes together are those of one process with all rows."""
    return [{name: value[i::count] for name, value in rows.items()} for i in range(count)]


def together(found: Sequence[Rows]) -> Rows:
    """The reverse of :func:`parts`."""
    count = len(found)
    made = {}
    for name, first in found[0].items():
        whole = first.new_empty(sum(len(part[name]) for part in found), *first.shape[1:])
        for i, part in enumerate(found):
            whole[i::count] = part[name]
        made[name] = whole
    return made
