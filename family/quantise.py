"""Weights in eight bits, put into a model from outside (torchao)."""

from __future__ import annotations

import warnings

from torch import nn

from family.accelerate import restore


def quantise(model: nn.Module) -> nn.Module:
    """Keep the weights of the linear layers as int8, one scale an output channel, in place, and return the
    model: a fourth of the memory, for inference. What they are multiplied with stays as it is (weight-only);
    embeddings and norms do too.

    Raises:
        ImportError: torchao is not there.
        ValueError: a model whose decoding was compiled, see :meth:`family.GPT.compile_decoding`.
    """
    if getattr(model, "compiled", False):
        raise ValueError(
            "a model whose decoding is compiled cannot have its weights in eight bits."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ImportError(
            "weights in int8 need torchao: pip install 'transformer-family[quantise]'."
        ) from error
    restore(model).requires_grad_(False)
    quantize_(model, Int8WeightOnlyConfig(), filter_fn=is_plain)
    return model


def is_plain(module: nn.Module, name: str) -> bool:
    """Whether it is a linear layer and nothing else asks for its weight."""
    return type(module) is nn.Linear
