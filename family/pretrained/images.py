"""Preprocessing of pictures, as transformers, timm and open_clip write it down."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from family.inputs.patches import pair
from family.inputs.pictures import WHITE
from family.inputs.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from family.pretrained.weights import read_json

LOG = logging.getLogger(__name__)
PICTURES, VIDEOS = "preprocessor_config.json", "video_preprocessor_config.json"
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers -> torchvision's names."""
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
SHORTER = ("CLIPImage", "CLIPFeature", "Bit", "Detr", "Siglip", "VideoMAE", "Vilt")
"""Beginnings of classes of transformers for which a single number is the shorter side."""
STEMS = """
    Beit Bit Blip ChineseCLIP CLIP ConditionalDetr DeiT Detr DINOv3ViT Siglip VideoMAE Vilt ViT
"""
KNOWN = frozenset(STEMS.split())
"""Classes of transformers, without their endings, that do what their fields say, and no more."""
ENDINGS = re.compile(r"(ImageProcessor|FeatureExtractor|VideoProcessor)(Fast|Pil)?$")
VILT = "Vilt"
"""The beginning of the class that says of its longer side nothing: it is 1333 to 800 at most."""


def read_preprocess(folder: Path) -> Preprocess | None:
    """What a folder of transformers says; None where it says nothing of pictures."""
    for part in ("image_processor", "video_processor"):
        for fields, origin in described(folder, part):
            if "image_mean" in fields:
                return understood(from_transformers, fields, origin)
    return None


def described(folder: Path, part: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The fields of a preprocessing and their file, wherever a folder of transformers may have them.

    Args:
        part: what a processor of several kinds of inputs calls it.
    """
    for name in (PICTURES, VIDEOS, "processor_config.json"):
        file = folder / name
        if file.is_file():
            fields = read_json(file)
            fields = fields.get(part, fields)
            if isinstance(fields, dict):
                yield fields, str(file)


def understood(read: Any, fields: Mapping[str, Any], origin: str) -> Any:
    """What ``read`` makes of fields; None, with a warning, of what we cannot do or do not know."""
    try:
        return read(fields)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        LOG.warning("%s: model.preprocess is None, for %s", origin, error)
        return None


def from_transformers(fields: Mapping[str, Any]) -> Preprocess:
    """Of a ``preprocessor_config.json``.

    Raises:
        ValueError: steps that we do not have.
    """
    kind = class_name(fields)
    if kind and ENDINGS.sub("", kind) not in KNOWN:
        raise ValueError(
            f"pictures as {kind} prepares them are not supported; known are {', '.join(sorted(KNOWN))}."
        )
    if not fields.get("do_resize", True) or not fields.get("do_rescale", True):
        raise ValueError("pictures that are not resized, or not scaled to 0..1, are not supported.")
    if not math.isclose(fields.get("rescale_factor", 1 / 255), 1 / 255):
        raise ValueError(f"rescale_factor={fields['rescale_factor']} is not supported.")
    normalised = fields.get("do_normalize", True)
    common: dict[str, Any] = {
        "mean": tuple(fields["image_mean"]) if normalised else (0.0, 0.0, 0.0),
        "std": tuple(fields["image_std"]) if normalised else (1.0, 1.0, 1.0),
        "interpolation": RESAMPLE[fields.get("resample", 2)],
    }
    size = sides(fields)
    if fields.get("do_center_crop", False):
        resized = size["shortest_edge"] if "shortest_edge" in size else exact(size)
        cut = fields["crop_size"]
        cut = pair(cut) if isinstance(cut, int) else exact(cut)
        return Preprocess(cut, "crop", resized=resized, floor=True, **common)
    if class_name(fields).startswith(VILT):
        edges, multiple = size["shortest_edge"], fields.get("size_divisor", 32)
        if not isinstance(multiple, int) or multiple < 2:
            raise ValueError(f"size_divisor={multiple!r} is not supported; a number over 1 is.")
        return Preprocess((edges, longer_edge(edges)), "edges", multiple=multiple, **common)
    if "shortest_edge" in size:
        return Preprocess((size["shortest_edge"], size["longest_edge"]), "edges", **common)
    return Preprocess(exact(size), "squash", **common)


def sides(fields: Mapping[str, Any]) -> dict[str, int]:
    """``size`` as today's files have it; older ones have a number, or two."""
    size = fields["size"]
    if not isinstance(size, int):
        return dict(size)
    if "max_size" in fields:
        return {"shortest_edge": size, "longest_edge": fields["max_size"]}
    shorter = class_name(fields).startswith(SHORTER)
    return {"shortest_edge": size} if shorter else {"height": size, "width": size}


def class_name(fields: Mapping[str, Any]) -> str:
    """The class of transformers that a file is of."""
    kinds = ("image_processor_type", "feature_extractor_type", "video_processor_type")
    return next((str(fields[kind]) for kind in kinds if fields.get(kind)), "")


def longer_edge(shorter: int) -> int:
    """The most that ViLT's pictures measure beside a shorter side."""
    return int(1333 / 800 * shorter)


def exact(size: Mapping[str, int]) -> tuple[int, int]:
    """``(height, width)``.

    Raises:
        ValueError: other sides.
    """
    if size.keys() != {"height", "width"}:
        raise ValueError(f"a size by {', '.join(size)} is not supported.")
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
