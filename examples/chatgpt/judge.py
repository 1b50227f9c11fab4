"""How positive a language model's answers are, before and after it was tuned: by the classifier that rewarded
it and by another that it never saw, with how far it has gone from what it was.

    python examples/chatgpt/judge.py OUT.json PROMPTS.jsonl --base SOURCE --models grpo=RUN dpo=RUN \
        --classifiers rewarded=RUN other=RUN --label 1

Shares and their 95 % intervals are over prompts, one answer each; "kl" is the mean over answers of
``log p - log p_base``, summed over an answer's tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import torch
from answers import read_prompts, written

import family
from family.losses.log_probs import token_log_probs
from tasks.training.answers import joined, read
from tasks.training.scorers import ClassifierScorer

SHOWN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("prompts")
    parser.add_argument("--base", required=True, help="what all were tuned from")
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME=RUN")
    parser.add_argument("--classifiers", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--label", default="1")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--most", type=int, default=500, help="prompts")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    prompts = read_prompts(options.prompts, options.most)
    named = dict(one.split("=", 1) for one in options.classifiers)
    scorers = {name: ClassifierScorer(run, options.label) for name, run in named.items()}
    base = family.load(options.base).model
    models = {"base": options.base, **dict(one.split("=", 1) for one in options.models)}
    found = {}
    for name, source in models.items():
        model = base if source == options.base else family.load(source).model
        found[name] = judged(model, base, prompts, scorers, options.tokens, options.seed)
        print(name, {k: v for k, v in found[name].items() if k != "samples"}, flush=True)
    result = {"prompts": len(prompts), "tokens": options.tokens, "models": found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def judged(
    model: Any, base: Any, prompts: list[str], scorers: dict[str, Any], tokens: int, seed: int
) -> dict[str, Any]:
    """One model's figures, and some of what it says."""
    scores: dict[str, list[float]] = {name: [] for name in scorers}
    samples, divergences, lengths = [], list[float](), list[int]()
    for one in written(model, prompts, 1, tokens, seed):
        for name, scorer in scorers.items():
            scores[name] += scorer(one.prompts, one.texts)
        rows = joined(one.ids, one.mask, one.answers.labels)
        theirs = token_log_probs(read(base, rows)[0], rows["labels"])
        divergences += (one.answers.log_probs - theirs).sum(1).tolist()
        lengths += (one.answers.labels >= 0).sum(1).tolist()
        samples += [p + text for p, text in zip(one.prompts, one.texts, strict=True)]
    made: dict[str, Any] = {}
    for name, values in scores.items():
        positive = [float(value > 0.5) for value in values]
        made[name] = {"positive": mean(positive), "score": mean(values)}
    made |= {"kl": mean(divergences), "tokens": statistics.mean(lengths)}
    first = next(iter(scores.values()))
    order = sorted(range(len(samples)), key=lambda i: -first[i])
    return {**made, "samples": samples[:SHOWN], "most_liked": [samples[i] for i in order[:SHOWN]]}


def mean(values: list[float]) -> dict[str, float]:
    """With half the width of its 95 % interval."""
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": round(statistics.mean(values), 4), "interval": round(half, 4)}


if __name__ == "__main__":
    main()
