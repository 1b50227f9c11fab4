"""Requests that arrive together run as one batch, and stay apart in all else."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from tasks.serve.limits import Limits, RefusedError
from tasks.serve.worker import Call, Growing, Worker


class Recording:
    """A model that lengthens texts, and remembers what it was called with."""

    origin = "a model"

    def __init__(self):
        self.calls, self.go = [], threading.Event()

    def predict(self, texts, pairs=None, **options):
        self.go.wait(10)
        self.calls.append((list(texts), pairs and list(pairs), options))
        if any("bad" in text for text in texts):
            raise ValueError(f"{texts} has a bad text.")
        if any("broken" in text for text in texts):
            raise KeyError("broken")
        return [text + "!" for text in texts]


@pytest.fixture
def made():
    loaded = Recording()
    worker = Worker(loaded, Limits(batch=8, queue=20, held=100, wait=0.05))
    yield SimpleNamespace(worker=worker, loaded=loaded, calls=loaded.calls)
    loaded.go.set()
    worker.close()


def block(made):
    """Keep the worker busy, so that what comes now comes together."""
    first = made.worker.ask(Call((["first"],)))
    while made.worker.jobs.qsize() or not made.worker.thread.is_alive():
        time.sleep(0.01)
    time.sleep(0.1)
    return first


def test_what_comes_together_is_one_call_and_each_gets_its_own(made):
    block(made)
    calls = [Call(([f"a{i}", f"b{i}"],)) for i in range(3)]
    calls += [Call((["c"],), options={"top": 2}), Call((["d"], ["e"]), ("", "pairs"))]
    answers = [made.worker.ask(call) for call in calls]
    made.loaded.go.set()
    assert [one.result(5) for one in answers[:3]] == [[f"a{i}!", f"b{i}!"] for i in range(3)]
    assert [one.result(5) for one in answers[3:]] == [["c!"], ["d!"]]
    assert made.calls[1:] == [
        (["a0", "b0", "a1", "b1", "a2", "b2"], None, {}),
        (["c"], None, {"top": 2}),
        (["d"], ["e"], {}),
    ]


def test_a_batch_has_its_size_and_what_is_drawn_runs_alone(made):
    block(made)
    answers = [made.worker.ask(Call((["a"] * 5,))) for _ in range(2)]
    answers += [made.worker.ask(Call((["b"],), alone=True)) for _ in range(2)]
    made.loaded.go.set()
    assert all(one.result(5) for one in answers)
    assert [len(texts) for texts, _, _ in made.calls[1:]] == [5, 5, 1, 1]


def test_a_mistake_is_its_own_and_not_its_neighbours(made):
    block(made)
    answers = [made.worker.ask(Call(([text],))) for text in ("a", "bad", "b", "broken")]
    made.loaded.go.set()
    assert answers[0].result(5) == ["a!"] and answers[2].result(5) == ["b!"]
    with pytest.raises(RefusedError, match="has a bad text") as refused:
        answers[1].result(5)
    assert refused.value.status == 422 and "['bad']" in refused.value.said
    with pytest.raises(RefusedError, match="the log of the server says more") as refused:
        answers[3].result(5)
    assert refused.value.status == 500


def test_the_queue_has_an_end(made):
    block(made)
    answers = [made.worker.ask(Call((["a"],), weight=30)) for _ in range(3)]
    with pytest.raises(RefusedError, match="pictures that wait") as refused:
        made.worker.ask(Call((["a"],), weight=30))
    assert refused.value.status == 429
    with pytest.raises(RefusedError, match="pictures that wait"):
        made.worker.run(lambda: 1, weight=30)
    answers += [made.worker.ask(Call((["a"],))) for _ in range(16)]
    with pytest.raises(RefusedError, match="20 requests wait for this model"):
        made.worker.run(lambda: 1)
    made.loaded.go.set()
    assert all(one.result(5) for one in answers)
    for _ in range(100):
        if not made.worker.waiting:
            break
        time.sleep(0.02)
    assert made.worker.waiting == made.worker.held == 0
    assert made.worker.ask(Call((["a"],), weight=1000)).result(5) == ["a!"]  # alone any will do


def test_texts_grow_side_by_side_beside_batches(made):
    made.loaded.go.set()
    order, ended = [], threading.Event()

    def letters(name):
        for i in range(40):
            time.sleep(0.005)
            yield f"{name}{i}"

    def put(piece):
        order.append(piece)
        if order.count(None) == 2:
            ended.set()

    texts = [Growing(lambda name=name: letters(name), put) for name in "ab"]
    for text in texts:
        made.worker.grow(text)
    assert made.worker.ask(Call((["x"],))).result(5) == ["x!"]
    answered = len(order)
    assert ended.wait(10) and answered < 80  # not only when all had been written
    begun = {name: order.index(f"{name}0") for name in "ab"}
    assert max(begun.values()) < order.index("a5")


def test_a_text_that_nobody_reads_grows_no_more(made):
    seen = []

    def endless():
        while True:
            time.sleep(0.002)
            yield "a"

    text = Growing(endless, seen.append)
    made.worker.grow(text)
    while len(seen) < 3:
        time.sleep(0.01)
    text.cancelled = True
    made.worker.leave()
    time.sleep(0.1)
    count = len(seen)
    time.sleep(0.1)
    assert len(seen) == count and not made.worker.growing and made.worker.waiting == 0


def test_what_waits_at_the_end_is_told(made):
    block(made)
    waiting = made.worker.ask(Call((["a"],)))
    closing = threading.Thread(target=made.worker.close)
    closing.start()
    time.sleep(0.1)
    made.loaded.go.set()
    closing.join(5)
    try:
        assert waiting.result(5) == ["a!"]
    except RefusedError as error:
        assert error.status == 503
    with pytest.raises(RefusedError, match="being stopped"):
        made.worker.ask(Call((["a"],)))
