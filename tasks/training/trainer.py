"""Lightning's trainer, and two words more that its options understand."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from tasks.training.sharding import FSDP2

Precision = Literal[
    "auto", 64, 32, 16, "64", "32", "16", "bf16",
    "transformer-engine", "transformer-engine-float16",
    "16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true", "64-true",
]  # fmt: skip


class Trainer(pl.Trainer):
    """As Lightning's.

    Args:
        strategy: beside Lightning's own, "fsdp2": weights shared out over processes; and "fsdp2_sharded",
            whose checkpoints each process writes its part of. See :class:`~tasks.training.sharding.FSDP2`.
        precision: beside Lightning's own, "auto": bf16-mixed where it multiplies fast, and 32-true
            elsewhere; which of them, and why, is said.
        arguments: all others.
    """

    def __init__(
        self,
        *,
        accelerator: str | pl.accelerators.Accelerator = "auto",
        strategy: str | Strategy = "auto",
        precision: Precision | None = None,
        **arguments: Any,
    ) -> None:
        if precision == "auto":
            on_cpu = accelerator == "cpu" or not torch.accelerator.is_available()
            precision, why = best_precision("cpu" if on_cpu else "accelerator")
            rank_zero_info(f"trainer.precision=auto is {precision}: {why}.")
        super().__init__(
            accelerator=accelerator,
            strategy=named(strategy) if isinstance(strategy, str) else strategy,
            precision=precision,  # type: ignore[arg-type]
            **arguments,
        )


def named(strategy: str) -> str | Strategy:
    """One of ours by its name; others are Lightning's to find."""
    if strategy in ("fsdp2", "fsdp2_sharded"):
        return FSDP2(sharded=strategy == "fsdp2_sharded")
    return strategy


def best_precision(device: str) -> tuple[Precision, str]:
    """The faster one of bf16-mixed and 32-true, and a reason.

    Args:
        device: "cpu", or all else for the accelerator that there is.
    """
    if device != "cpu":
        kind = torch.accelerator.current_accelerator()
        if kind is not None and kind.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
            does = "multiplies bfloat16 fast" if fast else "does not multiply bfloat16 fast"
            return ("bf16-mixed" if fast else "32-true"), f"{torch.cuda.get_device_name()} {does}"
        return "32-true", f"of {kind} it is not known whether it multiplies bfloat16 fast"
    found = fast_bfloat16()
    if found is None:
        return "32-true", "this processor has neither AMX nor AVX512-BF16"
    return "bf16-mixed", f"this processor multiplies bfloat16 fast ({found})"


@cache
def fast_bfloat16() -> str | None:
    """The instructions by which this processor multiplies bfloat16 faster than float32; None without."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        return None
    have = set(flags[1].split()) if flags else set()
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in have), None)
