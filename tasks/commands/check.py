"""``family check --config NAME``: data and model of a config, before hours are spent on it."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.commands.examples import command_parser
from tasks.errors import UserError, user_errors

TOO_LONG = 0.1
"""From this share of rows over the limit on it is to be mended, where what is over is lost."""
SHARED = 0.01
"""The same of examples of a held-out split that are in training too, and of contradictions."""
FALLS = 0.02
"""The least share by which the loss of one batch falls."""
RARE = 0.01
"""A class of fewer examples than this share of the largest one's is said to be rare."""


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "check",
        __doc__,
        "family check --config text_classification/shapes",
        "family check --config text_classification/shapes --data.root FOLDER --json",
        more="Other options are those of family fit. It ends with 0 and go, or with 1 and what to mend.",
    )
    made.add_argument("--config", action="append", required=True, help="TASK/NAME or a file")
    made.add_argument("--json", action="store_true", help="the report as JSON")
    return made


def run(arguments: list[str]) -> None:
    """Print the report; the process ends with 1 where something is to be mended."""
    options, rest = parser().parse_known_args(arguments)
    # Here, so that --help is quick.
    from tasks.cli.building import Dry, quietly
    from tasks.cli.configs import find_config

    first, *more = (str(find_config(name)) for name in options.config)
    beside = [f"--config={path}" for path in more]
    with quietly():
        made = Dry(first, ("--trainer.accelerator=auto", *beside, *rest))
    report = checked(made.model, made.datamodule, made.config["fit"].trainer)
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(report)))
    sys.stdout.flush()
    if report["mend"]:
        sys.exit(1)


def checked(task: Any, data: Any, trainer: Any) -> dict[str, Any]:
    """The report, as plain values; ``mend`` is empty where nothing is to be done."""
    from tasks.compare.trial import try_out

    report: dict[str, Any] = {"splits": {}, "classes": {}, "notes": [], "mend": []}
    with warned(report["notes"]):
        try:
            data.prepare_data()
            data.setup("fit")
            look_at(data, report)
        except UserError as error:
            report["mend"].append(str(error))
            return report
        trial = try_out(task, data, trainer)
    judge(task, trial, trainer, report)
    report["notes"] = [one for one in dict.fromkeys(report["notes"]) if one not in report["mend"]]
    return report


