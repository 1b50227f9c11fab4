"""Pairs for preference tuning out of a model's own answers: of several to one prompt, the one that a
classifier of texts likes best, and the one that it likes least.

    python examples/chatgpt/own_pairs.py SOURCE PROMPTS.jsonl CLASSIFIER OUT.jsonl --label 1

SOURCE is a language model and CLASSIFIER a run of ``tasks.TextClassification``. It prints how many tokens were
generated, so that reinforcement can be given as many.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from answers import read_prompts, written

import family
from tasks.training.scorers import ClassifierScorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("prompts")
    parser.add_argument("classifier")
    parser.add_argument("out", type=Path)
    parser.add_argument("--label", default="1", help="the class that is liked")
    parser.add_argument("--samples", type=int, default=8, help="answers to a prompt")
    parser.add_argument("--tokens", type=int, default=24, help="of an answer, at most")
    parser.add_argument("--most", type=int, help="prompts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = family.load(options.source).model
    scorer = ClassifierScorer(options.classifier, options.label)
    prompts, each = read_prompts(options.prompts, options.most), options.samples
    rows, generated = [], 0
    for one in written(model, prompts, each, options.tokens, options.seed):
        rewards = scorer(one.prompts, one.texts)
        generated += int((one.answers.labels >= 0).sum())
        for first in range(0, len(rewards), each):
            order = sorted(range(first, first + each), key=lambda i: rewards[i])
            worst, best = order[0], order[-1]
            if one.texts[best].strip() and one.texts[worst].strip() and worst != best:
                pair = {"chosen": one.texts[best], "rejected": one.texts[worst]}
                if pair["chosen"] != pair["rejected"]:
                    margin = rewards[best] - rewards[worst]
                    rows.append({"prompt": one.prompts[first], **pair, "margin": margin})
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} pairs in {options.out}, of {generated} generated tokens")


if __name__ == "__main__":
    main()
