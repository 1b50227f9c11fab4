"""The options that a config gives, and those that its classes take."""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from tasks.errors import UserError


def read(arguments: Sequence[str]) -> dict[str, Any]:
    """Options that were given, by their paths; the arguments of a class beside its ``class_path``."""
    given: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("--"):
            continue
        name, equals, value = word[2:].partition("=")
        value = value if equals else next(words, "")
        given |= flat(read_file(value) if name == "config" and value else {name: value})
    return given


def read_file(file: str) -> dict[str, Any]:
    """The options of a config's file.

    Raises:
        UserError: it is no YAML, or none of options.
    """
    try:
        options = yaml.safe_load(Path(file).read_text("utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(options, dict):
        raise UserError(f"{file} needs options such as model, data and trainer, by their names.")
    return options


def flat(options: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        path = ".".join(
            part for part in f"{place}.{name}".split(".") if part not in ("", "init_args")
        )
        if isinstance(value, dict) and value:
            yield from flat(value, path)
        else:
            yield path, value


def options(kinds: Mapping[str, Any], given: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """The annotations of all options, by their paths, of a config with these classes."""
    known: dict[str, Any] = {}
    for name, kind in kinds.items():
        path = f"{place}{name}"
        known[path] = kind
        group = [part for part in parts(kind) if is_dataclass(part)]
        path_of_class = given.get(f"{path}.class_path", given.get(path) if built(kind) else None)
        owner = group[0] if group else imported(path_of_class)
        if owner is not None:
            known |= options(taken(owner), given, f"{path}.")
    return known


def taken(owner: Any) -> dict[str, Any]:
    """What a function or a class takes, and what that takes which a class hands the rest on to."""
    found: dict[str, Any] = {}
    for part in inspect.getmro(owner) if inspect.isclass(owner) else (owner,):
        if inspect.isclass(part) and "__init__" not in vars(part):
            continue
        try:
            parameters = inspect.signature(part, eval_str=True).parameters.values()
        except (NameError, TypeError, ValueError):
            return {}  # it does not say
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        found = {p.name: p.annotation for p in parameters if p.kind in named} | found
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return found


def imported(path: Any) -> Any:
    """What a dotted path names; None where there is no such thing."""
    module, _, name = str(path).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def parts(kind: Any) -> list[Any]:
    """The types of a union, or the one."""
    union = get_origin(kind) in (Union, types.UnionType)
    return [part for one in get_args(kind) for part in parts(one)] if union else [kind]


def built(kind: Any) -> list[Any]:
    """The types that are given by a class path; none where a text would do as well."""
    found = [part for part in parts(kind) if get_origin(part) is Callable or is_class(part)]
    return [] if str in parts(kind) else found


def is_class(part: Any) -> bool:
    foreign = inspect.isclass(part) and part.__module__ not in ("builtins", "typing")
    return foreign and not is_dataclass(part)


def fits(value: Any, kind: Any) -> bool:
    """Whether a parser takes a value for one of this type."""
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--it", type=kind)
        parser.parse_args([f"--it={value}"]) if isinstance(value, str) else parser.parse_object(
            {"it": value}
        )
    except ArgumentError:
        return False
    except ValueError:
        return True
    return True
