"""What a run of a comparison records of itself, and where its budget ends."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from family.files import write_text
from tasks.compare.code import code_version
from tasks.compare.counting import count_of_batch, device_name, flops_of_batch
from tasks.errors import NotFiniteError
from tasks.runs.gathering import gather

COUNTED = 8
"""Batches whose FLOPs are counted; their mean stands for all."""
WARM = 10
"""Steps that throughput leaves out: the first ones allocate, compile and are counted."""
FILE = "measure.json"


class Measure(pl.Callback):
    """Write ``measure.json``: parameters, what was seen, time, memory, throughput and the curve.

    Time is that of training with its loading of data; validation stands still on its clock. All of
    it goes through checkpoints: a resumed run goes on as if it had never stopped.

    Args:
        unit: "steps", "tokens", "pictures", "flops" or "seconds".
        amount: after so many of them training stops; None is never.
    """

    def __init__(self, unit: str = "steps", amount: float | None = None) -> None:
        self.unit, self.amount = unit, amount
        self.seen: dict[str, Tensor | float] = {"examples": 0, "tokens": 0, "pictures": 0}
        self.stepped = dict(self.seen)
        """What had been seen at the last step of the optimizer, from which a checkpoint goes on."""
        self.curve: list[dict[str, float]] = []
        self.seconds, self.started = 0.0, 0.0
        self.warm: dict[str, float] | None = None
        self.flops: list[float] = []
        self.flops_error, self.memory, self.step = "", 0, 0
        self.code, self.not_finite = "", ""

    # --- What happens in a run ---------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.code = code_version()  # now: it may be edited while the run goes on

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.step = trainer.global_step
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats(module.device)
        self.started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int
    ) -> None:
        if len(self.flops) < COUNTED and not self.flops_error:
            self._pause(module)
            try:
                self.flops.append(flops_of_batch(trainer, module, batch))
            except Exception as error:  # a model that cannot be counted can still be trained
                self.flops_error = f"{type(error).__name__}: {error}"
            self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        for kind, count in count_of_batch(batch).items():
            self.seen[kind] = self.seen[kind] + count * trainer.world_size
        step = trainer.global_step
        if step == self.step:
            return  # a part of a step
        self.step, self.stepped = step, dict(self.seen)
        if self.warm is None and step >= WARM:
            self._pause(module)
            self.warm = self._spent(trainer)
            self.started = time.perf_counter()
        logged = step % int(trainer.log_every_n_steps) == 0  # type: ignore[attr-defined]
        if logged and "train/loss" in trainer.callback_metrics:
            loss = float(trainer.callback_metrics["train/loss"])
            self.curve.append({**self._spent(trainer), "train/loss": loss})
        if self._at_the_end(trainer):
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._pause(module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        found = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("val/")}
        self.started = time.perf_counter()
        point = {**self._spent(trainer), **found}
        if (
            self.curve
            and self.curve[-1]["step"] == point["step"]
            and found.keys() <= self.curve[-1].keys()
        ):
            self.curve.pop()  # of the same validation, before a cut
        self.curve.append(point)
        self._write(trainer, module)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._pause(module)
        self._write(trainer, module)

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, NotFiniteError):  # what came of the run, unlike other failures
            self.not_finite = str(exception)
            self._write(trainer, module)

    # --- What is known of it -----------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        now = time.perf_counter() - self.started if self.started else 0.0
        return {
            "seen": {kind: int(count) for kind, count in self.stepped.items()},
            "curve": self.curve,
            "seconds": self.seconds + now,
            "warm": self.warm,
            "flops": self.flops,
            "memory": self.memory,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in vars(self).keys() & state.keys():  # of before it may hold more
            setattr(self, name, state[name])
        self.stepped = dict(self.seen)

    def _pause(self, module: pl.LightningModule) -> None:
        """Stop the clock, with all that the device still has to do."""
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        if self.started:
            self.seconds += time.perf_counter() - self.started
        self.started = 0.0

    def _spent(self, trainer: pl.Trainer) -> dict[str, float]:
        """So far: steps, seconds, examples, tokens, pictures, FLOPs."""
        now = time.perf_counter() - self.started if self.started else 0.0
        spent = {"step": trainer.global_step, "seconds": round(self.seconds + now, 3)}
        spent |= {kind: int(count) for kind, count in self.seen.items()}
        if self.flops:
            spent["flops"] = (per_step(self.flops, trainer) or 0) * trainer.global_step
        return spent

    def _at_the_end(self, trainer: pl.Trainer) -> bool:
        if self.amount is None or self.unit == "steps":
            return False
        over = self._spent(trainer).get(self.unit, 0) >= self.amount
        return trainer.strategy.reduce_boolean_decision(over, all=False)

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if module.device.type == "cuda":
            used = torch.cuda.max_memory_allocated(module.device)
        else:
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.memory = max(self.memory, used)
        if not trainer.is_global_zero:
            return
        spent = self._spent(trainer)
        since = self.warm if self.warm and self.warm["step"] < spent["step"] else {}
        steady = {name: value - since.get(name, 0) for name, value in spent.items()}
        rates = {
            f"{kind}_per_second": steady[kind] / steady["seconds"]
            for kind in ("step", "examples", "tokens", "pictures")
            if steady["seconds"] > 0
        }
        record = {
            **spent,
            "parameters": sum(p.numel() for p in module.parameters()),
            "trained": sum(p.numel() for p in module.parameters() if p.requires_grad),
            "flops_per_step": per_step(self.flops, trainer),
            "flops_error": self.flops_error,
            "memory_bytes": self.memory,
            "memory_kind": "GPU" if module.device.type == "cuda" else "resident",
            "device": device_name(module.device),
            "code": self.code,
            "not_finite": self.not_finite,
            **rates,
            "curve": self.curve,
        }
        write_json(folder_of(trainer) / FILE, record)


class Outcomes(pl.Callback):
    """Write ``outcomes.jsonl``: what came of each example of the test split.

    A task that returns, from ``test_step``, lists of equal length by name takes part: "line" is an
    example's place in the split (else they are numbered as they come), "made" and "true" are texts
    to be shown, and the rest is what :mod:`tasks.compare.metrics` makes scores of.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.numbered = True

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *batch: Any
    ) -> None:
        if not isinstance(outputs, dict) or not outputs:
            return
        self.numbered = self.numbered and "line" in outputs
        columns = [v.tolist() if isinstance(v, Tensor) else list(v) for v in outputs.values()]
        self.rows += [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Without their places, the examples of several processes have no common order.
        if not self.rows or (trainer.world_size > 1 and not self.numbered):
            return
        rows = [{"line": i, **row} for i, row in enumerate(gather(self.rows))]
        if trainer.is_global_zero:
            rows.sort(key=lambda row: (row["line"], row.get("direction", "")))
            folder = folder_of(trainer)
            folder.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            write_text(folder / "outcomes.jsonl", "".join(lines))


def per_step(batches: list[float], trainer: pl.Trainer) -> float | None:
    """Of counts of single batches, that of a step; None where there is none."""
    if not batches:
        return None
    size = trainer.accumulate_grad_batches * trainer.world_size
    return sum(batches) / len(batches) * size


def folder_of(trainer: pl.Trainer) -> Path:
    """The folder of the run, in which its logs lie."""
    return Path(str(trainer.loggers[0].save_dir))


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: what a killed process leaves half written is never read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=2) + "\n")
