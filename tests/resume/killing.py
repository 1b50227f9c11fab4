"""Runs that are killed at random moments and gone on with, and what each made of every batch.

A run is parsed and its data are made once; each part of it is then a fork that trains, and that a signal ends
at one of its events: where a batch begins, its gradients are there, the optimizer steps, a validation is at
work, a checkpoint is half written, whole but not yet in its place, or just there.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import random
import signal
import sys
import time
import traceback
import zlib
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from tasks.cli.app import FOLDER, FamilyCLI
from tasks.cli.configs import resolve_configs

EVENTS = (
    "on_train_batch_start",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
)
DROPOUT = 0.1
"""Where a config has none."""
LIMIT = 600
"""Seconds in which a part of a run must end."""


def crc(values: Any) -> int:
    """A number for tensors, wherever they are in lists and dictionaries."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().contiguous()
        return zlib.crc32(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(values, dict):
        return zlib.crc32(repr({str(k): crc(v) for k, v in values.items()}).encode())
    if isinstance(values, list | tuple):
        return zlib.crc32(repr([crc(v) for v in values]).encode())
    return zlib.crc32(repr(values).encode()) if isinstance(values, str | int | float) else 0


class Watch(pl.Callback):
    """Writes down what a run does, and ends it at its n-th event by a signal."""

    def __init__(self, file: Path, after: int, number: int) -> None:
        self.file, self.left, self.number = file, after, number
        self.count, self.place = 0, (-1, 0)
        for name in EVENTS:
            if name not in vars(type(self)):  # Lightning's own are there, and do nothing
                setattr(self, name, lambda *_, name=name: self.event(name))

    def event(self, name: str) -> None:
        self.count += 1
        self.left -= 1
        if self.left == 0:
            self.note(killed=name)
            os.kill(os.getpid(), self.number)

    def note(self, **what: Any) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        step, part = self.place
        self.place = (step, part + 1) if step == trainer.global_step else (trainer.global_step, 0)
        self.data = crc(batch)
        self.event("on_train_batch_start")

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *batch: Any) -> None:
        drawn = crc(torch.get_rng_state())
        self.note(at=self.place, data=self.data, loss=float(outputs["loss"]).hex(), drawn=drawn)
        self.event("on_train_batch_end")

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        found = {
            name: float(value).hex()
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        self.note(validated=trainer.global_step, found=found)
        self.event("on_validation_end")


def in_writing(watch: Watch) -> None:
    """Let what is written have its events too."""
    save, replace = torch.save, os.replace

    def saving(value: Any, file: Any, *options: Any, **more: Any) -> None:
        content = io.BytesIO()
        save(value, content, *options, **more)
        whole, half = content.getvalue(), len(content.getvalue()) // 2
        with nullcontext(file) if hasattr(file, "write") else Path(file).open("wb") as opened:
            opened.write(whole[:half])
            opened.flush()
            watch.event("half written")
            opened.write(whole[half:])

    def replacing(*names: Any, **more: Any) -> None:
        watch.event("written")
        replace(*names, **more)
        watch.event("in its place")

    torch.save, os.replace = saving, replacing


class Held(FamilyCLI):
    """``family fit`` up to where it would train: a fork goes on from there, as often as one likes."""

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(resolve_configs(["fit", *arguments]))
        if not (
            self.model.pretrained or self.model.parts
        ):  # which bring what data are prepared with
            self.datamodule.prepare_data()
            self.datamodule.setup("fit")
        self.text = self.resolved  # it takes as long as the training
        adapt = self.model.adapt_model

        def with_dropout() -> None:
            adapt()
            for module in self.model.model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = module.p or DROPOUT
                elif isinstance(getattr(module, "dropout", None), float):
                    module.dropout = module.dropout or DROPOUT

        self.model.adapt_model = with_dropout

    @property
    def resolved(self) -> str:
        return FamilyCLI.resolved_yaml.fget(self)

    @property
    def resolved_yaml(self) -> str:
        return self.text

    def instantiate_trainer(self, **options: Any) -> Any:
        return None

    def _use_checkpoint(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def go(self, folder: Path, source: Path | None, watch: Watch) -> None:
        """Train into a folder, from the last checkpoint of another."""
        os.environ.pop(FOLDER, None)
        for config in (self.config["fit"], self.config_init["fit"]):
            config["run_folder"], config["ckpt_path"] = str(folder), source and str(source)
        self.trainer = FamilyCLI.instantiate_trainer(self)
        self.trainer.callbacks.insert(0, watch)
        FamilyCLI._use_checkpoint(self)
        in_writing(watch)
        FamilyCLI._run_subcommand(self, "fit")


class Part(NamedTuple):
    """What came of one part of a run."""

    folder: Path
    code: int
    """As a shell has it; negative is the signal that ended it."""
    notes: list[dict[str, Any]]
    events: int

    @property
    def last(self) -> Path | None:
        file = self.folder / "checkpoints/last.ckpt"
        return file if file.exists() else None

    @property
    def killed(self) -> str:
        return next((str(n["killed"]) for n in self.notes if "killed" in n), "at some time")


def part_of(
    run: Held,
    folder: Path,
    source: Path | None = None,
    after: int = 0,
    number: int = signal.SIGKILL,
    seconds: float | None = None,
) -> Part:
    """Train in a fork, which the signal ends at its n-th event, or after some time from outside."""
    notes, output = folder.with_suffix(".jsonl"), folder.with_suffix(".txt")
    pid = os.fork()
    if not pid:
        code = 70
        try:
            for stream in (1, 2):
                os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            watch, before = Watch(notes, after, number), set(sys.modules)
            run.go(folder, source, watch)
            watch.note(events=watch.count, imported=[n for n in sys.modules if n not in before])
            code = 0
        except SIGTERMException:
            code = 99  # whoever calls us would see success
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            with output.open("a") as file:
                traceback.print_exc(file=file)
        finally:
            os._exit(code)
    began = time.monotonic()
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        spent = time.monotonic() - began
        if spent > (LIMIT if seconds is None else seconds):
            os.kill(pid, signal.SIGKILL if seconds is None else number)
            seconds = None
            began = time.monotonic()
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(ended[1])
    lines = notes.read_text().splitlines() if notes.exists() else []
    found = [json.loads(line) for line in lines]
    events = next((note["events"] for note in found if "events" in note), 0)
    if code not in (0, -number, 128 + number):
        raise AssertionError(f"{folder} ended with {code}:\n{output.read_text()[-3000:]}")
    return Part(folder, code, found, events)


def state_of(folder: Path, name: str = "last") -> dict[str, int]:
    """Numbers for what a run's checkpoint has of weights, optimizer and schedule, and its step."""
    content = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
    return {part: crc(content[part]) for part in parts}


def metrics_of(folder: Path) -> dict[str, float]:
    """What ``metrics-fit.json`` says, without what is of the clock."""
    return json.loads((folder / "metrics-fit.json").read_text())["metrics"]


def known(notes: list[dict[str, Any]]) -> dict[Any, Any]:
    """By batch and by validation, what was seen there."""
    found = {}
    for note in notes:
        if "at" in note:
            found[tuple(note["at"])] = {name: note[name] for name in ("data", "loss", "drawn")}
        elif "validated" in note:
            found["validated", note["validated"]] = note["found"]
    return found


def unlike(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """What of a batch or a validation is not as it was in the unbroken run, and both values."""
    pairs = {name: (found.get(name), expected.get(name)) for name in {**expected, **found}}
    return "; ".join(f"{name} {a}, not {b}" for name, (a, b) in pairs.items() if a != b)


class Result(NamedTuple):
    kills: int
    where: list[str]
    runs: int
    """How many of them came to their end."""


def killed_and_resumed(
    run: Held, place: Path, kills: int, seed: int, terms: int = 0, timed: int = 0
) -> Result:
    """Kill a run so often, going on each time, and hold all that it does against an unbroken one.

    Args:
        kills: by SIGKILL at its own events, drawn by ``seed``.
        terms: by SIGTERM in their place, of which the exit code must speak.
        timed: by SIGKILL from outside, at any time.
    """
    place.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    whole = part_of(run, place / "whole")
    took = time.monotonic() - began
    assert whole.code == 0
    for name in whole.notes[-1]["imported"]:  # here, and not in each part anew
        with suppress(Exception):
            importlib.import_module(name)
    expected, draw = known(whole.notes), random.Random(seed)
    left = ["kill"] * kills + ["term"] * terms + ["timed"] * timed
    draw.shuffle(left)
    where, runs, number, source = [], 0, 0, None
    while True:
        number += 1
        folder, how = place / f"part{number}", left[-1] if left else "none"
        after = draw.randint(1, max(2, whole.events // 3)) if how in ("kill", "term") else 0
        sent = signal.SIGTERM if how == "term" else signal.SIGKILL
        seconds = draw.uniform(0.1, 0.8) * took if how == "timed" else None
        part = part_of(run, folder, source, after, sent, seconds)
        place_of = f"part {number}, {part.killed}"
        if part.code:
            left.pop()
            where.append(part.killed)
        for key, value in known(part.notes).items():
            assert key in expected, f"{place_of}: {key} is in no unbroken run"
            assert value == expected[key], f"{place_of}: {key}: {unlike(value, expected[key])}"
        if part.code > 0:
            assert part.code == 128 + signal.SIGTERM
        source = part.last or source
        if (folder / "metrics-fit.json").exists():  # be it that it was killed just then
            runs, source = runs + 1, None
            for name in ("last", "best"):
                assert state_of(part.folder, name) == state_of(whole.folder, name), (place_of, name)
            assert metrics_of(part.folder) == metrics_of(whole.folder), place_of
            if not left:
                return Result(len(where), where, runs)
