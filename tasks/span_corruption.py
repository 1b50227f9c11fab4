"""Span corruption: write what is left out of a text, as T5 is pre-trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from family.losses.language_model import IGNORE
from family.models.member import longest_text
from tasks.data.span_corruption import SENTINEL, sentinels
from tasks.errors import UserError
from tasks.training.token_task import TokenTask

SHOWN = 8
"""Texts among the samples."""


class SpanCorruption(TokenTask):
    """Cross-entropy of the spans that are left out of a text and of the sentinels before them (Raffel et
    al. 2020, section 3.1.4); the share of these tokens that the model makes likeliest, reading the true ones
    before each; texts with what it writes by itself.

    A batch has ``source``, ``target`` (what the decoder is fed) and ``labels`` (what it is to answer,
    -100 where nothing), ``(batch, tokens)`` int64, and ``source_mask``, True = a token: see
    :class:`~tasks.data.span_corruption.SpanCorruptionData`. The model is one of the contract
    ``model(source, target, source_mask) -> logits``.
    """

    fields = ("source", "target", "labels", "source_mask")
    trains = ("Translation",)

    def configure_model(self) -> None:
        super().configure_model()
        lengths = getattr(self.data, "lengths", None)
        if lengths is None:
            return
        longest = longest_text(self.model)
        for needed, most in (
            (lengths.source, longest),
            (lengths.target, getattr(self.model, "longest_target", longest)),
        ):
            if needed > most:
                raise UserError(
                    f"data.context={self.data.context} makes texts of {needed} tokens, more than the "
                    f"model's max_tokens={most}: make one smaller, or the other larger."
                )

    def logits(self, batch: dict[str, Any], **asked: Any) -> Tensor:
        return self.model(batch["source"], batch["target"], batch.get("source_mask"), **asked)

    def evaluate(self, batch: dict[str, Any], split: str) -> dict[str, list[Any]]:
        """Log loss and accuracy, means over the tokens of the targets.

        Returns:
            Of each row the ``loss``, summed over its ``tokens``, their number, and how many are ``right``.
        """
        return self.evaluate_accuracy(batch, split)

    def on_validation_epoch_start(self) -> None:
        self.samples = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")
        if not self.samples:
            self.samples = self.shown({name: rows[:SHOWN] for name, rows in batch.items()})

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        return self.evaluate(batch, "test")

    def predict_step(self, batch: dict[str, Any], index: int) -> None:
        raise UserError("what is left out of a text is no prediction: train with tasks.TextToText.")

    def shown(self, batch: dict[str, Any]) -> list[str]:
        """Rows as text: with the spans left out, what the model writes, and what is true."""
        tokenizer = self.tokenizer()
        if tokenizer is None or not hasattr(self.model, "generate"):
            return []
        made = self.model.generate(
            batch["source"],
            batch.get("source_mask"),
            max_new_tokens=batch["labels"].shape[1],
            beams=1,
            stop_ids=(tokenizer.eos_id,),
            pad_id=tokenizer.pad_id,
        )
        rows = zip(batch["source"].tolist(), made.tolist(), batch["labels"].tolist(), strict=True)
        return [
            "{}\n    made: {}\n    true: {}".format(*(spelled(tokenizer, ids) for ids in row))
            for row in rows
        ]


def spelled(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ids, with sentinels by their names and without other special tokens."""
    marks = {token: SENTINEL.format(i) for i, token in enumerate(sentinels(tokenizer))}
    parts: list[str] = []
    run: list[int] = []
    for token in ids:
        if token in marks:
            parts += [tokenizer.decode(run).strip(), marks[token]]
            run = []
        elif token != IGNORE:
            run.append(token)
    return " ".join(filter(None, [*parts, tokenizer.decode(run).strip()]))
