"""What became of a run, in its folder: ``state.json``, written as it begins and as it ends."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from family.files import write_text

STATE = "state.json"
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"


@contextmanager
def stated(folder: Path, facts: dict[str, Any], writes: bool = True) -> Iterator[None]:
    """Around a run: running, then finished, stopped (by a signal, or Ctrl-C) or failed, with the sentence.

    A run never fails for want of this file, and a folder that was removed stays so.

    Args:
        facts: more to be said, as plain values: the command, the metric that is monitored.
        writes: whether this process does; the first of a run.
    """
    record = {
        "state": RUNNING,
        **facts,
        "process": os.getpid(),
        "host": socket.gethostname(),
        "began": time.time(),
    }

    def write(**more: Any) -> None:
        record.update(more)
        if writes and folder.is_dir():
            with suppress(OSError):  # a full disk: the run says so itself
                write_text(folder / STATE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    write()
    try:
        yield
    except SystemExit as error:
        ended = FINISHED if error.code in (None, 0) else STOPPED
        write(state=ended, ended=time.time())
        raise
    except BaseException as error:
        said = (str(error).strip().splitlines() or [""])[-1]
        write(state=FAILED, ended=time.time(), error=said or type(error).__name__)
        raise
    write(state=FINISHED, ended=time.time())


def state_of(folder: Path) -> dict[str, Any]:
    """What the file of a run says; of one of before, what its other files tell.

    A run that is called running, but whose process is gone from this machine, was stopped.
    """
    try:
        record = json.loads((folder / STATE).read_text("utf-8"))
        state = record["state"]
    except (OSError, ValueError, KeyError, TypeError):
        done = any(folder.glob("metrics-*.json")) or any(folder.glob("predictions*"))
        return {"state": FINISHED if done else STOPPED}
    here = record.get("host") == socket.gethostname()
    if state == RUNNING and here and not alive(record.get("process")):
        record["state"] = STOPPED
    return record


def alive(process: Any) -> bool:
    """Whether this machine has a process of this number."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, TypeError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass  # of somebody else
    return True
