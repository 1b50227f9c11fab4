"""What attention promises beyond parity: masks, empty rows, positions, cache, recorded maps."""

from __future__ import annotations

import pytest
import torch

from family import Attention, Block, Transformer, TransformerConfig, record_attention
from family.core.mask import Shared
from family.core.position import AlibiBias, RelativeBias
from family.inputs.position import sinusoidal

SMALL = {"dim": 16, "depth": 2, "heads": 4}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_written_out(kv_heads):
    """One query head at a time, by the formula of the paper."""
    attention = Attention(TransformerConfig(**SMALL, kv_heads=kv_heads))
    x = torch.randn(2, 5, 16)
    query, key, value = attention.qkv(x).split([16, 4 * kv_heads, 4 * kv_heads], dim=-1)
    heads = []
    for head in range(4):
        shared = head // (4 // kv_heads)
        q = query[..., 4 * head : 4 * head + 4]
        k, v = key[..., 4 * shared : 4 * shared + 4], value[..., 4 * shared : 4 * shared + 4]
        heads.append((q @ k.mT / 2).softmax(-1) @ v)
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, -1)))


def test_an_exported_step_takes_any_number_of_rows():
    """Twelve heads, where three rows make few scores many."""
    stack = Transformer(TransformerConfig(dim=24, depth=1, heads=12)).eval()
    rows = {0: torch.export.Dim("rows", min=1, max=100)}
    with torch.no_grad():
        program = torch.export.export(stack, (torch.randn(2, 4, 24),), dynamic_shapes=(rows,))
        for count in (1, 2, 3, 50):
            x = torch.randn(count, 4, 24)
            torch.testing.assert_close(program.module()(x), stack(x))


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_an_exported_step_with_capped_scores_takes_any_length(kv_heads):
    config = TransformerConfig(dim=16, depth=1, heads=4, kv_heads=kv_heads, score_cap=5.0)
    stack = Transformer(config).eval()
    sizes = {0: torch.export.Dim("rows", min=1, max=100), 1: torch.export.Dim("t", min=2, max=64)}
    with torch.no_grad():
        program = torch.export.export(stack, (torch.randn(2, 4, 16),), dynamic_shapes=(sizes,))
        for shape in ((1, 9), (3, 2)):
            x = torch.randn(*shape, 16)
            torch.testing.assert_close(program.module()(x), stack(x))


def test_masks_that_are_not_boolean_are_refused():
    attention = Attention(TransformerConfig(**SMALL))
    for shape in ((2, 3), (2, 3, 3), (2, 1, 3, 3)):
        with pytest.raises(ValueError, match="boolean"):
            attention(torch.randn(2, 3, 16), Shared(mask=torch.ones(shape)))


