"""A comparison as its YAML says it, checked; each variant as one whole config."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from family.pretrained.configs import flat
from tasks.errors import UserError, closest

UNITS = ("steps", "tokens", "pictures", "flops", "seconds")
"""What a budget can be counted in; seconds are those of training."""
Config = dict[str, Any]


@dataclass(frozen=True)
class Budget:
    """How much each run may spend."""

    unit: str
    amount: float


@dataclass(frozen=True)
class Match:
    """Scale a field of each other variant until it has as many parameters as ``to``, within 2 %.

    Args:
        field: dotted, for all variants, or by the names of those that are to be scaled.
        multiple_of: what the field's value is a multiple of.
    """

    field: str | dict[str, str]
    to: str
    multiple_of: int = 8


@dataclass(frozen=True)
class Comparison:
    """What a file of configs/compare says.

    Args:
        variants: name -> whole config of a ``family fit``.
        seeds, learning_rates: by variant; no rates are those of the configs.
        metric: name as logged and "max" or "min"; None is the task's own.
        validations: how many, evenly spread over the budget; None is as the configs say.
    """

    name: str
    variants: dict[str, Config]
    budget: Budget
    match: Match | None
    seeds: dict[str, list[int]]
    learning_rates: dict[str, list[float]]
    metric: tuple[str, str] | None
    test: bool
    validations: int | None


FIELDS = (
    "base",
    "variants",
    "budget",
    "seeds",
    "learning_rates",
    "metric",
    "test",
    "validations",
)


def read_comparison(
    path: Path, find: Callable[[str], str], overrides: list[str] | None = None
) -> Comparison:
    """Read a file of configs/compare.

    Args:
        find: the path of a config's name, such as ``tasks.cli.find_config``.
        overrides: ``--data.root=x`` and such, laid over every variant.

    Raises:
        UserError: anything that cannot be meant, in one sentence.
    """
    content = read_yaml(path)
    check_names(str(path), content, FIELDS)
    for name in ("base", "variants", "budget"):
        if name not in content:
            raise UserError(f"{path} needs {name}.")
    common = from_arguments(overrides or [])
    variants = content["variants"]
    if not isinstance(variants, dict) or not variants:
        raise UserError(f"{path}: variants must be names with what each lays over the base.")
    base = read_yaml(Path(find(str(content["base"]))))
    whole = {}
    for name, layers in variants.items():
        check_variant_name(name)
        config = copy.deepcopy(base)
        for layer in layers if isinstance(layers, list) else [layers or {}]:
            over = read_yaml(Path(find(layer))) if isinstance(layer, str) else layer
            if not isinstance(over, dict):
                raise UserError(f"variants.{name} lays {over!r} over the base: give options.")
            config = lay_over(config, undotted(over))
        whole[name] = lay_over(config, common)
    budget, match = read_budget(content["budget"], whole)
    return Comparison(
        path.stem,
        whole,
        budget,
        match,
        per_variant("seeds", content.get("seeds", [0, 1, 2]), whole, int),
        per_variant("learning_rates", content.get("learning_rates") or {}, whole, float),
        read_metric(content.get("metric")),
        bool(content.get("test", False)),
        whole_number("validations", content.get("validations")),
    )


# --- Parts of the file -------------------------------------------------------------------------


def read_yaml(path: Path) -> Config:
    """A file's options.

    Raises:
        UserError: no YAML, or none with options.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} needs options, not {content!r}.")
    return content


def read_budget(given: Any, variants: dict[str, Config]) -> tuple[Budget, Match | None]:
    known = (*UNITS, "match_parameters")
    if not isinstance(given, dict):
        raise UserError(f"budget must be one of {', '.join(UNITS)} with a number, not {given!r}.")
    check_names("budget", given, known)
    units = [unit for unit in UNITS if given.get(unit) is not None]
    if len(units) != 1:
        said = " and ".join(units) or "none"
        raise UserError(f"budget needs exactly one of {', '.join(UNITS)}; it has {said}.")
    amount = number(f"budget.{units[0]}", given[units[0]])
    if amount <= 0:
        raise UserError(f"budget.{units[0]} must be above 0, not {given[units[0]]}.")
    budget, match = Budget(units[0], amount), given.get("match_parameters")
    return budget, None if match is None else read_match(match, variants)


