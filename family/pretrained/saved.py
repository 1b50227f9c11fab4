"""Folders that we write: config, weights, tokenizer, labels, preprocessing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

import family
from family.adapt.lora import adapted
from family.checks import is_quantised
from family.files import whole, write_text
from family.generation import Generation
from family.heads.problem import check_problem
from family.inputs.audio import LogMel
from family.inputs.preprocess import Preprocess, as_preprocess
from family.models.member import describe, member_named
from family.pretrained import sentence, sounds
from family.pretrained.configs import to_config
from family.pretrained.convert import published_state, stored
from family.pretrained.formats import as_format
from family.pretrained.formats.reward import fitted
from family.pretrained.found import Published, said_dtype
from family.pretrained.generation import FILE, read_generation
from family.pretrained.images import PICTURES, to_transformers
from family.pretrained.table import Format, unnumbered
from family.pretrained.text import save_tokenizer, two_of_ours
from family.pretrained.weights import SINGLE, open_folder, read_json, save_tensors

MODEL_TYPE = "transformer-family"
CONFIG = "config.json"


def save_pretrained(
    model: nn.Module, folder: str | Path, format: str | Format | None = None
) -> None:
    """Write a folder that :func:`from_pretrained` loads, bit-equal.

    Args:
        folder: must not exist, or be empty.
        format: a published format, which the peer's own ``from_pretrained`` loads, by its name, or a
            :class:`~family.pretrained.Format` of your own; None is ours.

    Raises:
        ValueError: a model that is no member or that the format cannot express, an unknown format,
            a folder that holds something.
    """
    target = new_folder(folder)
    if any(adapted(model)):
        raise ValueError(
            "the model has LoRA layers: merge_lora(model, remove=True) first, or save_adapter(model, "
            "folder, base) alone."
        )
    if any(is_quantised(parameter) for parameter in model.parameters()):
        raise ValueError(
            "weights in eight bits are not saved: save the model before quantise(model)."
        )
    if format == sentence.NAME:
        write(*sentence.encoder_part(model), target)
        sentence.save_modules(model, target)
    else:
        write(model, format, target)


def new_folder(folder: str | Path) -> Path:
    """Where to write.

    Raises:
        ValueError: it holds something.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{folder} exists and is not empty: choose another folder.")
    return target


def write(model: nn.Module, format: str | Format | None, target: Path) -> None:
    """Config, weights, tokenizer and preprocessing; see :func:`save_pretrained`."""
    files, prepared = (CONFIG, SINGLE), None
    if format is None:
        if getattr(family, type(model).__name__, None) is not type(model):
            raise ValueError(
                f"a {type(model).__name__} is no member of the package: our own layout could not be read "
                "again. Give a format."
            )
        config, state = our_config(model), our_state(model)
    else:
        layout = as_format(format, sentence.NAME)
        if two_of_ours(getattr(model, "tokenizer", None)):
            raise ValueError(
                f"format={layout.name!r} has room for one tokenizer, but those of sources and "
                "translations differ: write our own, format=None."
            )
        model, layout = fitted(model, layout)
        config, state = to_config(layout, model), published_state(model, layout)
        files, preprocess = layout.files, getattr(model, "preprocess", None)
        if layout.image_processor and isinstance(preprocess, Preprocess):
            prepared = to_transformers(preprocess, layout.image_processor)
        elif isinstance(preprocess, LogMel):
            prepared = sounds.to_transformers(preprocess)
    if "model_type" in config:
        config["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    target.mkdir(parents=True, exist_ok=True)
    write_weights(state, target / files[1])
    save_tokenizer(model, target)
    generation = getattr(model, "generation", None)
    if generation is not None and generation != Generation():
        write_fields(generation.to_fields(), target / FILE)
    if prepared is not None:
        write_fields(prepared, target / PICTURES)
    if files[0]:
        write_fields(config, target / files[0])


def write_weights(state: dict[str, torch.Tensor], file: Path) -> None:
    """As the suffix says: safetensors, or a pickled state, which ``.pth`` files call their model."""
    if file.suffix == ".safetensors":
        save_tensors(state, file)
    else:
        with whole(file) as new, new.open("wb") as opened:
            torch.save({"model": state} if file.suffix == ".pth" else state, opened)


def write_fields(fields: dict[str, Any], file: Path) -> None:
    """As the suffix says: JSON, or YAML."""
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    write_text(file, text if file.suffix == ".json" else yaml.safe_dump(fields))


def our_config(model: nn.Module) -> dict[str, Any]:
    """All that rebuilds a model, but for weights and tokenizer."""
    preprocess: Any = getattr(model, "preprocess", None)
    names = "category_ids", "threshold", "problem_type", "things"
    learnt = {name: getattr(model, name, None) for name in names}
    return {
        "model_type": MODEL_TYPE,
        **describe(model),
        "labels": getattr(model, "labels", None),
        **{name: value for name, value in learnt.items() if value is not None},
        "preprocess": None if preprocess is None else asdict(preprocess),
    }


def our_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights by our names; what is tied appears once."""
    state, done = {}, set()
    for name, value in stored(model).items():
        if id(value) not in done:
            done.add(id(value))
            state[name] = value.detach().contiguous()
    return state


def is_ours(folder: Path) -> bool:
    """Whether :func:`save_pretrained` wrote a folder in our own layout."""
    return read_json(folder / "config.json").get("model_type") == MODEL_TYPE


def same_names(model: nn.Module) -> dict[str, str]:
    """The table of our own format."""
    names = [unnumbered(name) for name in stored(model)]
    return dict(zip(names, names, strict=True))


def published(folder: Path) -> Published:
    """A folder that :func:`save_pretrained` wrote; only members of ours are built from it.

    Raises:
        ValueError: a config that describes no member.
    """
    config = read_json(folder / "config.json")
    name, arguments = str(config.get("class")), config.get("arguments")
    member = member_named(name)
    if member is None or not isinstance(arguments, dict):
        raise ValueError(
            f"{folder / 'config.json'}: class={name!r} with its arguments is no member of ours."
        )
    layout = Format(MODEL_TYPE, member, fields=(), names=same_names)
    fields, labels = config.get("preprocess"), config.get("labels")
    try:
        problem = check_problem(config.get("problem_type"))
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from None
    try:
        preprocess = None if fields is None else as_preprocess(fields)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'}: preprocess: {error}.") from None
    if not isinstance(labels, list | None):
        raise ValueError(f"{folder / 'config.json'}: labels={labels!r} is no list of names.")
    return Published(
        layout,
        arguments,
        open_folder(folder),
        folder,
        labels,
        config.get("category_ids"),
        preprocess,
        origin=str(folder / CONFIG),
        generation=read_generation(folder, {}),
        threshold=config.get("threshold"),
        dtype=said_dtype(config),
        problem_type=problem,
        things=config.get("things"),
    )
