"""Prompts and their answers to rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from family.inference.batches import TEXTS, chunks, device_of, most_tokens
from family.inputs.conversation import answered_ids
from family.inputs.encode import pad_rows
from family.inputs.tokenizer import Message


@torch.no_grad()
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
    tokenizer, device, limit = model.tokenizer, device_of(model), most_tokens(model)
    rewards: list[float] = []
    for some in chunks(zip(prompts, answers, strict=True), batch_size):
        rows = [answered_ids(tokenizer, prompt, [said], limit)[1][0] for prompt, said in some]
        ids = pad_rows(rows, -1)
        mask = ids >= 0
        found = model(ids.masked_fill(~mask, tokenizer.pad_id or 0).to(device), mask.to(device))
        rewards += found.float().tolist()
    return rewards
