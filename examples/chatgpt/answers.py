"""What a language model answers to prompts, drawn by given numbers, in batches; for the scripts beside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from family.inference.batches import chunks
from family.inference.texts import stops_of
from family.inputs.conversation import prompt_ids
from family.inputs.encode import pad_rows
from tasks.training.answers import Answers, text_of, uniform_numbers, write

BATCH = 64
"""Answers at a time."""


class Written(NamedTuple):
    """Some prompts and their answers, those to one after another."""

    prompts: list[str]
    ids: Tensor
    mask: Tensor
    answers: Answers
    texts: list[str]


def read_prompts(file: str | Path, most: int | None = None) -> list[str]:
    """The texts of JSON lines ``{"prompt": text}``."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines[:most]]


def written(model: Any, prompts: list[str], each: int, tokens: int, seed: int) -> Iterator[Written]:
    """So many answers to each prompt, of at most so many tokens."""
    stops = tuple(sorted(stops_of(model)))
    numbered = list(enumerate(prompts))
    for some in chunks(numbered, max(1, BATCH // each)):
        rows = pad_rows([prompt_ids(model.tokenizer, prompt) for _, prompt in some], -1)
        rows = rows.repeat_interleave(each, 0)
        keys = [(seed, place, i) for place, _ in some for i in range(each)]
        ids, mask = rows.clamp(min=0), rows >= 0
        answers = write(
            model,
            ids,
            mask,
            uniform_numbers(keys, tokens),
            temperature=1.0,
            max_new_tokens=tokens,
            stops=stops,
        )
        texts = text_of(model.tokenizer, answers.labels, stops)
        yield Written([p for _, p in some for _ in range(each)], ids, mask, answers, texts)
