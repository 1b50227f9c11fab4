"""FLOPs: the counter, the formulas and arithmetic done by hand agree."""

from __future__ import annotations

from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import family
from tasks.compare.flops import PARTS, analytic_flops, counted_flops, recurrent_formula
from tasks.errors import UserError

SIZE = {"dim": 32, "depth": 2, "heads": 4}


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape)


def read(tokens: int = 17) -> dict[str, torch.Tensor]:
    return {"input_ids": ids(3, tokens)}


def translate() -> dict[str, torch.Tensor]:
    return {"source": ids(3, 11), "target": ids(3, 17)}


def see(height: int = 32, width: int = 48) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(2, 3, height, width)}


def counted(model: nn.Module, batch: dict[str, torch.Tensor]) -> int:
    return counted_flops(lambda: model.train()(**batch).float().sum().backward())


def worked_out(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, int]:
    return analytic_flops(model, {name: value.shape for name, value in batch.items()})


def parts(**given: int) -> dict[str, int]:
    return dict.fromkeys(PARTS, 0) | given


# --- By hand: a product and a sum are two; linear layers cost 3 times their forward pass ----------


def test_gpt_by_hand():
    model = family.gpt_nano(10, dim=16, depth=2, heads=2, max_tokens=8)
    batch = {"input_ids": torch.randint(0, 10, (2, 8))}
    tokens, layers = 2 * 8, 2
    by_hand = parts(
        projections=layers * 3 * 2 * tokens * (16 * 48 + 16 * 16),
        scores=int(layers * 3.5 * 2 * (2 * 8 * 8 * 16) * 2),
        feedforward=layers * 3 * 2 * tokens * (16 * 64 + 64 * 16),
        head=3 * 2 * tokens * 16 * 10,
    )
    assert sum(by_hand.values()) == 662_528
    assert worked_out(model, batch) == by_hand
    assert counted(model, batch) == 662_528


def test_vit_by_hand():
    model = family.vit_tiny(3, 8, 16, dim=16, depth=1, heads=2)
    batch = {"pixel_values": torch.randn(2, 3, 16, 16)}
    tokens = 2 * (4 + 1)  # four patches and the class token
    by_hand = parts(
        embedding=2 * 2 * (2 * 4) * (3 * 8 * 8) * 16,  # pixels want no gradient
        projections=3 * 2 * tokens * (16 * 48 + 16 * 16),
        scores=int(3.5 * 2 * (2 * 5 * 5 * 16) * 2),
        feedforward=3 * 2 * tokens * (16 * 64 + 64 * 16),
        head=3 * 2 * 2 * 16 * 3,
    )
    assert sum(by_hand.values()) == 294_400
    assert worked_out(model, batch) == by_hand
    assert counted(model, batch) == 294_400


def test_lstm_by_hand():
    model = family.LSTMLanguageModel(7, dim=8, depth=2)
    batch = {"input_ids": torch.randint(0, 7, (2, 5))}
    by_hand = parts(
        recurrence=2 * 3 * 2 * (2 * 5) * (4 * 8 * 8 + 4 * 8 * 8), head=3 * 2 * (2 * 5) * 8 * 7
    )
    assert sum(by_hand.values()) == 64_800
    assert worked_out(model, batch) == by_hand
    assert counted(model, batch) == 64_800


# --- The formulas against the counter --------------------------------------------------------

