"""What a call says beside a checkpoint: the options that it keeps, and those that it would pass over."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning.callbacks import Timer

from family.models.member import plain
from tasks.cli.options import flat, read, read_file
from tasks.data.base import FamilyData
from tasks.errors import UserError
from tasks.runs.sources import located
from tasks.training.record import is_plain
from tasks.training.resuming import validation_cut, validation_left

KEPT = (
    *("optimizer", "freeze", "layer_decay", "transplant", "share_embeddings"),
    "image_tokenizer",
)
"""Options of a task that a state of the optimizer, or the weights of a checkpoint, depend on."""
DIVIDED = (
    *("val_fraction", "test_fraction", "train_fraction", "split_seed"),
    *("group", "group_column", "split_column", "split_ignore"),
)
"""Options of data that say what is held out."""
PATHS = (
    *("root", "pretrained", "source", "chat_template", "perceptual", "image_tokenizer"),
    *("vision", "language"),
)
"""Options that are read from where the command was called."""
CONFIG = "config.yaml"


# --- What a run's config says ----------------------------------------------------------------


def of_the_run(config: Namespace) -> Namespace:
    """A config without what belongs to one call alone, its paths true wherever it is read."""
    config = config.clone()
    for name in ("config", "run_folder", "ckpt_path"):
        config.pop(name, None)
    for place, name in paths_in(config):
        place[name] = located(place[name])
    return config


def put_home(config: Namespace) -> None:
    """Write the home folder in the place of ``~``, in the run's folder and all paths of a config."""
    if config.run_folder is not None:
        config.run_folder = os.path.expanduser(config.run_folder)
    for place, name in paths_in(config):
        place[name] = os.path.expanduser(place[name])


def paths_in(config: Namespace) -> Iterator[tuple[Namespace, str]]:
    """Where a config has paths, and by which names."""
    for part in ("model", "data"):
        given = (config.get(part) or {}).get("init_args") or Namespace()
        several = given.get("tasks")  # each with a root of its own
        parts = several.values() if isinstance(several, dict) else ()
        for place in (given, given.get("transplant"), *parts):
            for name in PATHS if isinstance(place, Namespace) else ():
                if isinstance(place.get(name), str):
                    yield place, name


def name_of_run(file: Path, subcommand: str) -> str:
    """What a run of a config is called, without the time: of a run's own config as that run, so that names do
    not grow from run to run."""
    folder = file.parent.name
    if file.name != CONFIG:
        return f"{folder}-{file.stem}" if folder else file.stem
    parent = re.sub(r"(-\d{8}-\d{6}(-\d+)?)?$", "", file.resolve().parent.name, count=1)
    return (
        parent if subcommand == "fit" else f"{parent.removesuffix(f'-{subcommand}')}-{subcommand}"
    )


def of_a_run(command: str, arguments: Sequence[str]) -> list[str]:
    """``test RUN ...`` as the call that it is short for: the config that a run has, and its checkpoint.

    Args:
        command: "validate", "test", "predict" or "resume".
        arguments: the run, its folder or a ``.ckpt`` file of it, and options laid over its config.

    Raises:
        UserError: there is no such run, or it has no config.
    """
    subcommand = "fit" if command == "resume" else command
    if not arguments or arguments[0].startswith("-"):
        if command == "resume" and not {"--help", "-h"} & set(arguments):
            raise UserError("family resume needs the run to go on with: family resume RUN.")
        return [subcommand, *arguments]
    run, *more = arguments
    place = Path(run)
    if not place.exists():
        raise UserError(f"there is no run {run}.")
    folders = [place] if place.is_dir() else list(place.absolute().parents)[:2]
    found = next((f / CONFIG for f in folders if (f / CONFIG).is_file()), None)
    if found is None:
        raise UserError(
            f"{run} has no {CONFIG} of a run: give --config, and --ckpt_path={run} for its weights."
        )
    return [subcommand, "--config", str(found), "--ckpt_path", run, *more]


def source_alone(arguments: Sequence[str]) -> bool:
    """Whether the part of a call that names a source of weights, its options or one of its configs, names no
    model."""
    parts: list[dict[str, Any]] = [{}]
    words = iter(arguments)
    for word in words:
        if not word.startswith("--"):
            continue
        found = read([word] if "=" in word else [word, next(words, "")])
        if word.partition("=")[0] == "--config":
            parts.append(found)
        else:
            parts[0] |= found
    named = [{name for name, value in part.items() if value is not None} for part in parts]
    return not any(
        "model.pretrained" in names and any(name.startswith("model.model") for name in names)
        for names in named
    )


def check_ancestor(config: Namespace, arguments: Sequence[str]) -> None:
    """Refuse to evaluate by a run's config of before, which names the checkpoint that it began from.

    Raises:
        UserError: the run has checkpoints of its own.
    """
    if any(word.partition("=")[0] == "--ckpt_path" for word in arguments):
        return
    for file in map(str, config.get("config") or []):
        own = Path(file).parent / "checkpoints"
        path = read_file(file).get("ckpt_path")
        if path and own.is_dir():
            raise UserError(
                f"{file} names {path}, from which its run went on: give --ckpt_path={own.parent} for "
                f"the run itself, or --ckpt_path={path}."
            )


# --- What goes on from a checkpoint ----------------------------------------------------------


