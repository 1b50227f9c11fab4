"""A compiled step has static shapes: one graph, compiled once, and the numbers of the plain step."""

from __future__ import annotations

import copy

import pytest
import torch

import family
from family.generation.compiled import columns
from family.quantise import quantise


@pytest.mark.parametrize("position", ["learned", "rotary", "alibi", "relative"])
def test_decoding_compiles_once_and_without_breaks(position):
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = family.gpt_nano(31, dim=16, depth=2, heads=2, max_tokens=24, position=position).eval()
    ids = torch.randint(0, 31, (2, 6))
    mask = torch.tensor([[True] * 6, [False] * 2 + [True] * 4])
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


@pytest.mark.slow
def test_compiled_generation_is_the_same_for_every_length():
    torch._dynamo.reset()
    model = family.gpt_nano(31, dim=16, depth=2, heads=2, max_tokens=24).eval()
    prompts = [torch.randint(0, 31, (1, count)) for count in (3, 6)]
    plain = [model.generate(prompt, max_new_tokens=8) for prompt in prompts]
    model.compile_decoding()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for prompt, expected in zip(prompts, plain, strict=True):
            assert torch.equal(model.generate(prompt, max_new_tokens=8), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="recorded graphs are a GPU's")
def test_recorded_generation_is_the_same_with_padding_and_in_later_texts():
    model = family.gpt_nano(31, dim=16, depth=2, heads=2, max_tokens=64).cuda().eval()
    mask = torch.ones(3, 6, dtype=torch.bool, device="cuda")
    mask[1, :3] = False
    prompts = [torch.randint(0, 31, (3, 6), device="cuda") for _ in range(3)]
    plain = [model.generate(prompt, mask, max_new_tokens=50) for prompt in prompts]
    model.compile_decoding()
    for prompt, expected in zip(prompts, plain, strict=True):
        assert torch.equal(model.generate(prompt, mask, max_new_tokens=50), expected)


@pytest.mark.parametrize("changes", [{"position": "rotary"}, {"position": "alibi"}, {"window": 5}])
def test_steps_that_read_what_there_is_compile_twice_at_most(changes):
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = family.gpt_nano(31, dim=16, depth=2, heads=2, max_tokens=24, **changes).eval()
    ids = torch.randint(0, 31, (2, 6))
    mask = torch.tensor([[True] * 6, [False] * 2 + [True] * 4])
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    step = torch.compile(model._step, fullgraph=True, dynamic=False, backend=backend)
    with torch.no_grad():
        plain, cache = model.prefill(ids, mask, capacity=18)
        compiled, static = model.prefill(ids, mask, capacity=18)
        for _ in range(18):
            torch.testing.assert_close(compiled, plain)
            tokens = plain.argmax(-1)
            plain = model.decode(tokens, cache)
            static.progress.static, static.progress.there = (
                True,
                columns(static.progress.length + 1),
            )
            compiled = step(tokens, static)
            static.advance(1)
    assert len(graphs) <= 2  # a cache that is full


@pytest.mark.slow
def test_two_models_have_programs_of_their_own():
    torch._dynamo.reset()
    prompt = torch.randint(0, 31, (2, 5))
    for changes in ({}, {"activation": "relu"}, {"norm": "rmsnorm"}):
        model = family.gpt_nano(31, dim=16, depth=1, heads=2, max_tokens=24, **changes).eval()
        torch.nn.init.normal_(model.head.weight)
        expected = model.generate(prompt, max_new_tokens=12)
        model.compile_decoding()
        assert torch.equal(model.generate(prompt, max_new_tokens=12), expected)


@pytest.mark.slow
def test_more_than_eight_programs_are_compiled():
    torch._dynamo.reset()
    model = family.gpt_nano(31, dim=16, depth=1, heads=2, max_tokens=12).eval()
    plain = copy.deepcopy(model)
    model.compile_decoding()
    for rows in range(1, 7):
        prompt = torch.randint(0, 31, (rows, 5))
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            found = model.generate(prompt, max_new_tokens=7)  # fills the cache
        assert torch.equal(found, plain.generate(prompt, max_new_tokens=7))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("bits", [32, 8])
def test_compiled_texts_follow_the_weights_and_grow(rows, bits):
    torch._dynamo.reset()
    model = family.llama(31, dim=32, depth=2, heads=4, kv_heads=2, max_tokens=150).eval()
    plain = copy.deepcopy(model)
    prompt = torch.randint(0, 31, (rows, 5))
    if bits == 8:
        pytest.importorskip("torchao")
        quantise(model), quantise(plain)
    model.compile_decoding()
    expected = plain.generate(prompt, max_new_tokens=120)  # past the first size of the cache
    assert torch.equal(model.generate(prompt, max_new_tokens=120), expected)
    if bits == 32:
        with torch.no_grad():
            for one in (model, plain):
                one.transformer.blocks[0].self_attention.sublayer.qkv.weight.neg_()
                one.head.weight.roll(1, 0)
        changed = plain.generate(prompt, max_new_tokens=20)
        assert not torch.equal(changed, expected[:, :20])
        assert torch.equal(model.generate(prompt, max_new_tokens=20), changed)


@pytest.mark.parametrize("name", ["gpt", "seq2seq"])
def test_training_step_compiles_without_breaks(name):
    torch.manual_seed(0)
    torch._dynamo.reset()
    ids = torch.randint(0, 31, (2, 6))
    if name == "gpt":
        model, inputs = family.gpt_nano(31, dim=16, depth=2, heads=2), (ids,)
    else:
        model = family.transformer_tiny(31, dim=16, depth=2, heads=2, ffn_dim=32, dropout=0.0)
        inputs = (ids, ids[:, :5], torch.ones_like(ids, dtype=torch.bool))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), model(*inputs))
