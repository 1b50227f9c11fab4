"""Floating-point operations of a training step: counted as it runs, and worked out from shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from family import (
    BERT,
    CLIP,
    GPT,
    LSTMClassifier,
    LSTMLanguageModel,
    LSTMSeq2Seq,
    Segmenter,
    Seq2Seq,
    Transformer,
    ViT,
)
from family.core.attention import Attention
from family.core.feedforward import FeedForward
from family.core.position import RelativeBias
from family.heads.classifier import Pooling
from family.inputs.patches import PatchEmbedding
from family.models.clip import TextTower
from family.models.segmenter import MaskDecoder
from tasks.errors import UserError

PARTS = ("projections", "scores", "feedforward", "recurrence", "embedding", "head", "other")
"""What :func:`analytic_flops` tells apart: the linear layers of attention, its products of queries
with keys and of weights with values, feed-forward, LSTMs, patches, the last layers, all else."""
LEARNS, FIRST, FUSED = 3, 2, 3.5
"""A step costs so many times its forward pass: gradients of inputs and of weights take one each; the
pixels of a first layer want none; a fused attention works its scores out once more."""

Shapes = Mapping[str, Sequence[int]]


# --- Counted ---------------------------------------------------------------------------------


def counted_flops(function: Callable[[], Any]) -> int:
    """The operations of a call by torch's own counter: products of matrices and convolutions.

    A product and a sum are two. Attention is counted as its kernel's whole square, causal or not,
    and LSTMs too, which the counter passes over. What a call works out in its backward pass counts
    if the call runs it.
    """
    with FlopCounterMode(display=False, custom_mapping=recurrent_kernels()) as counter:
        function()
    return int(counter.get_total_flops())


def recurrent_kernels() -> dict[Any, Callable[..., int]]:
    """The kernels of LSTMs, oneDNN's and cuDNN's, and how to count each."""
    kernels = ("mkldnn_rnn_layer", "_cudnn_rnn")
    found = {}
    for name in kernels:
        for kernel, times in ((name, 1), (f"{name}_backward", 2)):
            if hasattr(torch.ops.aten, kernel):
                found[getattr(torch.ops.aten, kernel)] = recurrent_formula(times)
    return found


def recurrent_formula(times: int) -> Callable[..., int]:
    """Every token goes through every matrix: from the shapes of a kernel's input and weights."""

    def count(tokens: Any, first: Any, second: Any, *_: Any, **__: Any) -> int:
        # oneDNN gets the two matrices of a layer, cuDNN a list of all weights.
        weights = first if isinstance(first, list) else [first, second]
        return times * 2 * prod(tokens[:-1]) * sum(prod(w) for w in weights if len(w) == 2)

    return count


# --- Worked out ------------------------------------------------------------------------------


def analytic_flops(model: nn.Module, shapes: Shapes) -> dict[str, int]:
    """The operations of forward and backward pass by part, from the sizes of layers alone.

    Counted as :func:`counted_flops` counts on a CPU, where all parameters learn and no row is padded
    (of LSTMs, padding takes none); neither loss nor optimizer are in it.

    Args:
        model: a GPT, BERT, Seq2Seq or T5, ViT, Segmenter, CLIP, or one of the LSTMs.
        shapes: of a batch's tensors by name, as the task's data call them: ``input_ids``,
            ``source`` and ``target``, ``pixel_values``.

    Returns:
        part -> operations, for all of :data:`PARTS`.

    Raises:
        UserError: another model, or a shape that is missing.
    """
    for kind, work_out in MEMBERS.items():
        if isinstance(model, kind):
            try:
                flops = work_out(model, shapes)
            except KeyError as error:
                name = type(model).__name__
                raise UserError(f"the FLOPs of a {name} need the shape of {error}.") from None
            return {part: flops[part] for part in PARTS}
    known = ", ".join(kind.__name__ for kind in MEMBERS)
    raise UserError(
        f"the FLOPs of a {type(model).__name__} have no formula (there are those of {known}): "
        "count them as it runs."
    )


