"""Every command says what it is for, by examples, and what its options are; a config those of its own classes."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex

import pytest

import family
from family.core.config import CHOICES, TransformerConfig
from tasks.cli import main
from tasks.cli.configs import config_files
from tasks.commands import COMMANDS, TRAINING


def said(arguments, capsys):
    try:
        main(arguments)
    except SystemExit as ended:
        assert ended.code == 0
    return capsys.readouterr().out


def parser_of(command):
    """The parser of a command, as it stands before it reads."""
    seen = []

    def stop(self, *_, **__):
        seen.append(self)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        with pytest.raises(InterruptedError):
            importlib.import_module(f"tasks.commands.{COMMANDS[command].module}").run(["x"])
    return seen[0]


@pytest.mark.parametrize("command", [name for name in COMMANDS])
def test_examples_and_defaults(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = said([command, "--help"], capsys)
    examples = [line for line in shown.splitlines() if line.startswith(f"  family {command}")]
    assert examples
    for action in parser_of(command)._actions:
        assert action.help, action.dest
        if action.default not in (None, False, [], argparse.SUPPRESS):
            told = " ".join(shown.split())
            assert "default" in action.help or f"(default: {action.default})" in told, action.dest
    known = {word for word in re.findall(r"--?[a-z]\w*", shown.partition("examples:")[0])}
    for example in examples:
        given = {word for word in shlex.split(example) if re.match("--?[a-z]", word)}
        assert {word for word in given if "." not in word} <= known, example
        config = re.search(r"--config (\S+/\S+)", example)
        assert config is None or config[1] in config_files()


@pytest.mark.parametrize("command", list(TRAINING))
def test_training_commands(command, capsys):
    shown = said([command, "--help"], capsys)
    assert f"  family {command}" in shown and "--trainer.max_steps" in shown


def test_a_config_shows_its_own_options(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    shown = said(["fit", "--config", "image_classification/shapes", "--help"], capsys)
    assert "tasks.ImageClassification" in shown and "known subclasses" not in shown
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 120 + 60  # choices are not broken
    words = " ".join(shown.split())
    assert "--model.model.config.norm_order pre|post|sandwich|branch" in words
    assert re.search(r"--model.lr NUMBER the peak of the schedule. = 0.\d+", words)  # the config's
    assert "(default: cosine)" in words and "--data.batch_size N" in words
    fields = TransformerConfig.__dataclass_fields__
    assert all(f"--model.model.config.{name} " in shown for name in fields)


def test_all_fields_of_a_stack_are_described(capsys):
    from tasks.cli.help import meaning

    told = meaning(TransformerConfig)
    assert set(TransformerConfig.__dataclass_fields__) <= told.keys() and all(told.values())
    for name, choices in CHOICES.items():
        for value in choices:
            family.TransformerConfig(dim=8, heads=2, **{name: value})
        with pytest.raises(ValueError, match=f"{name}='nothing' is unknown"):
            family.TransformerConfig(**{name: "nothing"})


def test_the_modules_of_commands_exist():
    for command in COMMANDS.values():
        assert callable(importlib.import_module(f"tasks.commands.{command.module}").run)
