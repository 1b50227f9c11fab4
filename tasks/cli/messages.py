"""What the config parser complains of, said in one sentence."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from typing import Any

import pytorch_lightning as pl

import family
import tasks
from family import TransformerConfig
from tasks.commands import COMMANDS
from tasks.errors import closest

UNKNOWN = (
    r"Option '([\w.-]+)' is not accepted|unrecognized arguments: -*([\w.-]+)"
    r"|Key '([\w.-]+)' is not expected|No action for key \"([\w.-]+)\""
    r"|does not accept option '([\w.-]+)'|ambiguous option: -*([\w.-]+)"
)
"""How the parser says that it does not know an option."""
SYNONYMS = {
    "learning_rate": ("lr",),
    "epochs": ("max_epochs",),
    "num_epochs": ("max_epochs",),
    "steps": ("max_steps",),
    "bs": ("batch_size", "tokens_per_batch"),
    "batch_size": ("tokens_per_batch",),
    "workers": ("num_workers",),
    "n_heads": ("heads",),
    "num_heads": ("heads",),
    "n_head": ("heads",),
    "hidden_size": ("dim",),
    "d_model": ("dim",),
    "n_embd": ("dim",),
    "embed_dim": ("dim",),
    "num_layers": ("depth",),
    "n_layers": ("depth",),
    "n_layer": ("depth",),
    "layers": ("depth",),
}
"""Other libraries' names of options, and ours."""
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
"""The parser's types in words."""


def sentence(message: str) -> str:
    """The cause in a parser's message of many lines, with the nearest right name."""
    if found := re.search(UNKNOWN, message):
        return _unknown_option(next(filter(None, found.groups())), message, found.end())
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
        return f"there is no {found[1]}.{found[2]}.{closest(found[2], _class_names())}"
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        hint = closest(found[1], _class_names())
        return f"{_option(message)}={found[1]!r} is no class: give its dotted path.{hint}"
    if found := re.search(r"invalid choice: '(\w+)' \(choose from (.*)\)", message):
        names = [name.strip(" '") for name in found[2].split(",")]
        return f"there is no command {found[1]!r}.{closest(found[1], [*names, *COMMANDS])}"
    if found := re.search(r"class_path.*arguments are required: ([\w, ]+)", message, re.DOTALL):
        return f"{_option(message)} needs {found[1]}."
    if found := re.search(r"does not correspond to a subclass of (\w+)", message):
        return f"{_option(message)}={_value(message)!r} is no {found[1]}."
    if "arguments are required" in message:
        return "give --config TASK/NAME (family list names those that we ship), or a path."
    if found := re.match(r"Problems parsing config: (.*)", message, re.DOTALL):
        return f"a config is not YAML: {' '.join(found[1].split())}."
    if "No supported gpu backend" in message:
        return "trainer.accelerator=gpu: there is no GPU here; 'auto' takes what there is."
    if found := re.match(r"Unexpected config: *(.*)", message):
        return f"a config needs options such as model, data and trainer, not {found[1]!r}."
    return _ours(message) or _bad_value(message) or _first_line(message)


def _ours(message: str) -> str | None:
    """One of our own checks, quoted by the parser between lines about types."""
    lines = re.findall(
        r"^ *- (?!Expected|Type|Problem|Does not|Parser)(\w+=?.*)", message, re.MULTILINE
    )
    return lines[0].strip() if lines else None


def _bad_value(message: str) -> str | None:
    """The value that the parser refuses for its type, and what it would take."""
    found = re.findall(r"Expected an? (?!path)(.*?)(?=\. Got value: |$)", message, re.MULTILINE)
    wanted = [kind for kind in dict.fromkeys(found) if "NoneType" not in kind]
    if not wanted:
        return None
    where, given = _option(message), _value(message)
    choices = [
        str(choice)
        for kind in wanted
        if kind.startswith("typing.Literal")
        for choice in ast.literal_eval(kind.removeprefix("typing.Literal"))
    ]
    if choices:
        known = f"choose one of: {', '.join(choices)}.{closest(given, choices)}"
        return f"{where}={given!r} is unknown; {known}"
    kinds = [_in_words(kind) for kind in wanted]
    if KINDS["float"] in kinds:
        kinds = [kind for kind in kinds if kind != KINDS["int"]]
    return f"{where} must be {' or '.join(kinds)}, not {given}."


