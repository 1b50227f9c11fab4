"""Imports point one way: nothing in a lower room knows of a higher one, and no files of ours import
each other in a circle. An import inside a function, or for types alone, is an import too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = {"core", "inputs", "heads", "losses", "generation"}
MAY_IMPORT = {
    "family": {
        "core": set(),
        "inputs": {"core"},
        "heads": {"core"},
        "losses": {"core"},
        "generation": {"core", "onednn"},
        "models": PARTS,
        # They meet the contracts of members, and are none: what a member keeps about itself is all
        # that they share with them.
        "baselines": PARTS | {"models.member", "models.encoder_decoder", "models.examples"},
        "adapt": PARTS | {"models"},
        "pretrained": PARTS | {"models", "adapt"},
        "inference": PARTS | {"models", "adapt", "pretrained"},
        "look": PARTS | {"models", "inference"},
    },
    "tasks": {
        "errors": set(),
        "data": {"errors"},
        "evaluation": {"errors", "data"},
        "runs": {"errors", "data"},
        "training": {"errors", "data", "runs"},
        "": {"errors", "data", "runs", "training"},  # the tasks themselves
        "cli": {"errors", "data", "runs", "training", "", "commands.__init__"},
        "compare": {"errors", "data", "runs", "training", "", "cli"},
        "serve": {"errors", "data", "runs", "training"},
        "commands": {
            *("errors", "data", "evaluation", "runs", "training", "", "cli", "compare", "serve"),
        },
    },
}
"""What each room may import beside itself: whole rooms, or one module of a room."""
OUTSIDE = {
    "family": {"lightning", "pytorch_lightning", "jsonargparse", "tasks"},
    "tasks": set(),
}


@cache
def sources() -> dict[str, Path]:
    """Our modules by their dotted names; a package's own file ends in ``.__init__``."""
    files = [path for part in MAY_IMPORT for path in sorted((ROOT / part).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


@cache
def public(package: str) -> dict[str, str]:
    """The names that a package shows -> the modules that they come from, by its stub."""
    tree = ast.parse((ROOT / package / "__init__.pyi").read_text("utf-8"))
    return {
        alias.name: f"{package}.{node.module}" if node.module else f"{package}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def resolved(name: str) -> str:
    """The module of ours that a dotted name lies in; what is not ours as it is."""
    package, _, rest = name.partition(".")
    if package in MAY_IMPORT and rest.partition(".")[0] in public(package):
        shown = rest.partition(".")[0]
        behind = rest.partition(".")[2]
        name = ".".join(filter(None, (public(package)[shown], behind)))
    for module in (name, f"{name}.__init__", name.rpartition(".")[0]):
        if module in sources():
            return module
    return f"{name.rpartition('.')[0]}.__init__" if package in MAY_IMPORT else name


def imported(path: Path) -> set[str]:
    """What a file imports: ours as modules, the rest as it is called."""
    names: set[str] = set()
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package = node.value.id
            if package in MAY_IMPORT and node.attr in public(package):
                names.add(f"{package}.{node.attr}")  # family.GPT
    return {resolved(name) for name in names}


@cache
def graph() -> dict[str, set[str]]:
    return {module: imported(path) - {module} for module, path in sources().items()}


def room_of(module: str) -> tuple[str, str]:
    """Package and room; the room of the modules at a package's top is ""."""
    package, *middle, last = module.split(".")
    if not middle and last == "errors":
        return package, last
    return package, middle[0] if middle else ""


@pytest.mark.parametrize("module", sorted(sources()))
def test_imports_point_down(module):
    package, room = room_of(module)
    found = graph()[module]
    assert not {name.split(".")[0] for name in found} & OUTSIDE[package]
    if package == "family" and not room:
        return  # what stands beside the rooms: accelerate.py, onednn.py, tiles.py
    rooms = MAY_IMPORT[package][room] | {room}
    for name in found:
        if name.split(".")[0] != package or name == f"{package}.__init__":
            continue
        other = room_of(name)[1]
        allowed = (
            other in rooms
            or name.partition(".")[2] in rooms
            or name in ("family.checks", "family.files")
        )
        assert allowed, f"imports {name}"


def circles(imports: dict[str, Iterable[str]]) -> Iterator[list[str]]:
    """Files that reach each other, by Tarjan's strongly connected components."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(module: str) -> Iterator[list[str]]:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in sorted(imports[module]):
            if other not in imports:
                continue
            if other not in order:
                yield from visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], order[other])
        if lowest[module] == order[module]:
            at = stack.index(module)
            circle = stack[at:]
            del stack[at:]
            if len(circle) > 1:
                yield sorted(circle)

    for module in imports:
        if module not in order:
            yield from visit(module)


def test_no_files_import_each_other_in_a_circle():
    assert list(circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]})) == [["b", "c"]]
    assert list(circles(graph())) == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_the_package_imports_no_torch_until_a_name_is_used(package):
    code = f"import sys, {package}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
