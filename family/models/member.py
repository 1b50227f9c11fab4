"""What every member of the family keeps about itself, so that it can be saved and built again."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from family.core.config import TransformerConfig
from family.models.arguments import check_arguments, in_memory
from family.models.examples import Inputs

Class = TypeVar("Class", bound=type[nn.Module])
Model = TypeVar("Model", bound=nn.Module)
STACK = {field.name for field in dataclasses.fields(TransformerConfig)}
"""What a stack may differ in."""


def always(model: Any) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Facts:
    """What others need to know of a member: ``Member.facts``, or that of one of its models.

    Args:
        task: the class in :mod:`tasks` that trains it; what it is for, where there is none yet.
        reads: of "text", "pictures", "sound", "video" and "series".
        inputs: what its ``forward`` takes and gives.
        example: the arguments of a tiny one, for tests.
        variants: of further ones, what differs from that: each computes something otherwise.
        classes: the beginnings of the names of weights that its number of classes decides.
        class_arguments: what else is to be set where it is to tell classes apart.
        heads: further tasks -> the arguments that make a model of it one for them. A head that goes with
            ``class_arguments`` tells classes apart, for another task in place of the usual one; any
            other stands beside.
        renamed: arguments that it had before -> where they stand now, ``pooling.kind``; or a function
            that makes of such a value all that it says, by such places.
        dropped: arguments that it had before -> the one value at which they said nothing.
        any_size: it takes pictures of any size as it is.
        float16: what it computes stays in the range of float16; else bfloat16 or float32 it must be.
        complete: whether a published model can answer without being trained further.
    """

    task: str = ""
    reads: tuple[str, ...] = ()
    inputs: Inputs | None = None
    example: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variants: tuple[Mapping[str, Any], ...] = ()
    classes: tuple[str, ...] = ()
    class_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    heads: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    renamed: Mapping[str, str | Callable[[Any], Mapping[str, Any]]] = dataclasses.field(
        default_factory=dict
    )
    dropped: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    any_size: bool = False
    float16: bool = True
    complete: Callable[[Any], bool] = always

    @property
    def class_heads(self) -> dict[str, Mapping[str, Any]]:
        """Those of ``heads`` that tell classes apart."""
        usual = self.class_arguments
        return {
            task: head
            for task, head in self.heads.items()
            if all(usual.get(name, value) == value for name, value in head.items())
        }

    def of(self, arguments: Mapping[str, Any]) -> Facts:
        """Those of a model with these arguments: its classes may be for another task than usual."""
        found = (task for task, head in self.class_heads.items() if agrees(arguments, head))
        return dataclasses.replace(self, task=next(found, self.task))


class Known:
    """Facts as an attribute: of a member's class its own, of a model what its arguments make of them."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def __get__(self, model: Any, cls: Any = None) -> Facts:
        return self.facts if model is None else self.facts.of(getattr(model, "arguments", {}))


def member(cls: Any = None, /, **facts: Any) -> Any:
    """Class decorator of a member: says what others need to know of it, and keeps the arguments that
    each of its models was built from.

    ``model.arguments`` has them all by name, defaults included. ``model.tokenizer``,
    ``model.preprocess``, ``model.labels`` and ``model.problem_type`` (:mod:`family.heads.problem`) are
    None until a loaded checkpoint brings them.

    Args:
        facts: the fields of :class:`Facts`; none, for a class of one's own that only a format of
            one's own needs: ``@member``.
    """

    def decorate(cls: Class) -> Class:
        init, known = cls.__init__, Facts(**facts)
        signature = inspect.signature(init)
        usual = {name: one.default for name, one in signature.parameters.items()}
        hints = functools.cache(lambda: hints_of(cls))  # which may name what is imported later on

        @functools.wraps(init)
        def remembering(self: Any, *args: Any, **kwargs: Any) -> None:
            for name in kwargs.keys() & known.renamed.keys() - signature.parameters.keys():
                place = known.renamed[name]
                now = f"is {place} now" if isinstance(place, str) else "stands in its configs now"
                raise TypeError(f"{cls.__name__} takes no {name}: it {now}.")
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            check_arguments(hints(), dict(list(bound.arguments.items())[1:]), usual)
            with in_memory(cls.__name__):
                init(self, *args, **kwargs)
            arguments: dict[str, Any] = dict(list(bound.arguments.items())[1:])
            for parameter in signature.parameters.values():
                if parameter.kind is parameter.VAR_KEYWORD:
                    arguments |= arguments.pop(parameter.name)
            self.arguments = arguments

        cls.__init__ = remembering  # type: ignore[method-assign]
        cls.facts = Known(known)  # type: ignore[attr-defined]
        for name in ("tokenizer", "preprocess", "labels", "problem_type"):
            setattr(cls, name, None)
        return cls

    return decorate if cls is None else decorate(cls)


