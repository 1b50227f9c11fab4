"""Maps as transformers gives them, and what comes of them by hand."""

from __future__ import annotations

import math

import pytest
import torch

import family
from family.adapt.lora import add_lora, merge_lora
from family.look import alignment, attention_maps, entropy, logit_lens, rollout
from family.look.lens import writes
from family.look.maps import StackMaps, check_attends

TINY = {"dim": 32, "depth": 3, "heads": 4, "max_tokens": 24}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def drawn(model):
    """Weights that are all away from where they begin."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def rows(vocab=60):
    ids = torch.randint(4, vocab, (3, 9))
    mask = torch.arange(9) < torch.tensor([[9], [6], [3]])
    return ids, mask


@pytest.mark.parametrize("format", ["bert", "gpt2", "llama"])
def test_equal_to_transformers(format, tmp_path):
    transformers = pytest.importorskip("transformers")
    if format == "bert":
        model = family.bert_tiny(60, **TINY)
    elif format == "gpt2":
        model = family.gpt2(60, **TINY)
    else:
        model = family.llama(60, kv_heads=2, ffn_dim=48, **TINY)
    family.save_pretrained(drawn(model), tmp_path, format=format)
    peer = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids, mask = rows()
    with torch.no_grad():
        theirs = peer(ids, attention_mask=mask.long(), output_attentions=True).attentions
    (stack,) = attention_maps(model, ids, mask).values()
    for ours, other in zip(stack.own, theirs, strict=True):
        there = mask[:, None, :, None].expand_as(ours)  # rows of padding are nobody's
        torch.testing.assert_close(ours[there], other[there], rtol=1e-4, atol=1e-5)


def test_cross_attention_equal_to_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = family.t5_small(60, dim=32, depth=2, heads=4, head_dim=8, ffn_dim=48)
    family.save_pretrained(drawn(model), tmp_path, format="t5")
    peer = transformers.T5ForConditionalGeneration.from_pretrained(
        tmp_path, attn_implementation="eager"
    ).eval()
    source, mask = rows()
    target = torch.randint(4, 60, (3, 5))
    with torch.no_grad():
        theirs = peer(
            source, attention_mask=mask.long(), decoder_input_ids=target, output_attentions=True
        )
    maps = attention_maps(model, source, target, mask)
    for ours, other in zip(maps["decoder"].across, theirs.cross_attentions, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)
    for ours, other in zip(maps["decoder"].own, theirs.decoder_attentions, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)
    mean = torch.stack([m.mean(1) for m in theirs.cross_attentions])
    torch.testing.assert_close(alignment(maps["decoder"]), mean.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alignment(maps["decoder"], 1), mean[1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no cross-attention"):
        alignment(maps["encoder"])


def test_windows_and_adapters():
    model = drawn(family.llama(60, kv_heads=2, ffn_dim=48, layers=[{"window": 3}, {}, {}], **TINY))
    ids, _ = rows()
    add_lora(model, rank=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    (adapted,) = attention_maps(model, ids).values()
    far = torch.arange(9)[:, None] - torch.arange(9) >= 3
    assert adapted.own[0][..., far].abs().max() == 0 < adapted.own[1][..., far].max()
    merge_lora(model, remove=True)
    (merged,) = attention_maps(model, ids).values()
    for ours, theirs in zip(adapted.own, merged.own, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_rollout_by_a_loop():
    maps = [torch.rand(2, 4, 5, 5).softmax(-1) for _ in range(3)]
    maps[1][1, :, 3:] = 0  # padding attends to nothing
    found = rollout([maps[0], None, *maps[1:]])
    for b in range(2):
        expected = torch.eye(5)
        for one in maps:
            mixed = torch.zeros(5, 5)
            for i in range(5):
                for j in range(5):
                    mixed[i, j] = 0.5 * sum(one[b, h, i, j] for h in range(4)) / 4 + 0.5 * (i == j)
                mixed[i] /= mixed[i].sum()
            expected = mixed @ expected
        torch.testing.assert_close(found[b], expected)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 5))
    with pytest.raises(ValueError, match="5 queries and 3 keys"):
        rollout([torch.rand(1, 1, 5, 3)])
    with pytest.raises(ValueError, match="no map"):
        rollout([None])


def test_entropy_in_bits():
    one, even = torch.zeros(1, 1, 2, 8), torch.full((1, 1, 2, 8), 1 / 8)
    one[..., 3] = 1
    mixed = torch.cat([one, even, torch.cat([one[:, :, :1], torch.zeros(1, 1, 1, 8)], 2)], dim=1)
    torch.testing.assert_close(entropy(mixed), torch.tensor([[0.0, 3.0, 0.0]]))
    half = torch.cat([one[:, :, :1], even[:, :, :1]], 2)
    assert math.isclose(entropy(half).item(), 1.5, rel_tol=1e-6)
    assert entropy(half, torch.tensor([[False, True]])).item() == pytest.approx(3)


def test_logit_lens():
    ids, mask = rows()
    gpt = drawn(family.gpt_nano(60, depth=2))
    found = logit_lens(gpt, ids, mask)
    assert found.shape == (3, 3, 9, 60)
    torch.testing.assert_close(found[-1], gpt(ids, mask))
    entering = gpt.embedding(ids, torch.arange(9))
    expected = gpt.head(gpt.transformer.norm(entering))
    torch.testing.assert_close(found[0][:, :3], expected[:, :3])
    seq = drawn(family.transformer_tiny(60, depth=2))
    torch.testing.assert_close(logit_lens(seq, ids, ids)[-1], seq(ids, ids))
    bert = drawn(family.bert_tiny(60))
    torch.testing.assert_close(logit_lens(bert, ids, mask)[-1], bert(ids, mask))
    assert not writes(family.vit_tiny(3, depth=1, image_size=32))
    with pytest.raises(ValueError, match="says no words"):
        logit_lens(family.vit_tiny(3, depth=1, image_size=32), torch.zeros(1, 3, 32, 32))


def test_what_does_not_attend_is_refused():
    with pytest.raises(ValueError, match="nothing in a LSTMSeq2Seq attends"):
        attention_maps(family.LSTMSeq2Seq(40, dim=16), torch.ones(1, 3).long())
    check_attends(family.gpt_nano(depth=1))
    assert StackMaps((None,), ()).across == ()
