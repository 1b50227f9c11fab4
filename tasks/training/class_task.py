"""What the classification of pictures and of texts share: a loss over classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from family.heads.problem import MULTI, answers
from tasks.runs.gathering import gather
from tasks.training.by_class import WORST, class_table, confusion_table, counted, unlike
from tasks.training.problem import (
    LEAST,
    MONITORS,
    LabelScores,
    label_counts,
    label_loss,
    label_table,
    named,
    stacked,
    surprise,
    teach,
)
from tasks.training.weighting import WeightedTask


class ClassTask(WeightedTask):
    """Train a model on the cross-entropy of classes, or, where an example has any of several labels, on the
    binary cross-entropy of each: data of ours say it, or the model's ``problem_type``.

    Args:
        model: the model, or what builds it from the number of classes.
        options: of :class:`~tasks.training.weighting.WeightedTask`.
    """

    monitor = ("val/accuracy", "max")
    monitors = MONITORS

    def __init__(self, model: Callable[[int], nn.Module] | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.tested: list[tuple[int, int, dict[str, Any]]] = []
        """Of each example of a test the true class, the one that was made, and what to list of it."""
        self.labelled: list[tuple[list[bool], list[bool], dict[str, Any]]] = []
        """The same of several labels: of each whether it is true, and whether it was made."""
        self.label_scores: LabelScores | None = None
        self.tables: dict[str, list[dict[str, Any]]] = {}
        """What a test found, by class, and the worst errors."""

    @property
    def several(self) -> bool:
        """Whether an example has any of several labels."""
        return getattr(self.model, "problem_type", None) == MULTI

    def adapt_model(self) -> None:
        super().adapt_model()
        teach(self.model, self.data)

    def configure_model(self) -> None:
        super().configure_model()
        if self.several and self.num_classes and self.label_scores is None:
            # Before processes part: it counts over all of them.
            self.label_scores = LabelScores(self.num_classes)

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """``(batch, classes)`` in float32, by the contract of the task's members."""
        raise NotImplementedError

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        # Labels are ids, or after mixup and cutmix probabilities: cross-entropy takes both.
        logits, labels = self.logits(batch), batch["labels"]
        smoothing, weights = self.label_smoothing, self.loss_weights(logits)
        if self.several:
            return {"loss": label_loss(logits, labels, smoothing, weights)}
        loss = F.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
        return {"loss": loss}

    def evaluate(self, batch: dict[str, Any], split: str) -> Tensor:
        """Log loss and accuracy; returns the logits."""
        logits, labels = self.logits(batch), batch["labels"]
        if self.several:
            self.log_mean({f"{split}/loss": label_loss(logits, labels)}, len(labels))
            if self.label_scores is None:
                self.label_scores = LabelScores(logits.shape[1]).to(logits.device)
            self.label_scores.update(logits.sigmoid(), labels)
            return logits
        metrics = {
            f"{split}/loss": F.cross_entropy(logits, labels),
            f"{split}/accuracy": (logits.argmax(-1) == labels).float().mean(),
        }
        self.log_mean(metrics, len(labels))
        self.count_answers(logits, labels)
        return logits

    @property
    def chance(self) -> float | None:
        return None if self.several else super().chance

    def count_answers(self, logits: Tensor, labels: Tensor) -> None:
        """Count classes, of which a label below 0 is none."""
        classes = logits.shape[1]
        made, true = logits.argmax(-1), labels[labels >= 0]
        self.count_classes(made.bincount(minlength=classes), true.bincount(minlength=classes))

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By example: the class, the one that was made, and whether they are the same."""
        logits, true = self.evaluate(batch, "test"), batch["labels"]
        if self.several:
            return self._test_labels(batch, logits, true > LEAST)
        made, names = logits.argmax(-1), self.label_names(logits.shape[1])
        self._remember(batch, logits, names)
        return {
            **places_of(batch),
            "made": [names[i] for i in made.tolist()],
            "true": [names[i] for i in true.tolist()],
            "correct": (made == true).int(),
        }

    def on_test_epoch_start(self) -> None:
        self.tested, self.labelled = [], []

    def on_test_epoch_end(self) -> None:
        """The confusion of classes, precision and recall of each, and the errors that were surest."""
        self.score_labels("test")
        if self.several:
            return self._label_tables()
        tested, self.tested = gather(self.tested), []
        if not tested:
            return
        known = self.num_classes or 1 + max(max(true, made) for true, made, _ in tested)
        names = self.label_names(known)
        counts = counted([one[0] for one in tested], [one[1] for one in tested], len(names))
        wrong = [record for true, made, record in tested if true != made]
        wrong.sort(key=lambda record: record["true_probability"])
        self.tables = {
            "confusion": confusion_table(counts, names),
            "classes": class_table(counts, names),
            "worst": wrong[:WORST],
        }

    def _remember(self, batch: dict[str, Any], logits: Tensor, names: list[str]) -> None:
        """Keep what the tables of a test are made of."""
        chances, first = logits.softmax(-1), len(self.tested)
        (scores, made), labels = chances.max(-1), batch["labels"]
        right = chances.gather(1, labels[:, None])[:, 0]
        columns = [x.tolist() for x in (labels, made, scores, right)]
        for i, (t, m, score, chance) in enumerate(zip(*columns, strict=True)):
            given = given_of(batch, i) or {"example": first + i}
            said = {"true": names[t], "made": names[m]}
            sure = {"score": round(score, 6), "true_probability": round(chance, 6)}
            self.tested.append((t, m, {**given, **said, **sure}))

    # --- Several labels ---

    def score_labels(self, split: str) -> None:
        """Log what the examples of a split came to, where they have several labels."""
        if self.several and self.label_scores is not None:
            for name, value in self.label_scores.compute().items():
                self.log(f"{split}/{name}", value, prog_bar=True)

    def worded(self, logits: Tensor, labels: Tensor, sure: bool = True) -> list[tuple[str, str]]:
        """Of each example what is true, and what the model says, with how ``sure`` it is."""
        names, chances = self.label_names(logits.shape[1]), answers(self.model, logits)
        if self.several:
            shown = [
                [
                    f"{n} ({p:.2f})" if sure else n
                    for n, p in zip(names, row, strict=True)
                    if p > LEAST
                ]
                for row in chances.tolist()
            ]
            made = [", ".join(words) or "none" for words in shown]
            return list(zip(named(labels > LEAST, names), made, strict=True))
        scores, ids = chances.max(-1)
        rows = zip(labels.tolist(), ids.tolist(), scores.tolist(), strict=True)
        return [(names[t], f"{names[m]} ({p:.2f})" if sure else names[m]) for t, m, p in rows]

    def _test_labels(self, batch: dict[str, Any], logits: Tensor, true: Tensor) -> dict[str, Any]:
        made, names = logits.sigmoid() > LEAST, self.label_names(logits.shape[1])
        said = {"true": named(true, names), "made": named(made, names)}
        losses, first = surprise(logits, true), len(self.labelled)
        rows = zip(true.tolist(), made.tolist(), losses, strict=True)
        for i, (t, m, loss) in enumerate(rows):
            given = given_of(batch, i) or {"example": first + i}
            words = {name: column[i] for name, column in said.items()}
            self.labelled.append((t, m, {**given, **words, "loss": round(loss, 6)}))
        return {**places_of(batch), **said, **label_counts(true, made)}

    def _label_tables(self) -> None:
        """Precision and recall of each label, and the examples whose loss was largest."""
        tested, self.labelled = gather(self.labelled), []
        if tested:
            true, made, records = zip(*tested, strict=True)
            names = self.label_names(len(true[0]))
            worst = sorted(records, key=lambda record: -record["loss"])[:WORST]
            self.tables = {
                "labels": label_table(stacked(true), stacked(made), names),
                "worst": worst,
            }

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each example its file, line and text, where known; label, score, and all probabilities."""
        chances = answers(self.model, self.logits(batch))
        (scores, ids), names = chances.max(-1), unlike(self.label_names(chances.shape[1]))
        found = []
        for i, row in enumerate(chances.tolist()):
            answer = {"label": names[int(ids[i])], "score": round(float(scores[i]), 6)}
            probabilities = {n: round(p, 6) for n, p in zip(names, row, strict=True)}
            found.append({**given_of(batch, i), **answer, "probabilities": probabilities})
        return found


GIVEN = ("file", "line", "text", "pair", "series", "step")
"""What a batch may say of where an example comes from."""


def places_of(batch: dict[str, Any]) -> dict[str, Any]:
    """What a test tells comparisons of the texts of a batch: rows, and what stands there."""
    if "line" not in batch:
        return {}
    beside = {"pair": batch["pair"]} if "pair" in batch else {}
    return {"line": batch["line"], "source": batch["text"], **beside}


def given_of(batch: dict[str, Any], index: int) -> dict[str, Any]:
    """What is known of where an example comes from."""
    return {name: batch[name][index] for name in GIVEN if name in batch}
