"""Text to text: a text in, what is to be made of it out; of one task or several in one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from family.generation.defaults import defaults_of
from tasks.runs.gathering import gather
from tasks.training.text_scores import SCORES, exact_match, made_scores, word_f1
from tasks.translation import Translation

SHOWN = 3
"""Texts of each task among the samples."""


class TextToText(Translation):
    """As :class:`~tasks.translation.Translation`, with the scores of answers: exact match and F1 of words as
    SQuAD's script has them, the share that is right to the letter, chrF and, of longer answers, BLEU. Of
    several tasks each by its name, ``val/TASK/f1``, and their means over the tasks, ``val/f1``.

    A batch is one of Translation's; where there are several tasks it has also ``task``, the names of theirs:
    see :class:`~tasks.data.text_to_text.TextToTextData`.

    Args:
        model: the model, or what builds it from the size of the vocabulary.
        beams: of the test's beam search; validation decodes greedily, which is faster.
        length_penalty: exponent of the length that an answer's score is divided by.
        options: of :class:`~tasks.translation.Translation`.
    """

    monitor = ("val/exact_match", "max")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        beams: int = 1,
        length_penalty: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(model, beams, length_penalty, **options)
        self.names: list[str] = []
        """Of the tasks of what was decoded."""

    def most_new_tokens(self, source_tokens: int) -> int:
        """As data or model say, or by the length of the texts."""
        most = getattr(self.data, "max_new_tokens", None) or defaults_of(self.model).max_new_tokens
        if most is None:
            return super().most_new_tokens(source_tokens)
        return int(min(most, getattr(self.model, "longest_target", most)))

    def _evaluate(self, batch: dict[str, Any], split: str, beams: int) -> list[str]:
        made = super()._evaluate(batch, split, beams)
        if made:
            self.names += batch.get("task", [""] * len(made))
        return made

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By example: its task and line, the text, what was made and what is true, and how near that is."""
        found = super().test_step(batch, index)
        if not found:
            return {}
        pairs = list(zip(found["made"], found["true"], strict=True))
        return {
            "task": batch.get("task", [""] * len(pairs)),
            **found,
            "exact_match": [exact_match(*pair) for pair in pairs],
            "f1": [round(word_f1(*pair), 6) for pair in pairs],
        }

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        rows = super().predict_step(batch, index)
        for row, task in zip(rows, batch.get("task", [""] * len(rows)), strict=True):
            row |= {"task": task, "made": row.pop("translation")}
        return rows

    def _score(self, split: str) -> None:
        decoded, self.decoded = gather(self.decoded), []
        names, self.names = gather(self.names), []
        by_task: dict[str, list[tuple[str, str, str]]] = {}
        for name, row in zip(names, decoded, strict=True):
            by_task.setdefault(name, []).append(row)
        if not by_task:
            return
        found = {
            name: made_scores([(made, true) for _, true, made in rows])
            for name, rows in sorted(by_task.items())
        }
        for score in SCORES:
            each = {name: scores[score] for name, scores in found.items() if score in scores}
            if each:
                mean = sum(each.values()) / len(each)
                self.log(f"{split}/{score}", mean, prog_bar=score == "exact_match")
            for name in each if len(found) > 1 else ():
                self.log(f"{split}/{name}/{score}", each[name])
        # Spread over each task: batches are sorted by length.
        shown = (row for rows in by_task.values() for row in rows[:: -(-len(rows) // SHOWN)])
        self.samples = [
            f"{source}\n    made: {made}\n    true: {true}" for source, true, made in shown
        ]
