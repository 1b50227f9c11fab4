"""What config, data and code a comparison was made with, as hashes."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tasks.compare.code import CODE, code_version, digest, files_hash
from tasks.compare.config import get
from tasks.compare.plan import Plan


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


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


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
