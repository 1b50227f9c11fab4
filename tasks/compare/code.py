"""Which code, and what files: as a commit, or as hashes."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

CODE = Path(__file__).parents[2]
LARGEST = 1 << 28
"""Bytes of data up to which all of it is hashed; beyond, names and sizes stand for contents."""


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


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_hash(files: list[Path], root: Path) -> str:
    """Of names and contents; of names and sizes alone where there is too much to read."""
    whole = sum(file.stat().st_size for file in files) <= LARGEST
    found = hashlib.sha256()
    for file in files:
        found.update(str(file.relative_to(root)).encode())
        found.update(file.read_bytes() if whole else str(file.stat().st_size).encode())
    kind = "" if whole else f" (names and sizes of {len(files)} files)"
    return found.hexdigest()[:16] + kind
