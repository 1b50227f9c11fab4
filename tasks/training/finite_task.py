"""A task that stops where its loss or its gradients are not finite, before the weights learn of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.utils import get_total_norm

from tasks.training.finite import check_finite
from tasks.training.task import Task


class FiniteTask(Task):
    """See above; the checks wait for the device once a step. In float16 the scale of the gradients sees to
    these.

    Raises:
        NotFiniteError: in training, see :func:`~tasks.training.finite.check_finite`.
    """

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        loss = super().training_step(batch, index)
        check_finite({"loss": loss.detach()}, self.global_step + 1)
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        super().on_before_optimizer_step(optimizer)
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if gradients and not str(self.trainer.precision).startswith("16"):
            check_finite({"norm of the gradient": get_total_norm(gradients)}, self.global_step + 1)
