"""What is wrong with a config, in one sentence: its options are held against those that there are."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import pytorch_lightning as pl
from jsonargparse import ArgumentError

import family
import tasks
from tasks.cli.options import built, fits, imported, options, parts, read, taken
from tasks.errors import UserError, closest

TOP: dict[str, Any] = {"model": pl.LightningModule, "data": pl.LightningDataModule}
TOP |= dict.fromkeys(("trainer", "config", "run_folder", "ckpt_path", "seed_everything"), Any)
TOP |= dict.fromkeys(("optimizer", "lr_scheduler", "weights_only", "verbose"), Any)
SYNONYMS = {
    "max_epochs": "epochs num_epochs",
    "max_steps": "steps",
    "lr": "learning_rate",
    "batch_size": "bs",
    "tokens_per_batch": "bs batch_size",
    "num_workers": "workers",
    "heads": "n_heads num_heads n_head",
    "dim": "hidden_size d_model n_embd embed_dim",
    "depth": "num_layers n_layers n_layer layers",
}
"""Our names of options, and those of other libraries."""
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def sentence(error: Exception, arguments: Sequence[str] = ()) -> str:
    """What a user can mend of what the parser, or what it builds, refuses.

    Args:
        arguments: of the command line.

    Raises:
        UserError: a config that is no YAML, or none of options.
    """
    if isinstance(error, ArgumentError):
        given = read(arguments)
        known = options(TOP, given) | options(taken(pl.Trainer), given, "trainer.")
        for path, value in given.items():
            # Nothing is blamed but what the parser trips over.
            if path.rpartition(".")[2] in str(error) and (said := mistake(path, value, known)):
                return said
        if not any(path.startswith("model") for path in given):
            return "give --config TASK/NAME (family list names those that we ship), or a path."
    if "No supported gpu backend" in str(error):
        return "trainer.accelerator=gpu: there is no GPU here; 'auto' takes what there is."
    inner: BaseException = error
    while inner.__cause__ is not None:  # the innermost says most
        inner = inner.__cause__
    key = re.match(r'Parser key "([\w.]+)"', str(error))
    return (f"{key[1]}: " if key else "") + " ".join(str(inner).split())


def mistake(path: str, value: Any, known: Mapping[str, Any]) -> str | None:
    """What is wrong with the value of an option, or with its name."""
    place, _, last = path.rpartition(".")
    if last == "class_path":
        return no_class(place, value, known)
    if built(known.get(path)):
        listed = str(value).startswith("[")  # the parser then says which one it is
        return None if listed else no_class(path, str(value), known)
    if path in known:
        return None if fits(value, known[path]) else misfit(path, value, known[path])
    while place and place not in known:
        place, _, last = place.rpartition(".")
    here = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == place]
    return unknown(last, place, here, known) if here else None  # else values of a dictionary


def check_nulls(given: Mapping[str, Any]) -> None:
    """Refuse null where an option takes none, which the parser lets pass.

    Args:
        given: the options of a call and its configs, by their paths.

    Raises:
        UserError: see above.
    """
    known = options(TOP, given) | options(taken(pl.Trainer), given, "trainer.")
    for path, value in given.items():
        kind = known.get(path, Any)
        unsaid = kind in (Any, inspect.Parameter.empty) or built(kind)
        if value is None and not unsaid and types.NoneType not in parts(kind):
            raise UserError(misfit(path, "null", kind))


def no_class(path: str, name: Any, known: Mapping[str, Any]) -> str | None:
    """Where a class path leads to none, or to one of another kind."""
    if not isinstance(name, str):
        return f"{path}={name!r} is no class: give its dotted path."
    found, kinds = imported(name), built(known.get(path))
    near = closest(name.rpartition(".")[2], [*dir(tasks), *dir(family)])
    if "." not in name:
        return f"{path}={name!r} is no class: give its dotted path.{near}"
    if found is None:
        return f"there is no {name}.{near}"
    named = [kind for kind in kinds if inspect.isclass(kind)]
    if inspect.isclass(found) and kinds and named == kinds and not issubclass(found, tuple(kinds)):
        return f"{path}={name!r} is no {kinds[0].__name__}."
    return None


def misfit(path: str, value: Any, kind: Any) -> str:
    """What an option would take."""
    wanted = [part for part in parts(kind) if part is not types.NoneType]
    literals = [part for part in wanted if get_origin(part) is Literal]
    choices = list(dict.fromkeys(str(one) for part in literals for one in get_args(part)))
    if choices:
        known = f"choose one of: {', '.join(choices)}.{closest(str(value), choices)}"
        return f"{path}={value!r} is unknown; {known}"
    words = [in_words(part) for part in wanted if part is not int or float not in wanted]
    return f"{path} must be {' or '.join(words)}, not {value}."


def in_words(kind: Any) -> str:
    if get_origin(kind) is tuple and ... not in get_args(kind):
        return f"a list of {len(get_args(kind))} in [...]"
    if get_origin(kind) in (tuple, list):
        return "a list in [...]"
    return WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")


def unknown(name: str, place: str, here: Iterable[str], known: Iterable[str] = ()) -> str:
    """An option that there is not, and the nearest of its place, or of another.

    Args:
        place: whose option it is not; "" is the config itself.
        here: the options there.
        known: the paths of all options.
    """
    wanted = [name, *(ours for ours, theirs in SYNONYMS.items() if name in theirs.split())]
    paths = [path for last in wanted for path in known if path.rpartition(".")[2] == last]
    near = next((last for last in wanted if last in here), next(iter(paths), None))
    hint = f" Did you mean {near!r}?" if near else closest(name, here)
    if place:
        hint = hint or f" There are: {', '.join(here)}."
    return f"unknown option {name!r}{place and f' of {place}'}.{hint}"
