"""``family fit --config TASK/NAME --help``: the options of that config's own classes, what they mean, what they
may be, and what the config makes of them."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import docstring_parser
import pytorch_lightning as pl

from family.core.config import CHOICES, TransformerConfig
from tasks.cli.configs import resolve_configs
from tasks.cli.options import built, imported, parts, read, taken
from tasks.commands import TRAINING

SHOWN = (
    *("max_steps", "max_epochs", "max_time", "val_check_interval", "check_val_every_n_epoch"),
    *("accelerator", "devices", "num_nodes", "strategy", "precision", "accumulate_grad_batches"),
    *(
        "gradient_clip_val",
        "limit_train_batches",
        "limit_val_batches",
        "log_every_n_steps",
        "logger",
    ),
    *("callbacks", "fast_dev_run", "enable_progress_bar", "deterministic", "profiler"),
)
"""Of the trainer those that most runs ask for."""
COMMON = {
    "--config TASK/NAME": "a config of ours (family list names them), or a YAML file; several are laid over "
    "each other",
    "--run_folder FOLDER": "where the run goes; must not exist (default: runs/NAME-TIME)",
    "--seed_everything N": "of all random numbers (default: 0)",
    "--ckpt_path RUN": "a run, or a .ckpt file of it: fit goes on from it, validate, test and predict judge "
    "it; these take a published model too",
    "--optimizer CLASS": "a class of torch.optim in place of the task's own; --optimizer.lr and so on",
    "--lr_scheduler CLASS": "of torch.optim.lr_scheduler, with --optimizer",
    "--print_config": "the whole config with these options, to be kept as a file",
}
EXAMPLES = {
    "fit": (
        "family fit --config {config}",
        "family fit --config {config} --data.root FOLDER --trainer.max_steps 1000",
        "family fit --config {config} --trainer.devices 2 --trainer.precision bf16-mixed",
    ),
    "resume": ("family resume RUN", "family resume RUN --trainer.max_steps 2000"),
    "validate": ("family validate RUN", "family validate --config {config} --ckpt_path SOURCE"),
    "test": ("family test RUN", "family test RUN --data.root FOLDER"),
    "predict": ("family predict RUN", "family predict RUN --data.root FOLDER"),
}
WORDS = {int: "N", float: "NUMBER", bool: "true|false", str: "TEXT", Path: "FILE"}


def asked(arguments: Sequence[str]) -> bool:
    """Whether a call asks for help."""
    return bool({"--help", "-h"} & set(arguments))


def print_help(command: str, arguments: Sequence[str]) -> None:
    """Print the help of a training command, of a config where one is given.

    Raises:
        UserError: no such config.
    """
    rest = resolve_configs([one for one in arguments if one not in ("--help", "-h")])
    given = read(rest)
    name = next((value for flag, value in pairs(arguments) if flag == "--config"), "TASK/NAME")
    lines = [
        f"usage: family {command} {'RUN ' if command != 'fit' else ''}[--config NAME] [OPTION ...]"
    ]
    lines += ["", f"{TRAINING[command]}."[0].upper() + f"{TRAINING[command]}."[1:]]
    file = next((value for flag, value in pairs(rest) if flag == "--config"), None)
    if file is not None:
        lines += ["", *header(Path(file))]
    lines += ["", "examples:", *(f"  {one.format(config=name)}" for one in EXAMPLES[command])]
    lines += ["", "options:"]
    width = min(120, shutil.get_terminal_size((110, 24)).columns)
    for option, says in COMMON.items():
        lines += row(option, says, width)
    if given:
        for part in ("model", "data"):
            lines += list(section(part, None, given, width))
    else:
        lines += [
            "",
            f"family {command} --config TASK/NAME --help lists the options of that config's model and data.",
        ]
    lines += ["", "trainer (pytorch_lightning.Trainer):"]
    lines += list(rows(pl.Trainer, "trainer.", given, width, SHOWN))
    lines += [
        "",
        "A value after = is the config's. Every option of Lightning's Trainer is taken as well.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options and their values, be they two words or one."""
    for i, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        flag = "--config" if flag == "-c" else flag
        if flag.startswith("--"):
            yield flag, value if equals else "".join(arguments[i + 1 : i + 2])


def header(file: Path) -> Iterator[str]:
    """What a config says of itself."""
    lines = file.read_text("utf-8").splitlines()
    for line in takewhile(lambda line: line.startswith("#"), lines):
        yield line.removeprefix("#").removeprefix(" ")


# --- Classes ---