def read_match(given: Any, variants: dict[str, Config]) -> Match:
    where = "budget.match_parameters"
    if not isinstance(given, dict) or not {"field", "to"} <= given.keys():
        raise UserError(f"{where} needs field and to, not {given!r}.")
    check_names(where, given, [field.name for field in fields(Match)])
    match = Match(**given)
    check_names(f"{where}.to", [match.to], variants)
    if isinstance(match.field, dict):
        check_names(f"{where}.field", match.field, variants)
    if whole_number(f"{where}.multiple_of", match.multiple_of) is None:
        raise UserError(f"{where}.multiple_of must be at least 1.")
    return match


def read_metric(given: Any) -> tuple[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict) or set(given) != {"name", "mode"}:
        raise UserError(f"metric needs a name and a mode (max or min), not {given!r}.")
    if given["mode"] not in ("max", "min"):
        raise UserError(f"metric.mode must be max or min, not {given['mode']!r}.")
    if not str(given["name"]).startswith(("val/", "test/")):
        raise UserError(f"metric.name must begin with val/ or test/, not {given['name']!r}.")
    return given["name"], given["mode"]


def per_variant(
    name: str, given: Any, variants: dict[str, Config], kind: type
) -> dict[str, list[Any]]:
    """A list for all variants, or one for each."""
    by_name = given if isinstance(given, dict) else dict.fromkeys(variants, given)
    check_names(name, by_name, variants)
    lists = {}
    for variant in variants:
        values = by_name.get(variant, [0, 1, 2] if name == "seeds" else [])
        if not isinstance(values, list) or (name == "seeds" and not values):
            raise UserError(f"{name} must be a list of numbers, not {values!r}.")
        lists[variant] = [kind(number(name, value)) for value in values]
        if len(set(lists[variant])) < len(values):
            raise UserError(f"{name} has the same number twice: {values}.")
        if any(value < 0 for value in lists[variant]):
            raise UserError(f"{name} must be at least 0: {values}.")
    return lists


def number(name: str, value: Any) -> float:
    try:
        return float(value)  # YAML reads 1e6 as a text
    except (TypeError, ValueError):
        raise UserError(f"{name} must be a number, not {value!r}.") from None


def whole_number(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return value


def check_names(where: str, given: Any, known: Any) -> None:
    for name in given:
        if name not in known:
            hint = closest(str(name), known) or f" There are: {', '.join(known)}."
            raise UserError(f"{where}: unknown {name!r}.{hint}")


def check_variant_name(name: Any) -> None:
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"variants: {name!r} names a folder: use letters, digits, - and _.")


# --- Configs over configs ----------------------------------------------------------------------


def lay_over(base: Config, over: Config) -> Config:
    """``base`` with what ``over`` says; where it names another class, nothing of the old one stays."""
    if over.get("class_path", base.get("class_path")) != base.get("class_path"):
        return copy.deepcopy(over)
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[name] = lay_over(old, value)
        else:
            merged[name] = copy.deepcopy(value)
    return merged


def undotted(options: Config) -> Config:
    """``{a.b: 1}`` as ``{a: {b: 1}}``; what is nested already stays."""
    nested: Config = {}
    for name, value in options.items():
        value = undotted(value) if isinstance(value, dict) else value
        for part in reversed(str(name).split(".")):
            value = {part: value}
        nested = lay_over(nested, value)
    return nested


def from_arguments(arguments: list[str]) -> Config:
    """``--data.root=x`` or ``--data.root x`` as options of a config.

    Raises:
        UserError: an argument that is no option with a value.
    """
    options: Config = {}
    left = list(arguments)
    while left:
        name, has_value, value = left.pop(0).partition("=")
        if not name.startswith("--") or not (has_value or left):
            raise UserError(f"{name} is no option with a value, such as --data.root=FOLDER.")
        value = value if has_value else left.pop(0)
        parts = name.removeprefix("--").split(".")
        if parts[0] in ("model", "data") and parts[1:2] not in (["class_path"], ["init_args"]):
            parts.insert(1, "init_args")
        options = lay_over(options, undotted({".".join(parts): yaml.safe_load(value)}))
    return options


def get(config: Config, field: str) -> Any:
    """The value of a dotted field; None where there is none."""
    value: Any = config
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def differences(configs: dict[str, Config]) -> dict[str, dict[str, Any]]:
    """Dotted field -> variant -> value, of the fields in which the variants differ."""
    options = {name: flat(config) for name, config in configs.items()}
    names = dict.fromkeys(field for config in options.values() for field in config)
    table = {field: {v: config.get(field) for v, config in options.items()} for field in names}
    return {f: row for f, row in table.items() if len({repr(v) for v in row.values()}) > 1}
