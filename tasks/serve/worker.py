"""One thread a model: requests that arrive together run as one batch; texts grow side by side, a piece of each
in turn (those that begin together as one batch too, see :mod:`tasks.serve.together`)."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from tasks.errors import UserError
from tasks.serve.limits import Limits, RefusedError, too_busy

LOG = logging.getLogger(__name__)
BATCHED = "batched"


@dataclass(frozen=True)
class Call:
    """Inputs for a method of :class:`family.inference.loaded.Loaded`.

    Args:
        columns: equally long lists: what the method takes.
        names: how it calls them; "" is by place.
        options: hashable values; calls whose method, names and options are equal may be joined.
        alone: may not be joined, as what is drawn depends on the others.
        weight: pixels that it holds.
    """

    columns: tuple[Sequence[Any], ...]
    names: tuple[str, ...] = ("",)
    method: str = "predict"
    options: dict[str, Any] = field(default_factory=dict)
    alone: bool = False
    weight: int = 0

    @property
    def key(self) -> Hashable:
        options = tuple(sorted(self.options.items()))
        return self.method, self.names, options, id(self) if self.alone else BATCHED

    def __len__(self) -> int:
        return len(self.columns[0])


@dataclass
class Job:
    """Something that waits: a call, or any function of the model's thread; and the pixels that it holds."""

    call: Call | None
    function: Callable[[], Any] | None
    weight: int = 0
    answer: Future[Any] = field(default_factory=Future)


class Growing:
    """A text that grows, or several: pieces go to ``put`` from the model's thread, the last is None.

    Args:
        begin: makes what gives the pieces; called in the model's thread too.
        put: takes a piece, an error, or None.
    """

    def __init__(self, begin: Callable[[], Iterator[Any]], put: Callable[[Any], None]) -> None:
        self.begin, self.put = begin, put
        self.pieces: Iterator[Any] | None = None
        self.cancelled = False

    def step(self) -> bool:
        """One piece more; whether there may be another."""
        if self.cancelled:
            return False
        try:
            if self.pieces is None:
                self.pieces = self.begin()
            self.put(next(self.pieces))
            return True
        except StopIteration:
            self.put(None)
        except Exception as error:
            self.put(refused(error))
        return False

    def drop(self) -> None:
        """Nobody answers any more."""
        self.put(RefusedError(503, "the server is being stopped."))