def section(path: str, kind: Any, given: Mapping[str, Any], width: int) -> Iterator[str]:
    """The options of the class that a config names at a path, then those of the classes inside it.

    Args:
        kind: the annotation of the option, where there is one; a dataclass needs no path.
    """
    group = [part for part in parts(kind) if is_dataclass(part)]
    called = given.get(f"{path}.class_path", given.get(path))
    owner: Any = group[0] if group else imported(called)
    if owner is None:
        return
    name = owner.__name__ if group else called
    says = re.split(r"\n\s*\n", inspect.getdoc(owner) or "")[0]
    yield ""
    yield from textwrap.wrap(f"{path} ({name}): {plain(says)}", width)
    yield from rows(owner, f"{path}.", given, width)
    if owner is TransformerConfig:
        return  # its layers are dictionaries
    for option, inner in taken(owner).items():
        if any(one == f"{path}.{option}" or one.startswith(f"{path}.{option}.") for one in given):
            yield from section(f"{path}.{option}", inner, given, width)


def rows(
    owner: Any, path: str, given: Mapping[str, Any], width: int, only: Sequence[str] = ()
) -> Iterator[str]:
    """A class's options with their types, meaning, and values.

    Args:
        only: these, in this order; none are all.
    """
    kinds, told, defaults = taken(owner), meaning(owner), defaults_of(owner)
    for name in only or kinds:
        kind = kinds.get(name)
        if name not in kinds or (
            inspect.isclass(kind) and is_dataclass(kind) and f"{path}{name}" in given
        ):
            continue
        choices = CHOICES.get(name) if owner is TransformerConfig else None
        words = "|".join(choices) if choices else in_words(kind)
        says = told.get(name, "")
        if only and "." in says:
            says = says.partition(". ")[0].rstrip(".")  # Lightning's are long
        value = given.get(f"{path}{name}", defaults.get(name, inspect.Parameter.empty))
        if f"{path}{name}.class_path" in given:
            value = given[f"{path}{name}.class_path"]
        shown = "" if value is inspect.Parameter.empty else written(value)
        if any(one == f"{path}{name}" or one.startswith(f"{path}{name}.") for one in given):
            says = f"{says} = {shown}" if shown else says
        elif shown:
            says = f"{says} (default: {shown})"
        yield from row(f"--{path}{name} {words}", says.strip(), width)


def row(option: str, says: str, width: int, left: int = 34) -> list[str]:
    """An option, and beside it what it is for; below it where it is long."""
    text = textwrap.wrap(says, max(20, width - left - 4)) or [""]
    first = f"  {option}"
    if len(first) <= left + 2:
        first, text = f"{first:{left + 4}}{text[0]}".rstrip(), text[1:]
    return [first, *(f"{'':{left + 4}}{line}".rstrip() for line in text if line)]


def meaning(owner: Any) -> dict[str, str]:
    """What the docstrings of a function, or of a class and of what it is derived from, say of options."""
    found: dict[str, str] = {}
    for part in inspect.getmro(owner) if inspect.isclass(owner) else (owner,):
        if part is object:
            continue
        texts = [part.__doc__ or "", getattr(vars(part).get("__init__"), "__doc__", None) or ""]
        told = [
            one for text in texts for one in docstring_parser.parse(inspect.cleandoc(text)).params
        ]
        if is_dataclass(part):
            told += docstring_parser.parse_from_object(part).params
        for one in told:
            says = plain(one.description or "")
            other = re.match(r"(see|of) :class:`~?([\w.]+)`", one.description or "")
            for name in re.split(r"[,\s]+", re.sub(r"\(.*\)", "", one.arg_name)):
                if other and name != "options":
                    seen = imported(other[2]) or getattr(inspect.getmodule(part), other[2], None)
                    says = meaning(seen).get(name, "") if seen not in (None, part) else ""
                if says:
                    found.setdefault(name, says)
    return found


def defaults_of(owner: Any) -> dict[str, Any]:
    """What options are where nobody says so."""
    found: dict[str, Any] = {}
    for part in inspect.getmro(owner) if inspect.isclass(owner) else (owner,):
        try:
            parameters = inspect.signature(part).parameters.values()
        except (TypeError, ValueError):
            continue
        found = {p.name: p.default for p in parameters} | found
    return found


def plain(text: str) -> str:
    """Without the marks of docstrings."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return " ".join(text.replace("``", "").split())


def in_words(kind: Any) -> str:
    """What an option takes, as short as may be."""
    if kind is None or kind in (Any, inspect.Parameter.empty):
        return "VALUE"
    found: list[str] = []
    for part in parts(kind):
        if part is types.NoneType:
            continue
        if get_origin(part) is Literal:
            found += [word for word in map(str, get_args(part)) if word not in found]
            continue
        elif get_origin(part) in (list, tuple) or part in (list, tuple):
            word = "[...]"
        elif get_origin(part) is dict or part is dict or (is_dataclass(part) and not found):
            word = "{...}"
        elif built(part):
            word = "CLASS"
        else:
            word = WORDS.get(part, getattr(part, "__name__", "VALUE").upper())
        found.append(word)
    return "|".join(dict.fromkeys(found)) or "VALUE"


def written(value: Any) -> str:
    """A value as a config has it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if inspect.isclass(value) or inspect.isfunction(value):
        return str(value.__name__)
    return f"{value:g}" if isinstance(value, float) else str(value)
