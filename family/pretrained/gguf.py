"""GGUF, llama.cpp's files of the Llama family: config, tokenizer and quantised weights in one, by the
``gguf`` package (``pip install transformer-family[gguf]``)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from family.core.rotary import RotaryScaling, rotary_frequency
from family.inputs.pointers import refuse_pointer
from family.pretrained.configs import MISSING, get, put, to_arguments
from family.pretrained.formats import llama
from family.pretrained.found import Published
from family.pretrained.gguf_text import read_gguf_tokenizer
from family.pretrained.table import Field, Format, blocks
from family.pretrained.weights import Weights

SUFFIX = ".gguf"
FACTORS = "rope_freqs.weight"
"""Divides the frequency of each pair of channels: how a GGUF says Llama 3.1's scaling."""
LLAMA3_BANDS = (1.0, 4.0, 8192.0)
"""Of every Llama since 3.1: low_freq_factor, high_freq_factor and tokens of our scaling."""
PERMUTED = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}
"""Weights whose rows Llama's files permute -> the field with their number of heads."""
PIECE = 1 << 22
"""Values dequantised at a time."""


def detected(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    kind, factor = get(config, "rope.scaling.type"), get(config, "rope.scaling.factor")
    if kind not in (MISSING, "none", "linear"):
        raise ValueError(f"rope.scaling.type={kind!r} is not supported; known are none, linear.")
    return {
        "config.rotary_scaling": factor if kind == "linear" and factor is not MISSING else None,
        "config.qkv_bias": "blk.0.attn_q.bias" in names,
        "tie_embeddings": "output.weight" not in names,
    }


FORMAT = Format(
    name="gguf",
    member=llama.FORMAT.member,
    model_types=("llama", "qwen2"),
    architectures=(),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("config.dim", "embedding_length"),
        Field("config.depth", "block_count"),
        Field("config.heads", "attention.head_count"),
        Field("config.kv_heads", "attention.head_count_kv", None),
        Field("config.head_dim", "attention.key_length", None),
        Field("config.ffn_dim", "feed_forward_length"),
        Field("config.max_tokens", "context_length"),
        Field("config.norm_eps", "attention.layer_norm_rms_epsilon"),
        Field("config.rotary_base", "rope.freq_base", 10_000.0),
        Field("config.rotary_dim", "rope.dimension_count", None),
    ),
    constants={
        "config.activation": "silu",
        "config.gated": True,
        "config.norm": "rmsnorm",
        "config.bias": False,
        "config.causal": True,
        "config.position": "rotary",
    },
    fixed={"expert_count": 0, "attention.sliding_window": None, "attention.causal": True},
    ignored=(r"\.attn_rot_embd\.", rf"^{FACTORS}$"),
    names={
        "embedding.tokens": "token_embd",
        "transformer.norm": "output_norm",
        "head": "output",
        **blocks(
            "transformer",
            "blk.{}",
            {
                "self_attention.norm": "attn_norm",
                "self_attention.sublayer.qkv": ("attn_q", "attn_k", "attn_v"),
                "self_attention.sublayer.out": "attn_output",
                "feedforward.norm": "ffn_norm",
                "feedforward.sublayer.up": ("ffn_gate", "ffn_up"),
                "feedforward.sublayer.down": "ffn_down",
            },
        ),
    },
    detect=detected,
)
"""Names and fields as a GGUF has them, the fields without the architecture in front; read only."""


class Stored(NamedTuple):
    """Where a file holds a tensor, and how.

    Args:
        offset: bytes from the beginning of the file.
        raw: shape of what is stored, in ``dtype``; of blocks of bytes where it is quantised.
        kind: of quantisation.
        shape: of the tensor.
    """

    offset: int
    raw: tuple[int, ...]
    dtype: Any
    kind: Any
    shape: tuple[int, ...]


