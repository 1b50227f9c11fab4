"""Mixtral: files as the hub has them, what is refused, and the loss that keeps its experts busy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family
from family.losses.balance import balance_loss

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import causal, llamas
from folders import REMOVED, change, config_of, refuses, rewrite, same, weights_of, write
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func


def mixtral(**options):
    sizes = {"num_local_experts": 5, "num_experts_per_tok": 2, **options}
    return llamas.of("Mixtral", causal.LLAMA, **sizes)()


def test_layout_of_version_4(tmp_path):
    theirs = write(mixtral(), tmp_path)
    change(tmp_path, rope_parameters=REMOVED, rope_theta=1e6, head_dim=REMOVED)
    change(tmp_path, sliding_window=None, router_aux_loss_coef=0.02, output_router_logits=False)
    same(causal, tmp_path, theirs)


@pytest.mark.parametrize("left_out", ["rope_parameters", "rms_norm_eps", "num_experts_per_tok"])
def test_defaults(tmp_path, left_out):
    """The base is 1e6, the norm's epsilon 1e-5, and two experts see each token."""
    theirs = write(mixtral(), tmp_path)
    change(tmp_path, **{left_out: REMOVED})
    config = same(causal, tmp_path, theirs).config
    assert (config.rotary_base, config.norm_eps, config.experts_per_token) == (1e6, 1e-5, 2)


def test_bare_stack(tmp_path):
    theirs = write(mixtral(tie_word_embeddings=True), tmp_path)
    rewrite(tmp_path, lambda name: name.removeprefix("model."))
    change(tmp_path, architectures=["MixtralModel"])
    same(causal, tmp_path, theirs)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_experts_packed_together(tmp_path, prefix):
    """Version 5 can keep them as it computes with them."""
    theirs = mixtral(tie_word_embeddings=True).eval()
    theirs.save_pretrained(tmp_path, save_original_format=False)
    assert "model.layers.2.mlp.experts.gate_up_proj" in weights_of(tmp_path)
    rewrite(tmp_path, lambda name: prefix + name.removeprefix("model."))
    same(causal, tmp_path, theirs)


def test_written_as_the_hub_has_it(tmp_path):
    family.save_pretrained(
        family.from_pretrained(mixtral(sliding_window=7)), tmp_path / "ours", format="mixtral"
    )
    names, config = weights_of(tmp_path / "ours").keys(), config_of(tmp_path / "ours")
    experts = "model.layers.0.block_sparse_moe.experts"
    assert {f"{experts}.4.w1.weight", f"{experts}.0.w2.weight", f"{experts}.2.w3.weight"} <= names
    assert "model.layers.2.block_sparse_moe.gate.weight" in names
    assert (config["num_local_experts"], config["sliding_window"]) == (5, 7)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_local_experts": 4}, ["block_sparse_moe.gate.weight", "(5, 32)", "(4, 32)"]),
        ({"num_experts_per_tok": 6}, ["experts_per_token=6"]),
        ({"intermediate_size": 64}, ["block_sparse_moe.experts.0", "shape"]),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, ["dynamic"]),
        ({"architectures": ["MixtralForTokenClassification"]}, ["MixtralForToken"]),
    ],
    ids=str,
)
def test_refused(tmp_path, fields, words):
    write(mixtral(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


def test_a_routing_that_does_not_add_up_to_one_is_not_expressed(tmp_path):
    model = family.llama(
        97, dim=32, depth=1, heads=4, feedforward="experts", normalize_routing=False
    )
    with pytest.raises(ValueError, match="normalize_routing=False"):
        family.save_pretrained(model, tmp_path / "model", format="mixtral")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("per_token", [1, 2, 3])
def test_balance_loss_is_that_of_transformers(masked, per_token):
    """Of one layer: they take all layers together, we take the mean."""
    torch.manual_seed(0)
    ours = family.llama(
        97, dim=32, depth=1, heads=4, feedforward="experts", experts=5, experts_per_token=per_token
    )
    (experts,) = (m for m in ours.modules() if type(m).__name__ == "Experts")
    torch.nn.init.normal_(experts.router.weight)
    seen = []
    experts.router.register_forward_hook(lambda layer, x, logits: seen.append(logits))
    batch = causal.batch()
    mask = batch["mask"] if masked else None
    ours.train()(batch["input_ids"], mask)
    loss, _ = balance_loss(ours, mask)
    logits = (seen[0].flatten(0, 1),)
    expected = load_balancing_loss_func(logits, 5, per_token, mask)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, experts.router.weight, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, experts.router.weight)
    assert theirs.abs().max() > 1e-4
    torch.testing.assert_close(gradient, theirs)
