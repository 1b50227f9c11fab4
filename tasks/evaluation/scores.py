"""How many of a task's items a language model gets right, without further packages.

Prompts, examples and metrics are those of lm-evaluation-harness, and so are the scores: also of choices that
are equally likely, of which the first counts as chosen. How often a right answer had an equal is told beside.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from family.inference.likelihood import Likelihood, log_likelihoods
from tasks.errors import UserError, user_errors
from tasks.evaluation.files import Item, TaskFile, group_name


class Outcome(NamedTuple):
    """What became of an item: the values whose mean each metric is; None where its text has a character
    that the tokenizer does not know."""

    item: Item
    values: dict[str, float] | None
    cut: bool = False
    tied: bool = False
    """Another choice is as likely as the right one."""


def outcomes_of(
    model: Any, task: TaskFile, shots: int, seed: int, limit: int | None, batch_size: int
) -> list[Outcome]:
    """Of the first ``limit`` items of a task, or of all, what the model makes of each.

    Raises:
        UserError: see :meth:`~tasks.evaluation.files.TaskFile.shown`; a choice without a token.
    """
    shown = zip(task.items, task.shown(shots, seed), strict=True)
    asked = [(item, item.pairs(examples)) for item, examples in islice(shown, limit)]
    known = [
        readable(model.tokenizer, [text for pair in pairs for text in pair]) for _, pairs in asked
    ]
    pairs = [pair for (_, some), can in zip(asked, known, strict=True) if can for pair in some]
    with user_errors():
        judged = iter(log_likelihoods(model, pairs, batch_size))
    outcomes = []
    for (item, _), can in zip(asked, known, strict=True):
        found = [next(judged) for _ in item.choices] if can else []
        values = values_of(task.kind, item, found) if can else None
        tied = can and [one.total for one in found].count(found[item.gold].total) > 1
        outcomes.append(Outcome(item, values, any(one.cut for one in found), tied))
    return outcomes


def readable(tokenizer: Any, texts: Sequence[str]) -> bool:
    """Whether a tokenizer knows all characters of texts, or has a token for those that it does not."""
    if tokenizer.alphabet is None:
        return True
    try:
        tokenizer.check_characters(texts, tokenizer.alphabet)
    except ValueError:
        return False
    return True


def values_of(kind: str, item: Item, found: Sequence[Likelihood]) -> dict[str, float]:
    """What an item adds to each metric: ``acc`` by sums of log-probabilities, ``acc_norm`` by these over
    the characters of a choice, ``acc_bytes`` over its UTF-8 bytes; of a completion ``acc``, whether greedy
    generation writes it, and for ``perplexity`` its sum."""
    totals = [one.total for one in found]
    if kind == "completions":
        return {"acc": float(found[0].greedy), "perplexity": totals[0]}
    measures: dict[str, Callable[[str], int]] = {"acc": lambda _: 1}
    if kind == "multiple choice":
        measures |= {"acc_norm": len, "acc_bytes": lambda choice: len(choice.encode())}
    found_by = {
        name: [total / size(c) for total, c in zip(totals, item.choices, strict=True)]
        for name, size in measures.items()
    }
    return {n: float(v.index(max(v)) == item.gold) for n, v in found_by.items()}


def summary(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """A record for each metric: its value and standard error, of how many items, how many of these were
    cut or tied, and how many more could not be read. A perplexity is the exponential of the mean; its error is
    that of the mean, times itself."""
    outcomes = list(outcomes)
    kept = [one for one in outcomes if one.values is not None]
    counts = {
        "items": len(kept),
        "cut": sum(one.cut for one in kept),
        "tied": sum(one.tied for one in kept),
        "left_out": len(outcomes) - len(kept),
    }
    records = []
    for name in (kept[0].values or {}) if kept else {"acc": 0.0}:
        values = [one.values[name] for one in kept if one.values is not None]
        value = statistics.fmean(values) if values else None
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        if name == "perplexity" and value is not None:
            value = math.exp(-value)
            error = None if error is None else error * value
        records.append({"metric": name, "value": value, "stderr": error, **counts})
    return records


def groups_of(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes by what the columns of groups say: ``field=syntax``; of columns that say only one thing
    nothing."""
    found: dict[str, dict[str, list[Outcome]]] = {}
    for one in outcomes:
        for name, value in one.item.groups:
            found.setdefault(name, {}).setdefault(value, []).append(one)
    return {
        group_name(name, value): some
        for name, by_value in found.items()
        if len(by_value) > 1
        for value, some in by_value.items()
    }


def check_some(tokenizer: Any, tasks: Sequence[TaskFile], source: str) -> None:
    """Refuse tasks of which a tokenizer can read no item.

    Raises:
        UserError: see above.
    """
    items = [item for task in tasks for item in task.items]
    if items and not any(readable(tokenizer, [one.prompt, *one.choices]) for one in items):
        raise UserError(
            f"every item of the tasks has a character that the tokenizer of {source} does not know: "
            "there is nothing to score."
        )
