"""Layers that differ, sublayers by name or class path, packed rows, checkpointing, walking a stack."""

from __future__ import annotations

import copy as copying

import pytest
import torch
from torch import nn

import family
from family import Attention, Block, RotaryScaling, Shared, Transformer, TransformerConfig
from family.core.init import init_linear, initialise

SMALL = {"dim": 16, "depth": 4, "heads": 4, "causal": True}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


class DecayingMean(nn.Module):
    """A mixer with a state of one size: ``y_t = 0.9 y_(t-1) + W x_t``."""

    def __init__(self, config):
        super().__init__()
        self.value = nn.Linear(config.dim, config.dim)
        self.dim = config.dim

    def forward(self, x, shared=Shared(), state=None):
        x = self.value(x)
        if state is not None and state.branches:  # one token each, side by side
            state.sum = 0.9 * state.sum + x
            return state.sum
        total = x.new_zeros(len(x), self.dim) if state is None else state.sum
        outputs = []
        for token in x.unbind(1):
            total = 0.9 * total + token
            outputs.append(total)
        if state is not None:
            state.sum = total
        return torch.stack(outputs, 1)

    def new_state(self, like, rows, progress):
        return Decayed(like.new_zeros(rows, self.dim))


class Decayed:
    def __init__(self, start):
        self.sum, self.branches = start, 0

    def branch(self, count):
        self.branches = count
        self.sum = self.sum[:, None].expand(-1, count, -1).contiguous()

    def reorder(self, parents):
        self.sum = self.sum.gather(1, parents[..., None].expand_as(self.sum))


class Mine(Attention):
    """A user's own."""


