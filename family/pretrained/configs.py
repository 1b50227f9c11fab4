"""Configs of published formats: to the arguments of a member, and back, from one table."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import nn

from family.models.member import complete, plain
from family.pretrained.layers import spread
from family.pretrained.table import REQUIRED, Field, Format, place

TRAINING = {
    "init_std",
    "activation_checkpointing",
    "dropout",
    "attention_dropout",
    "ffn_dropout",
    "drop_path",
    "head_dropout",
    "freeze",
    "frozen_norm",
    "pretrained",
    "interpolation",
    "drop_rest",
}
"""What acts in training alone, or on pictures of another size: a format that does not record it still
carries the model."""
MISSING = object()


def to_arguments(
    layout: Format, config: Mapping[str, Any], weight_names: set[str], origin: str
) -> dict[str, Any]:
    """The arguments of our member, from a published config; stacks are dictionaries of fields.

    Raises:
        ValueError: a field that is missing or has a value that we do not support.
    """
    for name, wanted in layout.fixed.items():
        value = get(config, name)
        if value is not MISSING and value != wanted:
            raise ValueError(
                f"{origin}: {name}={value!r} is not supported for {layout.name}; only {wanted!r} is."
            )
    arguments: dict[str, Any] = {}
    for name, value in layout.constants.items():
        put(arguments, name, value)
    found: dict[str, tuple[str, Any]] = {}
    for field in layout.fields:
        value = read_field(field, config, origin)
        other, before = found.setdefault(field.ours, (field.theirs, value))
        if before != value:
            raise ValueError(
                f"{origin}: {field.theirs}={value!r} and {other}={before!r} are not supported: "
                "they must be equal."
            )
        put(arguments, field.ours, value)
    for name, value in detect(layout, config, weight_names, origin).items():
        put(arguments, name, value)
    return arguments


def detect(
    layout: Format, config: Mapping[str, Any], weight_names: set[str], origin: str
) -> dict[str, Any]:
    """What a format's own function makes of config and weights; its errors name the file."""
    try:
        return layout.detect(dict(config), weight_names)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
    except KeyError as error:
        raise ValueError(f"{origin} has no field {error}.") from None
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{origin} has a field of a wrong type or value: {error}.") from None


def read_field(field: Field, config: Mapping[str, Any], origin: str) -> Any:
    value = get(config, field.theirs)
    if value is MISSING:
        if field.default is REQUIRED:
            near = difflib.get_close_matches(field.theirs, config, n=1, cutoff=0.8)
            hint = f" ({near[0]!r} is not it)" if near else ""
            raise ValueError(f"{origin} has no field {field.theirs!r}{hint}.")
        value = field.default
    if field.values is None:
        return value
    if not isinstance(value, str | int | float | bool | None) or value not in field.values:
        known = ", ".join(repr(name) for name in field.values)
        raise ValueError(f"{origin}: {field.theirs}={value!r} is not supported; known are {known}.")
    return field.values[value]


def to_config(layout: Format, model: nn.Module) -> dict[str, Any]:
    """The published config of one of our models.

    Raises:
        ValueError: the model has an option that the format has no place for.
    """
    if not isinstance(model, layout.member):
        raise ValueError(
            f"format={layout.name!r} is for {layout.member.__name__}, and this is a "
            f"{type(model).__name__}."
        )
    settled = all_arguments(model)
    ours = flat(settled)
    config: dict[str, Any] = {}
    if layout.model_types:
        config["model_type"] = layout.model_types[0]
    if layout.architectures:
        config["architectures"] = [layout.architectures[0]]
    for name, value in layout.fixed.items():
        if value is not None:  # which absence says as well
            put(config, name, value)
    for field in layout.fields:
        if field.ours not in ours:
            raise ValueError(
                f"format={layout.name!r} has a field for {field.ours}, which this "
                f"{type(model).__name__} has not."
            )
        put(config, field.theirs, write_field(field, ours[field.ours], layout))
    config |= layout.finish(model, config)
    check_carried(layout, model, config, settled)
    return config


def all_arguments(model: Any) -> dict[str, Any]:
    """Those of a model as plain values; None is what the model has made of it."""
    arguments = complete(type(model), model.arguments)
    return {n: settled(v, getattr(model, n, None)) for n, v in arguments.items()}


def settled(value: Any, made: Any) -> Any:
    """A plain argument, or field of a config, with what the model has made of it in place of None."""
    if isinstance(value, dict) and is_dataclass(made):
        return {n: settled(v, getattr(made, n)) for n, v in value.items()}
    return plain(made) if value is None else value


def write_field(field: Field, value: Any, layout: Format) -> Any:
    if field.values is None:
        return square(list(value) if isinstance(value, tuple) else value)
    for theirs, ours in field.values.items():
        if ours == value:
            return theirs
    known = ", ".join(repr(v) for v in field.values.values())
    raise ValueError(
        f"format={layout.name!r} cannot express {field.ours}={value!r}; it knows {known}."
    )


def check_carried(
    layout: Format, model: nn.Module, config: dict[str, Any], ours: dict[str, Any]
) -> None:
    """Read a written config again: what comes out otherwise has no place in the format."""
    names = written_names(layout, model)
    again = to_arguments(layout, config, names, f"format {layout.name!r}")
    theirs = layer_by_layer(complete(layout.member, again))
    for name, value in layer_by_layer(ours).items():
        if name.rpartition(".")[2] not in TRAINING and square(theirs.get(name)) != square(value):
            raise ValueError(
                f"format={layout.name!r} cannot express {name}={value!r}: such a model has "
                f"{theirs.get(name)!r}."
            )


def layer_by_layer(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by dotted names, such that two lists of ``layers`` that say the same are equal."""
    return flat(
        {
            name: spread(value) if isinstance(value, dict) and value.get("layers") else value
            for name, value in arguments.items()
        }
    )


def written_names(layout: Format, model: nn.Module) -> set[str]:
    """The names of a model's weights in a format; what is tied appears once, as in files."""
    table, names, done = layout.table(model), set[str](), set[int]()
    for name, value in model.state_dict(keep_vars=True).items():
        try:
            row = place(table, name)
        except KeyError:
            raise ValueError(
                f"format={layout.name!r} has no place for the weight {name} of this "
                f"{type(model).__name__}."
            ) from None
        if id(value) not in done:
            done.add(id(value))
            names |= set(row.theirs)
    return names


def square(value: Any) -> Any:
    """One side for two that are equal: 224 says the same as (224, 224)."""
    equal = isinstance(value, list) and len(value) == 2 and value[0] == value[1]
    return value[0] if equal else value


def get(config: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or MISSING."""
    value: Any = config
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return MISSING
        value = value[name]
    return value


def put(config: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path."""
    *folders, name = path.split(".")
    for folder in folders:
        config = config.setdefault(folder, {})
    config[name] = value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result