def facts_of(model: Any) -> Facts | None:
    """Those of a model or of a member's class; None where it is no member."""
    return getattr(model, "facts", None)


def tasks_of(model: Any) -> list[str]:
    """The tasks that a model is for, its member's own first; none where it is no member."""
    facts = facts_of(model)
    if facts is None:
        return []
    classes, own = facts.class_heads, getattr(model, "arguments", {})
    beside = {task: head for task, head in facts.heads.items() if task not in classes}
    return [facts.task, *(task for task, head in beside.items() if agrees(own, head))]


def agrees(arguments: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether arguments have these values among them."""
    return all(arguments.get(name) == value for name, value in wanted.items())


def overflows_float16(model: Any) -> bool:
    """Whether it is a member whose numbers are beyond the range of float16."""
    facts = facts_of(model)
    return facts is not None and not facts.float16


def is_member(cls: Any) -> bool:
    """Whether this is the class of a member."""
    return inspect.isclass(cls) and issubclass(cls, nn.Module) and hasattr(cls, "facts")


def member_named(name: Any) -> Any:
    """The class of the member that the package has by this name; None where there is none."""
    package = importlib.import_module("family")  # which imports this module in its turn
    found = getattr(package, name) if name in dir(package) else None
    return found if is_member(found) else None


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
    return {name: plain(value) for name, value in {**defaults, **ready(cls, arguments)}.items()}


def plain(value: Any) -> Any:
    """What JSON can hold: configs as dictionaries, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def ready(cls: type[nn.Module], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a model takes them, from plain ones and from those of before: what :func:`placed`
    gives, and each dictionary the config that its annotation says, or, without one, a stack's.

    Raises:
        ValueError: a field that a config does not know, and what :func:`placed` refuses.
    """
    parameters, kinds, hints = inspect.signature(cls).parameters, configs_of(cls), hints_of(cls)
    given = placed(cls, arguments)
    for name, value in given.items():
        if isinstance(value, dict) and name in kinds:
            given[name] = filled(name, kinds[name], value, parameters[name].default)
        elif isinstance(value, dict) and name not in hints and value and value.keys() <= STACK:
            # Of a member, or where the annotation cannot be read but says so; else a dictionary it is.
            said = str(parameters[name].annotation) if name in parameters else ""
            if is_member(cls) or "TransformerConfig" in said:
                given[name] = TransformerConfig(**value)
    return given


def placed(cls: type[nn.Module], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with the fields of configs where they belong: one that stands beside its config, as
    all did before there were such configs, goes into it.

    Raises:
        ValueError: a field beside a config that is whole, or an argument that is no more.
    """
    parameters = inspect.signature(cls).parameters
    given = {name: value for name, value in arguments.items() if name in parameters}
    beside = {name: value for name, value in arguments.items() if name not in parameters}
    for place, value in moved(cls, beside).items():
        name, _, field = place.partition(".")
        if not field:
            given[name] = value
        elif isinstance(inside := given.get(name, {}), dict):
            given[name] = {field: value, **inside}
        else:
            raise ValueError(
                f"{field}={value!r} stands beside {name}={inside!r}: give one of them."
            )
    return given


def moved(cls: type[nn.Module], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What is no argument of a model, by the place where it belongs: ``patches.stem``; what belongs
    nowhere stays as it is."""
    places, found = field_places(cls), dict[str, Any]()
    facts = facts_of(cls)
    renamed = facts.renamed if facts else {}
    # A field by its own name says more than one that another name brings along.
    for name in sorted(arguments, key=lambda name: name not in renamed):
        if facts and name in facts.dropped:
            if arguments[name] != facts.dropped[name]:
                raise ValueError(
                    f"{name}={arguments[name]!r} is no argument of {cls.__name__} any more, which does "
                    f"as with {facts.dropped[name]!r}."
                )
            continue
        place = renamed.get(name, places.get(name, name))
        found |= {place: arguments[name]} if isinstance(place, str) else place(arguments[name])
    return found


def field_places(cls: type[nn.Module]) -> dict[str, str]:
    """The fields of a model's configs -> where they stand, in the first that has one; none that could
    be meant for either of two, and none of a model that takes any argument."""
    kinds, parameters = configs_of(cls), inspect.signature(cls).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return {}
    needed = [
        kind for name, kind in kinds.items() if parameters[name].default is inspect.Parameter.empty
    ]
    return {
        field.name: f"{name}.{field.name}"
        for name, kind in reversed(kinds.items())
        for field in dataclasses.fields(kind)
        if needed.count(kind) < 2
    }


def configs_of(cls: type[nn.Module]) -> dict[str, Any]:
    """The parameters of a model that take a config -> its class, the dataclass in the annotation."""
    found = {}
    for name, hint in hints_of(cls).items():
        kinds = [kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)]
        if kinds and name != "return":
            found[name] = kinds[0]
    return found


def hints_of(cls: type[nn.Module]) -> dict[str, Any]:
    """Those of a model's parameters; none where they name what is imported for type checkers alone."""
    try:
        return typing.get_type_hints(cls.__init__)
    except (NameError, AttributeError, TypeError):
        return {}


def filled(name: str, kind: Any, fields: dict[str, Any], default: Any) -> Any:
    """A config from some of its fields; the others are as in the default of its parameter."""
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise ValueError(f"{name} has the unknown field {unknown[0]!r}.")
    if kind is not TransformerConfig:  # which knows more spellings of its own, and checks them
        usual = {field.name: field.default for field in dataclasses.fields(kind)}
        check_arguments(typing.get_type_hints(kind), fields, usual)
    if not isinstance(default, kind):
        return kind(**fields)
    replace = getattr(default, "replace", functools.partial(dataclasses.replace, default))
    return replace(**fields)


def build(cls: type[Model], arguments: Mapping[str, Any]) -> Model:
    """A member from plain arguments, as :func:`describe` gives them or as :func:`ready` takes them.

    Raises:
        ValueError: an argument or value that the member, or one of its configs, does not know.
    """
    given = ready(cls, arguments)
    try:
        inspect.signature(cls.__init__).bind(None, **given)
        return cls(**given)
    except TypeError as error:
        # A member that takes any leaves it to another one, to which it hands them on.
        if not re.match("got an unexpected|missing a required|multiple values for", str(error)):
            raise
        raise ValueError(f"{cls.__name__}: {error}.") from None


def longest_text(model: Any, otherwise: float = math.inf) -> float:
    """The most tokens of a text, of a model, ours or not: its ``text_tokens``, if its stack reads more than
    texts; or what its ``config`` calls ``longest``, else ``max_tokens``.

    Args:
        otherwise: where it says neither.
    """
    if (own := getattr(model, "text_tokens", None)) is not None:
        return own
    config = getattr(model, "config", None)
    return getattr(config, "longest", getattr(config, "max_tokens", otherwise))