class Doubled(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.down = nn.Linear(config.dim, config.dim)

    def forward(self, x):
        return 2 * self.down(x)


HERE = f"{__name__}."
HYBRID = TransformerConfig(
    **SMALL, position="rotary", layers=({"mixer": f"{HERE}DecayingMean"}, {"window": 3})
)


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """A user's module, as it would lie on the path."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or FakeModule)


class FakeModule:
    DecayingMean, Doubled, Mine = DecayingMean, Doubled, Mine


LAYERS = {
    "windows": ({"window": 3}, {}),
    "bases": ({"rotary_base": 50.0, "window": 2}, {"rotary_base": 500.0}),
    "no position": ({}, {"position": "none"}),
    "heads": ({"kv_heads": 2}, {"heads": 2, "head_dim": 8, "qk_norm": "layernorm"}),
    "scaled": ({"rotary_scaling": RotaryScaling("yarn", 2.0, 4, 1.0, 2.0)}, {}),
    "feed-forward": ({"ffn_dim": 24, "gated": True}, {"feedforward": "experts", "experts": 3}),
}


@pytest.mark.parametrize("name", list(LAYERS))
def test_a_stack_is_its_layers_one_after_the_other(name):
    """Each layer as a stack of its own, with its own config."""
    config = TransformerConfig(**SMALL, position="rotary", layers=LAYERS[name], final_norm=False)
    stack = randomised(Transformer(config))
    x = expected = torch.randn(2, 9, 16)
    for i, block in enumerate(stack.blocks):
        alone = Transformer(config.at(i).replace(depth=1)).eval()
        alone.blocks[0].load_state_dict(block.state_dict())
        expected = alone(expected)
    torch.testing.assert_close(stack(x), expected)


@pytest.mark.parametrize("name", [*LAYERS, "hybrid"])
@pytest.mark.parametrize("chunks", [[1] * 11, [6, 1, 1, 3], [3, 8]])
def test_cached_equals_uncached(name, chunks):
    config = TransformerConfig(**SMALL, position="rotary", layers=LAYERS.get(name, ()))
    stack = randomised(Transformer(HYBRID if name == "hybrid" else config))
    x = torch.randn(2, 11, 16)
    cache, parts = stack.new_cache(2, 12), []
    for chunk in x.split(chunks, dim=1):
        parts.append(stack(chunk, cache=cache))
        cache.advance(chunk.shape[1])
    torch.testing.assert_close(torch.cat(parts, 1), stack(x), rtol=1e-4, atol=1e-5)


def test_a_layer_with_a_window_keeps_no_more_than_it():
    stack = Transformer(TransformerConfig(**SMALL, layers=({"window": 3}, {})))
    cache = stack.new_cache(2, 100)
    assert [layer.mixer.keys.shape[2] for layer in cache.layers] == [3, 100, 3, 100]
    cache = stack.new_cache(2, 100, branches=4)
    assert [layer.mixer.keys.shape[2] for layer in cache.layers] == [12, 100, 12, 100]


@pytest.mark.parametrize("layers", [LAYERS["windows"], LAYERS["bases"], HYBRID.layers])
@torch.no_grad()
def test_beams_score_what_their_tokens_score_read_anew(layers):
    """Past the window, so that rings turn under branches; recurrent states fork and are reordered."""
    config = TransformerConfig(**SMALL, position="rotary", max_tokens=64, layers=layers)
    model = family.GPT(31, config).eval()
    for parameter in model.parameters():
        parameter.mul_(4)
    ids, mask = torch.randint(0, 31, (3, 6)), torch.ones(3, 6, dtype=torch.bool)
    if layers is not HYBRID.layers:  # whose mean would count padding
        mask[1, :2] = mask[2, :4] = False
    tokens, scores = family.generation.beam_search(model, (ids, mask), beams=4, max_new_tokens=12)
    for row in range(3):
        prompt = ids[row, mask[row]]
        chances = model(torch.cat([prompt, tokens[row]])[None])[0, len(prompt) - 1 : -1]
        total = chances.log_softmax(-1).gather(1, tokens[row][:, None]).sum()
        torch.testing.assert_close(scores[row], total / tokens.shape[1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_step_of_rings_compiles_once_and_without_breaks():
    torch._dynamo.reset()
    config = TransformerConfig(**SMALL, position="rotary", max_tokens=32, layers=LAYERS["bases"])
    model, graphs = family.GPT(31, config).eval(), []
    ids, mask = torch.randint(0, 31, (2, 6)), torch.ones(2, 6, dtype=torch.bool)
    mask[1, :3] = False

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    step = torch.compile(model._step, fullgraph=True, backend=backend)
    plain, cache = model.prefill(ids, mask, capacity=12)
    compiled, static = model.prefill(ids, mask, capacity=12)
    static.progress.static = True
    for _ in range(10):
        torch.testing.assert_close(compiled, plain)
        tokens = plain.argmax(-1)
        plain, compiled = model.decode(tokens, cache), step(tokens, static)
        static.advance(1)
    assert len(graphs) == 1


def test_windows_see_both_ways():
    windowed = randomised(Transformer(TransformerConfig(**{**SMALL, "causal": False}, window=3)))
    plain = Transformer(TransformerConfig(**{**SMALL, "causal": False})).eval()
    plain.load_state_dict(windowed.state_dict())
    x, places = torch.randn(2, 9, 16), torch.arange(9)
    near = (places[:, None] - places).abs() < 3
    torch.testing.assert_close(windowed(x), plain(x, mask=near[None]))
    mask = torch.tensor([[True] * 9, [False] * 3 + [True] * 6])
    torch.testing.assert_close(windowed(x, mask=mask)[1, 3:], windowed(x[1:, 3:])[0])


# --- By name and by class path ---


def test_sublayers_by_class_path():
    config = TransformerConfig(**SMALL, mixer=f"{HERE}DecayingMean", feedforward=f"{HERE}Doubled")
    stack = Transformer(config)
    kinds = {type(b.self_attention.sublayer) for b in stack.blocks}
    assert {k.__name__ for k in kinds} == {"DecayingMean"}
    assert type(stack.blocks[0].feedforward.sublayer).__name__ == "Doubled"
    assert stack(torch.randn(2, 3, 16)).shape == (2, 3, 16)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no.such.Mixer", "mixer='no.such.Mixer' cannot be imported"),
        ("torch.nn.Nothing", "mixer='torch.nn.Nothing' cannot be imported"),
        ("os.system", "mixer='os.system' is no class of modules"),
        ("subprocess.Popen", "is no class of modules"),
    ],
)
def test_a_class_path_must_lead_to_a_module(path, words):
    with pytest.raises(ValueError, match=words):
        Transformer(TransformerConfig(**SMALL, mixer=path))


# --- Packed rows, checkpointing, walking, beginnings ---


@pytest.mark.parametrize("position", ["learned", "rotary", "relative", "none"])
@pytest.mark.parametrize("window", [None, 3])
def test_documents_in_a_row_do_not_see_each_other(position, window):
    model = family.gpt_nano(31, dim=16, depth=2, heads=2, position=position, window=window).eval()
    first, second = torch.randint(0, 31, (1, 5)), torch.randint(0, 31, (1, 8))
    documents = torch.tensor([[3] * 5 + [7] * 8])
    packed = model(torch.cat([first, second], 1), documents=documents)
    torch.testing.assert_close(packed, torch.cat([model(first), model(second)], 1))
    with pytest.raises(ValueError, match="a cache knows its own padding"):
        model.features(first, cache=model.transformer.new_cache(1, 9), documents=documents[:, :5])


def test_packed_gradients_are_those_of_the_texts_apart():
    model = family.gpt_nano(31, dim=16, depth=2, heads=2, position="rotary")
    texts = [torch.randint(0, 31, (1, count)) for count in (5, 8)]
    documents = torch.tensor([[0] * 5 + [1] * 8])
    model(torch.cat(texts, 1), documents=documents).square().sum().backward()
    packed = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for text in texts:
        model(text).square().sum().backward()
    for ours, expected in zip(packed, (p.grad for p in model.parameters()), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*LAYERS, "hybrid"])
def test_checkpointing_from_the_config_changes_no_gradient(name):
    config = TransformerConfig(**SMALL, position="rotary", layers=LAYERS.get(name, ()), dropout=0.2)
    config = HYBRID if name == "hybrid" else config
    plain, saving = Transformer(config), Transformer(config.replace(activation_checkpointing=True))
    saving.load_state_dict(plain.state_dict())
    x, calls = torch.randn(2, 7, 16), []
    saving.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    gradients = []
    for stack in (plain, saving):
        torch.manual_seed(1)
        stack(x).square().sum().backward()
        gradients.append([p.grad for p in stack.parameters()])
    torch.testing.assert_close(*gradients)
    assert len(calls) == 2  # once more for the gradients


def test_walking_a_stack_is_running_it():
    config = TransformerConfig(
        **SMALL, cross_attention=True, position="rotary", layers=LAYERS["windows"]
    )
    config = config.replace(activation_checkpointing=True)
    stack = randomised(Transformer(config)).train()
    x, context = torch.randn(2, 9, 16), torch.randn(2, 3, 16)
    walked = x
    for step in stack.walk(x, Shared(context=context)):
        walked = step(walked)
    torch.testing.assert_close(stack.norm(walked), stack(x, context=context))
    # What changes between the layers reaches the next one alone.
    moved = x
    for i, step in enumerate(stack.walk(x, Shared(context=context))):
        position = torch.full_like(x, float(i))
        moved = step(moved, query_position=position)
    expected = x
    for i, block in enumerate(stack.blocks):
        told = stack._tell(x, Shared(context=context), None, None)[stack.first_alike[i]]
        expected = block(expected, told._replace(query_position=torch.full_like(x, float(i))))
    torch.testing.assert_close(moved, expected)


def test_a_step_refuses_what_was_worked_out_before():
    stack = Transformer(TransformerConfig(**SMALL))
    x = torch.randn(1, 3, 16)
    for step in stack.walk(x):
        with pytest.raises(ValueError, match="a step cannot change mask"):
            step(x, mask=torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="a cache knows its own padding"):
        stack(x, mask=torch.ones(1, 3, dtype=torch.bool), cache=stack.new_cache(1, 3))


@torch.no_grad()
def test_a_mixer_derived_from_attention_decodes():
    model = family.GPT(
        31, TransformerConfig(**SMALL, mixer=f"{HERE}Mine", position="rotary")
    ).eval()
    ids = torch.randint(0, 31, (2, 9))
    step, cache = model.prefill(ids[:, :8], capacity=2)
    torch.testing.assert_close(step, model(ids[:, :8])[:, -1])
    torch.testing.assert_close(model.decode(ids[:, 8], cache), model(ids)[:, -1])


@torch.no_grad()
def test_rings_under_autocast():
    config = TransformerConfig(**SMALL, position="rotary", layers=LAYERS["windows"])
    model, ids = family.GPT(31, config).eval(), torch.randint(0, 31, (2, 9))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.generate(ids, max_new_tokens=5).shape == (2, 5)
        assert model.generate(ids, max_new_tokens=5, beams=3).shape == (2, 5)


def test_copies_of_a_compiled_model_are_their_own():
    model = family.gpt_nano(31, dim=16, depth=1, heads=2).eval()
    model.compile_decoding()
    copy = copying.deepcopy(model)
    assert not copy.compiled and copy._step.__self__ is copy


def test_rotary_must_be_given_to_a_block_by_itself():
    block = Block(TransformerConfig(dim=16, heads=4, position="rotary"))
    with pytest.raises(ValueError, match="position='rotary'"):
        block(torch.randn(2, 3, 16))


def test_initialise_serves_a_stack_of_ones_own():
    config = TransformerConfig(dim=256, heads=4, condition_dim=8)
    blocks = nn.ModuleList(Block(config) for _ in range(8))
    initialise(blocks, 0.05, scaled=True)
    for block in blocks:
        assert block.self_attention.sublayer.qkv.weight.std().item() == pytest.approx(0.05, rel=0.1)
        down = block.feedforward.sublayer.down
        assert down.weight.std().item() == pytest.approx(0.05 / 4, rel=0.1)  # 16 branches
        assert not down.bias.any() and not block.feedforward.modulation.weight.any()
    layer = nn.Linear(300, 900)
    layer.parts = 3
    init_linear(layer, None)
    assert layer.weight.abs().max() <= (6 / 600) ** 0.5 + 1e-6  # a square matrix each
