"""What every member of the family keeps about itself, so that it can be saved and built again."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from family.core.config import TransformerConfig
from family.models.examples import Inputs

Class = TypeVar("Class", bound=type[nn.Module])


def always(model: Any) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Facts:
    """What others need to know of a member: ``Member.facts``, or that of one of its models.

    Args:
        task: the class in :mod:`tasks` that trains it; what it is for, where there is none yet.
        reads: of "text", "pictures", "sound" and "video".
        inputs: what its ``forward`` takes and gives.
        example: the arguments of a tiny one, for tests.
        classes: the beginnings of the names of weights that its number of classes decides.
        class_arguments: what else is to be set where it is to tell classes apart.
        any_size: it takes pictures of any size as it is.
        complete: whether a published model can answer without being trained further.
    """

    task: str = ""
    reads: tuple[str, ...] = ()
    inputs: Inputs | None = None
    example: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    class_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    any_size: bool = False
    complete: Callable[[Any], bool] = always


def member(cls: Any = None, /, **facts: Any) -> Any:
    """Class decorator of a member: says what others need to know of it, and keeps the arguments that
    each of its models was built from.

    ``model.arguments`` has them all by name, defaults included. ``model.tokenizer``,
    ``model.preprocess`` and ``model.labels`` are None until a loaded checkpoint brings them.

    Args:
        facts: the fields of :class:`Facts`; none, for a class of one's own that only a format of
            one's own needs: ``@member``.
    """

    def decorate(cls: Class) -> Class:
        init = cls.__init__
        signature = inspect.signature(init)

        @functools.wraps(init)
        def remembering(self: Any, *args: Any, **kwargs: Any) -> None:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            init(self, *args, **kwargs)
            arguments: dict[str, Any] = dict(list(bound.arguments.items())[1:])
            for parameter in signature.parameters.values():
                if parameter.kind is parameter.VAR_KEYWORD:
                    arguments |= arguments.pop(parameter.name)
            self.arguments = arguments

        cls.__init__ = remembering  # type: ignore[method-assign]
        cls.facts = Facts(**facts)  # type: ignore[attr-defined]
        for name in ("tokenizer", "preprocess", "labels"):
            setattr(cls, name, None)
        return cls

    return decorate if cls is None else decorate(cls)


def facts_of(model: Any) -> Facts | None:
    """Those of a model or of a member's class; None where it is no member."""
    return getattr(model, "facts", None)


def is_member(cls: Any) -> bool:
    """Whether this is the class of a member."""
    return inspect.isclass(cls) and issubclass(cls, nn.Module) and hasattr(cls, "facts")


def describe(model: nn.Module) -> dict[str, Any]:
    """Class name and arguments of a member as plain values; :func:`build` makes it again.

    Raises:
        ValueError: no member of the family, or one that was built around a module handed in.
    """
    given: Any = getattr(model, "arguments", None)
    if given is None:
        raise ValueError(f"{type(model).__name__} is no member of the family.")
    arguments = {}
    for name, value in given.items():
        if isinstance(value, nn.Module):
            raise ValueError(
                f"{name} of this {type(model).__name__} is a {type(value).__name__}, a module "
                "handed in: the files of a model cannot describe it."
            )
        arguments[name] = plain(value)
    if "pretrained" in arguments:  # of a backbone, whose weights are at hand
        arguments["pretrained"] = False
    return {"class": type(model).__name__, "arguments": arguments}


def complete(cls: type[nn.Module], arguments: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a member as plain values, defaults and what configs derive included.

    Raises:
        ValueError: an argument or value that the member, or its stack, does not know.
    """
    parameters = inspect.signature(cls).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {name: plain(value) for name, value in {**defaults, **ready(arguments)}.items()}


def plain(value: Any) -> Any:
    """What JSON can hold: configs as dictionaries, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def ready(arguments: dict[str, Any]) -> dict[str, Any]:
    """Plain arguments as a member takes them: dictionaries become configs of stacks."""
    known = {field.name for field in dataclasses.fields(TransformerConfig)}
    given = {}
    for name, value in arguments.items():
        if isinstance(value, dict):
            unknown = sorted(value.keys() - known)
            if unknown:
                raise ValueError(f"{name} has the unknown field {unknown[0]!r}.")
            value = TransformerConfig(**value)
        given[name] = value
    return given


def build(cls: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
    """A member from the plain arguments of :func:`describe`.

    Raises:
        ValueError: an argument or value that the member, or its stack, does not know.
    """
    given = ready(arguments)
    try:
        inspect.signature(cls).bind(**given)
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}.") from None
    return cls(**given)


def split_overrides(overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of :class:`TransformerConfig`, and the rest: arguments of the model."""
    names = {field.name for field in dataclasses.fields(TransformerConfig)}
    fields = {name: value for name, value in overrides.items() if name in names}
    return fields, {name: value for name, value in overrides.items() if name not in names}


def longest_text(model: Any, otherwise: float = math.inf) -> float:
    """The most tokens by the ``config`` of a model, ours or not: what it calls ``longest``, else its
    ``max_tokens``.

    Args:
        otherwise: where it says neither.
    """
    config = getattr(model, "config", None)
    return getattr(config, "longest", getattr(config, "max_tokens", otherwise))
