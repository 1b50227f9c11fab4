"""Long texts, in pieces that fit in memory, and the documents in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.data.text_files import refuse_no_file, text_start
from tasks.errors import UserError

CHUNK = 1 << 22
"""Characters held in memory at a time."""
END = ""
"""The piece behind the last one of a document; all others have text."""


def split_at(texts: Iterable[str], separator: str) -> Iterator[str]:
    """The pieces of a text without the separators in it, :data:`END` in their place, and behind the last
    one where text follows it. Of nothing but white space between two separators there is no document."""
    held, begun = "", False
    for text in texts:
        *whole, held = (held + text).split(separator)
        for part in whole:
            if part.strip() or begun:
                yield from filter(None, (part,))
                yield END
            begun = False
        # What may be the begin of a separator waits for the next piece.
        sure = len(held) - len(separator) + 1
        if sure > 0 and (begun or held[:sure].strip()):
            yield held[:sure]
            held, begun = held[sure:], True
    if held.strip() or begun:
        yield from filter(None, (held,))
        yield END


def held_out(texts: Iterable[str], fraction: float, rest: bool) -> Iterator[str]:
    """The pieces of every so many-th document, evenly, or those of all others.

    Args:
        texts: pieces, with :data:`END` behind each document.
        fraction: of the documents are held out.
        rest: give the others.
    """
    count = 0
    for text in texts:
        held = int((count + 1) * fraction) > int(count * fraction)
        count += text == END
        if held != rest:
            yield text


def split_offset(path: Path, fraction: float) -> int:
    """The byte at which ``fraction`` of a file's characters end."""
    characters = sum(len(text) for text in read_pieces(path, 0, path.stat().st_size))
    left, offset = int(characters * fraction), text_start(path)
    for text in read_pieces(path, 0, path.stat().st_size):
        if left <= len(text):
            return offset + len(text[:left].encode())
        left -= len(text)
        offset += len(text.encode())
    return offset


def read_pieces(path: Path, start: int, stop: int) -> Iterator[str]:
    """The UTF-8 text between two bytes, some millions of characters at a time, without a byte-order mark.

    Raises:
        UserError: an empty file, or bytes that are not UTF-8 (with their offset).
    """
    refuse_no_file(path)
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty.")
    start = max(start, text_start(path))
    with path.open("rb") as file:
        file.seek(start)
        left = b""
        while start < stop:
            content = left + file.read(min(CHUNK, stop - start))
            start += len(content) - len(left)
            try:
                text, left = content.decode("utf-8"), b""
            except UnicodeDecodeError as error:
                whole = error.end - error.start <= 3 and len(content) - error.start < 4
                if start >= stop or not whole:
                    offset = start - len(content) + error.start
                    message = f"{path} is not UTF-8: see the byte at offset {offset}."
                    raise UserError(message) from None
                # A character cut by the end of the chunk: it goes on with the next.
                text, left = content[: error.start].decode("utf-8"), content[error.start :]
            yield text
