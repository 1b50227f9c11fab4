"""What a batch holds, and what a step on it costs."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from family.losses.language_model import IGNORE
from tasks.compare.flops import counted_flops


def count_of_batch(batch: Any) -> dict[str, Tensor | int]:
    """Examples, real tokens (read, and for a translation also written) and pictures of a batch."""
    values: dict[str, Any] = batch if isinstance(batch, dict) else {}
    tensors = [v for v in values.values() if isinstance(v, Tensor) and v.dim()]
    tokens: Tensor | int = 0
    if "source_mask" in values:
        tokens = values["source_mask"].sum() + (values["labels"] != IGNORE).sum()
    elif "input_ids" in values:
        mask = values.get("mask")
        tokens = values["input_ids"].numel() if mask is None else mask.sum()
    pictures = len(values["pixel_values"]) if "pixel_values" in values else 0
    return {"examples": len(tensors[0]) if tensors else 0, "tokens": tokens, "pictures": pictures}


def flops_of_batch(trainer: pl.Trainer, module: Any, batch: Any) -> float:
    """FLOPs of one batch, forward and backward, as it runs; weights, gradients, buffers and random
    numbers are afterwards as they were.

    Args:
        module: a task: ``module.loss(batch)["loss"]`` is what it learns by.
    """
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    state = random_state()

    def step() -> None:
        with trainer.precision_plugin.train_step_context():
            loss = module.loss(batch)["loss"]
        loss.backward()

    for parameter, _ in gradients:
        parameter.grad = None
    try:
        return float(counted_flops(step))
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        set_random_state(state)


def random_state() -> dict[str, Any]:
    """The state of torch's random numbers, as a checkpoint can hold it."""
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if on_gpu else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
