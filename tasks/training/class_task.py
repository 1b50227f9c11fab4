"""What the classification of pictures and of texts share: a loss over classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tasks.errors import between
from tasks.training.task import Task


class ClassTask(Task):
    """Train a model on the cross-entropy of classes.

    Args:
        model: the model, or what builds it from the number of classes.
        label_smoothing: mass spread evenly over the classes, in training (Szegedy et al. 2016).
        options: of :class:`~tasks.training.task.Task`.
    """

    monitor = ("val/accuracy", "max")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        between(0, 1, of="model.", label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """``(batch, classes)`` in float32, by the contract of the task's members."""
        raise NotImplementedError

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        # Labels are ids, or after mixup and cutmix probabilities: cross-entropy takes both.
        logits, labels = self.logits(batch), batch["labels"]
        return {"loss": F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)}

    def evaluate(self, batch: dict[str, Any], split: str) -> Tensor:
        """Log loss and accuracy; returns the logits."""
        logits, labels = self.logits(batch), batch["labels"]
        metrics = {
            f"{split}/loss": F.cross_entropy(logits, labels),
            f"{split}/accuracy": (logits.argmax(-1) == labels).float().mean(),
        }
        self.log_mean(metrics, len(labels))
        return logits

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By example: the class, the one that was made, and whether they are the same."""
        logits, true = self.evaluate(batch, "test"), batch["labels"]
        made, names = logits.argmax(-1), self.label_names(logits.shape[1])
        place = {"line": batch["line"], "source": batch["text"]} if "line" in batch else {}
        return {
            **place,
            "made": [names[i] for i in made.tolist()],
            "true": [names[i] for i in true.tolist()],
            "correct": (made == true).int(),
        }

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        chances = self.logits(batch).softmax(-1)
        (scores, ids), names = chances.max(-1), self.label_names(chances.shape[1])
        pairs = zip(ids.tolist(), scores.tolist(), strict=True)
        return [{"label": names[i], "score": round(score, 6)} for i, score in pairs]
