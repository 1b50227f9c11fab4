"""Exact match and F1 of answers: as torchmetrics counts SQuAD 1.1, and by SQuAD 2.0's own rules."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
from torchmetrics.functional.text import squad

from tasks.training.answer_scores import (
    Judged,
    answer_scores,
    best_threshold,
    mean_scores,
    normalised,
)

WORDS = ["the", "a", "An", "Red", "red", "star,", "star", "3.5", "é", "the-end", "…", "(x)"]
ONE = {"exact_match": 40.0, "f1": 43.722857142857116}
TWO = {
    "exact": 42.6,
    "f1": 48.12666666666665,
    "HasAns_exact": 21.035598705501616,
    "HasAns_f1": 29.978425026968736,
    "NoAns_exact": 77.4869109947644,
    "best_exact": 46.5,
    "best_exact_thresh": 0.255,
    "best_f1": 50.64095238095235,
    "best_f1_thresh": 0.283,
}
"""What the scripts of SQuAD 1.1 and 2.0 print of the questions of :func:`asked`, above 0.5 taken for no answer."""


def phrase(draw):
    """Of words that are not all articles: then SQuAD 1.1's own script shares none of them."""
    words = [*draw.choices(WORDS, k=draw.randint(0, 4)), draw.choice(("red", "star"))]
    return " ".join(draw.sample(words, len(words)))


def test_random_answers_as_squads_script_scores_them():
    draw = random.Random(0)
    for _ in range(300):
        made, true = phrase(draw), [phrase(draw) for _ in range(draw.randint(1, 3))]
        answers = {"answer_start": [0] * len(true), "text": true}
        expected = squad([{"prediction_text": made, "id": "1"}], [{"answers": answers, "id": "1"}])
        exact, f1 = answer_scores(made, true)
        assert 100 * exact == pytest.approx(float(expected["exact_match"]))
        assert 100 * f1 == pytest.approx(float(expected["f1"]), rel=1e-5)


class Question(NamedTuple):
    """Its true answers, what was answered, and how sure it is that there is none."""

    true: list[str]
    made: str
    none: float


def asked(impossible: bool) -> list[Question]:
    """A thousand questions, articles and punctuation alone among the answers."""
    draw, found = random.Random(7), []
    nothing = "moon" if impossible else ""  # a span is never empty
    for _ in range(1000):
        true = [
            " ".join(draw.choices(WORDS, k=draw.randint(1, 4))) for _ in range(draw.randint(1, 3))
        ]
        none = impossible and draw.random() < 0.4
        made = draw.choice((draw.choice(true), " ".join(draw.choices(WORDS, k=3)), nothing))
        sure = round(draw.random() ** (0.5 if none else 2.0), 3)
        found.append(Question([] if none else true, made, sure))
    return found


def test_a_thousand_questions_as_the_official_scripts_score_them():
    rows = [answer_scores(one.made, one.true) for one in asked(False)]
    assert 100 * sum(exact for exact, _ in rows) / 1000 == pytest.approx(ONE["exact_match"])
    assert 100 * sum(f1 for _, f1 in rows) / 1000 == pytest.approx(ONE["f1"])
    judged = [
        Judged(one.none, *answer_scores(one.made, one.true, True), bool(one.true))
        for one in asked(True)
    ]
    found = mean_scores(judged, 0.5)
    for ours, theirs in (
        ("exact_match", "exact"),
        ("f1", "f1"),
        ("exact_match_answerable", "HasAns_exact"),
        ("f1_answerable", "HasAns_f1"),
        ("accuracy_unanswerable", "NoAns_exact"),
    ):
        assert 100 * found[ours] == pytest.approx(TWO[theirs]), ours
    for which in ("f1", "exact"):
        best, threshold = best_threshold(judged, which)
        assert 100 * best == pytest.approx(TWO[f"best_{which}"])
        assert threshold == TWO[f"best_{which}_thresh"]


def test_what_is_normalised():
    assert normalised("The  Red, star!") == "red star" and normalised("theatre") == "theatre"
    assert answer_scores("a red star", ["Red star.", "moon"]) == (1.0, 1.0)
    assert answer_scores("red moon", ["red star"]) == (0.0, 0.5)
    # Words that are there twice count twice.
    assert answer_scores("red red", ["red star red"])[1] == pytest.approx(0.8)


def test_no_answer_is_right_for_none_alone():
    assert answer_scores("", [], True) == (1.0, 1.0)
    assert answer_scores("red", [], True) == (0.0, 0.0)
    assert answer_scores("", ["red"], True) == (0.0, 0.0)
    assert answer_scores("the", ["a"], True) == (1.0, 1.0)  # both are nothing
    assert answer_scores("the", ["a"]) == (1.0, 0.0)  # SQuAD 1.1 shares no word


def test_the_best_threshold_is_the_best_of_all():
    draw = random.Random(1)
    for count in (1, 7, 40):
        judged = [
            Judged(draw.gauss(0, 3), float(draw.random() < 0.4), draw.random(), draw.random() < 0.6)
            for _ in range(count)
        ]
        # A span is never right where there is none.
        judged = [j if j.answerable else j._replace(exact=0.0, f1=0.0) for j in judged]
        for which, name in (("f1", "f1"), ("exact", "exact_match")):
            tried = [min(j.margin for j in judged) - 1, *(j.margin for j in judged)]
            most = max(mean_scores(judged, threshold)[name] for threshold in tried)
            best, threshold = best_threshold(judged, which)
            assert best == pytest.approx(most)
            nothing = sum(not j.answerable for j in judged) / count
            if best > nothing + 1e-9:
                assert mean_scores(judged, threshold)[name] == pytest.approx(best)


def test_those_with_an_answer_and_those_without():
    judged = [
        Judged(-2.0, 1.0, 1.0, True),
        Judged(3.0, 0.0, 0.5, True),
        Judged(1.0, 0.0, 0.0, False),
        Judged(-1.0, 0.0, 0.0, False),
    ]
    assert mean_scores(judged, 0.0) == {
        "exact_match": 0.5,
        "f1": 0.5,
        "exact_match_answerable": 0.5,
        "f1_answerable": 0.5,
        "accuracy_unanswerable": 0.5,
    }
    assert mean_scores(judged, None)["f1"] == 0.375
    assert mean_scores(judged[:2], None) == {"exact_match": 0.5, "f1": 0.75}
