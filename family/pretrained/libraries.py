"""Models and folders of timm and open_clip, and weights in the layouts of their authors."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from family.pretrained.formats import detr, open_clip, segmenter, timm_vit
from family.pretrained.found import Published, described
from family.pretrained.images import from_open_clip, from_timm, understood
from family.pretrained.weights import Weights, open_file, open_folder, read_json, read_pickled

TIMM = "timm:"
OPEN_CLIP = "open_clip_config.json"
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
"""Of files that hold weights alone."""


def timm_module(module: Any) -> Published:
    """A model of timm in memory.

    Raises:
        ValueError: a class or an option that we do not have.
    """
    origin = f"timm's {type(module).__name__}"
    return timm_published(module, Weights(module.state_dict(), origin))


def timm_name(name: str) -> Published:
    """A published model of timm by its name, ``vit_tiny_patch16_224``.

    Raises:
        ValueError: no such model, one that we do not have, or one that cannot be fetched.
    """
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{TIMM}{name} is no model of timm.{hint}")
    try:
        timm_vit.describe(timm.create_model(name, device="meta"))  # before anything is fetched
        return timm_module(timm.create_model(name, pretrained=True))
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{TIMM}{name} could not be had: {reason}") from None


def timm_folder(folder: Path) -> Published:
    """A folder in timm's layout: ``config.json`` with an ``architecture``.

    Raises:
        ValueError: an architecture or options that timm does not know, or that we do not have.
    """
    weights = open_folder(folder)
    try:
        module = timm.create_model(f"local-dir:{folder}", device="meta")
    except Exception as error:  # among them asserts without a word
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"{folder / 'config.json'} describes no model of timm: {reason}") from None
    return timm_published(module, weights)


def timm_published(module: Any, weights: Weights) -> Published:
    found = described(timm_vit.FORMAT, timm_vit.describe(module), weights)
    fields = dict(getattr(module, "pretrained_cfg", None) or {})
    if fields.get("input_size"):
        found.preprocess = understood(from_timm, fields, weights.origin)
    labels, words = fields.get("label_names"), fields.get("label_descriptions")
    if isinstance(labels, list | tuple) and len(labels) == module.num_classes:
        words = words if isinstance(words, dict) else {}  # of ImageNet's numbers
        found.labels = [str(words.get(name, name)) for name in labels]
    return found


def open_clip_module(module: Any) -> Published:
    """A model of open_clip in memory.

    Raises:
        ValueError: a class or an option that we do not have.
    """
    config = {"model_cfg": open_clip.describe(module)}
    weights = Weights(module.state_dict(), f"open_clip's {type(module).__name__}")
    found = described(open_clip.FORMAT, config, weights)
    fields = getattr(module.visual, "preprocess_cfg", None)
    if fields:
        found.preprocess = understood(from_open_clip, fields, weights.origin)
    return found


def open_clip_folder(folder: Path) -> Published:
    """A folder with an ``open_clip_config.json``.

    Raises:
        ValueError: options that we do not have, or no weights.
    """
    file = folder / OPEN_CLIP
    config = read_json(file)
    stems = ("open_clip_model", "open_clip_pytorch_model")
    places = [folder / f"{stem}{suffix}" for suffix in SUFFIXES for stem in stems]
    places = [place for place in places if place.is_file()]
    if not isinstance(config.get("model_cfg"), dict) or not places:
        raise ValueError(f"{file} has no model_cfg, or no open_clip_model.safetensors beside it.")
    weights = read_file(places[0])
    found = described(open_clip.FORMAT, config, weights)
    fields, found.folder = config.get("preprocess_cfg") or {}, folder
    found.preprocess = understood(from_open_clip, fields, str(file))
    return found


def read_file(file: Path) -> Weights:
    """The weights of one file, by its suffix.

    Raises:
        ValueError: no such file, or none of plain weights.
    """
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file} is no file of weights: {', '.join(SUFFIXES)} are.")
    return open_file(file) if file.suffix == SUFFIXES[0] else Weights(read_pickled(file), str(file))


def only_file(folder: Path) -> Path:
    """The weights in a folder without a config.

    Raises:
        ValueError: there are none, or several.
    """
    files = [file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES]
    if len(files) != 1:
        raise ValueError(f"{folder} holds no config.json: no model in the hub's layout.")
    return files[0]


def original_file(file: Path) -> Published:
    """A file of weights in the layout of a model's authors: DETR, Segmenter, OpenAI's CLIP."""
    beside = file.parent / segmenter.VARIANT
    return original(read_file(file), beside if beside.is_file() else None)


def original_state(state: Mapping[str, Any]) -> Published:
    """The same in memory."""
    return original(in_memory(state))


def in_memory(state: Mapping[str, Any]) -> Weights:
    """Named tensors.

    Raises:
        ValueError: something else than tensors.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"a state of weights has a {type(value).__name__} as {name}.")
    return Weights(state, "the state of weights")


def original(weights: Weights, variant: Path | None = None) -> Published:
    """Weights without a config, whose names tell whose they are.

    Args:
        variant: the file of options that Segmenter's authors put beside its weights.

    Raises:
        ValueError: names that we do not know.
    """
    names = weights.places
    if "query_embed.weight" in names and "class_embed.weight" in names:
        return described(detr.ORIGINAL, detr.describe_state(weights), weights)
    if "text_projection" in names and "token_embedding.weight" in names:
        config = open_clip.describe_state(weights)
        found = described(open_clip.ORIGINAL, {"model_cfg": config}, weights)
        found.preprocess = from_open_clip({"size": config["vision_cfg"]["image_size"]})
        return found
    if "encoder.patch_embed.proj.weight" in names and "encoder.pos_embed" in names:
        config = segmenter.describe_state(weights)
        if variant is not None:
            config = segmenter.read_variant(variant)
        found = described(segmenter.FORMAT, config, weights)
        found.preprocess = understood(segmenter.preprocess, config, weights.origin)
        return found
    raise ValueError(
        f"{weights.origin} has no config beside it, and is not laid out as the authors of DETR, "
        "Segmenter or CLIP do."
    )
