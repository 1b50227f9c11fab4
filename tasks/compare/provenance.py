"""What config, data and code a comparison was made with, as hashes."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tasks.compare.config import get

if TYPE_CHECKING:
    from tasks.compare.plan import Plan

CODE = Path(__file__).parents[2]
LARGEST = 1 << 28
"""Bytes of data up to which all of it is hashed; beyond, names and sizes stand for contents."""


def provenance(plan: Plan, folder: Path, codes: list[str]) -> dict[str, Any]:
    """Hashes of config, data and code, versions, and the command that repeats the comparison.

    Args:
        codes: what :func:`code_version` gave in the runs.
    """
    file = folder / "command.txt"
    data = {
        name: json.dumps(variant.config.get("data"), sort_keys=True, default=str)
        for name, variant in plan.variants.items()
    }
    hashes = {text: data_hash(json.loads(text) or {}) for text in set(data.values())}
    return {
        "command": file.read_text("utf-8").strip() if file.is_file() else "",
        "config": digest(json.dumps(asdict(plan), sort_keys=True)),
        "data": {name: hashes[text] for name, text in data.items()},
        "code": " and ".join(dict.fromkeys(codes)) or code_version(),
        "versions": {
            name: installed(name) for name in ("torch", "pytorch-lightning", "numpy", "sacrebleu")
        }
        | {"python": platform.python_version()},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def code_version() -> str:
    """The git commit of a checkout, and whether it was changed since; else a hash of the packages."""
    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", "family", "tasks")
    except (OSError, subprocess.CalledProcessError):
        return f"packages {package_hash()}"
    return f"commit {commit[:12]}" + (f", changed since: {package_hash()}" if changed else "")


def git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(CODE), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def package_hash() -> str:
    """Of every Python file of family and tasks."""
    files = sorted(f for part in ("family", "tasks") for f in (CODE / part).rglob("*.py"))
    return files_hash(files, CODE)


def data_hash(data: dict[str, Any]) -> str:
    """Of the files under ``root``; of the generator and its options where the data are built in."""
    root = get(data, "init_args.root")
    if root is None:
        source = (CODE / "tasks" / "data" / "shapes.py").read_text("utf-8")
        return f"built in, {digest(source + json.dumps(data, sort_keys=True))}"
    path = Path(root)
    if not path.exists():
        return f"{root}, not at this place"
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    files = [f for f in files if ".cache" not in f.parts]
    return files_hash(files, path if path.is_dir() else path.parent)


def files_hash(files: list[Path], root: Path) -> str:
    """Of names and contents; of names and sizes alone where there is too much to read."""
    whole = sum(file.stat().st_size for file in files) <= LARGEST
    found = hashlib.sha256()
    for file in files:
        found.update(str(file.relative_to(root)).encode())
        found.update(file.read_bytes() if whole else str(file.stat().st_size).encode())
    kind = "" if whole else f" (names and sizes of {len(files)} files)"
    return found.hexdigest()[:16] + kind
