"""Instruction tuning: a language model learns to answer, from conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from family.generation.defaults import defaults_of
from family.inputs.conversation import prompt_ids
from family.inputs.encode import UNLIMITED, pad_rows
from family.models.member import longest_text
from tasks.errors import at_least
from tasks.language_modeling import LanguageModeling
from tasks.runs.gathering import gather

SHOWN = 8
"""Answers among the samples."""
MORE = 8
"""Tokens that an answer may have more than the true one, to be seen."""


@cache
def sampled(count: int, some: int) -> frozenset[int]:
    """So many of the numbers below ``count``, the same each time; evenly spaced ones would be all of one kind where
    kinds take turns."""
    return frozenset(np.random.default_rng(0).permutation(count)[:some].tolist())


class Asked(NamedTuple):
    """A prompt, how long the true answer is, and which row of a batch it is."""

    ids: list[int]
    tokens: int
    row: int


class ChatTuning(LanguageModeling):
    """Loss, perplexity and accuracy over the tokens that the assistant says; and answers that the model
    writes by itself, greedily, with how many are the true ones to the letter, ``exact``. Of a conversation
    of several turns that is the last answer, after the true ones before it. One that has no room for its
    answer counts as wrong.

    A batch has ``input_ids`` and ``labels`` ``(batch, tokens)``, int64: the tokens, and after each the
    next one where the assistant says it, or -100; and ``documents``, of the same shape, where conversations
    that are packed into a row are not to see each other. Where it has also ``messages``, the conversation
    of each row, its answers can be written: see :class:`~tasks.data.chat_tuning.ChatTuningData`.

    Args:
        answers: so many conversations, drawn from those of validation, are answered at each validation,
            and all of them in a test; 0 is none in either.
        model, options: of :class:`~tasks.training.token_task.TokenTask`.
    """

    gives = "LanguageModeling"
    packing = "the packing of conversations"

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        answers: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        at_least(0, of="model.", answers=answers)
        self.answers = answers
        self.answered: list[tuple[str, str, str]] = []
        """Prompt, what was made and what is true, of those that were answered."""

    def evaluate(self, batch: dict[str, Any], split: str) -> dict[str, list[Any]]:
        return self.evaluate_accuracy(batch, split)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")
        if self.answers and not self.trainer.sanity_checking:
            self.answer(batch, self.chosen(batch))

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By conversation: where it stands, the summed loss, its tokens and how many are right; the answer
        that was made, the true one, and whether they are the same."""
        found = self.evaluate(batch, "test")
        if "where" in batch:
            found = {"where": batch["where"], **found}
        rows = range(len(batch.get("messages", ())))
        if not (self.answers and rows and self.can_answer()):
            return found
        pairs = [(made, true) for _, made, true in self.answer(batch, rows)]
        made, true = ([pair[i] for pair in pairs] for i in (0, 1))
        return {**found, "made": made, "true": true, "exact": [exact(*pair) for pair in pairs]}

    # --- Answers ---

    def can_answer(self) -> bool:
        return hasattr(self.model, "generate") and self.tokenizer() is not None

    def chosen(self, batch: dict[str, Any]) -> list[int]:
        """The rows of a batch of validation that are answered."""
        if "messages" not in batch:
            return []
        if "number" not in batch or not hasattr(self.data, "conversations"):
            return list(range(len(batch["messages"])))[: self.answers - len(self.answered)]
        some = sampled(len(self.data.conversations("val")), self.answers)
        return [i for i, number in enumerate(batch["number"]) if number in some]

    def answer(self, batch: dict[str, Any], rows: Sequence[int]) -> list[tuple[str, str, str]]:
        """Write the last answer of some conversations, as ``family chat`` would but greedily.

        Returns:
            Of each the prompt, what was made and what is true; they are kept for the end of the epoch.
        """
        if not rows or not self.can_answer():
            return []
        tokenizer, asked = self.tokenizer(), list[Asked]()
        for row in rows:
            *before, last = batch["messages"][row]
            size = len(tokenizer.encode(last["content"]))
            asked.append(Asked(self.prompt(before), size, row))
        stops = tokenizer.stop_ids() | {*(defaults_of(self.model).stop_ids or ())}
        limit = int(min(longest_text(self.model), getattr(self.data, "context", UNLIMITED)))
        made: dict[int, str] = {}
        for group in fitting(asked, limit):
            ids = pad_rows([one.ids for one in group], -1).to(self.device)
            room = limit - ids.shape[1]
            new = self.write(
                batch,
                [one.row for one in group],
                ids.clamp(min=0),
                ids >= 0,
                max_new_tokens=min(room, max(one.tokens for one in group) + MORE),
                beams=1,
                stop_ids=stops,
                pad_id=-1,  # which no answer has
            )
            for one, tokens in zip(group, new.tolist(), strict=True):
                made[one.row] = tokenizer.decode([token for token in tokens if token >= 0])
        found = []
        for row in rows:
            *before, last = batch["messages"][row]
            prompt = "\n".join(f"{one['role']}: {one['content']}" for one in before)
            found.append((prompt, made.get(row, ""), last["content"]))
        self.answered += found
        return found

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """A conversation up to where the assistant answers, as the model reads it."""
        return prompt_ids(self.tokenizer(), messages)

    def write(self, batch: dict[str, Any], rows: list[int], *inputs: Any, **options: Any) -> Tensor:
        """What the model says to the ``input_ids`` and ``mask`` of some rows of a batch."""
        return self.model.generate(*inputs, **options)

    def on_validation_epoch_start(self) -> None:
        self.answered, self.samples = [], []

    def on_test_epoch_start(self) -> None:
        self.answered = []

    def on_validation_epoch_end(self) -> None:
        self._derived("val")
        self._judge("val")

    def on_test_epoch_end(self) -> None:
        self._derived("test")
        self._judge("test")

    def _judge(self, split: str) -> None:
        answered, self.answered = gather(self.answered), []
        if not answered:
            return
        right = sum(exact(made, true) for _, made, true in answered)
        self.log(f"{split}/exact", torch.tensor(right / len(answered)), prog_bar=True)
        # Batches are sorted by length: some of each.
        shown = answered[:: -(-len(answered) // SHOWN)]
        self.samples = [f"{said}\n    made: {made}\n    true: {true}" for said, made, true in shown]


def exact(made: str, true: str) -> float:
    """1 where an answer is the true one, but for space around it."""
    return float(made.strip() == true.strip())


def fitting(asked: Sequence[Asked], limit: int) -> Iterator[list[Asked]]:
    """Groups in which each prompt, padded to the longest, has room for the longest answer within a limit;
    what has no room by itself is in none."""
    group: list[Asked] = []
    for one in sorted(asked, key=lambda one: len(one.ids)):
        if len(one.ids) + one.tokens > limit:
            continue
        if group and len(one.ids) + max(one.tokens, *(o.tokens for o in group)) > limit:
            yield group
            group = []
        group.append(one)
    if group:
        yield group
