"""Every config that is shipped, and every member's arguments, with mistakes in them: a model that can train, or
one sentence."""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
from answers import LONG, SHORT, answered, search
from mutations import changed, texts

import family
import tasks
from family.models.member import build, is_member, plain
from tasks.cli.building import build_task
from tasks.cli.configs import find_config

ROOT = Path(__file__).parents[2] / "configs"
CONFIGS = {
    f"{file.parent.name}/{file.stem}": file
    for file in sorted(ROOT.glob("*/*.yaml"))
    if file.parent.name != "compare"
}
MEMBERS = {
    cls.__name__: cls for cls in (getattr(family, name) for name in dir(family)) if is_member(cls)
}
SMALL = {"examples": 24, "batch_size": 4, "tokens_per_batch": 256, "num_workers": 0}
SECONDS = 60
"""For what builds tokenizers and data, at a tenth of a core."""
SHORTEST = min(CONFIGS, key=lambda name: len(CONFIGS[name].read_text(encoding="utf-8")))
FEW = settings(SHORT, max_examples=2)
SOME = settings(LONG, max_examples=4)
"""Of each config: every one takes a second or more."""
HUNDRED = settings(LONG, max_examples=100)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Nothing is written beside the project, and nothing is asked of the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def small(text: str) -> Any:
    """A config of the built-in data, few of them, on the CPU."""
    tree = yaml.safe_load(text)
    if "data" in tree:  # else it is laid over another
        data = tree["data"]
        known = inspect.signature(getattr(tasks, data["class_path"].rpartition(".")[2])).parameters
        given = {"root": None, **{n: v for n, v in SMALL.items() if n in known}}
        data["init_args"] = {**data.get("init_args", {}), **given}
    tree["trainer"] = {**tree.get("trainer", {}), "accelerator": "cpu", "precision": 32}
    return tree


def begins(content: bytes) -> None:
    """Task, data and model of a config are made, and a batch, or a sentence says why not."""
    Path("config.yaml").write_bytes(content)
    with answered(seconds=SECONDS), contextlib.redirect_stdout(io.StringIO()):
        task, data = build_task(find_config("config.yaml"))
        task.configure_model()
        if not getattr(data, "num_workers", 0):
            next(iter(data.train_dataloader()))


def written(tree: Any) -> bytes:
    return yaml.dump(tree).encode()


def built(cls: Any, arguments: Any) -> None:
    with answered(ValueError):
        build(cls, arguments)


def cases() -> dict[str, Any]:
    found = {}
    for name, file in CONFIGS.items():
        tree = small(file.read_text(encoding="utf-8"))
        found[name] = (lambda tree: begins(written(tree)), changed(tree, depth=3))
    for name, file in CONFIGS.items():
        text = yaml.dump(small(file.read_text(encoding="utf-8")))
        found[f"file {name}"] = (begins, texts(text))
    for name, cls in MEMBERS.items():
        tree = plain(dict(cls.facts.example))
        found[f"member {name}"] = (lambda tree, cls=cls: built(cls, tree), changed(tree))
    return found


@pytest.mark.parametrize(
    "profile", [FEW, pytest.param(HUNDRED, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_of_odd_arguments_is_answered(name, profile):
    tree = plain(dict(MEMBERS[name].facts.example))
    search(lambda arguments: built(MEMBERS[name], arguments), changed(tree), profile)


def test_a_config_that_is_broken_as_a_file_is_answered():
    text = yaml.dump(small(CONFIGS[SHORTEST].read_text(encoding="utf-8")))
    search(begins, texts(text), FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_are_broken_as_files_are_answered(name):
    text = yaml.dump(small(CONFIGS[name].read_text(encoding="utf-8")))
    search(begins, texts(text), SOME)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_with_mistakes_is_answered(name):
    tree = small(CONFIGS[name].read_text(encoding="utf-8"))
    search(lambda tree: begins(written(tree)), changed(tree, depth=3), SOME)
