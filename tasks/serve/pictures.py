"""Pictures as they travel: data URLs in, PNG data URLs out."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from family.inputs.pictures import WHITE, open_picture, read_image
from tasks.errors import in_short
from tasks.serve.limits import Limits, RefusedError
from tasks.training.pictures import mask_picture, palette


def pictures_of(given: Sequence[str], limits: Limits, field: str, background: Any = WHITE) -> Any:
    """Data URLs, or base64 alone, as pictures, and how many pixels they have together.

    Raises:
        RefusedError: no base64, no picture, or too large a one; nothing is decoded of a picture whose
            header says that it is.
    """
    found, pixels = [], 0
    for i, text in enumerate(given):
        name = f"{field}[{i}]"
        data = data_of(text, name)
        pixels += size_of(data, name, limits)
        if pixels > limits.held:
            raise RefusedError(
                413, f"{field} have more than {limits.held} pixels together: send fewer."
            )
        try:
            found.append(read_image(data, name, background))
        except ValueError as error:
            raise RefusedError(422, str(error), field) from None
    return found, pixels


def data_of(text: str, name: str) -> bytes:
    """The bytes of a data URL, or of base64.

    Raises:
        RefusedError: it is none.
    """
    head, comma, _ = text[:200].partition(",")
    if comma and head.startswith("data:"):
        if not head.endswith(";base64"):
            raise RefusedError(
                422, f"{name} is a data URL, but not of base64: {in_short(head, 40)}."
            )
        text = text[len(head) + 1 :]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(
            422,
            f"{name} must be a picture as a data URL, data:image/png;base64,..., not {in_short(text, 30)}.",
        ) from None


def size_of(data: bytes, name: str, limits: Limits) -> int:
    """How many pixels a picture has, by its header.

    Raises:
        RefusedError: it is no picture, or too large.
    """
    try:
        with open_picture(data, name) as image:
            count = image.width * image.height
    except ValueError as error:
        raise RefusedError(422, str(error)) from None
    except Exception as error:  # decoders raise many kinds
        raise RefusedError(422, f"{name} is damaged: {type(error).__name__}.") from None
    if count > limits.pixels:
        raise RefusedError(
            413,
            f"{name} has {count} pixels, more than the {limits.pixels} that are taken: shrink it.",
        )
    return count


def data_url(picture: Image.Image) -> str:
    """As PNG."""
    file = io.BytesIO()
    picture.save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def segments(
    classes: Any, labels: Sequence[str] | None, ids: Sequence[int] | None
) -> dict[str, Any]:
    """The class ``(height, width)`` of each pixel, as pictures and in words.

    Returns:
        ``mask``, a picture of the ids that the data have; ``overlay``, one to lay over the picture, clear
        where a background is; ``classes``, of each that is seen ``label``, ``category_id``, ``color`` and
        ``share`` of the pixels.
    """
    found = np.asarray(classes)
    count = len(labels) if labels else int(found.max()) + 1
    names = list(labels or map(str, range(count)))
    outside, colours = list(ids or range(count)), palette(count)
    shown = [0 if name.lower() == "background" else 255 for name in names]
    tints = np.asarray([(*colour, alpha) for colour, alpha in zip(colours, shown, strict=True)])
    seen, pixels = np.unique(found, return_counts=True)
    order = np.argsort(-pixels)
    return {
        "mask": data_url(mask_picture(found, outside)),
        "overlay": data_url(Image.fromarray(tints.astype(np.uint8)[found])),
        "classes": [
            {
                "label": names[seen[i]],
                "category_id": outside[seen[i]],
                "color": "#{:02x}{:02x}{:02x}".format(*colours[seen[i]]),
                "share": float(pixels[i] / found.size),
            }
            for i in order
        ],
    }
