"""Prompts and their answers to rewards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from family.inference.batches import TEXTS, chunks, device_of, most_tokens
from family.inputs.conversation import answered_ids
from family.inputs.encode import pad_rows
from family.inputs.tokenizer import Message


def reward_answers(
    model: Any,
    prompts: Sequence[str | Sequence[Message]],
    answers: Sequence[str],
    batch_size: int = TEXTS,
) -> list[float]:
    """What each answer is worth to its prompt, a text or a conversation whose last message is the user's; an
    answer that is too long loses its end, as in training.

    Raises:
        ValueError: as many are not given; a prompt that is empty, or too long to be answered.
    """
    if len(prompts) != len(answers):
        raise ValueError(f"{len(prompts)} prompts but {len(answers)} answers: give as many.")
    tokenizer, limit = model.tokenizer, most_tokens(model)
    rows = (
        answered_ids(tokenizer, prompt, [said], limit)[1][0]
        for prompt, said in zip(prompts, answers, strict=True)
    )
    return reward_rows(model, rows, batch_size)


@torch.no_grad()
def reward_rows(
    model: Any, rows: Iterable[list[int]], batch_size: int = TEXTS, origin: str = "the model"
) -> list[float]:
    """What rows of ids, of prompts with their answers, are worth.

    Args:
        origin: what to call the model in an error.

    Raises:
        ValueError: a model that gives something else than a number of each.
    """
    device, rewards = device_of(model), list[float]()
    for some in chunks(rows, batch_size):
        ids = pad_rows(some, -1)
        mask = ids >= 0
        filled = ids.masked_fill(~mask, model.tokenizer.pad_id or 0)
        found = model(filled.to(device), mask.to(device))
        if found.shape != (len(some),):
            raise ValueError(
                f"{origin} gives {tuple(found.shape)} for {len(some)} texts: a reward model gives one "
                "number each."
            )
        rewards += found.float().tolist()
    return rewards
