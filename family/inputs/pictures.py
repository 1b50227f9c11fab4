"""Pictures from files of every kind, or in memory, as RGB."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from family.inputs.pointers import refuse_pointer

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
ORIENTATION = 0x0112
"""EXIF's tag; 1 is upright."""
IMAGE_ENDINGS = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
)


def as_picture(given: Image.Image | str | Path, background: Colour = WHITE) -> Image.Image:
    """A picture that is given as such or by its path, as :func:`read_image` gives it.

    Raises:
        ValueError: see there, or something else.
    """
    if isinstance(given, Image.Image):
        try:
            given.load()
            if given.getexif().get(ORIENTATION, 1) != 1:
                given = ImageOps.exif_transpose(given)
            return as_rgb(given, background)
        except Exception as error:  # of a file that was not yet read; decoders raise many kinds
            reason = str(error).rstrip(".")
            raise ValueError(f"the picture is cut short or damaged: {reason}.") from None
    if not isinstance(given, str | Path):
        kind = type(given).__name__
        raise ValueError(f"a {kind} is no picture: a path is wanted, or one of PIL's.")
    return read_image(Path(given), background=background)


def read_image(
    source: Path | bytes | BinaryIO,
    name: str | None = None,
    background: Colour = WHITE,
) -> Image.Image:
    """A picture as RGB, upright as its EXIF orientation says.

    16-bit values are scaled by their whole range; what is transparent shows ``background``.

    Args:
        source: a file, its bytes, or an open file.
        name: what messages call it; the path where there is one.

    Raises:
        ValueError: missing, no picture, or cut short.
    """
    image = decode(source, name, upright=True)
    try:
        return as_rgb(image, background)
    except Exception as error:  # a palette without colours is an AssertionError
        reason = f"{type(error).__name__} {error}".strip()
        name = name or called(source)
        raise ValueError(f"{name} cannot be shown in red, green and blue: {reason}.") from None


def called(source: Path | bytes | BinaryIO) -> str:
    """What messages call a picture without a name."""
    return str(source) if isinstance(source, Path) else "the picture"


def as_rgb(image: Image.Image, background: Colour = WHITE) -> Image.Image:
    """A picture of any mode as RGB, see :func:`read_image`."""
    if image.mode.startswith("I") or image.mode == "F":
        image = to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image  # Pillow knows no other way
        image = image.convert("RGBA")
        below = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(below, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def open_picture(source: Path | bytes | BinaryIO, name: str | None) -> ImageFile.ImageFile:
    """A picture of which only the header is read.

    Raises:
        ValueError: missing, or no picture.
    """
    name = name or called(source)
    if isinstance(source, Path) and os.path.exists(source) and not os.path.isfile(source):
        raise ValueError(f"{name} is no file.")  # a pipe would be waited for
    if isinstance(source, Path | bytes):
        refuse_pointer(source, name)
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except FileNotFoundError:
        raise ValueError(f"{name} does not exist.") from None
    except UnidentifiedImageError:
        empty = isinstance(source, Path) and source.stat().st_size == 0
        what = "is empty" if empty or source == b"" else "is not a picture that can be read"
        raise ValueError(f"{name} {what}.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}.") from None


def size_of(path: Path) -> tuple[int, int]:
    """``(height, width)`` of a picture as :func:`read_image` gives it, from its header alone.

    Raises:
        ValueError: missing, or no picture.
    """
    with open_picture(path, None) as image:
        # Not always getexif: of a PNG without such a header it would read everything.
        try:
            turned = "exif" in image.info and image.getexif().get(ORIENTATION, 1) in range(5, 9)
        except Exception as error:  # decoders raise many kinds
            raise ValueError(f"{path} is cut short or damaged: {error}.") from None
        return (image.width, image.height) if turned else (image.height, image.width)


def decode(source: Path | bytes | BinaryIO, name: str | None, upright: bool) -> Image.Image:
    """The pixels of a picture, upright as its EXIF orientation says, if so wanted.

    Raises:
        ValueError: missing, no picture, or cut short.
    """
    name = name or called(source)
    with open_picture(source, name) as image:
        raw = image.tile[0].args if image.tile else None
        try:
            image.load()
            if upright:
                ImageOps.exif_transpose(image, in_place=True)
        except Exception as error:  # decoders raise many kinds
            reason = str(error).rstrip(".")
            raise ValueError(f"{name} is cut short or damaged: {reason}.") from None
    image.info["stretched"] = {"L;2": 85, "L;4": 17}.get(raw if isinstance(raw, str) else "", 1)
    return image


def to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or more bits by the whole range of 16 bits, or of floats by 0..1 or 0..255.

    Values beyond these ranges are scaled from their least to their greatest.
    """
    values = np.asarray(image).astype(np.float64)
    there = values[np.isfinite(values)]
    least, most = (there.min(), there.max()) if there.size else (0.0, 0.0)
    values = np.nan_to_num(values, posinf=most, neginf=least)
    low, high = 0.0, 65535.0
    if image.mode == "F":
        high = 1.0 if values.max() <= 1 else 255.0
    if values.min() < low or values.max() > high:
        low, high = values.min(), values.max()
    scaled = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(scaled.round().astype(np.uint8))