def dense(layer: Any, rows: int, times: int = LEARNS) -> int:
    """A linear layer, a convolution at so many places, or an LSTM over so many tokens."""
    return times * 2 * rows * sum(p.numel() for p in layer.parameters() if p.dim() > 1)


def gpt(model: Any, shapes: Shapes) -> Counter[str]:
    batch, tokens = shapes["input_ids"]
    return stack(model.transformer, batch, tokens) + head(model.head, batch * tokens)


def bert(model: Any, shapes: Shapes) -> Counter[str]:
    batch, tokens = shapes["input_ids"]
    flops = stack(model.transformer, batch, tokens)
    flops["embedding"] += dense(model.embedding.projection, batch * tokens)
    each = model.replaced_head if model.masked_head is None else model.masked_head
    if each is not None:
        flops["other"] += dense(each.dense, batch * tokens)
        return flops + head(each.output, batch * tokens)
    if model.class_head is None:
        return flops
    if model.pooler is not None:
        flops["other"] += dense(model.pooler.dense, batch)
    return flops + head(model.class_head, batch)


def seq2seq(model: Any, shapes: Shapes) -> Counter[str]:
    (batch, source), (_, target) = shapes["source"], shapes["target"]
    encoder = stack(model.encoder, batch, source)
    decoder = stack(model.decoder, batch, target, source)
    return encoder + decoder + head(model.head, batch * target)


def vit(model: Any, shapes: Shapes) -> Counter[str]:
    batch = shapes["pixel_values"][0]
    flops = vit_features(model, shapes) + pooling(model.pool, batch, patches(model, shapes))
    if model.pooler is not None:
        flops["other"] += dense(model.pooler.dense, batch)
    flops += head(model.head, batch)
    if model.distilled_head is not None:
        flops += head(model.distilled_head, batch)
    return flops


