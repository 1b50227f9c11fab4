"""Questions about pictures: a picture and a question in, one of the known answers out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tasks.errors import UserError
from tasks.runs.gathering import gather
from tasks.training.class_task import ClassTask
from tasks.training.pictures import BAD, GOOD, sheet, to_picture

SHOWN = 12
"""Pictures of the sheet."""


class Answered(NamedTuple):
    """A question with the answer that was made and the true one."""

    kind: str
    question: str
    made: str
    true: str
    pixels: Image.Image | None


class VisualQuestions(ClassTask):
    """Cross-entropy of the answers; accuracy, and that of each kind of question.

    A batch has ``pixel_values (batch, 3, height, width)``, ``input_ids`` and ``mask (batch, tokens)`` and
    ``labels (batch)``, -100 of an answer that is none of the classes, which is wrong; to be scored by kind
    and shown also ``kind``, ``question`` and ``answer``, lists.

    Args:
        model: the model, or what builds it from the sizes of vocabulary, answers and pictures:
            ``model(pixel_values, input_ids, mask) -> logits``.
        options: of :class:`~tasks.training.class_task.ClassTask`.
    """

    fields = ("pixel_values", "input_ids", "labels", "mask")

    def __init__(self, model: Callable[[int], nn.Module] | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.answered: list[Answered] = []

    def configure_model(self) -> None:
        super().configure_model()
        most = getattr(getattr(self.model, "config", None), "max_tokens", None)
        asked = getattr(self.data, "max_tokens", None)
        if most is not None and asked is not None and asked > most:
            raise UserError(
                f"data.max_tokens={asked} of a question are more than the max_tokens={most} of the model."
            )

    def logits(self, batch: dict[str, Any]) -> Tensor:
        given = batch["pixel_values"], batch["input_ids"], batch.get("mask")
        return self.model(*given).float()

    def evaluate(self, batch: dict[str, Any], split: str) -> Tensor:
        logits, labels = self.logits(batch), batch["labels"]
        known = int((labels >= 0).sum())
        if known:
            self.log_mean({f"{split}/loss": F.cross_entropy(logits, labels)}, known)
        right = (logits.argmax(-1) == labels).float()
        self.log_mean({f"{split}/accuracy": right.mean()}, len(labels))
        self.count_answers(logits, labels)
        self._remember_answers(batch, logits)
        return logits

    def _remember_answers(self, batch: dict[str, Any], logits: Tensor) -> None:
        if "question" not in batch:
            return
        names = self.label_names(logits.shape[1])
        room = max(0, SHOWN - len(self.answered))
        pixels = self.restored(batch["pixel_values"][:room]) if room else ()
        made = [names[i] for i in logits.argmax(-1).tolist()]
        kinds = batch.get("kind", [""] * len(made))
        for i, row in enumerate(zip(kinds, batch["question"], made, batch["answer"], strict=True)):
            self.answered.append(Answered(*row, to_picture(pixels[i]) if i < room else None))

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By example: its file and line, the question, the answer that was made, and the true one."""
        logits = self.evaluate(batch, "test")
        names = self.label_names(logits.shape[1])
        made = [names[i] for i in logits.argmax(-1).tolist()]
        true = [names[i] if i >= 0 else "" for i in batch["labels"].tolist()]
        true = batch.get("answer", true)
        known = ("file", "line", "kind")
        found: dict[str, Any] = {name: batch[name] for name in known if name in batch}
        found |= {"made": made, "true": true}
        if "question" in batch:
            found["source"] = batch["question"]
        return {**found, "correct": [int(a == b) for a, b in zip(made, true, strict=True)]}

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        chances = self.logits(batch).softmax(-1)
        (scores, ids), names = chances.max(-1), self.label_names(chances.shape[1])
        given = {name: batch[name] for name in ("file", "line", "question") if name in batch}
        return [
            {
                **{name: values[i] for name, values in given.items()},
                "answer": names[int(ids[i])],
                "score": round(score, 6),
            }
            for i, score in enumerate(scores.tolist())
        ]

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, split: str) -> None:
        answered, self.answered = gather(self.answered), []
        by_kind: dict[str, list[bool]] = {}
        for one in answered:
            by_kind.setdefault(one.kind, []).append(one.made == one.true)
        if len(by_kind) > 1:
            for kind, right in sorted(by_kind.items()):
                self.log(f"{split}/accuracy_{kind or 'other'}", sum(right) / len(right))
        shown = [one for one in answered if one.pixels is not None][:SHOWN]
        self.samples = [
            f"{one.question}\n    made: {one.made}\n    true: {one.true}" for one in shown
        ]
        if shown:
            colours = [GOOD if one.made == one.true else BAD for one in shown]
            pictures = [one.pixels for one in shown if one.pixels is not None]
            texts = [f"{one.question}\n{one.made}" for one in shown]
            self.pictures = {"answers": sheet(pictures, texts, colours)}
