"""Intervals, tests and the bootstrap, against other computations and on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tasks.compare.metrics import METRICS, Score
from tasks.compare.statistics import bootstrap, by_ranks, holm, interval, resampled, verdict, welch


def right(*flags: bool) -> Score:
    return METRICS["accuracy"]([{"correct": int(flag)} for flag in flags])


def test_interval_is_students():
    found = interval([1.0, 2.0, 3.0])
    # t(0.975, 2) = 4.3027, standard error 1 / sqrt(3).
    assert found.mean == 2
    assert found.high - found.mean == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert interval([1.0]).low is None


def test_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = [interval(random.normal(size=3).tolist()) for _ in range(2000)]
    share = np.mean([one.low <= 0 <= one.high for one in found])
    assert share == pytest.approx(0.95, abs=0.015)


def test_welch_by_hand():
    a, b = [3.0, 4.0, 1.0, 2.1], [490.2, 340.0, 433.9]
    # Wikipedia, unequal variances: t = -9.5595; the shorter list leaves two degrees of freedom.
    t = stats.ttest_ind(a, b, equal_var=False)
    assert (t.statistic, t.pvalue) == (
        pytest.approx(-9.5595, rel=1e-4),
        pytest.approx(0.0107516, rel=1e-4),
    )
    assert welch(a, b) == pytest.approx(2 * stats.t.sf(-t.statistic, 2), rel=1e-9)
    assert welch(a, b) >= t.pvalue
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [1.0, 1.0]) == 1.0
    assert welch([1.0, 1.0], [2.0, 2.0]) == 0.0


def test_ranks_by_hand():
    lost = float("-inf")
    assert by_ranks([1.0, 2.0, 3.0], [lost] * 3) == pytest.approx(
        2 / 20
    )  # one way of 20, each side
    assert by_ranks([5.0, 6.0, 7.0, 8.0, 9.0], [lost, lost, 2.0, 3.0, 4.0]) == pytest.approx(
        2 / 252
    )
    assert by_ranks([1.0, lost], [lost, 1.0]) == 1.0
    random = np.random.default_rng(0)
    for n, m in ((3, 5), (6, 4)):  # without equal values it is scipy's
        a, b = random.normal(size=n).tolist(), random.normal(size=m).tolist()
        exact = stats.mannwhitneyu(a, b, method="exact").pvalue
        assert by_ranks(a, b) == pytest.approx(exact)
    many = random.normal(size=40).tolist()
    assert by_ranks(many, [x + 3 for x in many]) < 1e-6


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_bootstrap_tells_good_from_bad_and_not_equals():
    random = np.random.default_rng(0)
    good, other, bad = (
        resampled([right(*(random.random(200) < share))], 200) for share in (0.8, 0.8, 0.6)
    )
    assert good.shape == (2000,)
    found = bootstrap(good, bad)
    assert found["low"] > 0
    assert found["p"] < 0.01
    same = bootstrap(good, other)
    assert same["low"] < 0 < same["high"]
    assert same["p"] > 0.05
    assert bootstrap(good, good)["p"] == 1.0


def test_bootstrap_is_paired():
    """Two models that fail together differ by little, though each is uncertain by much."""
    some = np.random.default_rng(0).random(100) < 0.5
    better = some.copy()
    better[np.flatnonzero(~some)[:8]] = True
    found = bootstrap(*(resampled([right(*side)], 100) for side in (better, some)))
    # 8 of 100 differ: the standard error is 0.027, that of unpaired ones 0.07.
    assert found["high"] - found["low"] < 4.5 * 0.027
    assert found["low"] > 0


def test_bootstrap_takes_the_mean_over_seeds():
    up, down = right(*[True] * 25, *[False] * 25), right(*[False] * 25, *[True] * 25)
    found = bootstrap(resampled([up, down], 50), resampled([down, up], 50))
    assert found["low"] == found["high"] == 0


def test_verdicts():
    a, b = [1.0, 1.1, 0.9], [2.0, 2.1, 1.9]
    said, differ = verdict("x", "y", (a, b), "max", 0.001, 0.002)
    assert said.startswith("y is better than x")
    assert differ
    assert verdict("x", "y", (a, b), "min", 0.001, None)[0].startswith("x is better than y")
    said, differ = verdict("x", "y", (a, b), "max", 0.001, 0.2)
    assert "no significant difference" in said
    assert not differ
    assert "no significant difference" in verdict("x", "y", (a, a), "max", None, None)[0]
    assert "cannot tell" in verdict("x", "y", ([1.0], [2.0]), "max", None, None)[0]
    said, differ = verdict("x", "y", ([1.0], [2.0]), "max", None, 0.001)
    assert "with one seed" in said
    assert not differ
    said, differ = verdict("x", "y", ([1.0, 1.0], [2.0, 2.0]), "max", 0.0, None)
    assert "with two seeds: others may not" in said
    assert not differ
