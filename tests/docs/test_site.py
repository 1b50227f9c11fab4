"""What the site shows as Python runs; its commands and configs are ones that there are."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest
import yaml

import tasks
from family.look.views import READERS
from tasks.cli.configs import find_config
from tasks.commands import COMMANDS, TRAINING
from tasks.serve.served import ACTIONS, SEEN

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMES = [page.stem for page in PAGES]


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks(page, "python")), str(page), "exec"), {"__name__": page.stem})


def test_the_table_of_what_is_shown_has_every_task():
    rows = re.findall(r"^\| (`.*?) \|(.*?)\|(.*?)\|(.*)\|$", read("looking.md"), re.MULTILINE)
    shown, asked, lit = dict[str, str](), dict[str, set[str]](), dict[str, str]()
    for names, looks, actions, below in rows:
        for name in re.findall(r"`(\w+)`", names):
            shown[name], lit[name] = looks.strip(), below.strip()
            asked[name] = {*re.findall(r"`(\w+)`", actions)}
    assert {name for name, said in shown.items() if said} == set(READERS)
    assert {name: found for name, found in asked.items() if found} == {
        name: set(actions) for name, actions in ACTIONS.items()
    }
    assert set(SEEN) <= {name for name, said in lit.items() if said}


def read(name):
    return (ROOT / "docs" / name).read_text("utf-8")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=[*NAMES, "README"])
def test_commands_of_a_page_are_there(page):
    lines = "\n".join(blocks(page, ""))
    for command in re.findall(r"\bfamily ([a-z_]+)", lines):
        assert command in {*COMMANDS, *TRAINING}, command
    for config in re.findall(r"--config ([a-z_]+/[a-z_0-9]+)", lines):
        find_config(config)


def test_every_task_and_member_has_its_notes_and_no_other():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from pages import formulas, members, task_names
    finally:
        sys.path.pop(0)
    notes = ROOT / "docs/notes"
    assert {page.stem for page in notes.glob("*.md")} == {*task_names()}
    assert {page.stem for page in notes.glob("members/*.md")} == {*members()}
    assert "$$" in formulas("GPT") and not formulas("Nobody")
    for page in notes.glob("*.md"):
        lines = page.read_text("utf-8").splitlines()
        assert lines[0] == "## When it does not learn" and sum(x[:2] == "- " for x in lines) >= 3


def test_notes_name_options_that_there_are():
    """``model.x`` and ``data.x`` of a task's notes are arguments of a config of the task, or of its data."""
    for page in sorted((ROOT / "docs/notes").glob("*.md")):
        task, data = classes_of(page.stem)
        text = page.read_text("utf-8")
        for kind, cls in (("model", task), ("data", data)):
            known = options_of(cls)
            for name in re.findall(rf"(?<![\w.]){kind}\.([a-z_]+)", text):
                assert name in known, f"{page.name}: {kind}.{name}"


def classes_of(task):
    """The classes of a task's first config."""
    config = next(iter(sorted((ROOT / "configs" / task).glob("*.yaml"))))
    made = yaml.safe_load(config.read_text("utf-8"))
    names = (made[part]["class_path"].rpartition(".")[2] for part in ("model", "data"))
    return tuple(getattr(tasks, name) for name in names)


def options_of(cls):
    """The arguments of a class and of those that it hands ``**options`` on to."""
    return {name for one in cls.__mro__ for name in inspect.signature(one.__init__).parameters}
