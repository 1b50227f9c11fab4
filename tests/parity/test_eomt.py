"""EoMT with the weights of transformers' EomtForUniversalSegmentation: outputs, masked and not, losses and
gradients."""

import pytest
import torch

import family
from family.losses.mask_matching import MaskLoss

transformers = pytest.importorskip("transformers")


def theirs():
    config = transformers.EomtConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        num_blocks=2,
        num_upscale_blocks=1,
        num_queries=5,
        num_register_tokens=3,
        num_labels=4,
        train_num_points=64,
    )
    torch.manual_seed(0)
    model = transformers.EomtForUniversalSegmentation(config)
    for parameter in model.parameters():  # biases too, and norms
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def both():
    peer = theirs()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return peer, family.from_pretrained(peer), x


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])  # both blocks masked, one, none
def test_outputs(both, progress):
    peer, model, x = (one.eval() if isinstance(one, torch.nn.Module) else one for one in both)
    assert model.shares == [1, 1]
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
    with torch.no_grad():  # their gradients by our names: read where weights stand
        for parameter in peer.parameters():
            parameter.data = parameter.grad
    gradients = dict(family.from_pretrained(peer).named_parameters())
    for name, parameter in model.named_parameters():
        gradient = gradients[name].detach()
        torch.testing.assert_close(
            parameter.grad, gradient, atol=float(1e-4 * gradient.abs().max()), rtol=1e-4, msg=name
        )


def test_the_weights_and_sizes_are_the_published_ones():
    config, loss = transformers.EomtConfig(), MaskLoss()
    for name in ("class_weight", "mask_weight", "dice_weight", "no_object_weight"):
        assert getattr(loss, name) == getattr(config, name)


def test_what_we_write_they_read(both, tmp_path):
    _, model, x = both
    model.anneal(0.5)
    model.labels = ["sky", "road", "car", "tree"]
    family.save_pretrained(model, tmp_path, format="eomt")
    peer, told = transformers.EomtForUniversalSegmentation.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert peer.config.id2label == dict(enumerate(model.labels))
    again = family.from_pretrained(tmp_path)
    assert again.labels == model.labels and again.shares == [0, 1]
    with torch.no_grad():
        made, wanted = model.found(x)[-1], peer(x)
        assert torch.equal(again(x), model(x))
    torch.testing.assert_close(made.masks, wanted.masks_queries_logits, atol=1e-4, rtol=1e-4)


def test_other_classes_keep_the_rest(both):
    peer, model, x = both
    fresh = family.from_pretrained(peer, num_classes=2)
    assert fresh(x).shape == (2, 2, 32, 32)
    assert torch.equal(fresh.mask[4].weight, model.mask[4].weight)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": (32, 16)}, "both must be square"),
        ({"masked_attention": "always"}, "masked_attention='always'"),
        ({"position": "rotary"}, "position"),
        ({"ffn_dim": 40}, "ffn_dim=40"),
    ],
)
def test_what_the_format_cannot_say(options, words, tmp_path):
    given = {**family.EoMT.facts.example, **options}
    stack = {n: given.pop(n) for n in ("position", "ffn_dim") if n in given}
    plain = {"norm_eps": 1e-6, "layer_scale": 1.0, "ffn_dim": 64}
    given["config"] = given["config"].replace(**{**plain, **stack})
    model = family.EoMT(**given, patches=family.PatchConfig(prefix_positions=False))
    with pytest.raises(ValueError, match=words):
        family.save_pretrained(model, tmp_path / "a", format="eomt")
