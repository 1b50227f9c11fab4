"""Folders of sentence-transformers: a published encoder, and small files that say how it is pooled."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from family.files import write_text
from family.pretrained.formats.sentence_encoder import (
    DENSE,
    MEMBER,
    format_of,
    only_encoder,
    wrapped,
)
from family.pretrained.found import Published, from_hub_folder
from family.pretrained.weights import SINGLE, Weights, open_folder, read_json, save_tensors

LOG = logging.getLogger(__name__)
NAME = "sentence-transformers"
MODULES = "modules.json"
LIMIT = "sentence_bert_config.json"
KINDS = (
    ["Transformer", "Pooling"],
    ["Transformer", "Pooling", "Normalize"],
    ["Transformer", "Pooling", "Dense"],
    ["Transformer", "Pooling", "Dense", "Normalize"],
)
POOLING = {"mean": "mean", "cls": "class", "max": "max"}
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Older files have a flag for each kind of pooling."""
ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.linear.Identity": "identity",
}


def is_sentence_folder(folder: Path) -> bool:
    return (folder / MODULES).is_file()


def encoder_folder(folder: Path) -> Path:
    """Where the encoder lies in a folder of sentence-transformers: in itself, or in a part of it."""
    return module_folders(folder)["Transformer"]


def module_folders(folder: Path) -> dict[str, Path]:
    """The modules by their kind, each with its folder.

    Raises:
        ValueError: other modules, or another order, than we support.
    """
    file = folder / MODULES
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        parts = [(str(part["type"]).rpartition(".")[2], str(part["path"])) for part in found]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{file} is no list of modules with type and path: {error}.") from None
    kinds = [kind for kind, _ in parts]
    if kinds not in KINDS:
        known = "; ".join(", ".join(each) for each in KINDS)
        raise ValueError(
            f"{file}: modules {', '.join(kinds)} are not supported; known are {known}."
        )
    if any(path == ".." or Path(path).name != path for _, path in parts):
        raise ValueError(f"{file}: paths of modules must be names of folders beside it.")
    return {kind: folder / path for kind, path in parts}


def published(folder: Path) -> Published:
    """A folder of sentence-transformers.

    Raises:
        ValueError: an encoder that is no BERT, or modules and options that we do not support.
    """
    folders = module_folders(folder)
    found = from_hub_folder(folders["Transformer"])
    origin = folders["Transformer"] / "config.json"
    weights, arguments = found.weights, only_encoder(found.layout, found.arguments, str(origin))
    arguments |= read_pooling(folders["Pooling"] / "config.json")
    arguments |= {"normalize": "Normalize" in folders, "max_tokens": read_limit(folder, folders)}
    if "Dense" in folders:
        arguments |= read_dense(folders["Dense"] / "config.json")
        dense = open_folder(folders["Dense"])
        weights = Weights({**weights.places, **dense.places}, weights.origin)
    layout = wrapped(found.layout)
    place = folders["Transformer"]
    return Published(layout, arguments, weights, place, origin=str(origin), dtype=found.dtype)


def read_pooling(file: Path) -> dict[str, Any]:
    config = read_json(file)
    mode = config.get("pooling_mode")
    if mode is None:
        mode = [name for flag, name in FLAGS.items() if config.get(flag)] or "mean"
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    if not isinstance(mode, str) or mode not in POOLING:
        raise ValueError(
            f"{file}: pooling by {mode!r} is not supported; only {', '.join(POOLING)}."
        )
    return {"pooling": POOLING[mode]}


def read_dense(file: Path) -> dict[str, Any]:
    config = read_json(file)
    only(config, file, bias=True, use_residual=False, module_input_name="sentence_embedding")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{file}: activation_function={activation!r} is not supported; known are "
            f"{', '.join(ACTIVATIONS)}."
        )
    return {
        "projection": config.get("out_features"),
        "projection_activation": ACTIVATIONS[activation],
    }


def read_limit(folder: Path, folders: Mapping[str, Path]) -> int | None:
    """Where texts are cut; a prompt that is put before each of them is refused, of others it is said that
    they are not."""
    general = folder / "config_sentence_transformers.json"
    if general.is_file():
        config = read_json(general)
        only(config, general, default_prompt_name=None)
        named = config.get("prompts")
        prompts = [n for n, text in named.items() if text] if isinstance(named, dict) else []
        if prompts:
            LOG.warning(
                "%s has prompts (%s), which are put before no text here: give texts with them.",
                general,
                ", ".join(prompts),
            )
    file = folders["Transformer"] / LIMIT
    config = read_json(file) if file.is_file() else {}
    only(config, file, do_lower_case=False, transformer_task="feature-extraction")
    return config.get("max_seq_length")


def only(config: dict[str, Any], file: Path, **supported: Any) -> None:
    """Refuse options of other values than we support."""
    for name, wanted in supported.items():
        value = config.get(name, wanted)
        if value != wanted:
            raise ValueError(f"{file}: {name}={value!r} is not supported; only {wanted!r} is.")


def encoder_part(model: Any) -> tuple[nn.Module, str]:
    """A model's encoder with the tokenizer, and its published format.

    Raises:
        ValueError: no model that encodes sentences.
    """
    if not isinstance(model, MEMBER):
        raise ValueError(
            f"format={NAME!r} is for {MEMBER.__name__}, and this is a {type(model).__name__}."
        )
    encoder: Any = model.encoder
    encoder.tokenizer = model.tokenizer
    return encoder, format_of(encoder)


def limit_of(model: Any) -> int:
    """Where texts are cut: by the model, or before that by the training that its tokenizer knows of."""
    known = getattr(model.tokenizer, "max_tokens", None)
    return int(min(model.max_tokens, known or model.max_tokens))


def save_modules(model: Any, folder: Path) -> None:
    """Write what stands beside the encoder's own files."""
    kinds = ["Transformer", "Pooling"]
    kinds += ["Dense"] * (model.projection is not None) + ["Normalize"] * model.normalize
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    pooling = {flag: POOLING.get(name) == model.pooling for flag, name in FLAGS.items()}
    configs: dict[str, Any] = {
        MODULES: modules,
        LIMIT: {"max_seq_length": limit_of(model), "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": model.config.dim, **pooling},
    }
    if model.projection is not None:
        configs["2_Dense/config.json"] = {
            "in_features": model.projection.in_features,
            "out_features": model.projection.out_features,
            "bias": True,
            "activation_function": next(
                name for name, ours in ACTIVATIONS.items() if ours == model.projection_activation
            ),
        }
    for path in paths:
        (folder / path).mkdir(exist_ok=True)
    for name, config in configs.items():
        write_text(folder / name, json.dumps(config, indent=2) + "\n")
    if model.projection is not None:
        linear = zip(DENSE, (model.projection.weight, model.projection.bias), strict=True)
        state = {name: value.detach().contiguous() for name, value in linear}
        save_tensors(state, folder / "2_Dense" / SINGLE)
