"""Where ``family`` begins: it lists and refuses at once, and imports what a command needs alone."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

from tasks.cli import main
from tasks.cli.configs import config_files, find_config
from tasks.cli.entry import at_home
from tasks.commands import COMMANDS, TRAINING
from tasks.commands.listing import header
from tasks.errors import UserError

HEAVY = ("torch", "pytorch_lightning", "jsonargparse", "numpy")


def imported_by(*arguments: str) -> set[str]:
    """Which of the heavy packages a fresh process has after these arguments."""
    code = f"import sys\n{{}}\nprint(*(n for n in {HEAVY} if n in sys.modules), file=sys.stderr)"
    run = "from tasks.cli import main; main(sys.argv[1:])" if arguments else "import family, tasks"
    done = subprocess.run(
        [sys.executable, "-c", code.format(run), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["list"], ["list", "gpt"], ["--help"], ["--version"], []])
def test_what_answers_at_once_imports_nothing_heavy(arguments):
    assert imported_by(*arguments) == set()


def test_help_names_every_command(capsys):
    main(["--help"])
    shown = capsys.readouterr().out
    main([])
    assert capsys.readouterr().out == shown
    for name, says in {**TRAINING, **{n: c.says for n, c in COMMANDS.items()}}.items():
        assert f"  {name:11} {says}\n" in shown


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == importlib.metadata.version("transformer-family") + "\n"


@pytest.mark.parametrize("width", ["20", "80", "200"])
def test_list_cuts_no_sentence(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", width)
    main(["list"])
    lines = capsys.readouterr().out.splitlines()
    long = [line for line in lines if len(line) > max(60, int(width))]
    assert all(len(line.split()) == 1 for line in long)  # a path is not broken
    entries = " ".join(line.strip() for line in lines)
    assert entries.split() == [
        word for name, path in config_files().items() for word in f"{name} {header(path)}".split()
    ]
    assert all(header(path).rstrip(":").endswith((".", ")")) for path in config_files().values())


def test_list_of_a_task(capsys):
    main(["list", "detection"])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[0] != " "]
    assert names == [name for name in config_files() if name.startswith("detection/")]
    assert names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fti"], "there is no command 'fti'. Did you mean 'fit'?"),
        (["compair"], "there is no command 'compair'. Did you mean 'compare'?"),
        (["--config", "gpt/shapes"], "there is no command '--config'. family --help names them."),
        (["list", "detektion"], "there are no configs of 'detektion'. Did you mean 'detection'?"),
        (
            ["list", "x"],
            "there are no configs of 'x'. There are: captioning, chat_tuning, compare,",
        ),
    ],
)
def test_what_there_is_not(capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert said in printed.err and len(printed.err.splitlines()) == 1 and not printed.out


@pytest.mark.parametrize("buffered", ["1", ""])
def test_a_reader_that_has_seen_enough_ends_it_quietly(buffered):
    """As ``family list | head -1`` does."""
    code = "import time; time.sleep(1); from tasks.cli import main; main(['list'])"
    environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    run = subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes)
    run.stdout.close()
    assert run.stderr.read() == ""
    assert run.wait() == 141
    run.stderr.close()


def test_another_broken_pipe_is_said():
    """A worker's end is no reader's."""
    code = """
import tasks.cli.entry as entry
def breaks(arguments):
    raise BrokenPipeError("a worker has gone")
entry.dispatch = breaks
entry.main(["list"])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1 and "a worker has gone" in run.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [("pipe", "is no file"), ("folder", "is no file"), ("a" * 5000, "no such file")],
)
def test_a_config_that_is_no_file(tmp_path, monkeypatch, capsys, name, said):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.mkdir("folder")
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", name])
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and said in printed and len(printed.splitlines()) == 1


def test_what_the_system_says_of_a_file_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["caption", "x", "a" * 5000])
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and "cannot be used: File name too long." in printed
    assert len(printed) < 300


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "values, its anchors written out"),
        ("a: &a [*a]\n", "values, its anchors written out"),
        ("[" * 10_000, "is nested too deep"),
    ],
    ids=["doubled", "itself", "deep"],
)
def test_a_config_that_is_small_as_a_file_alone(tmp_path, text, said):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        find_config(str(file))


def test_anchors_in_a_config_are_written_out(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("a: &a {lr: 1}\nb: *a\n")
    assert find_config(str(file)) == str(file)


def test_home_within_an_option(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home("--data.root=~/data") == "--data.root=/home/me/data"
    assert at_home("~/data") == "~/data" and at_home("a=~/b") == "a=~/b"
