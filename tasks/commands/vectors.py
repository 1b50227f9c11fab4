"""Vectors as an array of numpy's, written row by row: memory holds one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from family.files import whole
from tasks.commands.results import not_an_input
from tasks.errors import UserError

ENDING = ".npy"


class Vectors:
    """Writes ``FILE.npy``, ``(inputs, dim)`` float32, and beside it ``FILE.txt``, what each row is of.

    Args:
        file: ends in ``.npy``.
        inputs: files that are read, which neither must be.

    Raises:
        UserError: a file that cannot be written, or one of the inputs; a ``.txt`` that no vectors stand beside.
    """

    def __init__(self, file: Path, inputs: list[str]) -> None:
        names = file.with_suffix(".txt")
        for one in (file, names):
            not_an_input(one, inputs)
        if names.exists() and not file.exists():
            raise UserError(
                f"--out {file} would write what each row is of into {names}, which is there: give another name."
            )
        self.shape = (0, 0)
        self.stack = ExitStack()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as opening:
                new, beside = (opening.enter_context(whole(one)) for one in (file, names))
                self.rows = opening.enter_context(new.open("wb"))
                self.names = opening.enter_context(beside.open("w", encoding="utf-8"))
                self.stack = opening.pop_all()
        except OSError as error:
            raise UserError(f"--out {file} cannot be written: {error.strerror}.") from None
        self._head()

    def _head(self) -> None:
        """Numpy leaves room for more rows: the header keeps its length as they are counted."""
        self.rows.seek(0)
        head = {"descr": "<f4", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self.rows, head)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._head()
        self.stack.__exit__(kind, error, trace)

    def write(self, record: dict[str, Any], _: str) -> None:
        """One vector, and what it is of."""
        row = np.asarray(record["embedding"], "<f4")
        if not self.shape[0]:
            self.shape = (0, len(row))
            self._head()  # the width is known now
        self.rows.write(row.tobytes())
        self.shape = (self.shape[0] + 1, len(row))
        said = record.get("file") or record.get("text") or ""
        self.names.write(" ".join(str(said).split()) + "\n")
