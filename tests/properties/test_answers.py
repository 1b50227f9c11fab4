"""What watches over the others says so itself where there is no answer."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from answers import SHORT, HangError, answered, search, within

from tasks.errors import UserError


def test_what_hangs_is_ended():
    with pytest.raises(HangError), within(0.05):
        time.sleep(9)


def test_what_takes_too_much_memory_is_ended():
    with pytest.raises(MemoryError), within(memory=1 << 30):
        bytearray(2 << 30)


def test_a_sentence_is_an_answer_and_a_trace_is_none():
    with answered() as said:
        raise UserError("the file x is empty.")
    assert said == ["the file x is empty."]
    with pytest.raises(AssertionError), answered():
        raise UserError("")
    with pytest.raises(ValueError), answered():
        raise ValueError("one of a library")


def test_a_search_finds_what_does_not_hold():
    tried = []

    def holds(number):
        tried.append(number)
        assert number < 1000

    with pytest.raises(AssertionError):
        search(holds, st.integers(0, 10**9), SHORT)
    assert len(tried) > 1
