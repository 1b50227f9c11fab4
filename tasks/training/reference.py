"""What a model was before it learnt preferences: the reference that it is to stay near."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from family.adapt.lora import adapted, without_adapters
from family.sharding import is_shared_out
from tasks.errors import UserError


class Reference:
    """The model as it is now. One with adapters, whose own weights stay as they are, is its own reference
    with the adapters off; any other is copied and the copy frozen.

    Args:
        model: in which adapters, if any, have learnt nothing yet.

    Raises:
        UserError: one that is shared out over processes cannot be copied.
    """

    def __init__(self, model: Any) -> None:
        self.copy: Any = None
        if not any(True for _ in adapted(model)):
            if is_shared_out(model):
                raise UserError(
                    "the reference of a run is a copy of its model, which trainer.strategy=fsdp2 shares out: "
                    "train adapters (model.lora), whose model is its own reference, or choose ddp."
                )
            self.copy = copy.deepcopy(model).requires_grad_(False).eval()

    @contextmanager
    def of(self, model: Any) -> Iterator[Any]:
        """The reference of a model that has learnt since; without gradients."""
        with torch.no_grad():
            if self.copy is not None:
                yield self.copy.to(next(model.parameters()).device)
                return
            with without_adapters(model):
                yield model
