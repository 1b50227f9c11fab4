"""Tar files that nobody vouches for: what they hold, and what is wrong with them."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

MOST = 1 << 30
"""Bytes of a member of a compressed tar, which are all held in memory."""
TAR_ERRORS = (
    tarfile.TarError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    zlib.error,
    lzma.LZMAError,
)
"""What comes of damaged ones."""


def members(tar: tarfile.TarFile, path: Path, whole: bool = True) -> Iterator[tarfile.TarInfo]:
    """What a tar holds, so far as its sizes can be.

    Args:
        whole: the tar is not compressed, so that the size of its file bounds that of each member.

    Raises:
        tarfile.ReadError: a size below 0, with which others would read for ever, or beyond the end, or of
            what was written with holes, which do not lie there.
    """
    end = path.stat().st_size if whole else MOST
    for member in tar:
        last = member.offset_data * whole + member.size * member.isreg()
        if member.size < 0 or last > end or member.issparse():
            what = "holes" if member.issparse() else f"{member.size} bytes"
            raise tarfile.ReadError(f"{member.name!r} is said to have {what}")
        yield member


def tar_reason(error: BaseException) -> str:
    """What is wrong, for a sentence."""
    return (str(error).splitlines() or [""])[0].rstrip(".:") or type(error).__name__
