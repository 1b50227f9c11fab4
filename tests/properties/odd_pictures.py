"""Pictures that are rare or wrong, each as the bytes of its file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

Make = Callable[[], bytes]


def saved(mode: str, size: tuple[int, int], ending: str, **options: Any) -> bytes:
    """A picture of one colour, in a format of Pillow's."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, ending, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(
    width: int, height: int, bits: int = 8, colour: int = 2, rows: int = 0, more: bytes = b""
) -> bytes:
    """What its header says, whatever there is of it: so many rows of zeros, 4 bytes a pixel."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zlib.compress(bytes(rows * (1 + 4 * width)))
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def with_exif(content: bytes, ending: str = "JPEG") -> bytes:
    return saved("RGB", (9, 7), ending, exif=content)


def orientation(value: int, count: int = 1, kind: int = 3) -> bytes:
    """EXIF with one entry."""
    entry = struct.pack("<HHII", 0x0112, kind, count, value)
    return b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00" + entry + b"\x00\x00\x00\x00"


def floats() -> bytes:
    file = io.BytesIO()
    values = np.array([[np.nan, np.inf], [-np.inf, 1e38]], np.float32)
    Image.fromarray(values).save(file, "TIFF")
    return file.getvalue()


def animated(ending: str) -> bytes:
    file = io.BytesIO()
    frames = [Image.new("P", (5, 5), i) for i in range(3)]
    frames[0].save(file, ending, save_all=True, append_images=frames[1:], duration=9)
    return file.getvalue()


def bmp(width: int, height: int, bits: int = 24) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info + bytes(64)


def cut(make: Make, share: float = 0.5) -> bytes:
    content = make()
    return content[: int(len(content) * share)]


JPEG, GIF, WEBP = (partial(saved, "RGB", (30, 20), name) for name in ("JPEG", "GIF", "WEBP"))
TIFF = partial(saved, "RGB", (30, 20), "TIFF")
ODD_PICTURES: dict[str, Make] = {
    "nothing": bytes,
    "one pixel": partial(saved, "RGB", (1, 1), "PNG"),
    "thin": partial(saved, "RGB", (20000, 1), "PNG"),
    "tall": partial(saved, "1", (1, 20000), "PNG"),
    "very thin": partial(saved, "L", (3000000, 1), "PNG"),
    "huge": partial(png, 2**31 - 1, 2**31 - 1),
    "huge sides": partial(png, 65535, 65535),
    "huge but allowed": partial(png, 13000, 13000, 8, 6),
    "large and there": partial(saved, "1", (9000, 9000), "PNG"),
    "no width": partial(png, 0, 5, rows=5),
    "no height": partial(png, 5, 0),
    "no such depth": partial(png, 4, 4, 3, 2, 4),
    "no such colour": partial(png, 4, 4, 8, 5, 4),
    "text that swells": partial(
        png, 4, 4, 8, 2, 4, chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(1 << 26)))
    ),
    "profile that swells": partial(
        png, 4, 4, 8, 2, 4, chunk(b"iCCP", b"a\x00\x00" + zlib.compress(bytes(1 << 26)))
    ),
    "exif of nothing": partial(png, 4, 4, 8, 2, 4, chunk(b"eXIf", b"")),
    "exif of noise": partial(png, 4, 4, 8, 2, 4, chunk(b"eXIf", b"II*\x00\xff\xff\xff\xff")),
    "16 bits": partial(saved, "I;16", (6, 5), "PNG"),
    "32 bits": partial(saved, "I", (6, 5), "TIFF"),
    "floats": floats,
    "1 bit": partial(saved, "1", (6, 5), "PNG"),
    "grey and alpha": partial(saved, "LA", (6, 5), "PNG"),
    "palette": partial(saved, "P", (6, 5), "PNG"),
    "transparent palette": partial(saved, "P", (6, 5), "PNG", transparency=bytes(9)),
    "palette without colours": partial(png, 4, 4, 8, 3, 4),
    "cmyk": partial(saved, "CMYK", (6, 5), "JPEG"),
    "lab": partial(saved, "LAB", (6, 5), "TIFF"),
    "ycbcr": partial(saved, "YCbCr", (6, 5), "TIFF"),
    "half a jpeg": partial(cut, JPEG, 0.7),
    "a jpeg's header": partial(cut, JPEG, 0.1),
    "half a gif": partial(cut, GIF),
    "half a webp": partial(cut, WEBP),
    "half a tiff": partial(cut, TIFF),
    "animated gif": partial(animated, "GIF"),
    "animated png": partial(animated, "PNG"),
    "gif without size": lambda: b"GIF89a\x00\x00\x00\x00\x00\x00\x00" + GIF()[13:],
    "huge gif": lambda: b"GIF89a\xff\xff\xff\xff\x00\x00\x00" + GIF()[13:],
    "turned": partial(with_exif, orientation(6)),
    "turned by a text": partial(with_exif, orientation(6, 1, 2)),
    "turned by many": partial(with_exif, orientation(6, 2**31)),
    "turned by 99": partial(with_exif, orientation(99)),
    "turned by noise": partial(with_exif, b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x00"),
    "turned webp": partial(with_exif, orientation(8), "WEBP"),
    "turned webp by noise": partial(with_exif, b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", "WEBP"),
    "huge bmp": partial(bmp, 2**31 - 1, -(2**31)),
    "bmp without width": partial(bmp, 0, 3),
    "bmp upside down": partial(bmp, 3, -3),
    "bmp of 7 bits": partial(bmp, 3, 3, 7),
    "huge ppm": lambda: b"P6 99999 99999 255\n",
    "ppm without size": lambda: b"P6 0 0 255\n",
    "ppm of no range": lambda: b"P6 2 2 0\n" + bytes(12),
    "ppm in words": lambda: b"P3 2 2 255\n1 2 three",
    "ppm of long numbers": lambda: b"P2 2 2 65535\n" + b"9" * 9999,
    "endless header": lambda: b"P6 " + b"1" * 99999,
    "floats of a pfm": lambda: b"PF\n2 2\n-1.0\n" + struct.pack("<12f", *[float("nan")] * 12),
    "a drawing": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\nshowpage\n",
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "pdf": lambda: b"%PDF-1.4\n",
    "a tar": lambda: bytes(1024),
}
