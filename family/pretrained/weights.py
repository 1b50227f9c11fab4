"""Tensors of files, each read when it is asked for, so that a model is in memory once."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from family.files import whole
from family.inputs.pointers import refuse_pointer

SINGLE, INDEX, PICKLED, PICKLED_INDEX = ANY = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
PICKLED_FILES = ("*pytorch_model.bin", "*pytorch_model-*.bin")
"""Pickled weights in a repository: one file, or those that an index names."""

Place = Tensor | Path | Callable[[], Tensor]
NUMBERS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
"""What safetensors calls torch's types of numbers."""


class Weights:
    """Named tensors, of files or in memory.

    Args:
        places: name -> the tensor, the safetensors file that holds it, or what gives it.
        origin: what to call them in an error.
    """

    def __init__(self, places: Mapping[str, Place], origin: str) -> None:
        self.places, self.origin = dict(places), origin

    def read(self, name: str) -> Tensor:
        """One tensor; of a file, a view that lives as long as it is held."""
        where = self.places[name]
        if isinstance(where, Tensor):
            return where
        if callable(where):
            return where()
        # Opened anew for each: pages that were read would otherwise stay in memory with the file.
        with safe_open(where, "pt") as file:
            return file.get_tensor(name)

    def kinds(self) -> dict[str, str]:
        """The type of each tensor's numbers, "float32" ..., but for what a function gives; of files only
        headers are read."""
        found, names = dict[str, str](), dict[Path, list[str]]()
        for name, where in self.places.items():
            if isinstance(where, Tensor):
                found[name] = str(where.dtype).removeprefix("torch.")
            elif isinstance(where, Path):
                names.setdefault(where, []).append(name)
        for file, those in names.items():
            with safe_open(file, "pt") as opened:
                codes = {name: opened.get_slice(name).get_dtype() for name in those}
            found |= {name: NUMBERS.get(code, code.lower()) for name, code in codes.items()}
        return found


def open_file(file: Path) -> Weights:
    """The tensors of one safetensors file.

    Raises:
        ValueError: the file is cut off, no safetensors file, or a pointer to one.
    """
    refuse_pointer(file)
    try:
        with safe_open(file, "pt") as opened:
            return Weights(dict.fromkeys(opened.keys(), file), str(file))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is no whole safetensors file: {error}.") from None


def open_folder(folder: Path) -> Weights:
    """The weights of a folder in the hub's layout: one file, or several with an index, of safetensors or,
    where there are none, pickled.

    Raises:
        ValueError: no weights, or a file that is missing or broken.
    """
    if (folder / SINGLE).is_file():
        return open_file(folder / SINGLE)
    if (folder / INDEX).is_file():
        return open_shards(folder / INDEX, open_file)
    if (folder / PICKLED).is_file():
        return open_pickled(folder / PICKLED)
    if (folder / PICKLED_INDEX).is_file():
        return open_shards(folder / PICKLED_INDEX, open_pickled)
    raise ValueError(
        f"{folder} holds no weights: {SINGLE} or {PICKLED} is wanted, or {INDEX} or {PICKLED_INDEX} with "
        "the files that it names."
    )


def open_pickled(file: Path) -> Weights:
    """The tensors of one pickled file."""
    return Weights(read_pickled(file), str(file))


def open_shards(index: Path, opened: Callable[[Path], Weights]) -> Weights:
    """The tensors of the files that an index names, each as ``opened`` reads it."""
    folder, places = index.parent, read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise ValueError(f"{index} has no weight_map (name -> file).")
    found: dict[str, Place] = {}
    for shard in sorted({str(name) for name in places.values()}):
        file = folder / shard
        if Path(shard).name != shard or not file.is_file():
            raise ValueError(f"{index} names {shard}, which {folder} does not hold.")
        found |= opened(file).places
    missing = sorted(places.keys() - found.keys())
    if missing:
        raise ValueError(f"{index} names the weight {missing[0]}, which no file holds.")
    return Weights(found, str(folder))


def read_pickled(file: Path) -> dict[str, Tensor]:
    """The state of a file by ``torch.save``; nothing in it is executed.

    Raises:
        ValueError: no such file, or one that holds more than tensors.
    """
    refuse_pointer(file)
    try:
        mapped = zipfile.is_zipfile(file)  # torch before 1.6 wrote something else
        state: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a broken file may end in any error of its readers
        raise ValueError(f"{file} cannot be read as plain weights: {refusal(error)}.") from None
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{file} holds a {type(state).__name__}, not a state of named tensors.")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def save_tensors(state: dict[str, Tensor], file: Path) -> None:
    """As safetensors, whole or not at all."""
    with whole(file) as new:
        save_file(state, new, metadata={"format": "pt"})


def refusal(error: Exception) -> str:
    """Why a pickled file is not read, without torch's advice to execute what it holds."""
    if not isinstance(error, pickle.UnpicklingError):
        return str(error).strip().split("\n")[0].rstrip(".")
    found = re.search(r"GLOBAL (\S+)", str(error))
    if found is not None:
        return f"it holds {found[1]}, and nothing but tensors and plain values is read"
    return "it is no file of torch.save, or holds more than tensors and plain values"


def read_fields(file: Path) -> dict[str, Any]:
    """A config, as the suffix of its file says: JSON, or YAML.

    Raises:
        ValueError: no such file, or another content.
    """
    if file.suffix not in (".yaml", ".yml"):
        return read_json(file)
    refuse_pointer(file)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{file} cannot be read: {reason}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, not an object of fields.")
    return content


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: no such file, or another content.
    """
    refuse_pointer(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, not an object of fields.")
    return content
