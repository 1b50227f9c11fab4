"""Attention step by step, from the weights: what the original explanation tells, in a model's own numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from family.core.attention import Attention
from family.look.maps import alignment, recorded_maps
from family.look.sides import said, words
from family.look.written import source_ids, written_ids

DIGITS = 4
TOP = 8
"""Words of the vocabulary that are shown for each place."""
POSITIONS = 48
"""Rows of the picture of positions."""


@torch.no_grad()
def attention_steps(attention: Attention, x: Tensor) -> dict[str, Tensor]:
    """Self-attention of one text written out (Vaswani et al. 2017, section 3.2).

    Args:
        attention: without positions of its own, window or mask.
        x: ``(tokens, dim)``.

    Returns:
        ``queries``, ``keys``, ``values`` and ``read`` (each head's weighted sum) ``(heads, tokens, head_dim)``;
        ``scores``, divided by the root of the head's width, and ``weights`` ``(heads, tokens, tokens)``;
        ``out`` ``(tokens, dim)``, all heads through the output layer.

    Raises:
        ValueError: attention across, with grouped heads, or with more than the original has.
    """
    config = attention.config
    extra = config.position in ("rotary", "relative", "alibi") or config.qk_norm or config.score_cap
    if attention.cross or config.causal or config.window or extra:
        raise ValueError("only the original self-attention of an encoder is written out.")
    if attention.kv_heads != attention.heads or attention.query_bias is not None:
        raise ValueError(
            "only attention with as many heads of keys, and all biases, is written out."
        )
    projected = attention.qkv(x).view(len(x), 3, attention.heads, attention.head_dim)
    queries, keys, values = projected.permute(1, 2, 0, 3)
    scale = attention.head_dim**-0.5 if attention.scale is None else attention.scale
    scores = queries @ keys.transpose(1, 2) * scale
    weights = scores.softmax(-1)
    read = weights @ values
    out = attention.out(read.transpose(0, 1).flatten(1))
    parts = {"queries": queries, "keys": keys, "values": values, "scores": scores}
    return {**parts, "weights": weights, "read": read, "out": out}


@torch.no_grad()
def translation_steps(model: Any, text: str) -> dict[str, Any]:
    """A translation from words to the next word's chances, as plain values rounded to four digits: the first
    layer of the encoder in full, the decoder's alignment, and the vocabulary after each word.

    Args:
        model: an encoder-decoder of texts, with positions that are added to its embeddings, and its tokenizer.

    Raises:
        ValueError: see :func:`attention_steps`, and a text that is too long.
    """
    tokenizer = model.tokenizer
    ids, _ = source_ids(model, text)
    start, made = written_ids(model, ids, None, 1, False)
    so_far = torch.cat([start, made], dim=1)[:, :-1]
    embedding = model.source_embedding
    table = embedding.tokens(ids[0]) * embedding.factor
    places = embedding.position(torch.arange(max(POSITIONS, ids.shape[1]), device=ids.device))
    x = table + places[: len(table)]
    block = model.encoder.blocks[0].self_attention
    steps = attention_steps(block.sublayer, x)
    maps, logits = recorded_maps(model, lambda: model(ids, so_far))
    after = block(x[None])[0]
    scores, best = logits[0].float().topk(TOP)
    chances = logits[0].float().softmax(-1).gather(1, best)
    return {
        "text": text,
        "answer": tokenizer.target.decode(made[0].tolist()),
        "source": words(tokenizer, ids[0].tolist()),
        "ids": ids[0].tolist(),
        "written": words(tokenizer.target, made[0].tolist()),
        "vocabulary": logits.shape[-1],
        "width": steps["queries"].shape[-1],
        "layers": len(model.encoder.blocks),
        "embedding": plain(table),
        "positions": plain(places[:POSITIONS]),
        "entering": plain(x),
        **{name: plain(value) for name, value in steps.items()},
        "sum": plain(x + steps["out"]),
        "after": plain(after),
        "alignment": plain(alignment(maps["decoder"], -1)[0]),
        "best": [[said(tokenizer.target, i) for i in row] for row in best.tolist()],
        "logits": plain(scores),
        "chances": plain(chances),
    }


def plain(values: Tensor) -> Any:
    """Nested lists, rounded."""
    scale = 10**DIGITS
    return ((values.double() * scale).round() / scale).tolist()
