"""Tiles of FlexAttention say what a mask would say: outputs and gradients are the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from family import Transformer, TransformerConfig, record_attention, tiles
from family.accelerate import accelerate, restore

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
CONFIGS = {
    "causal window": {"causal": True, "window": 70, "position": "rotary"},
    "window both ways": {"window": 40},
    "layers": {"causal": True, "layers": ({"window": 40}, {}), "score_cap": 2.0},
    "grouped": {"causal": True, "kv_heads": 2, "window": 64},
}


@pytest.fixture(autouse=True)
def _anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU the kernel runs as it is written."""
    torch.manual_seed(0)
    if not ON_GPU:
        monkeypatch.setattr(tiles, "flex", lambda: (flex_attention, create_block_mask))
        monkeypatch.setattr(tiles, "DEVICES", ("cpu",))


def told(what: str) -> dict[str, torch.Tensor]:
    mask = torch.ones(2, 300, dtype=torch.bool)
    mask[0, :37] = False
    mask[1, 250:] = False
    documents = torch.arange(300).div(110, rounding_mode="floor").expand(2, -1)
    return {"padding": {"mask": mask}, "documents": {"documents": documents}, "nothing": {}}[what]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["padding", "documents", "nothing"])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_equal_to_masks(name: str, what: str) -> None:
    config = TransformerConfig(dim=64, depth=2, heads=4, **CONFIGS[name])
    plain, tiled = Transformer(config).to(DEVICE), Transformer(config).to(DEVICE)
    tiled.load_state_dict(plain.state_dict())
    tiles.use_tiles(tiled)
    x = torch.randn(2, 300, 64, device=DEVICE)
    fields = {name: value.to(DEVICE) for name, value in told(what).items()}
    real = fields.get("mask", torch.ones(2, 300, dtype=torch.bool, device=DEVICE))
    results, weights = [], torch.randn_like(x)
    for stack in (plain, tiled):
        leaf = x.clone().requires_grad_(ON_GPU)  # on the CPU the kernel has no gradients
        with torch.set_grad_enabled(ON_GPU):
            output = stack(leaf, **fields)
        results.append([output[real]])
        if ON_GPU:
            (output * weights * real[..., None]).sum().backward()
            results[-1] += [leaf.grad[real], *(p.grad for p in stack.parameters())]
    scale = 1e-5 if not ON_GPU else 5e-3  # whose products are of lower precision in either kernel
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=scale, atol=scale * float(theirs.abs().max()))


@pytest.mark.filterwarnings("ignore")
def test_a_row_with_nothing_to_see_gives_zeros() -> None:
    config = TransformerConfig(dim=64, depth=1, heads=4, causal=True, bias=False)
    stack = Transformer(config).to(DEVICE)
    tiles.use_tiles(stack)
    attention = stack.blocks[0].self_attention
    mask = torch.ones(2, 300, dtype=torch.bool, device=DEVICE)
    mask[0] = False
    seen = []
    attention.sublayer.register_forward_hook(lambda *args: seen.append(args[2]))
    x = torch.randn(2, 300, 64, device=DEVICE, requires_grad=ON_GPU)
    with torch.set_grad_enabled(ON_GPU):
        output = stack(x, mask=mask)
    assert torch.equal(seen[0][0], torch.zeros_like(seen[0][0]))
    if ON_GPU:
        output.sum().backward()
        assert x.grad.isfinite().all()


@pytest.mark.filterwarnings("ignore")
def test_maps_are_recorded_all_the_same() -> None:
    config = TransformerConfig(dim=64, depth=1, heads=4, causal=True, window=70)
    stack = Transformer(config).to(DEVICE).eval()
    x = torch.randn(1, 300, 64, device=DEVICE)
    with record_attention(stack) as plain:
        stack(x)
    tiles.use_tiles(stack)
    with record_attention(stack) as tiled:
        stack(x)
    for name, maps in plain.items():
        torch.testing.assert_close(tiled[name], maps)


@pytest.mark.filterwarnings("ignore")
def test_acceleration_leaves_tiles_alone() -> None:
    config = TransformerConfig(dim=64, depth=1, heads=4, causal=True, window=70)
    stack = Transformer(config).to(DEVICE).eval()
    x = torch.randn(1, 300, 64, device=DEVICE)
    with torch.no_grad():
        expected = stack(x)
        tiles.use_tiles(stack)
        torch.testing.assert_close(restore(accelerate(stack))(x), expected, rtol=1e-3, atol=1e-3)


def test_what_tiles_cannot_say_stays_a_mask() -> None:
    x = torch.randn(2, 300, 64, device=DEVICE)
    window = TransformerConfig(dim=64, depth=1, heads=4, causal=True, window=70)
    shared = tiles.Shared()
    assert tiles.worth_tiles(window, shared, x)
    assert not tiles.worth_tiles(window.replace(window=None), shared, x)  # a flag says it
    assert not tiles.worth_tiles(window, shared, x[:, :200])
    assert not tiles.worth_tiles(window.replace(attention_dropout=0.1), shared, x)
    assert not tiles.worth_tiles(window, shared._replace(bias=torch.zeros(1)), x)
    every = torch.ones(2, 300, 300, dtype=torch.bool)
    assert not tiles.worth_tiles(window, shared._replace(mask=every), x)
