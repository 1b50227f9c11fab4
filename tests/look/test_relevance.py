"""Relevance by slopes that are measured, not derived."""

from __future__ import annotations

import pytest
import torch

import family
from family.core.attention import attend_eagerly
from family.look import relevance


def moved(head, query, key, by):
    """An attention whose one weight is moved."""

    def attend(queries, keys, values, allowed, dropout=0.0, scale=None, cap=None):
        _, weights = attend_eagerly(queries, keys, values, allowed, 0.0, scale, cap)
        weights = weights.clone()
        weights[:, head, query, key] += by
        return weights @ values

    return attend


def drawn(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def measured(model, inputs, target, read):
    """Chefer et al.'s rule, slopes by differences: ``(tokens)``."""
    attention = [block.self_attention.sublayer for block in model.transformer.blocks]
    with family.record_attention(model) as kept, torch.no_grad():
        model(*inputs)
    maps = [m[0][0] for m in kept.values()]
    tokens = maps[0].shape[-1]
    total, step = torch.eye(tokens).double(), 1e-5
    for layer, one in zip(attention, maps, strict=True):
        slope = torch.zeros_like(one)
        for head in range(one.shape[0]):
            for i in range(tokens):
                for j in range(tokens):
                    ends = []
                    for by in (step, -step):
                        layer.attend = moved(head, i, j, by)
                        with torch.no_grad():
                            ends.append(model(*inputs)[0, target])
                    slope[head, i, j] = (ends[0] - ends[1]) / (2 * step)
        del layer.attend
        total = total + (one * slope).clamp(min=0).mean(0) @ total
    rows = (total - torch.eye(tokens))[read]
    return rows.mean(0)


def test_class_token_of_a_vit():
    config = {"dim": 16, "depth": 2, "heads": 2, "image_size": 16, "patch_size": 8}
    model = drawn(family.vit_tiny(3, **config)).requires_grad_(False)
    pixels = torch.randn(2, 3, 16, 16).double()
    found = relevance(model, pixels, target=2)
    assert found.shape == (2, 5) and (found >= 0).all()
    expected = measured(model, [pixels[:1]], 2, [0])
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-8)
    chosen = relevance(model, pixels)
    best = model(pixels).argmax(-1)
    torch.testing.assert_close(chosen, relevance(model, pixels, target=best))


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_texts_with_padding(pooling):
    options = {"masked_head": False, "num_classes": 3, "pooling": pooling, "max_tokens": 8}
    model = drawn(family.bert_tiny(30, dim=16, depth=1, heads=2, **options))
    ids = torch.randint(30, (2, 6))
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    found = relevance(model, ids, mask, target=torch.tensor([1, 0]))
    alone = measured(model, [ids[1:, :4]], 0, [0] if pooling == "class" else [0, 1, 2, 3])
    torch.testing.assert_close(found[1, :4], alone, rtol=1e-5, atol=1e-8)
    assert found[1, 4:].abs().max() == 0
    assert all(p.grad is None for p in model.parameters())


def test_no_classifier():
    with pytest.raises(ValueError, match="no classes of the whole"):
        relevance(family.gpt_nano(30, depth=1), torch.ones(1, 3).long())
