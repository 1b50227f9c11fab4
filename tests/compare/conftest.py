"""A comparison small enough to be run for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

SMALL = {"dim": 16, "depth": 1, "heads": 2, "ffn_dim": 32, "dropout": 0.2}
CONTENT = {
    "base": "text_classification/shapes",
    "variants": {
        "a": {"model.init_args.model.init_args.config": SMALL},
        "b": {"model.init_args.model.init_args.config": SMALL},
    },
    "budget": {"steps": 60},
    "seeds": [0, 1],
    "validations": 3,
    "test": True,
}
OPTIONS = ["--data.examples=400", "--data.batch_size=16", "--trainer.accelerator=cpu"]


@pytest.fixture
def comparison(tmp_path, monkeypatch):
    """Writes a comparison's file; returns the arguments of ``family`` that run it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def write(folder: str = "made", **changes: Any) -> list[str]:
        Path("some.yaml").write_text(yaml.safe_dump(CONTENT | changes))
        return ["compare", "--config=some.yaml", f"--folder={folder}", *OPTIONS]

    return write


def results(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "results.json").read_text("utf-8"))


@pytest.fixture(name="results")
def read_results():
    return results
