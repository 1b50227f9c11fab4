"""Answers of commands, as lines to read or as tables for other programs."""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

from family.files import no_room, whole, write_text
from tasks.errors import UserError
from tasks.runs.tables import flat

FORMATS = ("text", "jsonl", "csv")


def format_option(
    parser: argparse.ArgumentParser, default: str = "text", file: bool = True
) -> None:
    """Add ``--format`` to a command; ``file``: its ``--out`` is a file of answers."""
    parser.add_argument(
        "--format",
        choices=[name for name in FORMATS if default == "text" or name != "text"],
        help=f"of the answers (default: {default}{', or as the ending of --out says' * file})",
    )


class Results:
    """Write answers one by one, to a file or to standard output.

    A record has plain values, lists and dictionaries. In JSON lines it stands as it is; in CSV what is
    inside of it gets a column each, as ``probabilities.cat`` or ``box.0``, by the first record's.
    A file is in its place once it is closed. Where a command ends by a mistake, what there is stands there if
    nothing did before; else the old file stays, and the new answers stand beside it, as ``NAME.partial.ENDING``.

    Args:
        kind: "text", "jsonl" or "csv"; None is what the ending of ``file`` says, or else ``default``.
        file: None is standard output.
        inputs: files that are read, which ``file`` must not be.
        first: columns of CSV that come before, as not all records have them.

    Raises:
        UserError: a file that cannot be written, or one of the inputs.
    """

    def __init__(
        self,
        kind: str | None,
        file: Path | None = None,
        inputs: Iterable[str | Path] = (),
        default: str = "text",
        first: Sequence[str] = (),
    ) -> None:
        ending = "" if file is None else file.suffix.lower().removeprefix(".")
        if kind is None and ending not in ("", "txt", *FORMATS):
            raise UserError(f"--out {file}: end it in .jsonl, .csv or .txt, or give --format.")
        self.kind = kind or (ending if ending in FORMATS else default)
        self.columns: list[str] | None = None
        self.first = first
        self.stack = ExitStack()
        self.file: IO[str] = sys.stdout
        self.place, self.written = file, 0
        if file is not None:
            not_an_input(file, inputs)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with ExitStack() as opening:
                    new = opening.enter_context(whole(file))
                    opened = new.open("w", encoding="utf-8", newline="")
                    self.file = opening.enter_context(opened)
                    self.stack = opening.pop_all()
            except OSError as error:
                raise UserError(f"--out {file} cannot be written: {error.strerror}.") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and self.place is not None:
            if no_room(error) is not None or not self.written:
                self.stack.__exit__(kind, error, trace)  # by name
            elif self.place.is_file():
                partial = self.place.with_suffix(f".partial{self.place.suffix}")
                shutil.copyfile(self.file.name, partial)
                print(
                    f"{self.place} stays; {self.written} answers are in {partial}.", file=sys.stderr
                )
                self.stack.__exit__(kind, error, trace)
        self.stack.close()

    def write(self, record: dict[str, Any], text: str) -> None:
        """One answer: as a record, or as a line to read."""
        if self.kind == "text":
            line = text
        elif self.kind == "jsonl":
            line = json.dumps(record, ensure_ascii=False)
        else:
            line = self._row(flat(record))
        print(line, file=self.file, flush=True)
        self.written += 1

    def say(self, sentence: str) -> None:
        """A word to the user, out of the way of records."""
        print(sentence, file=sys.stdout if self.kind == "text" else sys.stderr)

    def _row(self, values: dict[str, Any]) -> str:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        if self.columns is None:
            self.columns = list(dict.fromkeys([*self.first, *values]))
            writer.writerow(self.columns)
        writer.writerow([values.get(name, "") for name in self.columns])
        return lines.getvalue().removesuffix("\n")


def not_an_input(file: Path, inputs: Iterable[str | Path], option: str = "--out") -> None:
    """Refuse to write over what is read.

    Raises:
        UserError: see above.
    """
    if any(Path(one).resolve() == file.resolve() for one in inputs):
        raise UserError(f"{option} {file} is one of the inputs: choose another name.")


def not_their_folder(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse to write into a folder in which pictures lie that are read: theirs might have our names.

    Raises:
        UserError: see above.
    """
    place = folder.resolve()
    for path in paths:
        # A link is written through: what it leads to would be replaced.
        if place in (path.resolve().parent, path.parent.resolve()):
            raise UserError(
                f"--out {folder} is the folder of {path.name}, which is read: what is written might "
                "replace pictures there; choose another folder."
            )


def write_json(file: Path, value: Any) -> None:
    """Indented, for people to read too."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_text(file, text)
