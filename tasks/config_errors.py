"""What the config parser complains of, said in one sentence."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields

import pytorch_lightning as pl

import family
import tasks
from family import TransformerConfig
from tasks.commands import COMMANDS
from tasks.errors import closest


def sentence(message: str) -> str:
    """The cause in a parser's message of many lines, with the nearest right name."""
    if found := re.search(r"Option '([\w.]+)' is not accepted", message):
        return _unknown_option(found[1])
    if found := re.search(r"unrecognized arguments: -*([\w.]+)", message):
        return _unknown_option(found[1])
    if found := re.search(
        r"Key '([\w.]+)' is not expected|No action for key \"([\w.]+)\"", message
    ):
        return _unknown_option(found[1] or found[2])
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
        return f"there is no {found[1]}.{found[2]}.{closest(found[2], _class_names())}"
    if found := re.search(r"invalid choice: '(\w+)' \(choose from (.*)\)", message):
        names = [name.strip(" '") for name in found[2].split(",")]
        return f"there is no command {found[1]!r}.{closest(found[1], [*names, *COMMANDS])}"
    if "arguments are required" in message:
        return "give --config TASK/NAME (family list names those that we ship), or a path."
    key = re.findall(r"key \"([\w.]+)\"", message)
    where = f"{key[-1]}: " if key else ""
    if found := re.search(r"Expected an? <class '(\w+)'>. Got value: (.*)", message):
        return f"{where}expected {found[1]}, not {found[2].strip()!r}."
    # One of our own checks, quoted by the parser between lines about types.
    ours = [
        line.strip(" -")
        for line in message.splitlines()
        if re.match(r"\s*- (?!Expected|Type|Problem)\w+=?", line)
    ]
    return (ours or [where + message.strip().splitlines()[0]])[0]


def _unknown_option(name: str) -> str:
    last = name.split(".")[-1]
    return f"unknown option {last!r}.{closest(last, set(_option_names()))}"


def _option_names() -> Iterator[str]:
    yield from (field.name for field in fields(TransformerConfig))
    members = [getattr(family, name) for name in family.__all__]
    owners = [getattr(tasks, name) for name in tasks.__all__]
    owners += [owner for owner in members if inspect.isclass(owner)]
    # An option may belong to a base class, which gets it through ``**options``.
    bases = {base for owner in owners for base in owner.__mro__} | {pl.Trainer}
    for base in bases:
        if base.__module__.split(".")[0] in ("family", "tasks", "pytorch_lightning"):
            yield from inspect.signature(base).parameters
    yield from ("config", "run_folder", "ckpt_path", "seed_everything", "model", "data", "trainer")


def _class_names() -> list[str]:
    return [*tasks.__all__, *family.__all__]