def check_options(file: Path, record: dict[str, Any], task: Any) -> None:
    """Refuse to go on with a task whose options a checkpoint would override.

    Rates, decay, betas and schedule are those of the call, see ``Task.configure_optimizers``.

    Args:
        task: the :class:`~tasks.training.task.Task` of the call.
    """
    before, now = record.get("options", {}), plain(task.options)
    for name in KEPT:
        if name in before and same(name, before[name]) != same(name, now.get(name)):
            raise UserError(
                f"{file} was trained with model.{name}={before[name]!r}, which a resumed run keeps, "
                f"but the call says {now.get(name)!r}: give the same, or begin a new run from its "
                f"weights by --model.pretrained={file}."
            )
    given, call = (dict(flat(each or {})) for each in (record.get("given"), task.given))
    for name in sorted({*given, *call} if given else ()):
        if given.get(name) != call.get(name):
            raise UserError(
                f"{file} was trained with --{name}={given.get(name)!r}, which a resumed run keeps, but "
                f"the call says {call.get(name)!r}: give the same."
            )


def same(name: str, value: Any) -> Any:
    """A value for comparing; none and no pattern are one."""
    return sorted(value or []) if name == "freeze" else value


def use_options(data: FamilyData, given: Namespace | dict[str, Any]) -> None:
    """Let data know what they are made with, for their checkpoints."""
    values = given.as_dict() if isinstance(given, Namespace) else dict(given)
    data.options = {name: value for name, value in plain(values).items() if is_plain(value)}


def check_data(file: Path, content: dict[str, Any], data: FamilyData) -> None:
    """Refuse options of the data in whose place a checkpoint brings its own, and those by which the same data
    would be divided otherwise.

    A checkpoint of before does not say with which it was made.
    """
    state = content.get(type(data).__qualname__, {})
    before, now = state.get("options", {}), data.options or {}
    for name in data.decided:
        if name in before and name in now and pair(before[name]) != pair(now[name]):
            raise UserError(
                f"{file} was made with data.{name}={before[name]!r}, which goes with its weights, but "
                f"the call says {now[name]!r}: leave it as it was."
            )
    roots = {os.path.abspath(str(options.get("root"))) for options in (before, now)}
    if now.get("root") is None or len(roots) > 1:
        return
    for name in DIVIDED:
        if name in before and name in now and before[name] != now[name]:
            raise UserError(
                f"{file} was made with data.{name}={before[name]!r}; the call says {now[name]!r}, by which some of the "
                "same data would be held out that it was trained on: leave it as it was."
            )


def pair(value: Any) -> Any:
    """A value for comparing: one side of a square is both."""
    return [value, value] if isinstance(value, int) and not isinstance(value, bool) else value


def check_unfinished(file: Path, content: dict[str, Any], trainer: Namespace) -> bool:
    """Refuse to go on with a run that has come to its end.

    Returns:
        Whether it has, but was cut before its metrics were written: its last validation is to be made again.

    Raises:
        UserError: it has made as many steps or epochs, or taken as much time, as the call allows.
    """
    step, loop = content.get("global_step", 0), content.get("loops", {}).get("fit_loop", {})
    progress = loop.get("epoch_progress", {}).get("current", {})
    epochs = progress.get("processed", 0)
    if loop.get("epoch_loop.batch_progress", {}).get("is_last_batch") and not validation_left(
        content
    ):
        # By the validation after an epoch's last batch: of that epoch there is no more to do.
        epochs = max(epochs, progress.get("ready", 0))
    # Lightning's own limit where there is none.
    most = 1000 if trainer.max_epochs is None and trainer.max_steps == -1 else trainer.max_epochs
    for name, done, limit in (("max_steps", step, trainer.max_steps), ("max_epochs", epochs, most)):
        if limit is not None and limit != -1 and done >= limit:
            if done == limit and not ended(file):
                return True
            cut = f" Its last validation was cut: family validate {file} makes it."
            raise UserError(
                f"{file} is at its end, with {done} of trainer.{name}={limit}: give a larger "
                f"trainer.{name} to go on.{cut * validation_cut(content)}"
            )
    spent = content.get("callbacks", {}).get("Timer")
    if spent is not None and trainer.max_time is not None:
        timer = Timer(trainer.max_time)
        timer.load_state_dict(spent)
        if not timer.time_remaining() > 0:  # type: ignore[operator]
            raise UserError(
                f"{file} is at its end, with all of trainer.max_time={trainer.max_time} taken: give a "
                "larger trainer.max_time to go on."
            )
    return False


def ended(file: Path) -> bool:
    """Whether the run of a last checkpoint wrote all that it had to; of another checkpoint it counts as if."""
    run = file.absolute().parents[1]
    whole = (run / "metrics-fit.json").exists()
    return whole or file.name != "last.ckpt" or not (run / CONFIG).exists()


def seed_of(file: Path, content: dict[str, Any], data: Any, seed: Any, given: bool) -> Any:
    """The seed by which a resumed run orders its batches: that of the run that it goes on with.

    Args:
        given: whether the call itself names ``seed``.

    Raises:
        UserError: it names another.
    """
    state = content.get(type(data).__qualname__, {})
    before = state.get("run_seed", seed) if isinstance(data, FamilyData) else seed
    if given and before != seed:
        raise UserError(
            f"{file} is of a run with seed_everything={before}, whose order of batches goes on, but "
            f"the call says {seed}: leave it as it was."
        )
    return before
