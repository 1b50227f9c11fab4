"""Where a resumed run goes on: between two batches, wherever the run before was cut."""

from __future__ import annotations

from typing import Any

Progress = dict[str, Any]
"""Of Lightning: how many batches are "ready", "started", "processed", "completed", in all (``total``) and
of this epoch or this validation (``current``), and whether it ``is_last_batch``."""


def progress(content: dict[str, Any]) -> tuple[Progress, Progress] | None:
    """Of a checkpoint's training, and of its last validation; None where it is not of a run."""
    loops = content.get("loops", {}).get("fit_loop", {})
    if "epoch_loop.batch_progress" not in loops:
        return None
    return loops["epoch_loop.batch_progress"], loops["epoch_loop.val_loop.batch_progress"]


def validation_left(content: dict[str, Any], done: int | None = None) -> bool:
    """Whether a run was cut before a validation had ended that was due, if one was, after its last step.

    Args:
        done: batches of its epoch that count as trained on; None are all.
    """
    found = progress(content)
    if found is None:
        return False
    batches, seen = found[0]["current"], found[1]["current"]
    if done is not None and done < batches["processed"]:
        return False  # what was due came later, and comes again
    whole = found[1]["is_last_batch"] and seen["completed"] == seen["ready"]
    return batches["completed"] < batches["processed"] or not whole


def validation_cut(content: dict[str, Any]) -> bool:
    """Whether a checkpoint was written in the midst of a validation."""
    found = progress(content)
    if found is None:
        return False
    seen = found[1]["current"]
    return seen["ready"] > 0 and (
        seen["completed"] < seen["ready"] or not found[1]["is_last_batch"]
    )


def settle(content: dict[str, Any], done: int | None = None, again: bool = False) -> None:
    """Let a checkpoint's loops say that all batches ended that were trained on, and no other began.

    Lightning counts batches that began: after a cut in the midst of one, all validations would come
    too early, and what is logged would be of the step behind. A validation that was cut is made again as a
    whole: Lightning would make the rest of it, with metrics of that part alone.

    Args:
        done: batches of the epoch that count as trained on, see
            :class:`~tasks.data.batching.LoaderProgress`; None are all.
        again: make the last validation again, of a run at its end.
    """
    found = progress(content)
    if found is None:
        return
    if again:
        for counts in content["loops"]["fit_loop"]["epoch_progress"].values():
            counts["processed"] = counts["completed"]
    left = again or validation_left(content, done)
    batches, validation = found
    total, current = batches["total"], batches["current"]
    epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]
    if epochs["started"] == epochs["completed"]:  # the batches are of the epoch before
        over, current["processed"], batches["is_last_batch"] = 0, 0, False
    else:
        over = 0 if done is None else current["processed"] - done
        batches["is_last_batch"] &= current["ready"] == current["processed"]
    for counts in (total, current):
        counts.update(dict.fromkeys(counts, counts["processed"] - over))
    seen, last = validation["total"], validation["current"]
    seen.update(dict.fromkeys(seen, seen["completed"]))
    if left:  # as Lightning knows one that is to be gone on with, but from its beginning
        seen["ready"] = seen["started"] = seen["completed"] + 1
        validation["is_last_batch"] = False
    last.update(dict.fromkeys(last, 0 if left else last["completed"]))
    state = content["loops"]["fit_loop"]["epoch_loop.state_dict"]
    state["_batches_that_stepped"] = max(0, content["global_step"] - 1)  # this step is yet to end
