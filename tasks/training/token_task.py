"""What translation and language modelling share: a loss over tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from family.core.experts import Experts
from family.losses.balance import balance_loss
from family.losses.language_model import IGNORE, language_model_loss
from family.losses.token_loss import TokenLoss
from tasks.errors import at_least, between
from tasks.training.alarms import guess
from tasks.training.reading import takes
from tasks.training.task import Task


class TokenTask(Task):
    """Train a model on next-token cross-entropy.

    Args:
        model: the model, or what builds it from the vocabulary size.
        label_smoothing: in training; validation and test report the plain loss.
        balance: weight of the loss that keeps the experts of a mixture evenly used, see
            :func:`~family.losses.balance.balance_loss`; without experts it means nothing.
        z_loss: weight of what keeps logits small, in training, see
            :class:`~family.losses.token_loss.TokenLoss`.
        options: of :class:`~tasks.training.task.Task`.
    """

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        label_smoothing: float = 0.0,
        balance: float = 0.01,
        z_loss: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        between(0, 1, of="model.", label_smoothing=label_smoothing)
        at_least(0, of="model.", balance=balance, z_loss=z_loss)
        self.label_smoothing, self.balance, self.z_loss = label_smoothing, balance, z_loss
        self._mixture = 0, False

    def logits(self, batch: dict[str, Any], **asked: Any) -> Tensor:
        """``(batch, tokens, vocab)``, by the contract of the task's members; or the ``loss`` asked for."""
        raise NotImplementedError

    @property
    def chance(self) -> float | None:
        """The loss of who knows the number of tokens alone, see :class:`~tasks.training.alarms.Alarms`."""
        known = self.model_arguments
        written = known.get("target_vocab_size", known.get("vocab_size"))
        return guess(written or getattr(self.model, "vocab_size", None))

    def cross_entropy(self, batch: dict[str, Any]) -> Tensor:
        """The mean over the tokens that count, smoothed."""
        loss = TokenLoss(batch["labels"], self.label_smoothing, self.z_loss)
        if takes(type(self.model).forward, "loss"):
            return self.logits(batch, loss=loss)
        return loss.of(self.logits(batch))

    def terms(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The "loss", without what keeps experts in balance, and parts of it that a log should show."""
        return {"loss": self.cross_entropy(batch)}

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        terms = self.terms(batch)
        found = balance_loss(self.learner) if self._mixes() else None
        if found is None:
            return terms
        more = {"cross_entropy": terms["loss"], "balance": found[0], "expert_load": found[1]}
        return {**terms, "loss": terms["loss"] + self.balance * found[0], **more}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._mixture = 0, False

    def _mixes(self) -> bool:
        """Whether there are experts; asked once of a model, as to walk through one takes a while."""
        if self._mixture[0] != id(self.model):
            found = any(isinstance(module, Experts) for module in self.modules())
            self._mixture = id(self.model), found
        return self._mixture[1]

    def count(self, batch: dict[str, Any]) -> Tensor:
        return (batch["labels"] != IGNORE).sum()

    def evaluate(self, batch: dict[str, Any], split: str) -> dict[str, list[Any]]:
        """Log the loss, weighted by tokens so that the mean is over tokens, not batches.

        Returns:
            Of each example the ``loss``, summed over its ``tokens``, and their number.
        """
        labels = batch["labels"]
        each = language_model_loss(self.logits(batch), labels, reduction="none")
        sums, counts = each.view_as(labels).sum(1), (labels != IGNORE).sum(1)
        count = int(counts.sum())
        self.log_mean({f"{split}/loss": sums.sum() / max(1, count)}, count)
        return {"loss": [round(x, 4) for x in sums.tolist()], "tokens": counts.tolist()}

    def evaluate_accuracy(self, batch: dict[str, Any], split: str) -> dict[str, list[Any]]:
        """As :meth:`evaluate`, with the share of the tokens that the model makes likeliest, reading the
        true ones before each.

        Returns:
            Beside ``loss`` and ``tokens`` of each example how many are ``right``.
        """
        labels, logits = batch["labels"], self.logits(batch)
        each = language_model_loss(logits, labels, reduction="none").view_as(labels)
        right = (logits.argmax(-1) == labels).sum(1)
        counts = (labels != IGNORE).sum(1)
        count = int(counts.sum())
        means = {"loss": each.sum() / max(1, count), "accuracy": right.sum() / max(1, count)}
        self.log_mean({f"{split}/{name}": value for name, value in means.items()}, count)
        return {
            "loss": [round(x, 4) for x in each.sum(1).tolist()],
            "tokens": counts.tolist(),
            "right": right.tolist(),
        }
