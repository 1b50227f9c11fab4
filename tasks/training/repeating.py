"""What lets a resumed run be the unbroken one to the bit: random numbers, and buffers, of a step."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn


class Repeating(pl.Callback):
    """Makes of each step what it would be in a run that was never cut.

    *Random numbers.* Those of a batch (dropout's, noise of diffusion, answers that are drawn) are decided by
    the run's seed, the process, the step of the optimizer and the batch's place in it: wherever a run goes on, it
    draws them again. torch, on all devices, numpy and ``random`` are seeded so before each batch.

    *Buffers.* A checkpoint that is written in the midst of a step, between gradients that are summed or where
    training is cut, has those of before it (means of batch norms, codes that move): its batches will be seen
    again.
    """

    def __init__(self) -> None:
        self.seed: int | None = None
        self.place = (-1, 0)
        """The step that is made, and the batch in it."""
        self.before: dict[str, Tensor] = {}
        """Buffers as that step found them."""
        self.buffers: list[tuple[str, nn.Module, str]] = []
        """Those that checkpoints have: their names, whose they are, and what they are called there."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.seed is None:  # a checkpoint brought none
            self.seed = torch.initial_seed()
        self.place, self.before = (-1, 0), {}
        # Once: to walk through a large model takes as long as a small step.
        saved = module.state_dict(keep_vars=True)
        named = (
            (f"{path}.{key}".lstrip("."), owner, key)
            for path, owner in module.named_modules()
            for key in owner._buffers
        )
        self.buffers = [one for one in named if one[0] in saved]

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int
    ) -> None:
        step, part = self.place
        self.place = (step, part + 1) if step == trainer.global_step else (trainer.global_step, 0)
        if self.place[1] == 0:
            self._hold()
        key = (self.seed or 0, trainer.global_rank, *self.place)
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        # torch.manual_seed also notes it for devices that nobody uses, with the stack of calls: a millisecond.
        on_cpu = module.device.type == "cpu"
        (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    @torch.no_grad()
    def _hold(self) -> None:
        found = ((name, getattr(owner, key)) for name, owner, key in self.buffers)
        now = {name: value for name, value in found if value is not None}
        if self.before.keys() != now.keys():
            self.before = {name: value.detach().clone() for name, value in now.items()}
        for name, value in now.items():
            self.before[name].copy_(value)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        state = checkpoint.get("state_dict", {})
        if self.place[0] == trainer.global_step:
            state |= {name: value for name, value in self.before.items() if name in state}

    def state_dict(self) -> dict[str, Any]:
        return {} if self.seed is None else {"seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed = state["seed"]


def repeating(trainer: Any) -> None:
    """Let the steps of a trainer be so, once."""
    if not any(isinstance(found, Repeating) for found in trainer.callbacks):
        trainer.callbacks.insert(0, Repeating())
