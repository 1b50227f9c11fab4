"""Commands in processes of their own, each by one at a time."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.cli.app import FOLDER
from tasks.errors import UserError

LIVE: set[subprocess.Popen[bytes]] = set()
"""The commands that are under way."""


def call(arguments: list[str], log: Path, device: int | None, lock: int) -> None:
    """Run ``family ARGUMENTS``, its output going to ``log``.

    Args:
        lock: an open file that the command keeps open, so that it holds the lock even where this
            process is killed.

    Raises:
        UserError: it failed; with the last line that it printed.
    """
    environment = {name: value for name, value in os.environ.items() if name != FOLDER}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = str(device)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"$ {shown(arguments)}\n".encode())
        output.flush()
        command = [sys.executable, "-m", "tasks.cli", *arguments]
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, pass_fds=[lock]
        )
    LIVE.add(process)
    try:
        code = process.wait()
    finally:
        LIVE.discard(process)
    if code < 0:
        raise UserError(f"killed by {signal.Signals(-code).name}; see {log}.")
    if code:
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        raise UserError(f"{lines[-1].removeprefix('family: ').strip()} (see {log})")


def shown(arguments: list[str]) -> str:
    """A command as one would type it."""
    return shlex.join(["family", *arguments])


@contextmanager
def locked(file: Path) -> Iterator[int]:
    """Wait until nobody else, be it an orphan of a killed comparison, is at this."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{file.with_suffix('')} is still under way elsewhere: waiting.", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()
