"""Files as nobody expects them: a folder that is right, and what may happen to it.

A damage is plain values, so that a search shrinks it and shows it. Each is of one of three kinds: to the bytes
of a file, to what its format says (fields of JSON, cells of tables, text in XML, pictures), and to the folder
(what is missing, links, pipes, names).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from odd_pictures import ODD_PICTURES
from odd_texts import BYTES, ENCODINGS, NAMES, RAW, TEXTS, VALUES

Folder = dict[str, bytes]
"""The files below a folder, by their names."""


class Damage(NamedTuple):
    """What is done, to which of the files, where in it, and with what."""

    how: str
    file: int
    place: int
    what: Any = None


# --- To the bytes of a file ---


def at(content: bytes, place: int) -> int:
    return place * len(content) // 1000


def insert(content: bytes, place: int, what: bytes) -> bytes:
    return content[: at(content, place)] + what + content[at(content, place) :]


def overwrite(content: bytes, place: int, what: bytes) -> bytes:
    return content[: at(content, place)] + what + content[at(content, place) + len(what) :]


def truncate(content: bytes, place: int, _: Any) -> bytes:
    return content[: at(content, place)]


def remove(content: bytes, place: int, what: int) -> bytes:
    return content[: at(content, place)] + content[at(content, place) + what :]


def repeat(content: bytes, place: int, what: int) -> bytes:
    begin = at(content, place)
    return content[:begin] + content[begin : begin + what] * 2 + content[begin + what :]


def flip(content: bytes, place: int, what: int) -> bytes:
    some = bytearray(content)
    for i in range(what):
        if some:
            some[(place * (i + 1) * 7919) % len(some)] ^= 1 << (place + i) % 8
    return bytes(some)


def recode(content: bytes, _: int, what: str) -> bytes:
    return content.decode("utf-8", "replace").encode(what, "replace")


def line_ends(content: bytes, _: int, what: str) -> bytes:
    return content.replace(b"\n", what.encode())


# --- To what its format says ---


def field(content: bytes, place: int, what: Any) -> bytes:
    """Another value at a place of JSON, of JSON lines, or in a cell of a table."""
    text = content.decode("utf-8", "surrogateescape")
    return within_json(text, place, ("put", what)) or cell(content, place, plain(what))


def drop(content: bytes, place: int, _: Any) -> bytes:
    """Nothing at such a place."""
    text = content.decode("utf-8", "surrogateescape")
    return within_json(text, place, ("drop",)) or cell(content, place, "")


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def cell(content: bytes, place: int, what: str) -> bytes:
    """Another text between two tabs, commas, marks or line feeds."""
    parts = re.split(r"([\t\n,<>])", content.decode("utf-8", "surrogateescape"))
    parts[place % len(parts)] = what
    return "".join(parts).encode("utf-8", "surrogatepass")


def within_json(text: str, place: int, change: tuple[Any, ...]) -> bytes | None:
    """JSON, or one line of it, changed; None where it is no JSON."""
    lines = [text]
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        lines = text.split("\n")
    try:
        chosen = place % max(1, len(lines) - (lines[-1] == ""))
        tree = [json.loads(lines[chosen])]
    except (ValueError, RecursionError):
        return None
    alter(tree, place // len(lines), change)
    if not tree:
        return None
    try:
        lines[chosen] = json.dumps(tree[0])
    except RecursionError:
        return None
    for mark, raw in RAW.items():
        lines[chosen] = lines[chosen].replace(mark, raw)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def alter(tree: list[Any], place: int, change: tuple[Any, ...]) -> None:
    """Change one of all places of a tree, its root among them."""
    places: list[tuple[Any, Any]] = [(tree, 0)]
    for parent, key in places:
        value = parent[key]
        inner = (
            value
            if isinstance(value, dict)
            else range(len(value))
            if isinstance(value, list)
            else ()
        )
        if len(places) < 5000:
            places += [(value, one) for one in inner]
    parent, key = places[place % len(places)]
    if change[0] == "put":
        parent[key] = change[1]
    else:
        del parent[key]


@functools.cache
def odd(name: str) -> bytes:
    return ODD_PICTURES[name]()


def picture(_: bytes, __: int, what: str) -> bytes:
    return odd(what)


CONTENTS = {
    "insert": (insert, st.sampled_from(BYTES) | st.sampled_from(TEXTS).map(str.encode)),
    "overwrite": (overwrite, st.sampled_from(BYTES)),
    "truncate": (truncate, st.none()),
    "remove": (remove, st.integers(1, 200)),
    "repeat": (repeat, st.integers(1, 5000)),
    "flip": (flip, st.integers(1, 20)),
    "recode": (recode, st.sampled_from(ENCODINGS)),
    "line_ends": (line_ends, st.sampled_from(["\r\n", "\r", "\u2028", "\n\n", " "])),
    "field": (field, st.sampled_from(VALUES) | st.sampled_from(TEXTS)),
    "drop": (drop, st.none()),
    "picture": (picture, st.sampled_from(sorted(ODD_PICTURES))),
}

# --- To the folder ---


def missing(path: Path, _: Any) -> None:
    path.unlink()


def folder(path: Path, _: Any) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path, _: Any) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path, what: str) -> None:
    """To itself, to nothing, to what never ends, to what is no file, or to the folder it is in."""
    path.unlink()
    path.symlink_to({"loop": path.name, "above": ".."}.get(what, what))


def rename(path: Path, what: str) -> None:
    path.rename(path.with_name(what + path.suffix))


def double(path: Path, what: str) -> None:
    shutil.copy(path, path.with_name(what + path.suffix))


def rename_folder(path: Path, what: str) -> None:
    path.parent.rename(path.parent.with_name(what))


def beside(path: Path, what: str) -> None:
    """An empty folder."""
    path.with_name(what).mkdir()


def without_others(path: Path, _: Any) -> None:
    for other in path.parent.iterdir():
        if other.is_file():
            other.unlink()


PLACES = {
    "missing": (missing, st.none()),
    "folder": (folder, st.none()),
    "pipe": (pipe, st.none()),
    "link": (link, st.sampled_from(["loop", "above", "nothing", "/dev/zero", "/dev/null"])),
    "rename": (rename, st.sampled_from(NAMES)),
    "double": (double, st.sampled_from(NAMES)),
    "rename_folder": (rename_folder, st.sampled_from(NAMES)),
    "beside": (beside, st.sampled_from(NAMES)),
    "without_others": (without_others, st.none()),
}


UNDIVIDED = "undivided"
HOW = [UNDIVIDED, *CONTENTS, *["field"] * 12, *["drop"] * 3, *["picture"] * 3, *PLACES]
"""What is within a format is tried most, as it comes furthest."""


@st.composite
def damages(draw: st.DrawFn) -> list[Damage]:
    """One to three."""
    found = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        how = draw(st.sampled_from(HOW))
        what = None if how == UNDIVIDED else draw({**CONTENTS, **PLACES}[how][1])
        found.append(Damage(how, draw(st.integers(0, 40)), draw(st.integers(0, 1000)), what))
    return found


def write(root: Path, files: Folder, chosen: list[Damage]) -> None:
    """The files of a folder, damaged. What cannot be done to one is not done."""
    files = dict(files)
    for one in chosen:
        if one.how == UNDIVIDED:  # what is held out is then a part of training
            files = {name: content for name, content in files.items() if "val" not in name} or files
        if one.how in CONTENTS:
            name = in_turn(files)[one.file % len(files)]
            files[name] = CONTENTS[one.how][0](files[name], one.place, one.what)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    for one in chosen:
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        if one.how in PLACES and paths:
            names = in_turn([str(path) for path in paths])
            with contextlib.suppress(OSError, shutil.SameFileError):
                PLACES[one.how][0](Path(names[one.file % len(names)]), one.what)


def in_turn(names: Iterable[str]) -> list[str]:
    """Every second one of what is no picture, of which there are few."""
    names = sorted(names)
    others = [name for name in names if not name.endswith(".png")] or names
    return [one for i, name in enumerate(names) for one in (name, others[i % len(others)])]


def contents(root: Path) -> Folder:
    """All files below a folder, but those of a test split, which no training reads."""
    found = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return {name: content for name, content in found.items() if not name.startswith("test")}