MEMBERS = {
    "gpt with dropout": (
        lambda: family.gpt_nano(50, **SIZE, max_tokens=32, attention_dropout=0.1),
        read,
    ),
    "llama": (lambda: family.llama(50, **SIZE, kv_heads=2, window=5, max_tokens=32), read),
    "bert": (lambda: family.bert_tiny(50, **{**SIZE, "attention_dropout": 0.0}), read),
    "bert with classes": (
        lambda: family.bert_tiny(50, **SIZE, num_classes=3, masked_head=False),
        read,
    ),
    "electra": (lambda: family.electra_small(50, **SIZE, embedding_dim=8), read),
    "mpnet": (lambda: family.mpnet_base(50, **SIZE), read),
    "modernbert with classes": (
        lambda: family.modernbert_base(
            50, **SIZE, ffn_dim=48, num_classes=3, masked_head=False, pooling="mean"
        ),
        read,
    ),
    "seq2seq": (lambda: family.transformer_tiny(50, **SIZE, decoder_depth=1), translate),
    "t5": (lambda: family.t5_small(50, **SIZE, attention_dropout=0.0), translate),
    "t5 v1.1": (lambda: family.t5_v1_1_small(50, **SIZE, head_dim=16), translate),
    "vit with a conv stem": (
        lambda: family.vit_tiny(5, 8, 32, **SIZE, pool="mean", class_token=False, stem="conv"),
        see,
    ),
    "vit with attention pooling": (
        lambda: family.vit_tiny(5, 8, 32, **SIZE, pool="attention", pooler="tanh"),
        see,
    ),
    "deit": (lambda: family.vit_tiny(5, 8, 32, **SIZE, distilled=True), see),
    "segmenter": (lambda: family.segmenter_tiny(5, 8, 32, **SIZE), lambda: see(30, 45)),
    "linear segmenter": (
        lambda: family.segmenter_tiny(5, 8, 32, **SIZE, decoder="linear"),
        lambda: see(30, 45),
    ),
    "clip": (
        lambda: family.clip_small(50, **SIZE, embed_dim=16, image_size=32, max_tokens=20),
        lambda: {"pixel_values": torch.randn(3, 3, 32, 32), **read()},
    ),
    "siglip": (
        lambda: family.clip_small(
            50,
            **SIZE,
            embed_dim=32,
            image_size=32,
            max_tokens=20,
            fill_id=0,
            image_pool="attention",
        ),
        lambda: {"pixel_values": torch.randn(3, 3, 32, 32), **read(9)},
    ),
    "lstm classifier": (lambda: family.LSTMClassifier(50, 3, dim=32, depth=2), read),
    "lstm with attention": (lambda: family.LSTMSeq2Seq(50, dim=32, depth=2), translate),
    "lstm without": (lambda: family.LSTMSeq2Seq(50, dim=32, attention=False), translate),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_formula_agrees_with_the_counter_within_2_percent(name):
    build, make = MEMBERS[name]
    model, batch = build(), make()
    found = worked_out(model, batch)
    assert set(found) == set(PARTS)
    assert sum(found.values()) == pytest.approx(counted(model, batch), rel=0.02)


def test_the_counter_sees_attention_and_lstms_forward_alone():
    x = torch.randn(2, 4, 16, 8)
    square = 2 * 2 * (2 * 4) * 16 * 16 * 8
    assert counted_flops(lambda: F.scaled_dot_product_attention(x, x, x)) == square
    assert counted_flops(lambda: F.scaled_dot_product_attention(x, x, x, is_causal=True)) == square
    lstm = nn.LSTM(8, 6, batch_first=True)
    tokens = torch.randn(2, 5, 8)
    assert counted_flops(lambda: lstm(tokens)) == 2 * (2 * 5) * (24 * 8 + 24 * 6)


def test_cudnn_hands_over_all_weights_in_a_list():
    weights = [(24, 8), (24, 6), (24,), (24,)]
    by_hand = 2 * 2 * (5 * 2) * sum(map(prod, weights[:2]))
    assert recurrent_formula(2)((5, 2, 8), weights, 4) == by_hand


def test_refusals_in_one_sentence():
    with pytest.raises(UserError, match=r"^the FLOPs of a Linear have no formula .* as it runs\.$"):
        analytic_flops(nn.Linear(2, 2), {})
    model = family.gpt_nano(10, dim=16, depth=1, heads=2)
    with pytest.raises(UserError, match=r"^the FLOPs of a GPT need the shape of 'input_ids'\.$"):
        analytic_flops(model, {"source": (2, 3)})
    config = family.TransformerConfig(**SIZE, causal=True)
    clip = family.CLIP(50, None, config, 16, image_tower=nn.Flatten())
    with pytest.raises(
        UserError, match=r"^the FLOPs of a CLIP whose pictures go through a Flatten"
    ):
        analytic_flops(clip, {"pixel_values": (2, 3, 4, 4), "input_ids": (2, 3)})