def _value(message: str) -> str:
    """The innermost value that the parser quotes."""
    found = re.search(r"(?:Got|Given) value: (.*?)(?=\. Got value: |$)", message, re.MULTILINE)
    return found[1].strip() if found else ""


def _in_words(kind: str) -> str:
    if found := re.match(r"tuple with (\d+) elements", kind):
        return f"a list of {found[1]} in [...]"
    if found := re.match(r"<class '([\w.]+)'>", kind):
        name = found[1].split(".")[-1]
        return KINDS.get(name, "a list in [...]" if name in ("tuple", "list") else f"a {name}")
    return f"a {kind}"


def _option(message: str) -> str:
    """The option that a message is about: its keys, from the outermost to the innermost."""
    path: list[tuple[int, str]] = []
    for line in message.splitlines():
        indent = len(line) - len(line.lstrip())
        for key in re.findall(r'(?<!- )Parser key "([\w.-]+)"', line):
            path = [(depth, outer) for depth, outer in path if depth < indent]
            path.append((indent, key))
    return ".".join(key for _, key in path)


def _first_line(message: str) -> str:
    """What a message says first, beside the option that it is about."""
    where = _option(message)
    text = re.sub(r'^Parser key "[\w.-]+":', "", message.strip()).strip().splitlines()[0]
    return f"{where}: {text}" if where else text


def _unknown_option(name: str, message: str, end: int) -> str:
    """Whose option it is not, and the nearest that there is."""
    *group, last = name.split(".")
    group = re.findall(r"Group '([\w.]+)' does not accept", message) or group
    where = ".".join([*filter(None, [_option(message)]), *group])
    # The class stands before the complaint, or after it on the same line.
    owners = re.findall(r"class_path '([\w.]+)'", message[:end])
    owners += re.findall(r"class_path='([\w.]+)'", message[end:].split("\n")[0])
    names: list[str] = []
    if group:
        names = _options_of(pl.Trainer if group[0] == "trainer" else TransformerConfig)
    elif owners:
        names = _options_of(_found(owners[-1]))
    wanted = [last, *SYNONYMS.get(last, ())]
    hint = next((f" Did you mean {n!r}?" for n in wanted if n in names), "")
    hint = hint or _elsewhere(wanted, where) or closest(last, names)
    if not hint and names:
        hint = f" There are: {', '.join(names)}."
    owner = f" of {where}" if where else ""
    return f"unknown option {last!r}{owner}.{hint}"


def _elsewhere(wanted: list[str], where: str) -> str:
    """A hint at an option of another part of the config that has one of these names."""
    places = {
        "model": [c for c in _classes(tasks) if issubclass(c, pl.LightningModule)],
        "data": [c for c in _classes(tasks) if issubclass(c, pl.LightningDataModule)],
        "trainer": [pl.Trainer],
        "model.model.init_args.config": [TransformerConfig],
        "model.model.init_args": _classes(family),
    }
    known = {
        name: f"{place}.{name}"
        for place, owners in reversed(places.items())
        if place.replace(".init_args", "") != where
        for owner in owners
        for name in _options_of(owner)
    }
    for name in wanted:
        if name in known:
            return f" Did you mean {known[name]!r}?"
    near = closest(wanted[0], {*known, "config", "run_folder", "ckpt_path", "seed_everything"})
    return near if not where else ""


def _options_of(owner: Any) -> list[str]:
    """What a class takes, also through ``**options`` for a class that it is made of; or a function."""
    mro = inspect.getmro(owner) if inspect.isclass(owner) else ()
    ours = [base for base in mro if base.__module__.split(".")[0] in ("family", "tasks")]
    names = [
        parameter.name
        for part in ours or [owner]
        for parameter in inspect.signature(part).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    return list(dict.fromkeys(names))


def _found(path: str) -> Any:
    """What a dotted path names; the parser has found it already."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _classes(package: Any) -> list[Any]:
    members = [getattr(package, name) for name in package.__all__]
    return [member for member in members if inspect.isclass(member)]


def _class_names() -> list[str]:
    return [*tasks.__all__, *family.__all__]
