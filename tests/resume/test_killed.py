"""A run that is killed at any moment, as often as one likes, goes on as if it never was."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import zlib
from pathlib import Path

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from killing import Held, killed_and_resumed
from shipped import CONFIGS, ROOT, command_of, options_of, stand_ins

KILLS, TIMED, TERMS = 16, 4, 2
"""Of each family: by SIGKILL at an event and at a time, and by SIGTERM."""
RUN = (
    "--trainer.max_steps=4",
    "--trainer.max_epochs=null",
    "--trainer.accumulate_grad_batches=2",
    "--trainer.check_val_every_n_epoch=null",
    "--trainer.val_check_interval=3",  # every other one in the midst of a step
    "--trainer.limit_val_batches=2",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.log_every_n_steps=2",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)


def families() -> list[str]:
    """A config of each task with each kind of model, those of the built-in world first."""
    found: dict[tuple[str, ...], str] = {}
    for file in sorted(CONFIGS, key=lambda file: (not file.stem.startswith("shapes"), file)):
        task = yaml.safe_load(file.read_text(encoding="utf-8")).get("model") or {}
        given = task.get("init_args", {})
        model = (given.get("model") or {}).get("class_path", "")
        key = task.get("class_path", ""), model, str(bool(given.get("generator")))
        # Sources stand for a member that the task has as its own.
        if key[0] and (model or key[0] not in {task for task, *_ in found}):
            found.setdefault(key, f"{file.parent.name}/{file.stem}")
    return list(found.values())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A process that was forked has none of its parent's threads, and would wait for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return stand_ins(tmp_path_factory.mktemp("sources"))


def held(name: str, sources: dict[str, str], place: Path) -> Held:
    """A shipped config as it is run here, of at most two layers and small batches."""
    command = command_of(ROOT / f"{name}.yaml")
    first, *over = (str(ROOT / f"{one}.yaml") for one in re.findall(r"--config (\S+)", command))
    text = Path(first).read_text(encoding="utf-8")
    options = options_of(text, command, sources)
    options += ["--data.batch_size=4"] * ("--data.batch_size=8" in options)
    options += ["--data.tokens_per_batch=256"] * ("--data.tokens_per_batch=512" in options)
    small = place / "config.yaml"
    small.write_text(re.sub(r"(\bdepth: )\d+", r"\g<1>2", text), encoding="utf-8")
    return Held([f"--config={file}" for file in (small, *over)] + [*options, *RUN])


@pytest.mark.parametrize("family", ["text_classification/shapes_lstm"])
def test_one_that_is_killed_and_one_that_is_told_to_leave(family, tmp_path):
    found = killed_and_resumed(held(family, {}, tmp_path), tmp_path / "runs", 1, 2, 1)
    assert len(found.where) == 2


@pytest.mark.slow
@pytest.mark.parametrize("family", families())
def test_twenty_kills_of_each_family(family, sources, tmp_path):
    began = time.monotonic()
    run = held(family, sources, tmp_path)
    seed = zlib.crc32(family.encode())
    found = killed_and_resumed(run, tmp_path / "runs", KILLS, seed, TERMS, TIMED)
    assert len(found.where) == KILLS + TERMS + TIMED
    if place := os.environ.get("KILLED"):  # a file for a table of what was tried
        record = {"family": family, "seconds": time.monotonic() - began, **found._asdict()}
        with open(place, "a") as file:
            file.write(json.dumps(record) + "\n")
