"""BERT: sizes, padding on either side, segments, heads and poolers, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import family
from family.models.member import build, describe


def small(**overrides) -> family.BERT:
    torch.manual_seed(0)
    sizes = {"dim": 16, "depth": 2, "heads": 2, "max_tokens": 12}
    model = family.bert_base(31, **{**sizes, **overrides})
    for parameter in model.parameters():  # off the zeros and ones of initialisation
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def ids(batch=3, tokens=8) -> torch.Tensor:
    return torch.randint(0, 31, (batch, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "million"),
    [
        ("bert_base", 109.515),
        ("bert_large", 335.175),
        ("bert_tiny", 4.416),
        ("bert_mini", 11.202),
        ("bert_small", 28.795),
        ("roberta_base", 124.696),
        ("distilbert_base", 66.986),
        ("xlm_roberta_base", 278.294),
        ("electra_small", 13.549),
        ("mpnet_base", 109.517),
        ("modernbert_base", 149.655),
    ],
)
def test_published_sizes(name, million):
    with torch.device("meta"):
        model = getattr(family, name)()
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(million, abs=1e-3)


HEADS = {
    "masked": {},
    "masked and next sentence": {"num_classes": 2},
    "classes": {"num_classes": 5, "masked_head": False},
    "classes, relu": {"num_classes": 5, "masked_head": False, "pooler": "relu"},
    "classes, no pooler": {"num_classes": 5, "masked_head": False, "pooler": None},
    "classes, mean": {"num_classes": 5, "masked_head": False, "pooling": "mean"},
    "replaced": {"masked_head": False, "replaced_head": True},
    "tokens": {"masked_head": False},
    "narrow embedding": {"embedding_dim": 6},
    "relative beside learned": {"position": "relative", "embedding_position": "learned"},
    "windows": {
        "norm_order": "pre",
        "norm_bias": False,
        "position": "rotary",
        "layers": [{"mixer_norm": False}, {"window": 3, "rotary_base": 100.0}],
        "num_classes": 5,
        "masked_head": False,
        "pooling": "mean",
        "pooler": "gelu",
        "pooler_norm": True,
        "dense_bias": False,
    },
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", HEADS)
def test_padding_changes_nothing(name, side):
    model, tokens = small(**HEADS[name]), ids()
    mask = torch.ones(3, 8, dtype=torch.bool)
    for row, length in enumerate([8, 5, 2]):
        mask[row, slice(0, 8 - length) if side == "left" else slice(length, 8)] = False
    types = tokens % 2
    features = model.encode(tokens, mask, types)
    answers, pooled = model(tokens, mask, types), model.pooled(features, mask)
    for row in range(3):
        alone = (tokens[row, mask[row]][None], None, types[row, mask[row]][None])
        expected = model(*alone)[0]
        got = answers[row, mask[row]] if answers.shape[:2] == mask.shape else answers[row]
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(pooled[row], model.pooled(model.encode(*alone))[0])


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_has_a_gradient(name):
    """So also: no builder gives a pooler that nothing reads."""
    model = small(**HEADS[name])
    features = model.encode(ids(), token_types=ids() % 2)
    outputs = [features] if name == "tokens" else []
    if model.masked_head is not None:
        outputs.append(model.masked_logits(features))
    if model.replaced_head is not None:
        outputs.append(model.replaced_logits(features))
    if model.class_head is not None:
        outputs.append(model.class_logits(features))
    sum(output.square().sum() for output in outputs).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


def test_a_pooler_stands_without_classes_where_it_is_asked_for():
    model = small(masked_head=False, pooler="tanh")
    features = model.encode(ids())
    expected = model.pooler.dense(features[:, 0]).tanh()
    assert torch.equal(model.pooled(features), expected)
    assert model(ids()).shape == features.shape
    assert small(masked_head=False).pooler is None
    assert family.distilbert_base(31, num_classes=2, dim=16, heads=2).pooler.activation is F.relu


def test_segments():
    model, tokens = small(), ids()
    first = model(tokens)
    assert torch.equal(first, model(tokens, token_types=torch.zeros_like(tokens)))
    assert not torch.allclose(first, model(tokens, token_types=torch.ones_like(tokens)))
    with pytest.raises(ValueError, match="token_types=0"):
        small(token_types=0)(tokens, token_types=torch.zeros_like(tokens))


def test_masked_head_reads_chosen_tokens_and_shares_the_table():
    model, tokens = small(), ids()
    chosen = torch.rand(tokens.shape) < 0.3
    features = model.encode(tokens)
    torch.testing.assert_close(model.masked_logits(features[chosen]), model(tokens)[chosen])
    assert model.masked_head.output.weight is model.embedding.tokens.weight


def test_replaced_tokens():
    model = small(masked_head=False, replaced_head=True)
    logits = model(ids())
    assert logits.shape == (3, 8)
    assert torch.equal(logits, model.replaced_logits(model.encode(ids())))
    assert family.electra_small(31, dim=16, heads=2, depth=1).replaced_head is not None
    assert family.electra_small(31, dim=16, heads=2, depth=1, num_classes=2).replaced_head is None


def test_positions_beside_each_other():
    """What is added to embeddings, and what to scores: each of them counts."""
    model, tokens = small(position="relative", embedding_position="learned"), ids()
    before = model(tokens)
    for table in (model.embedding.position.weight, model.transformer.bias.table.weight):
        kept = table.detach().clone()
        table.data.zero_()
        assert not torch.allclose(model(tokens), before)
        table.data.copy_(kept)


def test_training_begins_with_all_answers_equally_likely():
    torch.manual_seed(0)
    model = family.bert_tiny(500, num_classes=4).eval()
    tokens = torch.randint(0, 500, (8, 30))
    features = model.encode(tokens)
    assert torch.equal(model.class_logits(features), torch.zeros(8, 4))
    masked = F.cross_entropy(model.masked_logits(features).flatten(0, 1), tokens.flatten())
    assert masked.item() == pytest.approx(math.log(500), abs=0.3)


def test_dropout_acts_in_training_alone():
    model = small(num_classes=3, masked_head=False, dropout=0.0, attention_dropout=0.0)
    plain = model(ids())
    assert torch.equal(plain, model(ids()))
    model.train()
    assert not torch.equal(plain, model(ids()))  # head_dropout, the one that is left


def test_built_again_from_its_description():
    model = small(num_classes=3, token_types=0, pooler="relu")
    again = build(family.BERT, describe(model)["arguments"]).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(ids()), model(ids()))


def test_refuses():
    with pytest.raises(ValueError, match="causal=False"):
        small(causal=True)
    with pytest.raises(ValueError, match="cross_attention=False"):
        small(cross_attention=True)
    with pytest.raises(ValueError, match="pooler='max' is unknown; choose one of: tanh, relu"):
        small(pooler="max")
    with pytest.raises(ValueError, match="masked_head"):
        small(masked_head=False).masked_logits(torch.randn(1, 16))
    with pytest.raises(ValueError, match="replaced_head=True"):
        small().replaced_logits(torch.randn(1, 16))
    with pytest.raises(ValueError, match="pooling='last' is unknown; choose one of: mean, class"):
        small(pooling="last")
    with pytest.raises(ValueError, match="embedding_position='rotary' is not added"):
        small(embedding_position="rotary")
    with pytest.raises(
        ValueError, match="masked_activation='mish' is unknown; choose one of: relu"
    ):
        small(masked_activation="mish")
    with pytest.raises(ValueError, match="embedding_dim must be"):
        small(embedding_dim="6")
    with pytest.raises(ValueError, match="num_classes"):
        small().class_logits(torch.randn(1, 2, 16))
    with pytest.raises(ValueError, match="13 tokens does not fit max_tokens=12"):
        small()(ids(1, 13))
