"""Sentences that a command is given, or reads from standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tasks.data.text_files import MARK
from tasks.errors import UserError


def given_or_read(given: list[str]) -> Iterator[str]:
    """The sentences given; without any, the lines of standard input as they come.

    Raises:
        UserError: one that is not UTF-8.
    """
    for sentence in given:
        yield checked(sentence)
    if given:
        return
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            text = line.decode("utf-8")
            yield (text.removeprefix(MARK) if number == 1 else text).strip()
        except UnicodeDecodeError as error:
            raise UserError(
                f"standard input is not UTF-8: see line {number}, byte {error.start + 1}."
            ) from None


def checked(sentence: str) -> str:
    """A sentence of the command line, if it is text.

    Raises:
        UserError: it is not UTF-8.
    """
    # Python keeps bytes that are not UTF-8 as lone surrogates.
    if any("\ud800" <= character <= "\udfff" for character in sentence):
        raise UserError(f"the sentence {sentence!r} is not UTF-8.")
    return sentence
