"""Every command with arguments that nobody expects: it works, or ends with a code and a sentence."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from answers import LONG, SHORT, search, within

from tasks.cli import main
from tasks.commands import COMMANDS, TRAINING

for module in ("tasks.cli.building", "tasks.compare.trial", "tasks.evaluation.harness"):
    with contextlib.suppress(ModuleNotFoundError):  # an extra is not there: that is an answer too
        importlib.import_module(module)  # what takes long is no part of an answer
FIXTURES = Path(__file__).parents[1] / "fixtures"
SOURCES = [
    str(place) for place in sorted(FIXTURES.glob("*/*")) if (place / "expected.pt").is_file()
]
FILES = [
    *(
        "empty.txt",
        "empty.png",
        "empty.csv",
        "empty.jsonl",
        "empty.json",
        "empty.yaml",
        "empty.ckpt",
    ),
    *(
        "a.txt",
        "a.csv",
        "a.jsonl",
        "a.json",
        "a.png",
        "cut.png",
        "latin.txt",
        "binary.csv",
        "wide.tsv",
    ),
    *(
        "folder",
        "folder/",
        "pipe",
        "pipe.txt",
        "pipe.png",
        "pipe.yaml",
        "pipe.json",
        "nowhere.txt",
        "itself.png",
    ),
    *(
        "missing.txt",
        "missing.png",
        "missing/x.json",
        "none.yaml",
        "with space.txt",
        "-dash.txt",
        "/proc/x",
        ".",
    ),
]
ODD = [
    *(
        "",
        " ",
        "x",
        "-",
        "--",
        "-1",
        "0",
        "1",
        "2",
        "3",
        "1000000000000",
        "nan",
        "inf",
        "1e-3",
        "é",
        "a\nb",
        "\udcff",
    ),
    *(
        "two red circles",
        "a" * 5000,
        "../..",
        "null",
        "[1",
        "{}",
        "%s",
        "\x01",
        "cpu",
        "cuda:99",
        "meta",
        "en",
        "jsonl",
    ),
]
PATHS = st.sampled_from(FILES)
WORDS = st.sampled_from(ODD)
SECONDS = 60
FEW = settings(SHORT, max_examples=2)
MANY = settings(LONG, max_examples=40)


class SeenError(Exception):
    """Instead of an answer: the parser that would have read the arguments."""


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command, as it stands before it reads."""

    def stop(self: Any, *_: Any, **__: Any) -> Any:
        raise SeenError(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        try:
            importlib.import_module(f"tasks.commands.{COMMANDS[command].module}").run(["x"])
        except SeenError as seen:
            return seen.args[0]
    raise AssertionError(f"family {command} reads no arguments")


@st.composite
def arguments_of(draw: Any, command: str) -> list[str]:
    """Arguments that a command has, with values that fit or not, and now and then others."""
    if command in TRAINING:
        return draw(training(command))
    found: list[str] = []
    for action in parser_of(command)._actions:
        if action.dest == "help":
            continue
        wanted = action.required or not action.option_strings
        if not draw(st.sampled_from([True] * 9 + [False] if wanted else [True, False, False])):
            continue
        name = [draw(st.sampled_from(action.option_strings))] if action.option_strings else []
        count = 0 if action.nargs == 0 else draw(st.sampled_from([1, 1, 1, 2]))
        if action.nargs is None:
            count = 1
        values = [draw(value_of(action)) for _ in range(count)]
        found += name + values
    return found + draw(st.sampled_from([[]] * 6 + [["--unknown"], ["--unknown=3"], ["x"], ["-"]]))


def value_of(action: argparse.Action) -> Any:
    """What may be given to an argument: what it takes, more often, or anything."""
    if action.choices:
        return st.sampled_from([*map(str, action.choices)] * 3) | WORDS
    if action.dest in ("source", "checkpoint", "ckpt"):
        return st.sampled_from(SOURCES * 2 + FILES)
    if action.type in (int, float):
        return st.integers(1, 5).map(str) | WORDS
    return st.one_of(PATHS, PATHS, WORDS)


@st.composite
def training(draw: Any, command: str) -> list[str]:
    """A run, a config or a checkpoint, and options."""
    found = [draw(st.sampled_from(SOURCES + FILES))] if draw(st.booleans()) else []
    for name in draw(
        st.lists(
            st.sampled_from(
                ["config", "ckpt_path", "run_folder", "data", "model.lr", "trainer.max_steps", "x"]
            ),
            max_size=3,
        )
    ):
        value = draw(
            st.sampled_from(SOURCES) | PATHS | WORDS if name == "ckpt_path" else PATHS | WORDS
        )
        found += draw(st.sampled_from([[f"--{name}={value}"], [f"--{name}", value], [f"--{name}"]]))
    return found


def lay_out() -> None:
    """The files that arguments name."""
    for name in FILES:
        if name.startswith("empty"):
            Path(name).touch()
    Path("a.txt").write_text("two red circles\n\na blue star\n")
    Path("with space.txt").write_text("x\n")
    Path("a.csv").write_text("text,label\na red circle,good\n,bad\n")
    Path("wide.tsv").write_text("a\tb\tc\n1\t2\n" + "x\t" * 1000)
    Path("a.jsonl").write_text('{"text": "a", "question": "b", "context": "c"}\n{}\n')
    Path("a.json").write_text('{"data": [{}]}')
    Path("latin.txt").write_bytes("é".encode("latin-1"))
    Path("binary.csv").write_bytes(bytes(range(256)))
    Image.new("RGB", (20, 20)).save("a.png")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:40])
    Path("folder").mkdir()
    for name in FILES:
        if name.startswith("pipe"):
            os.mkfifo(name)
    Path("nowhere.txt").symlink_to("nothing")
    Path("itself.png").symlink_to("itself.png")


def ends(command: str, arguments: list[str]) -> None:
    """A command with these arguments prints an answer, or leaves with a code and a sentence."""
    said, code = io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        within(SECONDS),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"two red circles\n")))
        try:
            main([command, *arguments])
        except SystemExit as stopped:
            code = stopped.code
    assert code in (0, 1, 2) and "Traceback" not in said.getvalue()
    assert code == 0 or (code == 1 and command == "check") or said.getvalue().strip()


def cases() -> dict[str, Any]:
    return {n: (lambda a, n=n: ends(n, a), arguments_of(n)) for n in [*COMMANDS, *TRAINING]}


prepare = lay_out


def tried() -> list[Any]:
    """Commands and profiles; LightningCLI's own take seconds each."""
    few = [pytest.param(name, FEW, id=f"{name}-few") for name in COMMANDS]
    many = [
        pytest.param(name, MANY, id=f"{name}-many", marks=pytest.mark.slow)
        for name in (*COMMANDS, *TRAINING)
    ]
    return few + many


@pytest.mark.parametrize(("command", "profile"), tried())
def test_a_command_of_odd_arguments_ends_well(command, profile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    lay_out()
    search(lambda arguments: ends(command, arguments), arguments_of(command), profile)
