"""Numbers that say something is wrong with a run: what is not finite stops it, the rest is said once."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn.utils import get_total_norm

from tasks.training.finite import check_finite

SETTLED = 200
"""Steps after the warm-up in which a run may still be anywhere."""
JUDGED = 100
"""Steps whose mean loss is held against chance."""
NEAR = 0.98
"""From this share of it on a loss is at chance."""
TWICE = 2
"""Validations in a row that show the same before it is said: the first is often of a model that has only
learnt how frequent classes are."""
STILL, MOVES = 0.01, 0.05
"""Deviations over pictures, as shares of a side: boxes that stay within the one are the same, true ones beyond
the other are not."""
PICTURES = 8
"""With fewer nothing is said of their boxes."""


class Alarms(pl.Callback):
    """Watch the numbers of a run, of whatever task.

    *Not finite.* A run whose loss or gradients are infinite or none stops at that step, before the weights
    learn of it. Where that would wait for an accelerator, it is found before the next step: such weights are
    in no checkpoint of ours. In float16 the scale of the gradients sees to these.

    *At chance.* The mean loss of 100 steps, some time after the warm-up, is what guessing gives. A task says
    by ``chance`` what that is, where it knows.

    *One class.* Two validations in a row make one and the same class of everything, of which there are
    several: a task counts them in ``tally (2, classes)``, made and true.

    *One box.* Two validations in a row find the same box in every picture: a task says by ``boxes_apart`` how
    far from each other its surest boxes and the true ones are.

    Raises:
        NotFiniteError: in training, see :func:`~tasks.training.finite.check_finite`.
    """

    def __init__(self) -> None:
        self.said: set[str] = set()
        self.parts: list[Tensor] = []
        """Losses since the last step of the optimizer."""
        self.waiting: tuple[dict[str, Tensor], int] | None = None
        """Numbers of a step that may be on their way."""
        self.losses: list[Tensor] = []
        self.stepped = -1
        self.seen: dict[str, list[Any]] = {}
        """What the last validations showed of each alarm."""

    # --- Not finite ---

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.parts, self.waiting, self.losses = [], None, []
        self.stepped = trainer.global_step

    def on_before_backward(
        self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor
    ) -> None:
        self.parts.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any
    ) -> None:
        self._settle()
        numbers: dict[str, Tensor] = {"loss": torch.stack(self.parts).sum()} if self.parts else {}
        self.parts = []
        stepped = (p for group in optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in stepped if p.grad is not None]
        if gradients and not str(trainer.precision).startswith("16"):
            norm: Any = get_total_norm(gradients)
            numbers["norm of the gradient"] = getattr(norm, "full_tensor", lambda: norm)()
        self.waiting = numbers, trainer.global_step + 1
        if module.device.type == "cpu":
            self._settle()

    def _settle(self) -> None:
        """Look at the numbers of the last step."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            check_finite(*waiting)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._settle()
        if hasattr(module, "tally"):
            counts: Any = module
            counts.tally = None  # of a validation that was broken off, or of a test

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._settle()

    # --- At chance ---

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *batch: Any
    ) -> None:
        step = trainer.global_step
        if step == self.stepped or "chance" in self.said or not settled(trainer, module):
            return
        self.stepped, chance = step, getattr(module, "chance", None)
        parts: list[dict[str, Tensor]] = getattr(module, "taught", (0, []))[1]
        if chance is None or not parts:
            return
        # Beside it there may be what keeps the experts of a mixture in balance.
        self.losses += [parts[-1].get("cross_entropy", parts[-1]["loss"])]
        if len(self.losses) < JUDGED:
            return
        mean, self.losses = float(torch.stack(self.losses).mean()), []
        self.said.add("chance")  # or it is above it for good
        if mean >= NEAR * chance:
            rank_zero_warn(
                f"at step {step} the loss is still {mean:.3f}, and guessing gives {chance:.3f}: nothing was "
                f"learnt yet, for which model.lr={getattr(module, 'lr', None)} may be too small or too "
                "large, labels may not belong to their inputs, or inputs may not be normalised."
            )

    # --- One class, one box ---

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        tally = getattr(module, "tally", None)
        if tally is not None:
            tally = trainer.strategy.reduce(tally, reduce_op="sum").cpu()
            made, true = (row.nonzero()[:, 0].tolist() for row in tally)
            one = made[0] if len(made) == 1 and len(true) > 1 else None
            if self._again(trainer, module, "class", one):
                task: Any = module
                names = task.label_names(tally.shape[1]) if one is not None else []
                rank_zero_warn(
                    f"at step {trainer.global_step} the class {names[made[0]]!r} is made of all "
                    f"{int(tally[0].sum())} that are validated, which have {len(true)} classes: model.lr may "
                    "be too large or too small, one class may be far more frequent than the others "
                    "(model.class_weights=balanced), or labels may not belong to their inputs."
                )
        apart = getattr(module, "boxes_apart", None)
        if apart is not None:
            same = True if apart[0] < STILL and apart[1] > MOVES else None
            if self._again(trainer, module, "box", same):
                rank_zero_warn(
                    f"at step {trainer.global_step} the surest box is the same in all pictures that are "
                    "validated, while true ones differ: model.lr may be too large, pictures may not be "
                    "normalised, or boxes may not belong to their pictures (or not be in the form that their "
                    "file says)."
                )

    def _again(self, trainer: Any, module: Any, alarm: str, shown: Any) -> bool:
        """Whether an alarm is to be said now: validations in a row have shown the same; None is nothing."""
        before = self.seen.setdefault(alarm, [])
        if shown is None or not settled(trainer, module):
            before.clear()
            return False
        before.append(shown)
        if alarm in self.said or before[-TWICE:] != [shown] * TWICE:
            return False
        self.said.add(alarm)
        return True


def settled(trainer: Any, module: Any) -> bool:
    """Whether the warm-up is over, and some steps more."""
    return trainer.global_step >= getattr(module, "warmup_steps", 0) + SETTLED


def guess(classes: Any) -> float | None:
    """The cross-entropy of so many classes that are all as likely; None where nobody says how many."""
    return math.log(classes) if isinstance(classes, int) and classes > 1 else None


def alarmed(trainer: Any) -> None:
    """Let the numbers of a trainer be watched, once."""
    if not any(isinstance(found, Alarms) for found in trainer.callbacks):
        trainer.callbacks.append(Alarms())
