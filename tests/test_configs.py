"""Every config that is shipped runs, on the built-in data, into the corners of the libraries that it uses."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from shipped import BRIEF, CONFIGS, ROOT, SEEN, command_of, options_of, stand_ins

from tasks.cli.building import build_task
from tasks.training.problem import monitor_of

BY_METRIC = ("image_text", "policy_tuning", "sentence_embedding")
"""Tasks that validate by their metrics alone: a contrast depends on the batch, and a reward is no loss. So do
detectors with a loss of their own, which they have in training alone."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return stand_ins(tmp_path_factory.mktemp("sources"))


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_shipped_configs_run(config, sources, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = command_of(config)
    first, *over = (str(ROOT / f"{name}.yaml") for name in re.findall(r"--config (\S+)", command))
    text = Path(first).read_text(encoding="utf-8")
    options = [*(f"--config={file}" for file in over), *options_of(text, command, sources)]
    task, data = build_task(first, [*options, *BRIEF])
    seen = 0
    for batch in data.train_dataloader():
        seen += max(len(value) for value in batch.values() if isinstance(value, torch.Tensor))
        if seen >= SEEN:
            break
    task.trainer.fit(task, datamodule=data)
    found, watched = task.trainer.callback_metrics, ["train/loss", monitor_of(task, data)[0]]
    if config.parent.name not in BY_METRIC and getattr(task, "own_loss", None) is None:
        watched.append("val/loss")
    assert task.trainer.global_step == 2
    assert all(torch.isfinite(found[name]) for name in watched)
