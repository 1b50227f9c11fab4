"""What holds for every input, however broken: an answer or one clear sentence, soon, in bounded memory."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tasks.errors import UserError

SHORT = settings(
    max_examples=5,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
"""For ``make test``: the same few examples each time; how long one may take says :func:`answered`."""
LONG = settings(SHORT, max_examples=200)
"""For what is slow."""
SECONDS = 20
"""What takes longer hangs; a hundred times of what is usual, since others use the machine too."""
MEMORY = 3 << 30
"""Bytes of addresses that an answer may need beyond what is there: threads reserve many that they leave."""
SENTENCE = 2000
"""Characters of the longest."""


class HangError(BaseException):
    """Not an Exception, so that nothing takes it for a broken file."""


@contextmanager
def answered(
    *refusals: type[Exception], seconds: float = SECONDS, root: Path | None = None
) -> Iterator[list[str]]:
    """Around what reads an input: whatever the input, it ends well, or by one sentence.

    Yields:
        a list, to which the sentence is added where there is one.

    Args:
        refusals: errors that carry a sentence, beside UserError.
        seconds: how long it may take.
        root: see :func:`within`.
    """
    said: list[str] = []
    with within(seconds, root=root):
        try:
            yield said
        except (UserError, *refusals) as error:
            said.append(str(error))
    for text in said:
        assert is_sentence(text), text


def is_sentence(text: str) -> bool:
    """Not empty, of a length that can be read, and no trace."""
    return bool(text.strip()) and len(text) < SENTENCE and "Traceback" not in text


@contextmanager
def within(
    seconds: float = SECONDS, memory: int = MEMORY, root: Path | None = None
) -> Iterator[None]:
    """Ends what takes too long by a HangError, and what takes too much memory by a MemoryError.

    Args:
        root: a folder; whoever waits for a pipe in it is let go then.
    """

    def ring(*_: object) -> None:
        for path in root.rglob("*") if root else ():
            if path.is_fifo():
                os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        raise HangError(f"no answer after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":  # elsewhere nobody says how much there is
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # again, where the first is lost
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


PROFILES = [
    pytest.param(SHORT, id="few"),
    pytest.param(LONG, id="many", marks=pytest.mark.slow),
]
"""To parametrise a test by, which gives it to :func:`search`."""


def search(holds: Callable[[Any], None], strategy: SearchStrategy[Any], profile: settings) -> None:
    """Call ``holds`` with examples of a strategy, and raise what the smallest that fails raises."""
    profile(given(strategy)(lambda example: holds(example)))()
