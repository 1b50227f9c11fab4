"""Reward modelling: a prompt and an answer in, a number out, greater where people like the answer better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from family.losses.preferences import bradley_terry
from family.models.reward import as_reward_model
from tasks.errors import UserError, at_least
from tasks.runs.gathering import gather
from tasks.training.by_class import WORST
from tasks.training.pairs import (
    ahead,
    calibration_error,
    check_pairs,
    columns,
    flat,
    judged,
    shown,
    won,
)
from tasks.training.reading import check_room
from tasks.training.task import Task


class RewardModeling(Task):
    """Learn from pairs which of two answers is better, by the model of Bradley & Terry: the one is preferred
    with the probability ``sigmoid(r_chosen - r_rejected)``, see
    :func:`~family.losses.preferences.bradley_terry`.

    Of a split it reports the loss; the share of pairs whose better answer has the greater reward
    (``val/accuracy``; equal rewards are half right); the mean of ``r_chosen - r_rejected``
    (``val/margin``); and how far those probabilities can be believed (``val/calibration_error``): in ten bins
    of how sure the model is of a pair, ``sigmoid(|r_chosen - r_rejected|)``, the difference of its mean to the
    share that is right, weighted by the bins' pairs; see
    :func:`~tasks.training.pairs.calibration_error`.

    A batch has ``input_ids (pairs, 2, tokens)``, int64, of each pair the prompt with the better answer and with
    the worse one, ``mask (pairs, 2, tokens)``, True = a token, where rows are padded, and maybe
    ``margin (pairs,)``; to be shown also lists of ``prompt``, ``chosen`` and ``rejected``.

    Args:
        model: the model, or what builds it from the vocabulary size; called with ids and a mask, it gives
            ``(batch,)``.
        margins: the better answer is to be ahead by as much as the data say.
        centre: weight of ``(r_chosen + r_rejected)^2``, which keeps rewards around 0 (Eisenstein et al. 2023):
            pairs say nothing of where that is.
        options: of :class:`~tasks.training.task.Task`. ``pretrained`` may also be a GPT or a BERT, published or
            of a run, which gets a head of rewards.
    """

    monitor = ("val/loss", "min")
    fields = ("input_ids", "mask", "margin")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        margins: bool = False,
        centre: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        at_least(0, of="model.", centre=centre)
        self.margins, self.centre = margins, centre
        self.seen: list[dict[str, Any]] = []
        """Of the split that is evaluated, of each pair both rewards, and what is known of it."""
        self.tables: dict[str, list[dict[str, Any]]] = {}
        """Of a test, the pairs that were surest the wrong way round."""

    # --- Model and data ---

    def made_of(self, source: nn.Module) -> nn.Module:
        return as_reward_model(source)

    def configure_model(self) -> None:
        super().configure_model()
        check_room(self.model, self.data)
        if self.margins and self.trainer.training and hasattr(self.data, "has_margins"):
            check_margins(self.data.has_margins("train"))

    # --- Training ---

    def rewards(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Those of the better and of the worse answers ``(pairs,)``, in float32 at least.

        Raises:
            UserError: rows that are no pairs, or a model that gives more than a number of each.
        """
        check_pairs(batch)
        ids = flat(batch, "input_ids")
        made = self.model(ids, flat(batch, "mask"))
        if made.shape != ids.shape[:1]:
            raise UserError(
                f"the model gives {tuple(made.shape)} of {len(ids)} rows, but a reward is one number of "
                "each: (batch,)."
            )
        made = made.to(torch.promote_types(made.dtype, torch.float32)).view(-1, 2)
        return made[:, 0], made[:, 1]

    def each(self, batch: dict[str, Any], chosen: Tensor, rejected: Tensor) -> Tensor:
        """The loss of each pair, without what centres them."""
        if self.margins:
            check_margins("margin" in batch)
        return bradley_terry(chosen, rejected, batch["margin"] if self.margins else None)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        chosen, rejected = self.rewards(batch)
        loss = self.each(batch, chosen, rejected).mean()
        beside = {"accuracy": won(chosen, rejected).mean().float()}
        beside["margin"] = (chosen - rejected).mean()
        if self.centre:
            loss = loss + self.centre * ((chosen + rejected) ** 2).mean()
        return {"loss": loss, **beside}

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> list[dict[str, Any]]:
        """Log the loss of pairs, and keep what was made of them; returns it."""
        chosen, rejected = self.rewards(batch)
        self.log_mean({f"{split}/loss": self.each(batch, chosen, rejected).mean()}, len(chosen))
        found = judged(batch, chosen, rejected)
        self.seen += found
        return found

    def on_validation_epoch_start(self) -> None:
        self.seen = []

    def on_test_epoch_start(self) -> None:
        self.seen = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By pair: both rewards, and whether the better answer has the greater one."""
        return columns(self.evaluate(batch, "test"))

    def on_validation_epoch_end(self) -> None:
        self.samples = shown(self._score("val"))

    def on_test_epoch_end(self) -> None:
        rows = [row for row in self._score("test") if ahead(row) < 0]
        self.tables = {"worst": sorted(rows, key=ahead)[:WORST]}

    def _score(self, split: str) -> list[dict[str, Any]]:
        """Log how well the pairs of all processes are told apart; returns these."""
        rows, self.seen = gather(self.seen), []
        if not rows:
            return []
        sides = [[row[name] for row in rows] for name in ("reward_chosen", "reward_rejected")]
        chosen, rejected = (torch.tensor(side, dtype=torch.double) for side in sides)
        self.log(f"{split}/accuracy", float(won(chosen, rejected).mean()), prog_bar=True)
        self.log(f"{split}/margin", float((chosen - rejected).mean()))
        self.log(f"{split}/calibration_error", calibration_error(chosen, rejected))
        return rows

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each pair what is known of it, and both rewards."""
        return judged(batch, *self.rewards(batch))


def check_margins(there: bool) -> None:
    """Refuse pairs without the margins that are asked for.

    Raises:
        UserError: see above.
    """
    if not there:
        raise UserError(
            "model.margins=true needs pairs with a margin, and the data have none: give each line a "
            '"margin".'
        )
