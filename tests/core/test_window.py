"""A causal query sees the last ``window`` keys, its own included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import family
from family import Attention, Transformer, TransformerConfig
from family.core.mask import Shared
from family.generation import beam_search

WINDOW = 4
SMALL = {"dim": 16, "depth": 2, "heads": 4, "causal": True}
POSITIONS = ["none", "rotary", "relative", "alibi"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def band(tokens):
    rows = [[max(0, q - WINDOW + 1) <= k <= q for k in range(tokens)] for q in range(tokens)]
    return torch.tensor(rows)


def stacks(**fields):
    """With a window, and the same weights without any: neither causal nor windowed by itself."""
    windowed = Transformer(TransformerConfig(**SMALL, window=WINDOW, **fields)).eval()
    for parameter in windowed.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    plain = Transformer(TransformerConfig(**SMALL, **fields)).eval()
    plain.load_state_dict(windowed.state_dict())
    return windowed, plain


@pytest.mark.parametrize("position", POSITIONS)
def test_equals_the_mask_written_out(position):
    windowed, plain = stacks(position=position)
    x = torch.randn(2, 9, 16)
    torch.testing.assert_close(windowed(x), plain(x, mask=band(9)))
    assert not torch.allclose(windowed(x), plain(x))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("position", POSITIONS)
def test_padding_takes_no_place_in_the_window(position, side):
    windowed, _ = stacks(position=position)
    x, padding = torch.randn(1, 7, 16), torch.randn(1, 3, 16)
    mask = torch.tensor([[True] * 7 + [False] * 3])
    if side == "left":
        padded, mask = torch.cat([padding, x], 1), mask.flip(1)
    else:
        padded = torch.cat([x, padding], 1)
    torch.testing.assert_close(windowed(padded, mask=mask)[mask], windowed(x)[0])


def test_attention_by_itself():
    attention = Attention(TransformerConfig(**SMALL, window=WINDOW))
    plain = Attention(TransformerConfig(**SMALL))
    plain.load_state_dict(attention.state_dict())
    x = torch.randn(2, 9, 16)
    torch.testing.assert_close(attention(x), plain(x, Shared(mask=band(9)[None].expand(2, -1, -1))))


@pytest.mark.parametrize(("tokens", "fast"), [(WINDOW, True), (WINDOW + 1, False)])
def test_the_fast_path_is_taken_where_the_window_leaves_nothing_out(monkeypatch, tokens, fast):
    windowed, _ = stacks()
    calls = []

    def spy(queries, keys, values, mask, *args, is_causal, **kwargs):
        calls.append(is_causal and mask is None)
        return original(queries, keys, values, mask, *args, is_causal=is_causal, **kwargs)

    original = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    windowed(torch.randn(2, tokens, 16))
    assert calls == [fast] * 2


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("chunks", [[1] * 9, [6, 1, 2], [3, 6]])
def test_cached_equals_uncached(position, chunks, padded):
    windowed, _ = stacks(position=position)
    x = torch.randn(2, 9, 16)
    mask = torch.ones(2, 9, dtype=torch.bool)
    cache, parts = windowed.new_cache(2, 12), []
    if padded:
        mask[1, :2] = False
        cache.pad(mask)
    for chunk in x.split(chunks, dim=1):
        parts.append(windowed(chunk, cache=cache))
        cache.advance(chunk.shape[1])
    places = (mask.long().cumsum(1) - 1).clamp(min=0)
    expected = windowed(x, mask=mask, positions=places)
    torch.testing.assert_close(torch.cat(parts, 1)[mask], expected[mask])


def sharp_gpt(position, window=WINDOW):
    """Weights large enough that beams fork and end, and that distant keys matter."""
    sizes = {"dim": 16, "depth": 2, "heads": 2, "max_tokens": 24}
    model = family.gpt_nano(31, **sizes, position=position, window=window).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def prompts():
    ids, mask = torch.randint(0, 31, (3, 6)), torch.ones(3, 6, dtype=torch.bool)
    mask[1, :2] = mask[2, :4] = False
    return ids, mask


@pytest.mark.parametrize("position", ["learned", "rotary", "alibi", "relative"])
@torch.no_grad()
def test_the_score_of_a_beam_is_that_of_its_tokens_read_anew(position):
    model, (ids, mask) = sharp_gpt(position), prompts()
    tokens, scores = beam_search(model, (ids, mask), beams=4, max_new_tokens=9)
    for row in range(3):
        prompt = ids[row, mask[row]]
        whole = torch.cat([prompt, tokens[row]])[None]
        chances = model(whole)[0, len(prompt) - 1 : -1].log_softmax(-1)
        total = chances.gather(1, tokens[row][:, None]).sum()
        torch.testing.assert_close(scores[row], total / tokens.shape[1])


@pytest.mark.parametrize("window", [WINDOW, 24])
@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_decoding_compiles_once_and_without_breaks(position, window):
    torch._dynamo.reset()
    model, (ids, mask) = sharp_gpt(position, window), prompts()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    step = torch.compile(model._step, fullgraph=True, backend=backend)
    with torch.no_grad():
        plain, cache = model.prefill(ids, mask, capacity=12)
        compiled, static = model.prefill(ids, mask, capacity=12)
        static.progress.static = True
        for _ in range(10):
            torch.testing.assert_close(compiled, plain)
            tokens = plain.argmax(-1)
            plain = model.decode(tokens, cache)
            compiled = step(tokens, static)
            static.advance(1)
    assert len(graphs) == 1
