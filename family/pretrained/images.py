"""Preprocessing of pictures, as transformers, timm and open_clip write it down."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from family.inputs.patches import pair
from family.inputs.pictures import WHITE
from family.inputs.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from family.pretrained.processors import (
    BILINEAR,
    OPENAI_MEAN,
    OPENAI_STD,
    USUAL,
    class_name,
    complete,
)
from family.pretrained.weights import read_json

LOG = logging.getLogger(__name__)
PICTURES, VIDEOS = "preprocessor_config.json", "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers -> torchvision's names."""
VILT = "Vilt"
"""The beginning of the class that says of its longer side nothing: it is 1333 to 800 at most."""


def read_preprocess(folder: Path, usual: str = "") -> Preprocess | None:
    """What a folder of transformers says; None where it says nothing of pictures.

    Args:
        usual: the class of a file that names none, by the kind of the model.
    """
    for part in ("image_processor", "video_processor"):
        for fields, origin in described(folder, part):
            if "image_mean" in fields or class_name(fields, usual) in USUAL:
                return understood(partial(from_transformers, usual=usual), fields, origin)
    return None


def described(folder: Path, part: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The fields of a preprocessing and their file, wherever a folder of transformers may have them.

    Args:
        part: what a processor of several kinds of inputs calls it.
    """
    for name in (PROCESSOR, PICTURES, VIDEOS):
        file = folder / name
        if file.is_file():
            fields = read_json(file)
            fields = fields.get(part, {} if name == PROCESSOR else fields)
            if isinstance(fields, dict) and fields:
                yield fields, str(file)


def understood(read: Any, fields: Mapping[str, Any], origin: str) -> Any:
    """What ``read`` makes of fields; None, with a warning, of what we cannot do or do not know."""
    try:
        return read(fields)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        LOG.warning("%s: model.preprocess is None, for %s", origin, error)
        return None


def from_transformers(fields: Mapping[str, Any], usual: str = "") -> Preprocess:
    """Of a ``preprocessor_config.json``.

    Args:
        usual: the class of fields that name none.

    Raises:
        ValueError: steps that we do not have.
    """
    fields = complete(fields, usual)
    if not fields.get("do_resize", True) or not fields.get("do_rescale", True):
        raise ValueError("pictures that are not resized, or not scaled to 0..1, are not supported.")
    if not math.isclose(fields.get("rescale_factor", 1 / 255), 1 / 255):
        raise ValueError(f"rescale_factor={fields['rescale_factor']} is not supported.")
    if "size" not in fields:
        raise ValueError("a file without size or class is not supported.")
    normalised = fields.get("do_normalize", True)
    common: dict[str, Any] = {
        "mean": tuple(fields["image_mean"]) if normalised else (0.0, 0.0, 0.0),
        "std": tuple(fields["image_std"]) if normalised else (1.0, 1.0, 1.0),
        "interpolation": RESAMPLE[fields.get("resample", BILINEAR)],
    }
    size = sides(fields)
    if class_name(fields).startswith(VILT):
        edges, multiple = size["shortest_edge"], fields.get("size_divisor", 32)
        if not isinstance(multiple, int) or multiple < 2:
            raise ValueError(f"size_divisor={multiple!r} is not supported; a number over 1 is.")
        return Preprocess((edges, longer_edge(edges)), "edges", multiple=multiple, **common)
    cropped = fields.get("do_center_crop", False)
    if size.keys() == {"shortest_edge", "longest_edge"}:
        if cropped:
            raise ValueError(
                "a crop after a resize within shortest_edge and longest_edge is not supported."
            )
        return Preprocess((size["shortest_edge"], size["longest_edge"]), "edges", **common)
    if cropped:
        resized = size["shortest_edge"] if size.keys() == {"shortest_edge"} else exact(size)
        cut = fields["crop_size"]
        cut = pair(cut) if isinstance(cut, int | list) else exact(cut)
        return Preprocess(cut, "crop", resized=resized, floor=True, **common)
    return Preprocess(exact(size), "squash", **common)


def sides(fields: Mapping[str, Any]) -> dict[str, int]:
    """``size`` as today's files have it; older ones have a number, or two."""
    size = fields["size"]
    if isinstance(size, list):
        return dict(zip(("height", "width"), size, strict=True))
    if not isinstance(size, int):
        return dict(size)
    if "max_size" in fields:
        return {"shortest_edge": size, "longest_edge": fields["max_size"]}
    both = fields.get("default_to_square", True)
    return {"height": size, "width": size} if both else {"shortest_edge": size}


def longer_edge(shorter: int) -> int:
    """The most that ViLT's pictures measure beside a shorter side."""
    return int(1333 / 800 * shorter)


def exact(size: Mapping[str, int]) -> tuple[int, int]:
    """``(height, width)``.

    Raises:
        ValueError: other sides.
    """
    if size.keys() != {"height", "width"}:
        raise ValueError(f"a size by {', '.join(size)} alone is not supported without a crop.")
    return size["height"], size["width"]


def to_transformers(preprocess: Preprocess, kind: str) -> dict[str, Any]:
    """The fields of a ``preprocessor_config.json``.

    Args:
        kind: a class of transformers, ``ViTImageProcessor``.

    Raises:
        ValueError: a way of resizing that transformers, or this class, does not have.
    """
    height, width = preprocess.size
    size: dict[str, Any] = {"height": height, "width": width}
    more: dict[str, Any] = {}
    if kind.startswith(VILT) or preprocess.multiple > 1:
        wanted = dataclasses.replace(preprocess, size=(height, longer_edge(height)), mode="edges")
        if not kind.startswith(VILT) or preprocess != wanted or preprocess.multiple == 1:
            raise ValueError(
                f"{kind} cannot express a preprocess of mode={preprocess.mode!r}, size="
                f"{preprocess.size} and multiple={preprocess.multiple}."
            )
        size, more = {"shortest_edge": height}, {"size_divisor": preprocess.multiple}
    elif preprocess.mode == "edges":
        size = {"shortest_edge": height, "longest_edge": width}
    elif preprocess.mode == "crop":
        more = {"do_center_crop": True, "crop_size": size}
        resized = covering(preprocess)
        size = {"shortest_edge": resized}
        if not isinstance(resized, int):
            size = dict(zip(("height", "width"), resized, strict=True))
    elif preprocess.mode != "squash":
        raise ValueError(f"{kind} cannot express a preprocess of mode={preprocess.mode!r}.")
    warn_of_background(preprocess, kind)
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": size,
        "resample": {name: n for n, name in RESAMPLE.items()}[preprocess.interpolation],
        **more,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def warn_of_background(preprocess: Preprocess, who: str) -> None:
    """Say that a colour behind transparent pictures is lost: no published format has a place for it."""
    if preprocess.background != WHITE:
        LOG.warning(
            "%s cannot express background=%s: give it pictures that are not transparent.",
            who,
            list(preprocess.background),
        )


def covering(preprocess: Preprocess) -> int | tuple[int, int]:
    """The resize before a crop; the shorter side, where the picture just covers a square.

    Raises:
        ValueError: it covers an oblong.
    """
    if preprocess.resized is not None:
        return preprocess.resized
    if preprocess.size[0] != preprocess.size[1]:
        raise ValueError(f"a crop of {preprocess.size} needs the resize before it said: resized.")
    return preprocess.size[0]


def from_timm(fields: Mapping[str, Any]) -> Preprocess:
    """Of a ``pretrained_cfg``.

    Raises:
        ValueError: steps that we do not have.
    """
    height, width = fields["input_size"][1:]
    share, mode = fields.get("crop_pct") or 0.875, fields.get("crop_mode") or "center"
    resized = math.floor(height / share), math.floor(width / share)
    common: dict[str, Any] = {
        "mean": tuple(fields.get("mean") or IMAGENET_MEAN),
        "std": tuple(fields.get("std") or IMAGENET_STD),
        "interpolation": fields.get("interpolation") or "bicubic",
    }
    if mode == "squash" and resized == (height, width):
        return Preprocess((height, width), "squash", **common)
    if mode == "squash":
        return Preprocess((height, width), "crop", resized=resized, **common)
    if mode != "center" or height != width:
        raise ValueError(f"crop_mode={mode!r} to {height} x {width} pixels is not supported.")
    return Preprocess((height, width), "crop", resized=resized[0], **common)


def to_timm(preprocess: Preprocess, channels: int) -> dict[str, Any]:
    """The fields of a ``pretrained_cfg``.

    Raises:
        ValueError: a way of resizing that timm does not have.
    """
    if preprocess.mode not in ("squash", "crop"):
        raise ValueError(f"timm cannot express a preprocess of mode={preprocess.mode!r}.")
    warn_of_background(preprocess, "timm")
    resized = preprocess.size if preprocess.mode == "squash" else covering(preprocess)
    kept = isinstance(resized, int)
    side = resized if isinstance(resized, int) else resized[0]
    share = preprocess.size[0] / side
    if math.floor(preprocess.size[0] / share) != side:  # one bit short of it
        share = preprocess.size[0] / (side + 0.5)
    return {
        "input_size": [channels, *preprocess.size],
        "crop_pct": share,
        "crop_mode": "center" if kept else "squash",
        "interpolation": preprocess.interpolation,
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }


def from_open_clip(fields: Mapping[str, Any]) -> Preprocess:
    """Of a ``preprocess_cfg``.

    Raises:
        ValueError: steps that we do not have.
    """
    size, mode = pair(fields.get("size", 224)), fields.get("resize_mode") or "shortest"
    common: dict[str, Any] = {
        "mean": tuple(fields.get("mean") or OPENAI_MEAN),
        "std": tuple(fields.get("std") or OPENAI_STD),
        "interpolation": fields.get("interpolation") or "bicubic",
    }
    if mode == "squash":
        return Preprocess(size, "squash", **common)
    if mode != "shortest" or size[0] != size[1]:
        raise ValueError(f"resize_mode={mode!r} to {size[0]} x {size[1]} pixels is not supported.")
    return Preprocess(size, "crop", resized=size[0], **common)


def to_open_clip(preprocess: Preprocess) -> dict[str, Any]:
    """The fields of a ``preprocess_cfg``.

    Raises:
        ValueError: a way of resizing that open_clip does not have.
    """
    cropped = preprocess.mode == "crop" and covering(preprocess) == preprocess.size[0]
    if not cropped and preprocess.mode != "squash":
        raise ValueError(f"open_clip cannot express a preprocess of mode={preprocess.mode!r}.")
    warn_of_background(preprocess, "open_clip")
    return {
        "size": list(preprocess.size),
        "mode": "RGB",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": preprocess.interpolation,
        "resize_mode": "shortest" if cropped else "squash",
        "fill_color": 0,
    }
