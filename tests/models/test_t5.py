"""T5: sizes, one table of distances a stack, initialisation, padding, cache and beams."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import family
from family.generation import beam_search
from family.models.member import build, describe

BUILDERS = {"v1.0": family.t5_small, "v1.1": family.t5_v1_1_small}
# Buckets few enough that a short text has distances of the logarithmic ones and beyond the last.
SIZES = {
    "dim": 16, "depth": 2, "heads": 2, "head_dim": 12, "ffn_dim": 24,
    "relative_buckets": 8, "relative_max_distance": 8, "dropout": 0.0,
}  # fmt: skip


def small(version="v1.0", **overrides) -> family.T5:
    torch.manual_seed(0)
    model = BUILDERS[version](31, **{**SIZES, "decoder_depth": 3, **overrides})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def ids(batch=3, tokens=14, seed=1) -> torch.Tensor:
    return torch.randint(0, 31, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def padded(tokens: torch.Tensor, side: str) -> torch.Tensor:
    mask = torch.ones_like(tokens, dtype=torch.bool)
    width = tokens.shape[1]
    for row, length in enumerate([width, 9, 3]):
        mask[row, slice(0, width - length) if side == "left" else slice(length, width)] = False
    return mask


@pytest.mark.parametrize(
    ("name", "million"),
    [
        ("t5_small", 60.507),
        ("t5_base", 222.904),
        ("t5_large", 737.668),
        ("t5_v1_1_small", 76.961),
        ("t5_v1_1_base", 247.578),
    ],
)
def test_published_sizes(name, million):
    with torch.device("meta"):
        model = getattr(family, name)()
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(million, abs=1e-3)


@pytest.mark.parametrize("version", BUILDERS)
def test_one_table_of_distances_a_stack_and_no_biases(version):
    names = [name for name, _ in small(version).named_parameters()]
    assert [n for n in names if "bias" in n] == [
        "encoder.bias.table.weight",
        "decoder.bias.table.weight",
    ]
    assert ("head.weight" in names) == (version == "v1.1")


def test_tied_outputs_are_scaled_and_others_are_not():
    for version, factor in (("v1.0", 1 / 4), ("v1.1", 1.0)):
        model, target = small(version), ids(3, 5)
        context = model.encode(ids())
        plain = model.decoder(model.target_embedding.tokens(target), context=context)
        expected = plain @ model.head.weight.T * factor
        torch.testing.assert_close(model(ids(), target), expected)


def test_initialised_so_that_scores_and_logits_have_unit_size():
    torch.manual_seed(0)
    fields = {"dim": 256, "depth": 2, "heads": 4, "head_dim": 64, "ffn_dim": 512, "dropout": 0.0}
    for version, build_model in BUILDERS.items():
        model = build_model(1000, **fields).eval()
        query, key, value = model.encoder.blocks[0].self_attention.sublayer.qkv.weight.chunk(3)
        cross = model.decoder.blocks[0].cross_attention.sublayer
        down = model.encoder.blocks[0].feedforward.sublayer.down
        for weight, std in (
            (query, (256 * 64) ** -0.5),
            (cross.query.weight, (256 * 64) ** -0.5),
            (key, 256**-0.5),
            (value, 256**-0.5),
            (cross.key_value.weight, 256**-0.5),
            (cross.out.weight, 256**-0.5),
            (down.weight, 512**-0.5),
            (model.source_embedding.tokens.weight, 1.0),
            (model.head.weight, 1.0 if version == "v1.0" else 256**-0.5),
        ):
            assert weight.std().item() == pytest.approx(std, rel=0.05)
        for stack in (model.encoder, model.decoder):
            assert stack.bias.table.weight.std().item() == pytest.approx(256**-0.5, rel=0.3)
        source, target = torch.randint(0, 1000, (2, 8, 20))
        assert model(source, target).std().item() == pytest.approx(1, rel=0.3)


@pytest.mark.parametrize("version", BUILDERS)
def test_learns_a_batch_in_30_steps(version):
    """Drawn with a deviation of 0.02 or of 1 instead, the loss ends between 0.6 and 2.1."""
    torch.manual_seed(0)
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "ffn_dropout": 0.0}
    sizes = {"dim": 32, "depth": 2, "heads": 2, "head_dim": 16, "ffn_dim": 64}
    model = BUILDERS[version](12, **sizes, **rates)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    source = torch.randint(1, 12, (16, 5))
    for _ in range(30):
        logits = model(source, F.pad(source, (1, 0))[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), source.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("version", BUILDERS)
def test_padding_changes_nothing(version, side):
    model, source, target = small(version), ids(), ids(3, 12, seed=2)
    mask = padded(source, side)
    logits = model(source, target, mask)
    for row in range(3):
        alone = source[row, mask[row]][None]
        torch.testing.assert_close(logits[row], model(alone, target[row][None])[0])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("version", BUILDERS)
@torch.no_grad()
def test_cached_steps_equal_the_whole_target(version, side):
    model, source = small(version), ids()
    mask = padded(source, side)
    target = F.pad(ids(3, 12, seed=2), (1, 0))  # decoding begins with token 0
    whole = model(source, target, mask)
    step, cache = model.prefill(source, mask, capacity=12)
    for column, token in enumerate(target.T[1:]):
        torch.testing.assert_close(step, whole[:, column])
        step = model.decode(token, cache)
    torch.testing.assert_close(step, whole[:, -1])


@pytest.mark.parametrize("version", BUILDERS)
@torch.no_grad()
def test_the_score_of_a_beam_is_that_of_its_tokens_read_anew(version):
    """Branches stand side by side in the cache: distances must be those of each one's own past."""
    model, source = small(version), ids()
    mask = padded(source, "right")
    tokens, scores = beam_search(model, (source, mask), beams=4, max_new_tokens=14)
    chances = model(source, F.pad(tokens, (1, 0))[:, :-1], mask).log_softmax(-1)
    total = chances.gather(2, tokens[..., None]).sum((1, 2))
    torch.testing.assert_close(scores, total / tokens.shape[1])


def test_built_again_from_its_description():
    model = small("v1.1", bos_id=3)
    assert describe(model)["class"] == "T5"
    again = build(family.T5, describe(model)["arguments"]).eval()
    again.load_state_dict(model.state_dict())
    assert again.bos_id == 3
    assert torch.equal(again(ids(), ids(3, 5)), model(ids(), ids(3, 5)))


def test_refuses_the_config_of_a_decoder():
    with pytest.raises(ValueError, match="T5: config describes the encoder"):
        small(causal=True)
