"""Correlation of what a model says with what is true."""

from __future__ import annotations

import numpy as np
from scipy import stats


def correlations(true: list[float], made: list[float]) -> dict[str, float]:
    """Spearman's, over ranks (equal ones share the mean of theirs), and Pearson's; 0 where all numbers
    of one side are equal: they say nothing of the other's."""
    sides = np.array(true), np.array(made)
    if any(not len(side) or np.ptp(side) == 0 for side in sides):
        return {"spearman": 0.0, "pearson": 0.0}
    return {
        "spearman": float(stats.spearmanr(*sides).statistic),
        "pearson": float(stats.pearsonr(*sides).statistic),
    }