def find_gguf(source: Path) -> Path | None:
    """The file that a source is, or that a folder holds; None where there is none.

    Raises:
        ValueError: a folder with several.
    """
    if source.is_file():
        return source if source.suffix == SUFFIX else None
    files = sorted(source.glob(f"*{SUFFIX}"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{source} holds several {SUFFIX} files, {names}: give one of them.")
    return files[0] if files else None


def published(file: Path) -> Published:
    """The model of a GGUF file; its weights come in float32 unless asked for otherwise.

    Raises:
        ValueError: no GGUF file, or one cut off; another architecture, an option that we do not
            support; the ``gguf`` package is missing.
    """
    metadata, tensors = read_gguf(file)
    architecture = metadata.get("general.architecture")
    if architecture not in FORMAT.model_types:
        raise ValueError(
            f"{file}: general.architecture={architecture!r} is not supported; known are "
            f"{', '.join(FORMAT.model_types)}."
        )
    config: dict[str, Any] = {}
    for name, value in metadata.items():
        if name.startswith(f"{architecture}."):
            put(config, name.removeprefix(f"{architecture}."), value)
    if "token_embd.weight" in tensors:
        config.setdefault("vocab_size", tensors["token_embd.weight"].shape[0])
    arguments = to_arguments(FORMAT, config, set(tensors), str(file))
    if FACTORS in tensors:
        factors = dequantise(file, tensors[FACTORS])
        arguments["config"]["rotary_scaling"] = llama3_scaling(factors, arguments["config"], file)
    places = {}
    for name, stored in tensors.items():
        field = PERMUTED.get(name.split(".")[-2]) if architecture == "llama" else None
        heads = get(config, field) if field else None
        places[name] = partial(read_tensor, file, stored, heads)
    tokenizer = read_gguf_tokenizer(metadata, file)
    return Published(FORMAT, arguments, Weights(places, str(file)), tokenizer=tokenizer)


def read_gguf(file: Path) -> tuple[dict[str, Any], dict[str, Stored]]:
    """The metadata of a file, and where its tensors are; no more stays in memory."""
    refuse_pointer(file)
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ValueError(f"{file} needs the gguf package: pip install gguf.") from None
    try:
        reader = GGUFReader(file)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {
            tensor.name: Stored(
                int(tensor.data_offset),
                tensor.data.shape,
                tensor.data.dtype,
                tensor.tensor_type,
                tuple(int(size) for size in reversed(tensor.shape)),
            )
            for tensor in reader.tensors
        }
    except Exception as error:  # of a broken file: whatever its parser runs into
        raise ValueError(f"{file} is no whole GGUF file: {str(error).rstrip('.')}.") from None
    return metadata, tensors


def read_tensor(file: Path, stored: Stored, heads: int | None) -> Tensor:
    """A tensor in float32.

    Args:
        heads: of queries or keys, whose rows Llama's files have in another order: channel ``i`` of a
            head next to channel ``i + head_dim / 2``, with which it turns.
    """
    values = dequantise(file, stored)
    if heads is None:
        return values
    return values.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def dequantise(file: Path, stored: Stored) -> Tensor:
    """A tensor in float32, dequantised in pieces by the ``gguf`` package."""
    from gguf.quants import dequantize

    count = int(np.prod(stored.raw))
    raw = np.fromfile(file, stored.dtype, count, offset=stored.offset).reshape(stored.raw)
    values = torch.empty(stored.shape)
    rows = max(1, PIECE * len(values) // values.numel())
    for start in range(0, len(values), rows):
        try:
            piece = dequantize(raw[start : start + rows], stored.kind)
        except NotImplementedError as error:
            raise ValueError(f"{file}: {error}.") from None
        values[start : start + rows] = torch.from_numpy(piece)
    return values


def llama3_scaling(factors: Tensor, config: dict[str, Any], file: Path) -> RotaryScaling:
    """Our scaling from the factors of a file.

    Raises:
        ValueError: they are others than Llama 3.1's.
    """
    scaling = RotaryScaling.llama3(float(factors.max()), *LLAMA3_BANDS)
    dim, base = 2 * len(factors), config["rotary_base"]
    expected = rotary_frequency(dim, base) / rotary_frequency(dim, base, scaling)
    if config["rotary_dim"] not in (None, dim) or not torch.allclose(factors, expected, rtol=1e-4):
        raise ValueError(f"{file}: {FACTORS} is not of Llama 3.1's kind, which alone is supported.")
    return scaling
