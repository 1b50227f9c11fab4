"""Two processes of policy tuning learn what one learns from as many prompts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tasks.cli import main

ROOT = Path(__file__).parents[2]
STACK = {"dim": 16, "depth": 1, "heads": 2, "causal": True, "position": "rotary", "max_tokens": 24}
CONFIG = {
    "model": {
        "class_path": "tasks.PolicyTuning",
        "init_args": {
            "model": {
                "class_path": "family.GPT",
                "init_args": {"config": STACK},
            },
            "scorer": "digits_in_answers.count",
            "samples": 4,
            "max_new_tokens": 3,
            "kl": 0.1,
            "epochs": 2,
            "minibatches": 2,
            "optimizer": "sgd",
            "lr": 0.1,
            "warmup_steps": 0,
            "schedule": "constant",
        },
    },
    "data": {
        "class_path": "tasks.PromptData",
        "init_args": {"view": "sums", "tokenizer": "char", "examples": 64},
    },
    "trainer": {
        "accelerator": "cpu",
        "max_steps": 6,
        "val_check_interval": 6,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "precision": "64-true",
    },
}


SCORER = """
def count(prompts, answers, **fields):
    return [float(sum(c in "13579" for c in answer)) for answer in answers]
"""
"""One of the user's own, by the path of a function."""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_two_processes_learn_what_one_learns(tmp_path, monkeypatch, method):
    """Their shares of prompts together are the batch of one: so are answers, whitening and steps."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "digits_in_answers.py").write_text(SCORER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    fit = ["fit", "--config", str(config), f"--model.method={method}"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=4"]
    ended = subprocess.run(
        [sys.executable, "-m", "tasks.cli", *fit, *two, "--run_folder=two"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    main([*fit, "--trainer.devices=1", "--data.batch_size=8", "--run_folder=one"])
    found = [
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("two", "one")
    ]
    states = [content["state_dict"] for content in found]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=0, atol=1e-9)
    assert any(part["found"]["reward_std"] > 0.1 for part in found[0]["rollouts"])
    index = [[i for part in content["rollouts"] for i in part["index"]] for content in found]
    assert len(found[0]["rollouts"]) == 2 and index[0] == index[1]
