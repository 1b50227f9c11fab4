"""Imports point one way: nothing in a lower room knows of a higher one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FAMILY = Path(__file__).parent.parent / "family"
PARTS = {"core", "inputs", "heads", "losses", "generation"}
MAY_IMPORT = {
    "core": set(),
    "inputs": {"core"},
    "heads": {"core"},
    "losses": {"core"},
    "generation": {"core"},
    "models": PARTS,
    # They meet the contracts of members, and are none: what a member keeps about itself is all that
    # they share with them.
    "baselines": PARTS | {"models.member", "models.encoder_decoder"},
    "pretrained": PARTS | {"models"},
    "look": {"core"},
}
"""What each room may import: whole rooms, or one module of a room."""
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
    ours = {name for name in names if name.split(".")[0] == "family"}
    if room == "pretrained":
        ours.discard("family")  # what we saved is any class that the package shows
    allowed = tuple(f"family.{place}." for place in MAY_IMPORT[room] | {room, "checks"})
    assert not [name for name in ours if not f"{name}.".startswith(allowed)]