class Worker:
    """Runs all that is asked of one model, in one thread: neither models nor tokenizers take several.

    Args:
        loaded: the model; see :class:`family.inference.loaded.Loaded`.
        limits: of its queue.
    """

    def __init__(self, loaded: Any, limits: Limits) -> None:
        self.loaded, self.limits = loaded, limits
        self.jobs: queue.SimpleQueue[Job | Growing | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.waiting = self.held = 0
        self.growing: deque[Growing] = deque()
        self.later: deque[Job | Growing] = deque()
        self.open = True
        self.thread = threading.Thread(target=self.work, daemon=True, name=f"model {loaded.origin}")
        self.thread.start()

    # --- From other threads ---

    def ask(self, call: Call) -> Future[list[Any]]:
        """The answers of a call, one for each of its inputs.

        Raises:
            RefusedError: the queue is full.
        """
        return self.add(Job(call, None, call.weight))

    def run(self, function: Callable[[], Any], weight: int = 0) -> Future[Any]:
        """What a function gives that is called in the model's thread.

        Args:
            weight: pixels that it holds.

        Raises:
            RefusedError: the queue is full.
        """
        return self.add(Job(None, function, weight))

    def add(self, job: Job) -> Future[Any]:
        self.enter(job.weight)
        job.answer.add_done_callback(lambda _: self.leave(job.weight))
        self.jobs.put(job)
        return job.answer

    def grow(self, text: Growing) -> None:
        """Let a text grow beside others; :meth:`leave` is to be called when it is no longer read.

        Raises:
            RefusedError: the queue is full.
        """
        self.enter(0)
        self.jobs.put(text)

    def enter(self, weight: int) -> None:
        with self.lock:
            if not self.open:
                raise RefusedError(503, "the server is being stopped.")
            if self.waiting >= self.limits.queue:
                raise too_busy(f"{self.waiting} requests wait for this model")
            if self.held + weight > self.limits.held and self.held:
                raise too_busy("the pictures that wait for this model are too many")
            self.waiting += 1
            self.held += weight

    def leave(self, weight: int = 0) -> None:
        with self.lock:
            self.waiting -= 1
            self.held -= weight

    def close(self) -> None:
        """Refuse what waits, and end the thread."""
        with self.lock:
            self.open = False
        self.jobs.put(None)
        self.thread.join(timeout=10)

    # --- In the model's thread ---

    def work(self) -> None:
        while self.open:
            batch = self.gather()
            for jobs in grouped(batch, self.limits.batch):
                self.answer(jobs)
            self.grow_all()
        self.drop()

    def gather(self) -> list[Job]:
        """What is there to be answered now: at least one, unless texts grow; of those that come within a
        few milliseconds as many as fit into a batch."""
        found: list[Job] = []
        inputs, until = 0, time.monotonic() + self.limits.wait
        while inputs < self.limits.batch:
            left = until - time.monotonic()
            if self.growing or left <= 0:
                timeout: float | None = 0.0
            else:
                timeout = left if found else None
            job = self.next(timeout)
            if job is None:
                break
            if isinstance(job, Growing):
                self.growing.append(job)
                continue
            if not found:
                until = time.monotonic() + self.limits.wait
            if job.answer.set_running_or_notify_cancel():
                found.append(job)
                inputs += 1 if job.call is None else len(job.call)
        return found

    def next(self, timeout: float | None) -> Job | Growing | None:
        """The next that may begin; None where there is none in time, or where the server ends."""
        if self.later and len(self.growing) < self.limits.batch:
            return self.later.popleft()
        while True:
            try:
                job = self.jobs.get(timeout != 0, timeout or None)
            except queue.Empty:
                return None
            if isinstance(job, Growing) and len(self.growing) >= self.limits.batch:
                self.later.append(job)
                continue
            return job

    def answer(self, jobs: list[Job]) -> None:
        """Run jobs of one kind together; where that fails, each by itself."""
        if len(jobs) == 1:
            one = jobs[0]
            try:
                found = one.function() if one.function else self.call([one.call])[0]
            except Exception as error:
                one.answer.set_exception(refused(error))
            else:
                one.answer.set_result(found)
            return
        try:
            rows = self.call([job.call for job in jobs])
        except Exception:  # of one of them: its neighbours are not to blame
            for job in jobs:
                self.answer([job])
            return
        for job, found in zip(jobs, rows, strict=True):
            job.answer.set_result(found)

    def call(self, calls: Sequence[Any]) -> list[list[Any]]:
        """The answers of calls of one key, by call."""
        first = calls[0]
        by_place, by_name = [], dict(first.options)
        for i, name in enumerate(first.names):
            column = [one for call in calls for one in call.columns[i]]
            if name:
                by_name[name] = column
            else:
                by_place.append(column)
        rows = getattr(self.loaded, first.method)(*by_place, **by_name)
        rows = list(rows.tolist() if isinstance(rows, torch.Tensor) else rows)
        found = []
        for call in calls:
            found.append(rows[: len(call)])
            rows = rows[len(call) :]
        return found

    def grow_all(self) -> None:
        """A piece more of each text that grows."""
        for _ in range(len(self.growing)):
            text = self.growing.popleft()
            if text.step():
                self.growing.append(text)

    def drop(self) -> None:
        """Refuse all that waits."""
        left: list[Job | Growing | None] = [*self.growing, *self.later]
        with suppress(queue.Empty):
            while True:
                left.append(self.jobs.get_nowait())
        for one in left:
            if isinstance(one, Growing):
                one.drop()
            elif one is not None and one.answer.set_running_or_notify_cancel():
                one.answer.set_exception(RefusedError(503, "the server is being stopped."))


def grouped(jobs: Sequence[Job], most: int) -> list[list[Job]]:
    """Jobs that may run together, by the order of their first, with so many inputs at most unless one
    brings more by itself."""
    groups: dict[Hashable, list[list[Job]]] = {}
    for job in jobs:
        key = id(job) if job.call is None else job.call.key
        parts = groups.setdefault(key, [])
        inputs = sum(len(one.call or ()) for one in parts[-1]) if parts else 0
        if parts and inputs + len(job.call or ()) <= most:
            parts[-1].append(job)
        else:
            parts.append([job])
    return [part for parts in groups.values() for part in parts]


def refused(error: Exception) -> RefusedError:
    """What is said of an error of the model: a mistake in an input is the user's, all else is ours, and
    stands in the log."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, ValueError | UserError) and not isinstance(error, UnicodeError):
        return RefusedError(422, str(error))
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate" in str(error):
        return RefusedError(503, "there is not enough memory for this request: ask for less.")
    if isinstance(error, UnicodeError):
        return RefusedError(422, "a text holds what is no character.")
    LOG.error("the model failed", exc_info=error)
    return RefusedError(500, "the model failed at this request: the log of the server says more.")