def segmenter(model: Any, shapes: Shapes) -> Counter[str]:
    sides = zip(shapes["pixel_values"][2:], model.patch_size, strict=True)
    height, width = (-(-side // patch) * patch for side, patch in sides)
    covered = {"pixel_values": (*shapes["pixel_values"][:2], height, width)}
    batch, cells = shapes["pixel_values"][0], patches(model.encoder, covered)
    flops, decoder = vit_features(model.encoder, covered), model.decoder
    if not isinstance(decoder, MaskDecoder):
        return flops + head(decoder.head, batch * cells)
    classes, dim = decoder.classes.weight.shape
    flops += stack(decoder.transformer, batch, cells + classes)
    flops += head(decoder.patch_projection, batch * cells)
    flops += head(decoder.class_projection, batch * classes)
    flops["other"] += dense(decoder.projection, batch * cells)
    flops["head"] += LEARNS * 2 * batch * cells * classes * dim
    return flops


def clip(model: Any, shapes: Shapes) -> Counter[str]:
    if not isinstance(model.image, ViT):
        raise UserError(
            f"the FLOPs of a CLIP whose pictures go through a {type(model.image).__name__} have no "
            "formula: count them as it runs."
        )
    (pictures, *_), (texts, _) = shapes["pixel_values"], shapes["input_ids"]
    flops = vit(model.image, shapes) + text_tower(model.text, shapes)
    flops["other"] += LEARNS * 2 * pictures * texts * model.embed_dim  # all pairs
    return flops


def text_tower(tower: TextTower, shapes: Shapes) -> Counter[str]:
    batch, tokens = shapes["input_ids"]
    if tower.fill_id is not None:
        tokens = max(tokens, tower.config.max_tokens)
    return stack(tower.transformer, batch, tokens) + head(tower.projection, batch)


def lstm_lm(model: Any, shapes: Shapes) -> Counter[str]:
    batch, tokens = shapes["input_ids"]
    flops = head(model.head, batch * tokens)
    flops["recurrence"] += dense(model.lstm, batch * tokens)
    return flops


def lstm_classifier(model: Any, shapes: Shapes) -> Counter[str]:
    batch, tokens = shapes["input_ids"]
    flops = head(model.head, batch)
    flops["recurrence"] += dense(model.lstm, batch * tokens)
    return flops


def lstm_seq2seq(model: Any, shapes: Shapes) -> Counter[str]:
    (batch, source), (_, target) = shapes["source"], shapes["target"]
    flops = head(model.head, batch * target)
    flops["recurrence"] += dense(model.encoder, batch * source)
    flops["recurrence"] += dense(model.decoder, batch * target)
    if model.attention is not None:
        dim = model.attention.score.in_features
        flops["projections"] += dense(model.attention, batch * target)
        flops["scores"] += int(FUSED * 4) * batch * target * source * dim
    return flops


MEMBERS: dict[type[nn.Module], Callable[[Any, Shapes], Counter[str]]] = {
    GPT: gpt,
    BERT: bert,
    Seq2Seq: seq2seq,  # T5 too
    ViT: vit,
    Segmenter: segmenter,
    CLIP: clip,
    LSTMLanguageModel: lstm_lm,
    LSTMClassifier: lstm_classifier,
    LSTMSeq2Seq: lstm_seq2seq,
}


# --- The parts that members are made of ------------------------------------------------------


def stack(model: Transformer, batch: int, tokens: int, context: int = 0) -> Counter[str]:
    """All blocks of a stack; ``context`` is how many tokens cross-attention sees."""
    flops: Counter[str] = Counter()
    learned_bias = isinstance(model.bias, RelativeBias)
    for module in model.blocks.modules():
        if isinstance(module, Attention):
            keys = context if module.cross else tokens
            flops += attention(module, batch, tokens, keys, learned_bias and not module.cross)
        elif isinstance(module, FeedForward):
            flops["feedforward"] += dense(module, batch * tokens)
    return flops


def attention(
    module: Attention, batch: int, queries: int, keys: int, learned_bias: bool = False
) -> Counter[str]:
    """Projections of all tokens, and two products of queries with all keys."""
    if module.cross:
        projections = dense(module.query, batch * queries) + dense(module.key_value, batch * keys)
    else:
        projections = dense(module.qkv, batch * queries)
    projections += dense(module.out, batch * queries)
    # The fused kernel of a CPU knows neither dropout nor a bias that learns.
    fused = not learned_bias and (module.dropout == 0 or not module.training)
    square = batch * module.heads * queries * keys * module.head_dim
    times = int(4 * (FUSED if fused else LEARNS))
    return Counter(projections=projections, scores=times * square)


def head(layer: nn.Module, rows: int) -> Counter[str]:
    """The layer that gives the answers; nothing, where a model has none."""
    return Counter(head=dense(layer, rows) if isinstance(layer, nn.Linear) else 0)


def patches(model: ViT, shapes: Shapes) -> int:
    """How many a picture has."""
    rows, columns = model.grid(*shapes["pixel_values"][2:])
    return rows * columns


def vit_features(model: ViT, shapes: Shapes) -> Counter[str]:
    """From pixels to the tokens of the last block."""
    batch, tokens = shapes["pixel_values"][0], model.num_prefix_tokens + patches(model, shapes)
    flops = stack(model.transformer, batch, tokens)
    flops["embedding"] += patch_embedding(model.embedding, shapes)
    return flops


def patch_embedding(module: PatchEmbedding, shapes: Shapes) -> int:
    """The convolutions from pixels to patches: each at the places that its stride leaves."""
    batch, _, height, width = shapes["pixel_values"]
    convolutions = [m for m in module.stem.modules() if isinstance(m, nn.Conv2d)]
    flops = 0
    for i, layer in enumerate([*convolutions, module.projection]):
        height, width = height // layer.stride[0], width // layer.stride[1]
        flops += dense(layer, batch * height * width, LEARNS if i else FIRST)
    return flops


def pooling(module: Pooling, batch: int, tokens: int) -> Counter[str]:
    """The one learned query of "attention"; other ways to pool need no products."""
    flops: Counter[str] = Counter()
    if module.attention is not None:
        flops += attention(module.attention.attention, batch, 1, tokens)
        flops["feedforward"] += dense(module.attention.feedforward.sublayer, batch)
    return flops