@contextmanager
def warned(notes: list[str]) -> Iterator[None]:
    """Within it, what our data warn of is noted, and not printed."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    logger, handler = logging.getLogger("tasks.data"), Notes(logging.WARNING)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


# --- Data ---


def look_at(data: Any, report: dict[str, Any]) -> None:
    """What is in the splits."""
    from tasks.data.stored import look

    mend, looked = report["mend"], {}
    for split in ("train", "val", "test"):
        try:
            stored = data.stored(split)
        except UserError:
            if split != "test":
                raise
            continue  # a run needs none
        if stored is None:
            report["notes"].append(f"{type(data).__name__} says nothing of its splits.")
            return
        with user_errors():  # a character that the tokenizer does not know
            looked[split] = found = look(stored)
        report["splits"][split] = {
            "examples": found.examples,
            "looked_at": found.sampled,
            "repeated": found.repeated,
            "tokens": found.lengths,
            "limit": stored.limit if found.lengths else None,
            "over_limit": found.over,
        }
        mend += over(split, stored, found)
        if found.contradicted > SHARED * found.sampled:
            mend.append(
                f"{found.contradicted} of {found.sampled} examples of {split} are the same as others with "
                "another label: labels may be shuffled, or need more than what is shown."
            )
    labels = set().union(*looked["train"].digests.values()) - {None}
    if len(labels) == 1 and looked["train"].sampled > 1:
        mend.append(
            f"all {looked['train'].sampled} examples of train that were looked at have the same label: there "
            "is nothing to learn; the column or the folder of labels may be another."
        )
    for split in looked.keys() & {"val", "test"}:
        mend += leaked(split, looked["train"], looked[split], report)
        mend += data.degenerate(split)
    mend += data.degenerate("train")
    balance(data, report)


def over(split: str, stored: Any, found: Any) -> list[str]:
    """What to say of rows that are too long."""
    if not found.over or not stored.lost or found.over <= TOO_LONG * found.sampled:
        return []
    return [
        f"{found.over} of {found.sampled} examples of {split} are longer than {stored.option}={stored.limit}, "
        f"the longest {found.lengths['max']} tokens: what is over is lost; give a larger one."
    ]


def leaked(split: str, train: Any, held_out: Any, report: dict[str, Any]) -> list[str]:
    """What to say of examples that are in training too."""
    both = held_out.digests.keys() & train.digests.keys()
    report["splits"][split]["in_train"] = len(both)
    if len(both) <= SHARED * held_out.sampled:
        return []
    return [
        f"{len(both)} of {held_out.sampled} examples of {split} that were looked at are in train too, so that "
        "its scores say little of what is new: hold out by content, or remove them."
    ]


def balance(data: Any, report: dict[str, Any]) -> None:
    """The classes of the training split."""
    count = getattr(data, "class_counts", None)
    if count is None:
        return
    counts = count()
    names = data.assets().get("labels") or [str(i) for i in range(len(counts))]
    report["classes"] = dict(zip(names, counts, strict=True))
    empty = [name for name, n in report["classes"].items() if not n]
    if empty:
        which = ", ".join(map(repr, empty[:5])) + " ..." * (len(empty) > 5)
        report["mend"].append(
            f"no example of train has the class {which}: a model cannot learn it; add some, or leave it out."
        )
    rare = [name for name, n in report["classes"].items() if 0 < n < RARE * max(counts)]
    if rare:
        which = ", ".join(map(repr, rare[:5])) + " ..." * (len(rare) > 5)
        report["notes"].append(
            f"rare classes, of less than {RARE:.0%} of the largest: {which}; model.class_weights may help, "
            "where the task has it."
        )


# --- The trial ---


def judge(task: Any, trial: Any, trainer: Any, report: dict[str, Any]) -> None:
    """What the first steps came to, and what a run would."""
    from tasks.compare.trial import steps_of

    mend = report["mend"]
    for name in trial.not_finite:
        mend.append(f"{name} of train has numbers that are not finite: mend the data, or data.std.")
    if trial.error and not trial.not_finite:
        mend.append(trial.error)
    steps = steps_of(trainer, trial.batches)
    each = (trial.step_seconds + trial.load_seconds) * (trainer.accumulate_grad_batches or 1)
    report["trial"] = {
        "parameters": trial.parameters,
        "rows": trial.rows,
        "losses": trial.losses,
        "step_seconds": trial.step_seconds,
        "batch_seconds": trial.load_seconds,
    }
    report["estimates"] = {
        "steps": steps,
        "seconds": None if steps is None else steps * each,
        "bytes": trial.bytes,
    }
    if trial.error or len(trial.same) < 4:
        return
    first, last = trial.ends
    report["trial"] |= {"first": first, "last": last, "steps_on_one_batch": len(trial.same)}
    if not getattr(task, "loss_falls", True):
        report["notes"].append(
            "the loss of this task does not fall as it learns: it was not judged."
        )
    elif not last <= (1 - FALLS) * first:
        way = "rose" if last > (1 + FALLS) * first else "did not fall"
        hint = "smaller" if way == "rose" else "larger, or much smaller,"
        mend.append(
            f"the loss of one batch {way}, from {first:.4g} to {last:.4g} in {len(trial.same)} steps: a model "
            f"that does not learn one batch learns nothing; a {hint} model.lr than {task.lr:g} may help, and "
            "model.freeze may freeze too much."
        )


# --- The report as text ---


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for a reader."""
    for split, found in report["splits"].items():
        looked = found["looked_at"]
        part = (
            "" if looked == found["examples"] else f" ({looked} of them, evenly spread, looked at)"
        )
        yield f"{split}: {found['examples']} examples{part}"
        if found["repeated"]:
            yield f"  {found['repeated']} are the same as another"
        if "in_train" in found:
            yield f"  {found['in_train']} are in train too"
        if found["tokens"]:
            said = ", ".join(f"{name} {n}" for name, n in found["tokens"].items())
            share = (
                "" if found["over_limit"] is None else f"; {found['over_limit'] / looked:.1%} over"
            )
            limit = "" if found["limit"] is None else f" {found['limit']}"
            yield f"  tokens without marks: {said}{share}{limit}"
    if report["classes"]:
        total = sum(report["classes"].values()) or 1
        most = sorted(report["classes"].items(), key=lambda one: -one[1])
        shown = ", ".join(f"{name} {n / total:.1%}" for name, n in most[:12])
        yield f"classes of train: {len(most)}; {shown}{' ...' * (len(most) > 12)}"
    if trial := report.get("trial"):
        yield f"model: {trial['parameters']:,} parameters; {trial['rows']} rows a batch"
        if "first" in trial:
            yield (
                f"one batch, {trial['steps_on_one_batch']} steps: the loss goes from {trial['first']:.4g} to "
                f"{trial['last']:.4g}"
            )
        ends = report["estimates"]
        time = "no end is given"
        if ends["seconds"] is not None:
            time = f"{duration(ends['seconds'])} for {ends['steps']} steps, without validation"
        yield f"estimated, from these steps: {time}; {ends['bytes'] / 1e9:.2f} GB of memory"
    yield from (f"note: {one}" for one in report["notes"])
    if report["mend"]:
        yield "to mend:"
        yield from (f"  - {one}" for one in report["mend"])
    else:
        yield "go"


def duration(seconds: float) -> str:
    """In the largest unit of which there is more than one and a half."""
    for unit, name in ((3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"
