"""Each two variants of a comparison judged by what came of all their seeds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from tasks.compare import statistics
from tasks.compare.statistics import LEVEL, chance

STATES = {
    "finished": "finished",
    "diverged": "diverged",
    "failed": "failed",
    "no_rate": "found no learning rate",
    "unfinished": "is not finished",
}
"""What can come of a seed, in words: it counts in the mean, its numbers were not finite, something else
stopped it, all learning rates diverged or failed before it was tried, or it is still to be run."""
LOST = [state for state in STATES if state != "finished"]
Json = dict[str, Any]
Bootstrap = Callable[[str, str], dict[str, float] | None]


def judged(variants: dict[str, Json], mode: str, bootstrap: Bootstrap) -> list[Json]:
    """Each two variants that can be compared: difference, tests, and a verdict in words.

    A verdict is of all seeds that were planned. Where one diverged, those that remain say nothing of the
    variant: it ranks last, and only by ranks, below a variant whose seeds all finished, can it have lost.
    Where one failed for another reason, or is to be run yet, there is no verdict.

    Args:
        variants: by name, "values" of the seeds that count and "seeds", a list for each of ``STATES``.
        mode: "max" or "min".
        bootstrap: of two names, see :func:`tasks.compare.statistics.bootstrap`; None where there is none.
    """
    pairs: list[Json] = [
        {"a": a, "b": b}
        for a, b in combinations(variants, 2)
        if (variants[a]["values"] and variants[b]["values"])
        or not (variants[a]["seeds"]["unfinished"] or variants[b]["seeds"]["unfinished"])
    ]
    for pair in pairs:
        a, b = variants[pair["a"]], variants[pair["b"]]
        pair |= {"difference": None, "p_seeds": None, "bootstrap": None}
        if whole(a) and whole(b):
            pair["difference"] = float(np.mean(a["values"]) - np.mean(b["values"]))
            pair["p_seeds"] = statistics.over_seeds(a["values"], b["values"], len(pairs))
            pair["bootstrap"] = bootstrap(pair["a"], pair["b"])
        elif not (stopped(a) or stopped(b)):
            pair["p_seeds"] = statistics.by_ranks(with_last(a, mode), with_last(b, mode))
    seeds = statistics.holm([pair["p_seeds"] for pair in pairs])
    tested = [(pair["bootstrap"] or {}).get("p") for pair in pairs]
    for pair, p, q in zip(pairs, seeds, statistics.holm(tested), strict=True):
        pair["p_seeds_adjusted"], pair["p_examples_adjusted"] = p, q
        names = pair["a"], pair["b"]
        if whole(variants[names[0]]) and whole(variants[names[1]]):
            values = variants[names[0]]["values"], variants[names[1]]["values"]
            said, differ = statistics.verdict(*names, values, mode, p, q)
            higher = names[0] if pair["difference"] > 0 else names[1]
            lower = names[1] if higher == names[0] else names[0]
            pair["better"] = (higher if mode == "max" else lower) if differ else None
        else:
            said, pair["better"] = of_survivors(names, variants, mode, p)
        pair["verdict"], pair["significant"] = said, pair["better"] is not None
    return pairs


def of_survivors(
    names: tuple[str, str], variants: dict[str, Json], mode: str, p: float | None
) -> tuple[str, str | None]:
    """The verdict on two variants that are not both whole, and which is better.

    Args:
        p: over seeds by ranks; None where a seed failed or is to be run.
    """
    left = [name for name in names if whole(variants[name])]
    lost = [name for name in names if name not in left]
    why = " and ".join(f"{name} {came_of(variants[name])}" for name in lost)
    by = "" if p is None else f" (over seeds, by ranks, those that diverged last, {chance(p)})"
    if left and p is not None and p < LEVEL and below(variants[lost[0]], variants[left[0]], mode):
        which = came_of(variants[lost[0]])
        return f"{left[0]} is better than {lost[0]}, which {which}{by}.", left[0]
    return f"{names[0]} and {names[1]}: no verdict, since {why}{by}.", None


def whole(variant: Json) -> bool:
    """Whether every seed counts in the mean."""
    return bool(variant["values"]) and not any(variant["seeds"][state] for state in LOST)


def stopped(variant: Json) -> bool:
    """Whether there are seeds of which one cannot say what they would have reached."""
    return any(variant["seeds"][state] for state in LOST if state != "diverged")


def with_last(variant: Json, mode: str) -> list[float]:
    """The values, higher is better, with those that diverged below all."""
    sign = 1 if mode == "max" else -1
    return [sign * x for x in variant["values"]] + [-np.inf] * len(variant["seeds"]["diverged"])


def below(worse: Json, better: Json, mode: str) -> bool:
    """Whether more pairs of seeds are won by ``better`` than lost."""
    ours, theirs = with_last(better, mode), with_last(worse, mode)
    return np.greater.outer(ours, theirs).sum() > np.less.outer(ours, theirs).sum()


def came_of(variant: Json) -> str:
    """``diverged with seeds 0 and 2, failed with seed 1``."""
    seeds = variant["seeds"]
    return ", ".join(f"{STATES[s]} with {listed(seeds[s])}" for s in LOST if seeds[s])


def listed(seeds: list[int]) -> str:
    """``seed 0``, ``seeds 0, 1 and 2``."""
    *most, end = map(str, seeds)
    return f"seeds {', '.join(most)} and {end}" if most else f"seed {end}"
