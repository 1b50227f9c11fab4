"""What the site shows as Python runs; its commands and configs are ones that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.cli.configs import find_config
from tasks.commands import COMMANDS, TRAINING

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMES = [page.stem for page in PAGES]


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks(page, "python")), str(page), "exec"), {"__name__": page.stem})


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=[*NAMES, "README"])
def test_commands_of_a_page_are_there(page):
    lines = "\n".join(blocks(page, ""))
    for command in re.findall(r"\bfamily ([a-z_]+)", lines):
        assert command in {*COMMANDS, *TRAINING}, command
    for config in re.findall(r"--config ([a-z_]+/[a-z_0-9]+)", lines):
        find_config(config)
