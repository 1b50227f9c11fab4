"""Imports point one way: nothing in a lower room knows of a higher one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FAMILY = Path(__file__).parent.parent / "family"
MAY_IMPORT = {
    "core": set(),
    "inputs": {"core"},
    "heads": {"core"},
    "losses": {"core"},
    "generation": {"core"},
    "models": {"core", "inputs", "heads", "losses", "generation"},
}
OUTSIDE = {"lightning", "pytorch_lightning", "jsonargparse", "tasks"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", sorted(FAMILY.rglob("*.py")), ids=lambda p: p.stem)
def test_imports_point_down(path):
    names = imported(path)
    assert not {name.split(".")[0] for name in names} & OUTSIDE
    if path.parent == FAMILY:
        return
    room = path.relative_to(FAMILY).parts[0]
    rooms = {name.split(".")[1] for name in names if name.startswith("family.")}
    assert rooms <= MAY_IMPORT[room] | {room}
