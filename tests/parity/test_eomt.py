"""EoMT with the weights of transformers' EomtForUniversalSegmentation: outputs, masked and not, losses and
gradients."""

import pytest
import torch

import family
from family import PatchConfig, TransformerConfig
from family.losses.mask_matching import MaskLoss

transformers = pytest.importorskip("transformers")
DIM, DEPTH, HEADS, QUERIES = 16, 4, 2, 5


def theirs():
    config = transformers.EomtConfig(
        hidden_size=DIM,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        image_size=32,
        patch_size=8,
        num_blocks=2,
        num_upscale_blocks=1,
        num_queries=QUERIES,
        num_register_tokens=3,
        num_labels=4,
        train_num_points=64,
    )
    torch.manual_seed(0)
    model = transformers.EomtForUniversalSegmentation(config)
    for parameter in model.parameters():  # biases too, and norms
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def ours():
    config = TransformerConfig(
        dim=DIM,
        depth=DEPTH,
        heads=HEADS,
        ffn_dim=4 * DIM,
        norm_eps=1e-6,
        position="learned",
        layer_scale=1.0,
    )
    patches = PatchConfig(register_tokens=3, prefix_positions=False)
    return family.EoMT(4, config, 32, 8, QUERIES, 2, 1, patches=patches)


def carried(given):
    """Their state by our names."""
    made = {}

    def take(name, *sources):
        for kind in ("weight", "bias"):
            parts = [given[f"{s}.{kind}"] for s in sources if f"{s}.{kind}" in given]
            if parts:
                made[f"{name}.{kind}"] = torch.cat(parts)

    embeddings = "embeddings"
    take("encoder.embedding.projection", f"{embeddings}.patch_embeddings.projection")
    prefix = [given[f"{embeddings}.{n}"][0] for n in ("cls_token", "register_tokens")]
    made["encoder.embedding.prefix.weight"] = torch.cat(prefix)
    take("encoder.embedding.position", f"{embeddings}.position_embeddings")
    take("encoder.transformer.norm", "layernorm")
    take("queries", "query")
    take("classes", "class_predictor")
    for i in range(3):
        take(f"mask.{2 * i}", f"mask_head.fc{i + 1}")
    for ours_, name in (("enlarge", "conv1"), ("smooth", "conv2"), ("norm", "layernorm2d")):
        take(f"upscaling.0.{ours_}", f"upscale_block.block.0.{name}")
    for i in range(DEPTH):
        block, layer = f"encoder.transformer.blocks.{i}", f"layers.{i}"
        attention = f"{block}.self_attention.sublayer"
        take(f"{block}.self_attention.norm", f"{layer}.norm1")
        take(f"{attention}.qkv", *(f"{layer}.attention.{n}_proj" for n in "qkv"))
        take(f"{attention}.out", f"{layer}.attention.out_proj")
        made[f"{block}.self_attention.scale"] = given[f"{layer}.layer_scale1.lambda1"]
        take(f"{block}.feedforward.norm", f"{layer}.norm2")
        take(f"{block}.feedforward.sublayer.up", f"{layer}.mlp.fc1")
        take(f"{block}.feedforward.sublayer.down", f"{layer}.mlp.fc2")
        made[f"{block}.feedforward.scale"] = given[f"{layer}.layer_scale2.lambda1"]
    return made


@pytest.fixture
def both():
    peer, model = theirs(), ours()
    state = carried(peer.state_dict())
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["masked"] and not unexpected
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return peer, model, x


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])  # both blocks masked, one, none
def test_outputs(both, progress):
    peer, model, x = (one.eval() if isinstance(one, torch.nn.Module) else one for one in both)
    model.anneal(progress)
    assert model.shares == {0.0: [1, 1], 0.5: [0, 1], 1.0: [0, 0]}[progress]
    peer.attn_mask_probs.copy_(model.masked)
    with torch.no_grad():
        made, wanted = model.found(x)[-1], peer(x)
    torch.testing.assert_close(made.logits, wanted.class_queries_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.masks, wanted.masks_queries_logits, atol=1e-4, rtol=1e-4)


def test_losses_and_gradients(both, monkeypatch):
    """Over all pixels, where theirs draws points; at the resolution of the truth."""
    peer, model, x = both
    module = transformers.models.eomt.modeling_eomt

    def every_pixel(features, coordinates, add_dim=False, **_):
        whole = torch.nn.functional.interpolate(features, (32, 32), mode="bilinear")
        return whole.flatten(2)

    monkeypatch.setattr(module, "sample_point", every_pixel)
    monkeypatch.setattr(module.EomtLoss, "sample_points_using_uncertainty", lambda *_: None)
    generator = torch.Generator().manual_seed(2)
    labels = [torch.tensor([1, 3, 3]), torch.tensor([0])]
    masks = [torch.rand(len(n), 32, 32, generator=generator) > 0.6 for n in labels]
    segments = [{"labels": n, "masks": m} for n, m in zip(labels, masks, strict=True)]
    peer.train(), model.train()
    wanted = peer(x, mask_labels=[m.float() for m in masks], class_labels=labels).loss
    made = model.losses(x, segments)
    torch.testing.assert_close(made["loss"], wanted, atol=1e-4, rtol=1e-5)
    wanted.backward()
    made["loss"].backward()
    gradients = carried({name: p.grad for name, p in peer.named_parameters()})
    named = dict(model.named_parameters())
    assert gradients.keys() == named.keys()
    for name, gradient in gradients.items():
        scale = gradient.abs().max()
        torch.testing.assert_close(
            named[name].grad, gradient, atol=float(1e-4 * scale), rtol=1e-4, msg=name
        )


def test_the_weights_are_the_published_ones():
    config, loss = transformers.EomtConfig(), MaskLoss()
    for name in ("class_weight", "mask_weight", "dice_weight", "no_object_weight"):
        assert getattr(loss, name) == getattr(config, name)
