"""What is written is whole or not there, whoever is killed and however full the disk is."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from contextlib import contextmanager

import pytest
import torch
from PIL import Image

import family
from family.files import whole, write_bytes, write_picture, write_text
from family.pretrained.saved import write_weights
from tasks.cli import main
from tasks.commands.results import Results
from tasks.errors import UserError
from tasks.runs.tables import write_table

LARGE = 20_000
"""Bytes, more than a disk has room for here."""
ROOM = 1_000


@contextmanager
def full_disk(room=ROOM):
    """No file may be larger; that is what a write sees of a full disk, but for the number of the error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def table(file):
    write_table(file, [{"text": "x" * LARGE}])


def answers(file):
    with Results(None, file) as results:
        for _ in range(LARGE // 10):
            results.write({}, "an answer.")


def picture(file):
    write_picture(file, Image.frombytes("L", (200, 100), os.urandom(LARGE)))


WRITERS = {
    "text.txt": lambda file: write_text(file, "x" * LARGE),
    "bytes.bin": lambda file: write_bytes(file, b"x" * LARGE),
    "weights.safetensors": lambda file: write_weights({"a": torch.zeros(LARGE)}, file),
    "weights.bin": lambda file: write_weights({"a": torch.zeros(LARGE)}, file),
    "weights.pth": lambda file: write_weights({"a": torch.zeros(LARGE)}, file),
    "table.csv": table,
    "answers.txt": answers,
    "picture.png": picture,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_by_the_name_of_the_file_and_the_old_one_stays(name, tmp_path):
    file = tmp_path / name
    file.write_bytes(b"old")
    with full_disk(), pytest.raises(OSError) as caught:
        WRITERS[name](file)
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(file)
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]
    WRITERS[name](file)
    assert file.stat().st_size > 3 and list(tmp_path.iterdir()) == [file]


def test_who_is_killed_in_writing_leaves_the_old_file_and_nothing_that_is_in_the_way(tmp_path):
    file = tmp_path / "a.ckpt"
    file.write_text("old")
    if not (child := os.fork()):
        with whole(file) as new:
            new.write_text("ne")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert file.read_text() == "old"
    assert [left.name for left in tmp_path.iterdir() if left != file] == [".a.ckpt.new"]
    assert list(tmp_path.rglob("*.ckpt")) == [file]  # as checkpoints are looked for
    write_text(file, "new")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]


def test_what_is_no_plain_file_is_written_through(tmp_path):
    file, link = tmp_path / "there/a.txt", tmp_path / "link.txt"
    file.parent.mkdir()
    file.write_text("old")
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink() and file.read_text() == "new"
    write_text("/dev/null", "new")
    assert not os.path.isfile("/dev/null")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "new")
    assert os.read(reading, 9) == b"new"


def test_answers_of_before_a_mistake_are_kept(tmp_path):
    with pytest.raises(ValueError, match="broken"), Results(None, tmp_path / "a.txt") as results:
        results.write({}, "one")
        raise ValueError("broken")
    assert (tmp_path / "a.txt").read_text() == "one\n"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    "format", ["safetensors", pytest.param("torch-export", marks=pytest.mark.slow)]
)
def test_an_export_to_a_full_disk_leaves_nothing(format, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    family.save_pretrained(family.BERT(**family.BERT.facts.example), "bert")
    with full_disk(), pytest.raises(SystemExit) as ended:
        main(["export", "bert", "--format", format, "--out", "out"])
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(said) == 1
    assert "File too large" in said[0] and " out" in said[0]
    assert not (tmp_path / "out").exists()


def test_a_mistake_leaves_the_answers_of_before(tmp_path, capsys):
    file = tmp_path / "a.jsonl"
    with Results(None, file) as results:
        results.write({"a": 1}, "")
    before = file.read_text()
    with pytest.raises(ValueError, match="broken"), Results(None, file):
        raise ValueError("broken")
    with pytest.raises(KeyboardInterrupt), Results(None, file) as results:
        results.write({"a": 2}, "")
        raise KeyboardInterrupt
    assert file.read_text() == before and "a.partial.jsonl" in capsys.readouterr().err
    assert json.loads((tmp_path / "a.partial.jsonl").read_text()) == {"a": 2}
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "a.partial.jsonl"}


def test_an_ending_that_says_no_format(tmp_path):
    with pytest.raises(UserError, match=r"end it in \.jsonl, \.csv or \.txt"):
        Results(None, tmp_path / "a.png")
