"""Checkpoints and published folders that are cut, changed or put together wrongly: a model, or one sentence."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from answers import LONG, SHORT, answered, search
from mutations import changed, texts

from family import load  # what it imports is no part of an answer

FIXTURES = Path(__file__).parents[1] / "fixtures"
SOURCES = {
    f"{place.parent.name}/{place.name}": place
    for place in sorted(FIXTURES.glob("*/*"))
    if place.is_dir() and place.parent.name in ("folders", "runs")
}
FEW = settings(SHORT, max_examples=2)
MANY = settings(LONG, max_examples=60)
BEYOND = [[1.0], "x", None, float("nan"), {"a": torch.ones(2)}, torch.ones(3), torch.ones(2, 2)]
ODD_TENSORS = [
    *(
        lambda t: t[:1] if t.dim() else t,
        lambda t: t[..., None],
        lambda t: t.long(),
        lambda t: t.bool(),
        lambda t: t.half(),
    ),
    *(
        lambda t: t * torch.nan,
        lambda t: t.reshape(-1),
        lambda t: torch.zeros(0),
        lambda t: t.double(),
    ),
    *(
        lambda t: t.to(torch.float8_e4m3fn),
        lambda t: t.to(torch.complex64),
        lambda t: torch.tensor(1.0),
    ),
]


class Runs:
    """What a pickle must not do."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


@st.composite
def broken(draw: Any, source: Path) -> list[tuple[Any, ...]]:
    """What is to be done to the files of a source: the file, how, and with what."""
    files = [
        file.relative_to(source)
        for file in sorted(source.rglob("*"))
        if file.is_file() and file.name != "expected.pt"
    ]
    done = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        name = draw(st.sampled_from(files))
        whole = (source / name).read_bytes()
        ways = ["bytes", "place", "bytes"]
        if name.suffix == ".json":
            ways = ["tree"] * 8 + ["text", "place"]
        elif name.suffix == ".safetensors":
            ways += ["header"] * 3 + ["tensors"] * 3
        elif name.suffix in (".ckpt", ".bin"):
            ways += ["pickle", "content", "content", "content"]
        way = draw(st.sampled_from(ways))
        at = st.integers(0, max(0, len(whole) - 1))
        if way == "tree":
            what = draw(changed(json.loads(whole)))
        elif way == "text":
            what = draw(texts(whole.decode()))
        elif way == "bytes":
            cut, flipped = draw(at), draw(st.lists(at, max_size=5))
            what = draw(
                st.sampled_from(
                    [whole[:cut], bytes(flip(whole, flipped)), whole + whole[:cut], b""]
                )
            )
        elif way == "header":
            size = struct.unpack("<Q", whole[:8])[0]
            header = draw(changed(json.loads(whole[8 : 8 + size]), depth=2))
            written = json.dumps(header).encode()
            told = draw(st.sampled_from([len(written)] * 4 + [0, 2**40, 2**63, len(written) + 9]))
            what = struct.pack("<Q", told) + written + whole[8 + size :]
        elif way == "tensors":
            what = draw(
                st.tuples(st.integers(0, 10**6), st.sampled_from(["drop", "add", *ODD_TENSORS]))
            )
        elif way == "pickle":
            what = draw(
                st.sampled_from(
                    [Runs(), {"state_dict": Runs()}, {"state_dict": {"a": Runs()}}, *BEYOND]
                )
            )
        elif way == "content":
            content = torch.load(source / name, weights_only=True)
            bare = {key: content[key] for key in ("family", "state_dict") if key in content}
            what = draw(changed(bare, depth=3))
        else:
            what = draw(st.sampled_from(["folder", "pipe", "nowhere", "gone", "itself", "zero"]))
        done.append((name, way, what))
    return done


def flip(whole: bytes, places: list[int]) -> bytearray:
    found = bytearray(whole)
    for at in places:
        if found:
            found[at] ^= 0x41
    return found


def apply(file: Path, way: str, what: Any) -> None:
    """Break a file."""
    if way == "tree":
        file.write_text(json.dumps(what))
    elif way == "tensors":
        number, how = what
        try:
            state = load_file(file)
        except SafetensorError:
            return  # broken before
        name = sorted(state)[number % len(state)]
        if how == "drop":
            del state[name]
        elif how == "add":
            state[f"{name}s"] = torch.ones(2)
        else:
            state[name] = how(state[name])
        save_file({n: v.contiguous().clone() for n, v in state.items()}, file, {"format": "pt"})
    elif way == "pickle":
        torch.save(what, file)
    elif way == "content":
        try:
            torch.save(what, file)
        except (UnicodeEncodeError, pickle.PicklingError, RecursionError):
            return
    elif way == "place":
        file.unlink()
        if what == "folder":
            file.mkdir()
        elif what == "pipe":
            os.mkfifo(file)
        elif what != "gone":
            file.symlink_to({"nowhere": "nothing", "itself": file.name, "zero": "/dev/zero"}[what])
    else:
        file.write_bytes(what)


def loads(source: Path, changes: list[tuple[Any, ...]]) -> None:
    """A source with these changes is loaded, and its texts are encoded, or a sentence says why not."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "source"
        shutil.copytree(source, folder)
        for name, way, what in changes:
            if (folder / name).is_file() and not (folder / name).is_symlink():
                apply(folder / name, way, what)
        with answered(ValueError):
            loaded = load(folder)
            if loaded.tokenizer is not None:
                loaded.tokenizer.decode(loaded.tokenizer.encode("two red circles"))
        assert not Path("executed").exists()


def cases() -> dict[str, Any]:
    return {n: (lambda c, p=p: loads(p, c), broken(p)) for n, p in SOURCES.items()}


@pytest.mark.parametrize(
    "profile", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("name", SOURCES)
def test_a_broken_source_is_answered(name, profile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search(lambda changes: loads(SOURCES[name], changes), broken(SOURCES[name]), profile)
