"""What transformers' classes for pictures do where their files say nothing: size, crop, mean and the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from family.inputs.preprocess import IMAGENET_MEAN, IMAGENET_STD

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
BILINEAR, BICUBIC = 2, 3
IMAGENET = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
OPENAI = {"image_mean": OPENAI_MEAN, "image_std": OPENAI_STD}
HALVES = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
CROPPED = {"do_center_crop": True, "crop_size": 224}
KEPT = {"default_to_square": False}
"""A size of one number is the shorter side; of other classes both."""
OF_CLIP = {"size": 224, **CROPPED, **KEPT, "resample": BICUBIC, **OPENAI}
OF_DETR = {
    "size": {"shortest_edge": 800, "longest_edge": 1333},
    "max_size": 1333,
    **KEPT,
    "resample": BILINEAR,
    **IMAGENET,
}
USUAL: dict[str, dict[str, Any]] = {
    "BeitImageProcessor": {"size": 224, "crop_size": 224, "resample": BICUBIC, **HALVES},
    "BitImageProcessor": OF_CLIP,
    "BlipImageProcessor": {"size": 384, "resample": BICUBIC, **OPENAI},
    "CLIPImageProcessor": OF_CLIP,
    "ChineseCLIPImageProcessor": OF_CLIP,
    "ConditionalDetrImageProcessor": OF_DETR,
    "DINOv3ViTImageProcessor": {"size": 224, "resample": BILINEAR, **IMAGENET},
    "DeformableDetrImageProcessor": OF_DETR,
    "DeiTImageProcessor": {"size": 256, **CROPPED, "resample": BICUBIC, **HALVES},
    "DetrImageProcessor": OF_DETR,
    "PvtImageProcessor": {"size": 224, "resample": BICUBIC, **IMAGENET},
    "SegformerImageProcessor": {"size": 512, "resample": BILINEAR, **IMAGENET},
    "SiglipImageProcessor": {
        "size": {"height": 224, "width": 224},
        **KEPT,
        "resample": BICUBIC,
        **HALVES,
    },
    "VideoMAEImageProcessor": {"size": 224, **CROPPED, **KEPT, "resample": BILINEAR, **HALVES},
    "ViTImageProcessor": {"size": 224, "resample": BILINEAR, **HALVES},
    "ViltImageProcessor": {
        "size": 384,
        "size_divisor": 32,
        **KEPT,
        "resample": BICUBIC,
        **HALVES,
    },
}
"""The classes whose steps are ours, with the values of their fields."""
KINDS = ("image_processor_type", "feature_extractor_type", "video_processor_type")
"""The fields that name a class."""
SPELLING = re.compile(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor|VideoProcessor)$")
"""A class's ending: by kind of file, version and library that does the work."""


def class_name(fields: Mapping[str, Any], usual: str = "") -> str:
    """The class of transformers that a file is of, by today's name; ``usual`` where it says none."""
    named = next((str(fields[kind]) for kind in KINDS if fields.get(kind)), usual)
    return SPELLING.sub("ImageProcessor", named)


def complete(fields: Mapping[str, Any], usual: str) -> dict[str, Any]:
    """The fields of a file with those that it leaves out, or null; a null flag is off.

    Args:
        usual: the class of a file that names none.

    Raises:
        ValueError: a class with steps that we do not know.
    """
    kind = class_name(fields, usual)
    if kind and kind not in USUAL:
        raise ValueError(f"{kind} is not supported; known are {', '.join(USUAL)}.")
    said = {n: v for n, v in fields.items() if v is not None or n.startswith("do_")}
    return {**USUAL.get(kind, {}), **said, KINDS[0]: kind}