def test_row_with_nothing_to_attend_to_gives_zeros_and_finite_gradients():
    attention = Attention(TransformerConfig(**SMALL, bias=False))
    x = torch.randn(2, 3, 16, requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    out = attention(x, Shared(mask=mask))
    assert torch.equal(out[1], torch.zeros(3, 16))
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert torch.equal(x.grad[1], torch.zeros(3, 16))


@pytest.mark.parametrize("position", ["none", "rotary", "relative", "alibi"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing(position, causal):
    stack = Transformer(TransformerConfig(**SMALL, position=position, causal=causal))
    short = torch.randn(1, 4, 16)
    padded = torch.cat([short, torch.randn(1, 3, 16)], 1)
    mask = torch.tensor([[True] * 4 + [False] * 3])
    torch.testing.assert_close(stack(padded, mask=mask)[:, :4], stack(short))


@pytest.mark.parametrize("position", ["none", "rotary", "relative", "alibi"])
@pytest.mark.parametrize("chunks", [[1] * 7, [4, 1, 2], [7]])
def test_cached_equals_uncached(position, chunks):
    stack = Transformer(TransformerConfig(**SMALL, position=position, causal=True)).eval()
    x = torch.randn(2, 7, 16)
    cache, parts = stack.new_cache(2, 9), []
    for chunk in x.split(chunks, dim=1):
        parts.append(stack(chunk, cache=cache))
        cache.advance(chunk.shape[1])
    torch.testing.assert_close(torch.cat(parts, 1), stack(x))


def test_biases_of_queries_keys_and_values_apart():
    """Qwen2 has them alone; None follows ``bias``."""
    for cross in (False, True):
        names = {"query", "key_value"} if cross else {"qkv"}
        for fields, expected in (
            ({"bias": False, "qkv_bias": True}, names),
            ({"bias": True, "qkv_bias": False}, {"out"}),
            ({"bias": True}, {*names, "out"}),
            ({"bias": False}, set()),
        ):
            attention = Attention(TransformerConfig(**SMALL, **fields), cross=cross)
            biases = {n.split(".")[0] for n, _ in attention.named_parameters() if "bias" in n}
            assert biases == expected


def test_causal_sees_no_later_token():
    stack = Transformer(TransformerConfig(**SMALL, causal=True))
    x = torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, 4:] = torch.randn(1, 2, 16)
    before, after = stack(x), stack(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_additive_positions_reach_queries_and_keys_but_not_values():
    config = TransformerConfig(**SMALL)
    attention = Attention(config)
    x, position = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    query = attention.qkv(x + position)[..., :16].unflatten(-1, (4, 4)).transpose(1, 2)
    key = attention.qkv(x + position)[..., 16:32].unflatten(-1, (4, 4)).transpose(1, 2)
    value = attention.qkv(x)[..., 32:].unflatten(-1, (4, 4)).transpose(1, 2)
    expected = attention.out(((query @ key.mT / 2).softmax(-1) @ value).transpose(1, 2).flatten(2))
    got = attention(x, Shared(query_position=position))
    torch.testing.assert_close(got, expected)


def test_recorded_maps():
    config = TransformerConfig(**SMALL, causal=True, cross_attention=True)
    stack = Transformer(config).eval()
    x, context = torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    context_mask = torch.tensor([[True, True, False], [True, True, True]])
    plain = stack(x, context=context, context_mask=context_mask)
    with record_attention(stack) as maps:
        recorded = stack(x, context=context, context_mask=context_mask)
    torch.testing.assert_close(recorded, plain)
    own = maps["blocks.0.self_attention.sublayer"][0]
    assert own.shape == (2, 4, 5, 5)
    torch.testing.assert_close(own.sum(-1), torch.ones(2, 4, 5))
    assert own.triu(1).abs().max() == 0
    assert maps["blocks.1.cross_attention.sublayer"][0][0, ..., 2].abs().max() == 0


def test_block_takes_any_sublayer():
    block = Block(TransformerConfig(**SMALL), feedforward=torch.nn.Identity())
    x = torch.randn(2, 3, 16)
    middle = block.self_attention(x)
    torch.testing.assert_close(block(x), middle + block.feedforward.norm(middle))


def test_relative_bias_equals_t5():
    transformers = pytest.importorskip("transformers")
    from transformers.models.t5.modeling_t5 import T5Attention

    for bidirectional in (True, False):
        bias = RelativeBias(4, 32, 128, bidirectional)
        distance = torch.arange(-200, 200)
        expected = T5Attention._relative_position_bucket(distance, bidirectional, 32, 128)
        assert torch.equal(bias.bucket(distance), expected)
    assert transformers


def test_alibi_slopes_equal_bloom():
    pytest.importorskip("transformers")
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    for heads in (4, 6, 16):
        theirs = build_alibi_tensor(torch.ones(1, 5), heads, torch.float32)  # (heads, 1, keys)
        ours = AlibiBias(heads)(torch.tensor([4]), torch.arange(5))
        # Bloom adds slope * key position: the same but for a constant of each row.
        torch.testing.assert_close(ours, theirs - theirs[..., -1:])


def test_sinusoids_are_those_of_the_paper():
    table = sinusoidal(torch.arange(50), 16)
    for position, channel in ((0, 0), (7, 3), (49, 7)):
        angle = torch.tensor(position / 10_000 ** (2 * channel / 16))
        torch.testing.assert_close(table[position, channel], angle.sin())
        torch.testing.assert_close(table[position, 8 + channel], angle.cos())


@pytest.mark.parametrize("norm_order", ["pre", "post"])
def test_layer_outputs_checkpointing_and_drop_path(norm_order):
    config = TransformerConfig(**SMALL, norm_order=norm_order, layer_scale=0.1, drop_path=0.5)
    stack = Transformer(config)
    x, layers = torch.randn(2, 3, 16), []
    torch.testing.assert_close(stack.eval()(x, layers=layers), layers[-1])
    assert len(layers) == 2
    stack.train()
    plain = Transformer(config.replace(drop_path=0.0))
    plain.load_state_dict(stack.state_dict())
    saving = Transformer(config.replace(drop_path=0.0, activation_checkpointing=True))
    saving.load_state_dict(stack.state_dict())
    for model in (plain, saving):
        model(x).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
