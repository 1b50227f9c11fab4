"""``family evaluate SOURCE --tasks FILE.jsonl ...``: how many questions a language model answers rightly.

A task is a file of JSON lines, or all files of a folder: ``{"prompt" (or "question"), "choices": [...],
"answer": number from 0, or text}``; ``{"prompt", "completion"}``; or minimal pairs, ``{"sentence_good",
"sentence_bad"}``, as BLiMP has them; ``shapes`` is built in. Or it is a task of lm-evaluation-harness by its
name (``pip install 'transformer-family[eval]'``), where data are fetched from the hub. Files are scored as
the harness scores such tasks, without needing it."""

from __future__ import annotations

import argparse
import hashlib
import importlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from family.inference.batches import TEXTS
from family.inference.likelihood import longest_read
from tasks.commands.examples import command_parser
from tasks.commands.results import Results, format_option
from tasks.commands.running import model_options, open_model
from tasks.errors import UserError, at_least, user_errors
from tasks.evaluation.files import BUILT_IN, TaskFile, read_tasks
from tasks.evaluation.scores import Outcome, check_some, groups_of, outcomes_of, summary

SHOTS_SEED = 1234
"""The harness's own."""


def run(arguments: list[str]) -> None:
    """Write a score for each task and metric, then for groups of items, and for all."""
    options = parser().parse_args(arguments)
    at_least(0, of="--", shots=options.shots or 0)
    at_least(1, of="--", limit=1 if options.limit is None else options.limit)
    places, names = sorted_out(options.tasks)
    if options.apply_chat_template and places:
        raise UserError(
            f"--apply_chat_template is for tasks of lm-evaluation-harness, and {places[0]} is none."
        )
    harness = harness_for(names)
    files = [task for place in places for task in read_tasks(place)]
    for task in files:
        next(task.shown(options.shots or 0, options.seed))  # refuses what cannot be
    loaded = open_model(options.source, options, "LanguageModeling")
    with user_errors():
        loaded.check(("tokenizer",))
    check_some(loaded.tokenizer, files, options.source)
    about = {
        "source": options.source,
        "tokenizer": hashlib.sha256(loaded.tokenizer.to_json().encode()).hexdigest(),
        "longest": longest_read(loaded.model),
        "precision": options.precision,
    }
    with Results(options.format, options.out, [task.file for task in files]) as results:
        width = max(map(len, [*names, *(name for task in files for name in task.names())]))
        told: dict[tuple[str, str], dict[str, Any]] = {}
        found = [of_files(loaded.model, files, options)] * bool(files)
        if harness is not None:
            model = harness.HarnessModel(
                loaded.model, options.batch_size, options.seed, options.apply_chat_template
            )
            given = names, options.shots, options.limit, options.seed
            found.append(harness.harness_records(model, *given))
        with user_errors():
            for record in chain.from_iterable(found):
                results.write({**record, **about}, line(record, width))
                if not record["group"]:
                    told[record["file"], record["task"]] = record
        for sentence in remarks(list(told.values()), about):
            results.say(sentence)


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = command_parser(
        "evaluate",
        __doc__,
        "family evaluate SOURCE --tasks questions.jsonl",
        "family evaluate SOURCE --tasks hellaswag --shots 5",
    )
    made.add_argument("source", help="a .ckpt file, the folder of a run, or a published model")
    made.add_argument(
        "--tasks", nargs="+", required=True, help="files, folders, or names of the harness's tasks"
    )
    made.add_argument(
        "--shots", type=int, help="examples before each prompt (default: as the task says, or none)"
    )
    made.add_argument("--limit", type=int, help="the first so many items of each task")
    made.add_argument(
        "--seed", type=int, default=SHOTS_SEED, help=f"of drawn examples (default: {SHOTS_SEED})"
    )
    made.add_argument(
        "--apply_chat_template",
        action="store_true",
        help="write the prompts of the harness's tasks as a conversation",
    )
    made.add_argument("--out", type=Path, help="a .jsonl or .csv file (default: standard output)")
    format_option(made)
    model_options(made, TEXTS)
    return made


def sorted_out(tasks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which tasks are files or folders here, and which are names of the harness's."""
    places, names = [], []
    for task in tasks:
        if task == BUILT_IN or Path(task).exists() or "/" in task or task.endswith(".jsonl"):
            places.append(task)
        else:
            names += [name for name in task.split(",") if name] or [task]
    return places, names


def harness_for(names: Sequence[str]) -> Any:
    """The module that runs tasks of the harness; None where none is asked for.

    Raises:
        UserError: the harness is not installed.
    """
    if not names:
        return None
    try:
        return importlib.import_module("tasks.evaluation.harness")
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        raise UserError(
            f"{names[0]} is no file or folder here, and tasks of lm-evaluation-harness need it: pip install "
            "'transformer-family[eval]'."
        ) from None


def of_files(
    model: Any, files: Sequence[TaskFile], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The records of files, then those of groups of items and of all, for each kind of task."""
    shots = options.shots or 0
    by_kind: dict[str, list[Outcome]] = {}
    for task in files:
        found = outcomes_of(model, task, shots, options.seed, options.limit, options.batch_size)
        by_kind.setdefault(task.kind, []).extend(found)
        about = {"shots": shots, "file": task.file, "sha256": task.sha256, "version": ""}
        for record in summary(found):
            yield {"task": task.name, "group": "", "kind": task.kind, **record, **about}
    for kind, outcomes in by_kind.items():
        groups = groups_of(outcomes)
        if sum(task.kind == kind for task in files) > 1:
            groups["all"] = outcomes
        for name, some in groups.items():
            for record in summary(some):
                about = {"shots": shots, "file": "", "sha256": "", "version": ""}
                yield {"task": "", "group": name, "kind": kind, **record, **about}


def line(record: dict[str, Any], width: int) -> str:
    """A record to read."""
    value, error = record["value"], record["stderr"]
    said = "-" if value is None else f"{value:.4f}" + (f" ± {error:.4f}" if error else "")
    name = f"{record['task'] or record['group']:{width}}  {record['metric']:12}"
    return f"{name}  {said:18}  {record['items']} items"


def remarks(records: Sequence[dict[str, Any]], about: dict[str, Any]) -> Iterator[str]:
    """What a reader of the scores must know of items that were cut, tied or left out."""
    cut, tied, left_out = (sum(r[name] for r in records) for name in ("cut", "tied", "left_out"))
    if cut:
        yield (
            f"{about['source']} reads {about['longest']} tokens: {cut} of the items are longer, and of them "
            "the begin was left out."
        )
    if tied:
        yield (
            f"{tied} of the items have a choice that is as likely as the right one: the first of them "
            "counts as chosen, as in lm-evaluation-harness."
        )
    if left_out:
        yield (
            f"{left_out} of the items have a character that the tokenizer of {about['source']} does not "
            "know, and were left out."
        )
