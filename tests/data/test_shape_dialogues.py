"""The world of shapes in conversation."""

from __future__ import annotations

import pytest

from tasks.data.shape_dialogues import describe, exchange, judge


def test_answers_are_right_and_the_others_wrong() -> None:
    for index in range(300):
        one = exchange(index)
        said = one.prompt[-1]["content"]
        assert judge(said, one.answer) == 1.0
        assert judge(said, one.wrong) < 1.0
        assert one.kind == ("count" if "how many" in said else "describe")


def test_an_exchange_is_always_the_same_and_of_one_split() -> None:
    assert exchange(7) == exchange(7)
    assert exchange(7) != exchange(7, seed=1)
    told = {
        s: {exchange(i, 0, s).prompt[0]["content"].partition(".")[0] for i in range(200)}
        for s in ("train", "val", "test")
    }
    assert not told["train"] & told["val"] and not told["train"] & told["test"]


PROMPT = "the picture has a small red circle at the top, a small red circle on the left, a large blue cross on the right. "


@pytest.mark.parametrize(
    ("question", "answer", "score"),
    [
        ("describe the picture.", "two small red circles and a large blue cross", 1),
        ("describe the picture.", "a large blue cross and two small red circles", 1),
        ("describe the picture.", "two small red circles", 2 / 3),
        (
            "describe the picture.",
            "two small red circles, a large blue cross and a small red star",
            3 / 4,
        ),
        ("describe the picture.", "two small red circles and a large blue crosses", 0),
        ("describe the picture.", "circles", 0),
        ("describe the picture.", "", 0),
        ("how many red circles are there?", "two", 1),
        ("how many red circles are there?", "two two", 0),
        ("how many green stars are there?", "no", 1),
    ],
)
def test_an_answer_is_judged_by_the_words_of_its_prompt(
    question: str, answer: str, score: float
) -> None:
    assert judge(PROMPT + question, answer) == pytest.approx(score)


def test_like_things_are_told_together() -> None:
    from collections import Counter

    things = [("small", "red", "cross")] * 2 + [("large", "blue", "star")]
    assert describe(Counter(things)) == "two small red crosses and a large blue star"
