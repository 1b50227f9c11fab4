"""What constant strategies get of questions that are to be answered by spans of a text: the least that a
trained model must be better than.

    python examples/question_baselines.py XQUAD/xquad.en.json [--test_fraction 0.2]

The file is divided by paragraphs as ``tasks.QuestionAnsweringData`` divides it; without FILE it is the
built-in world of shapes. Each strategy is scored on training questions, and the best of them by F1 on those
of the test.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from tasks.data.question_answering import QuestionAnsweringData
from tasks.data.shapes import COLOURS
from tasks.data.squad import Asked
from tasks.training.answer_scores import answer_scores, normalised

Strategy = Callable[[Asked], str]


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?。])\s*", text.strip().rstrip())


def first_words(count: int) -> Strategy:
    return lambda asked: " ".join(asked.context.split()[:count])


def last_words(count: int) -> Strategy:
    return lambda asked: " ".join(asked.context.split()[-count:])


def likeliest_sentence(asked: Asked) -> str:
    """The sentence that has most words in common with the question; the shorter of two."""
    words = set(normalised(asked.question).split())
    return max(
        sentences(asked.context),
        key=lambda one: (len(words & set(normalised(one).split())), -len(one)),
    )


def words_behind(count: int) -> Strategy:
    """The words behind the last of the question's in that sentence."""

    def answer(asked: Asked) -> str:
        said, words = likeliest_sentence(asked).split(), set(normalised(asked.question).split())
        shared = [i for i, word in enumerate(said) if normalised(word) in words]
        start = shared[-1] + 1 if shared else 0
        return " ".join(said[start : start + count] or said[-count:])

    return answer


def first_capitals(asked: Asked) -> str:
    """The first words in a row with capitals or digits that the question does not have."""
    words = set(normalised(asked.question).split())
    for found in re.finditer(r"(?:\b[A-ZÄÖÜ0-9][\w.,-]*\s?)+", likeliest_sentence(asked)):
        if not words & set(normalised(found[0]).split()):
            return found[0]
    return ""


def first_colour(asked: Asked) -> str:
    return next((word for word in asked.context.split() if word in COLOURS), "")


STRATEGIES: dict[str, Strategy] = {
    "nothing": lambda asked: "",
    "the whole text": lambda asked: asked.context,
    "the first sentence": lambda asked: sentences(asked.context)[0],
    "the sentence most like the question": likeliest_sentence,
    "the first capitals or digits of it": first_capitals,
    "the first colour": first_colour,
    **{f"the first {n} words": first_words(n) for n in (1, 2, 3, 5, 8)},
    **{f"the last {n} words": last_words(n) for n in (1, 2, 3, 5, 8)},
    **{f"the {n} words behind the question's in it": words_behind(n) for n in (1, 2, 3, 5, 8)},
}


def mean(strategy: Strategy, rows: list[Asked], impossible: bool) -> tuple[float, float]:
    """Exact match and F1 in percent."""
    scores = [
        answer_scores(strategy(row), [answer.text for answer in row.answers], impossible)
        for row in rows
    ]
    exact, f1 = (100 * sum(column) / len(rows) for column in zip(*scores, strict=True))
    return exact, f1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help="SQuAD's JSON, or JSON lines")
    parser.add_argument("--test_fraction", type=float, default=0.2)
    parser.add_argument("--split_seed", type=int, default=0)
    options = parser.parse_args()
    shares = {"val_fraction": 0.0, "test_fraction": options.test_fraction}
    data = QuestionAnsweringData(options.file, split_seed=options.split_seed, **shares)
    train, test = data.rows("train"), data.rows("test")
    print(f"{len(train)} questions to choose by, {len(test)} to test")
    found = {name: mean(one, train, data.impossible) for name, one in STRATEGIES.items()}
    for name, (exact, f1) in sorted(found.items(), key=lambda pair: -pair[1][1]):
        print(f"{name:42} exact match {exact:5.1f}  F1 {f1:5.1f}")
    best = max(found, key=lambda name: found[name][1])
    exact, f1 = mean(STRATEGIES[best], test, data.impossible)
    print(f"test: {best}: exact match {exact:.1f}, F1 {f1:.1f}")


if __name__ == "__main__":
    main()
