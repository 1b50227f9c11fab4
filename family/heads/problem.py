"""What the numbers of a head say, by the names that transformers has for it: its ``problem_type``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

SINGLE = "single_label_classification"
"""One class of several: the softmax of all."""
MULTI = "multi_label_classification"
"""Any of the labels, none or all: the sigmoid of each; of one label alone, how surely it is so."""
REGRESSION = "regression"
"""The number itself."""
PROBLEMS = (SINGLE, MULTI, REGRESSION)


def problem_of(model: Any, count: int) -> str:
    """What a head of so many numbers is for: what the model's ``problem_type`` says, or, where that is
    None, one number is itself, and several are classes.

    Raises:
        ValueError: a name that is none of :data:`PROBLEMS`.
    """
    said = check_problem(getattr(model, "problem_type", None))
    if count == 1:  # a softmax would say 1 of whatever it is
        return MULTI if said in (SINGLE, MULTI) else REGRESSION
    return said or SINGLE


def check_problem(said: Any) -> str | None:
    """Refuse a ``problem_type`` that nobody knows.

    Raises:
        ValueError: see above.
    """
    if said is not None and said not in PROBLEMS:
        raise ValueError(f"problem_type={said!r} is unknown; choose one of: {', '.join(PROBLEMS)}.")
    return said


def answers(model: Any, logits: Tensor) -> Tensor:
    """What a model says by its head's ``logits (inputs, n)``: probabilities, or numbers.

    Raises:
        ValueError: see :func:`problem_of`.
    """
    problem = problem_of(model, logits.shape[-1])
    if problem == SINGLE:
        return logits.softmax(-1)
    return logits.sigmoid() if problem == MULTI else logits
