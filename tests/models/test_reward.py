"""Rewards of texts: which token they are read from, made of which models, saved and read again, published."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

import family
from family.models.reward import as_reward_model
from tasks.data.tokenizers import train_tokenizer

CAUSAL = family.TransformerConfig(
    dim=16, depth=2, heads=2, causal=True, position="rotary", max_tokens=32
)
BOTH_WAYS = family.TransformerConfig(
    dim=16, depth=2, heads=2, norm_order="post", position="learned", max_tokens=32
)
LENGTHS = torch.tensor([9, 6, 3])
SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "num_labels": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KEYS = {"num_key_value_heads": 2}
GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}
PUBLISHED = {
    "llama": ("Llama", {**SMALL, **KEYS}),
    "qwen2": ("Qwen2", {**SMALL, **KEYS}),
    "mistral": ("Mistral", {**SMALL, **KEYS}),
    "qwen3": ("Qwen3", {**SMALL, **KEYS, "head_dim": 4}),
    "gpt2": ("GPT2", {**SMALL, **GPT2}),
    "bert": ("Bert", SMALL),
}


def noisy(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def rows():
    torch.manual_seed(1)
    mask = torch.arange(9) < LENGTHS[:, None]
    return torch.randint(3, 40, (3, 9)).masked_fill(~mask, 0), mask


@pytest.mark.parametrize("config", [CAUSAL, BOTH_WAYS], ids=["causal", "both ways"])
def test_padding_at_either_side_changes_nothing(config):
    model = noisy(family.RewardModel(40, config)).double()
    ids, mask = rows()
    alone = torch.cat([model(row[None, :n]) for row, n in zip(ids, LENGTHS, strict=True)])
    assert alone.shape == (3,) and alone.std() > 1e-3
    torch.testing.assert_close(model(ids, mask), alone)
    left = [row.roll(9 - n) for row, n in zip(ids, LENGTHS.tolist(), strict=True)]
    torch.testing.assert_close(model(torch.stack(left), mask.flip(1)), alone)


def test_a_causal_stack_reads_the_last_token():
    model = noisy(family.RewardModel(40, CAUSAL))
    ids, mask = rows()
    hidden = model.body.features(ids, mask)
    last = torch.stack([hidden[i, n - 1] for i, n in enumerate(LENGTHS)])
    torch.testing.assert_close(model(ids, mask), model.head(last)[:, 0])


def test_it_begins_at_zero_and_works_in_bfloat16():
    ids, mask = rows()
    model = family.RewardModel(40, CAUSAL)
    assert not model(ids, mask).any() and model.head.bias is None
    half = noisy(family.RewardModel(40, CAUSAL)).bfloat16()
    made = half(ids, mask)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), half.float()(ids, mask), atol=0.2, rtol=0.1)


@pytest.mark.parametrize("tie", [True, False])
def test_a_language_model_becomes_one_with_its_weights(tie):
    source = noisy(family.GPT(40, CAUSAL, tie_embeddings=tie))
    source.tokenizer = "kept"
    made = as_reward_model(source)
    ids, mask = rows()
    torch.testing.assert_close(made.body.features(ids, mask), source.features(ids, mask))
    assert made.tokenizer == "kept" and not made(ids, mask).any() and not made.training
    assert as_reward_model(made) is made
    assert "body.head" not in " ".join(made.state_dict())
    other = nn.Linear(2, 2)
    assert as_reward_model(other) is other


def test_a_number_of_an_encoder_stays_what_it_is():
    source = noisy(family.BERT(40, BOTH_WAYS, num_classes=1, masked_head=False, pooling="mean"))
    ids, mask = rows()
    torch.testing.assert_close(as_reward_model(source)(ids, mask), source(ids, mask)[:, 0])
    tagger = family.BERT(40, BOTH_WAYS, num_classes=3, masked_head=False, pooling="tokens")
    assert as_reward_model(tagger)(ids, mask).shape == (3,)


@pytest.mark.parametrize("config", [CAUSAL, BOTH_WAYS], ids=["causal", "both ways"])
def test_our_own_folder_comes_back_to_the_bit(tmp_path, config):
    model = noisy(family.RewardModel(40, config))
    family.save_pretrained(model, tmp_path / "own")
    again = family.from_pretrained(tmp_path / "own")
    assert isinstance(again, family.RewardModel) and torch.equal(again(*rows()), model(*rows()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rewards_are_theirs_both_ways(tmp_path, name):
    kind, options = PUBLISHED[name]
    config = getattr(transformers, f"{kind}Config")(**options)
    cls = getattr(transformers, f"{kind}ForSequenceClassification")
    theirs = noisy(cls(config)).double()
    ids, mask = rows()
    model = as_reward_model(family.from_pretrained(theirs))
    made = model(ids, mask)
    wanted = theirs(ids, attention_mask=mask.long()).logits[:, 0]
    assert isinstance(model, family.RewardModel) and made.dtype == torch.float64
    torch.testing.assert_close(made, wanted, atol=1e-6, rtol=0)
    family.save_pretrained(model, tmp_path / "written", format=name)
    again = cls.from_pretrained(tmp_path / "written").double().eval()
    again.config.pad_token_id = 0  # no tokenizer says it
    found = again(ids, attention_mask=mask.long()).logits[:, 0]
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: family.RewardModel(40, CAUSAL, num_classes=3), "a reward is one number"),
        (lambda: family.RewardModel(40, BOTH_WAYS, pooling="tokens"), "pooling='tokens' gives no"),
    ],
)
def test_one_sentence_for_what_is_no_reward(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_what_no_format_can_say_is_refused(tmp_path):
    model = noisy(family.RewardModel(40, CAUSAL))
    with pytest.raises(ValueError, match="has no place for a reward of a causal stack"):
        family.save_pretrained(model, tmp_path / "a", format="phi3")
    bare = family.RewardModel(40, BOTH_WAYS, head_bias=False)
    with pytest.raises(ValueError, match="head_bias=False"):
        family.save_pretrained(bare, tmp_path / "b", format="bert")
    tokenizer = train_tokenizer("char", ["abc"])
    tokenizer.pad_id = tokenizer.eos_id
    gated = family.llama(40, dim=16, depth=1, heads=2, max_tokens=32)
    reward = as_reward_model(gated)
    reward.tokenizer = tokenizer
    with pytest.raises(ValueError, match="pad_token that also ends an answer"):
        family.save_pretrained(reward, tmp_path / "c", format="llama")


def test_several_labels_of_a_causal_stack_are_refused():
    config = transformers.LlamaConfig(**{**SMALL, **KEYS, "num_labels": 3})
    theirs = transformers.LlamaForSequenceClassification(config)
    with pytest.raises(
        ValueError, match="LlamaForSequenceClassification of 3 labels is not supported"
    ):
        family.from_pretrained(theirs)


def test_rewards_of_prompts_and_answers():
    """By their own ends, cut where the model ends, and the same alone as in a batch."""
    model = noisy(family.RewardModel(40, CAUSAL))
    model.tokenizer = train_tokenizer("char", ["how many? two or three."])
    loaded = family.load(model)
    assert loaded.task == "RewardModeling"
    prompts, answers = ["how many?", "two or three? "], ["two", "three" * 9]
    found = loaded.predict(prompts, answers)
    alone = [loaded.predict([p], [a])[0] for p, a in zip(prompts, answers, strict=True)]
    assert found == pytest.approx(alone, abs=1e-6) and found[0] != found[1]
    with pytest.raises(ValueError, match="2 prompts but 1 answers"):
        loaded.predict(prompts, answers[:1])
    with pytest.raises(ValueError, match="leaves no room for an answer in 32"):
        loaded.predict(["how" * 11], ["two"])
    with pytest.raises(ValueError, match="no chat template"):
        loaded.predict([[{"role": "user", "content": "how"}]], ["two"])
