"""Weights of the classes in the loss, for data of which some are rare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tasks.errors import UserError, between, closest, in_short, some_of
from tasks.training.alarms import guess
from tasks.training.task import Task

ClassWeights = list[float] | dict[str, float] | Literal["balanced"] | None


class WeightedTask(Task):
    """A task whose loss is over classes, and can give rare ones more weight.

    Args:
        model: see :class:`~tasks.training.task.Task`.
        label_smoothing: mass spread evenly over the classes, in training (Szegedy et al. 2016).
        class_weights: of each class the weight of its examples (of its pixels) in the training loss,
            as ``weight`` of ``torch.nn.functional.cross_entropy``: a list in the order of the
            classes; by their names, where those that are not named weigh 1; or "balanced", which
            makes all classes count alike: ``n / (classes * count)`` (as scikit-learn's), by the
            counts of the training split, before augmentation; classes that never occur there weigh
            1 and are not among them. The loss of validation and test stays plain, so that runs with
            and without weights can be compared, as do all metrics. A checkpoint keeps the balanced
            weights, and a resumed run goes on with them, even if its data have grown.
        options: of :class:`~tasks.training.task.Task`.

    Raises:
        UserError: weights that are no numbers above 0; when training begins, a wrong number of them,
            a class that does not exist, or data that count no classes.
    """

    ignored: int | None = None
    """The label of what counts for nothing, where there is one."""

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        label_smoothing: float = 0.0,
        class_weights: ClassWeights = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        between(0, 1, of="model.", label_smoothing=label_smoothing)
        check(class_weights)
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self._weights: Tensor | None = None
        """``(classes)`` float32, once they are known; no buffer, so that no precision rounds them."""
        self.tally: Tensor | None = None
        """``(2, classes)`` int64: of what this process validates, how often each class was made, and is
        true."""

    @property
    def chance(self) -> float | None:
        """The loss of who knows the number of classes alone, see :class:`~tasks.training.alarms.Alarms`."""
        return guess(self.num_classes)

    def count_classes(self, made: Tensor, true: Tensor) -> None:
        """Add to what is validated, for :class:`~tasks.training.alarms.Alarms`.

        Args:
            made, true: ``(classes)``, how many there are of each.
        """
        counts = torch.stack([made, true])
        self.tally = counts if self.tally is None else self.tally + counts

    def on_fit_start(self) -> None:
        if self.class_weights is not None and self._weights is None:
            self._weights = torch.tensor(self._resolved())

    def loss_weights(self, logits: Tensor) -> Tensor | None:
        """``(classes)`` float32 where the logits are; None where all classes weigh alike.

        Raises:
            UserError: they are to be balanced, and nothing has counted the classes.
        """
        if self.class_weights is None:
            return None
        if self._weights is None:
            self._weights = torch.tensor(self._resolved())
        if len(self._weights) != logits.shape[1]:
            raise UserError(
                f"model.class_weights are {len(self._weights)} numbers, but the model gives "
                f"{logits.shape[1]} logits."
            )
        self._weights = self._weights.to(logits.device)
        return self._weights

    def count(self, batch: dict[str, Any]) -> Tensor | int:
        labels, weights = batch["labels"], self._weights
        if labels.is_floating_point() or (self.ignored is None and weights is None):
            return super().count(batch)
        there = torch.ones_like(labels) if self.ignored is None else labels != self.ignored
        if weights is None:
            return there.sum()
        return (weights.to(labels.device)[labels.where(there.bool(), 0)] * there).sum()

    def _resolved(self) -> list[float]:
        if self.class_weights == "balanced":
            counts = getattr(self.data, "class_counts", None)
            if counts is None:
                raise UserError(
                    "model.class_weights=balanced needs data that count their classes (a method "
                    "class_counts() of the data module): give a number for each class instead."
                )
            return balanced(counts())
        assert isinstance(self.class_weights, list | dict)
        count = self.num_classes
        if count is not None:
            return in_order(self.class_weights, self.label_names(count))
        if isinstance(
            self.class_weights, list
        ):  # the first logits will show whether they are enough
            return [float(weight) for weight in self.class_weights]
        raise UserError(
            "model.class_weights has names of classes, but neither the data nor the model has any: "
            "give a list of numbers."
        )

    # --- Checkpoints ---

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.class_weights == "balanced" and self._weights is not None:
            checkpoint["family"]["balanced_weights"] = self._weights.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        kept = checkpoint.get("family", {}).get("balanced_weights")
        if self.class_weights == "balanced" and kept is not None:
            self._weights = torch.tensor(kept)


def check(weights: ClassWeights) -> None:
    """Refuse what can be nobody's weights, as soon as a task is made.

    Raises:
        UserError: another word than "balanced", nothing, or no finite number above 0.
    """
    if weights is None or weights == "balanced":
        return
    if isinstance(weights, str) or not len(weights):
        raise UserError(
            f"model.class_weights={weights!r}: give balanced, a number for each class, or numbers by "
            "the names of classes."
        )
    numbers = weights.values() if isinstance(weights, dict) else weights
    for number in numbers:
        if not isinstance(number, int | float) or not 0 < number < math.inf:
            raise UserError(f"model.class_weights has {number!r}: a weight is a number above 0.")


def in_order(weights: list[float] | dict[str, float], names: Sequence[str]) -> list[float]:
    """A weight for each class, in the order of their names.

    Raises:
        UserError: too few or too many, or a name that no class has.
    """
    if isinstance(weights, list):
        if len(weights) != len(names):
            raise UserError(
                f"model.class_weights has {len(weights)} numbers, but there are {len(names)} classes: "
                f"{some_of(names, 10)}."
            )
        return [float(weight) for weight in weights]
    given = {str(name): float(weight) for name, weight in weights.items()}
    for name in given:
        if name not in names:
            raise UserError(
                f"model.class_weights names {in_short(name)}, which is none of the {len(names)} classes "
                f"({some_of(names, 10)}).{closest(name, names)}"
            )
    return [given.get(name, 1.0) for name in names]


def balanced(counts: Sequence[int]) -> list[float]:
    """``n / (k * count)`` for each of the k classes that occur among n examples; 1 for the others."""
    total, occurring = sum(counts), sum(count > 0 for count in counts)
    return [total / (occurring * count) if count else 1.0 for count in counts]
