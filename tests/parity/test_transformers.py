"""GPT-2, Llama and Marian against transformers, with the same random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import family
from family.losses.language_model import language_model_loss

sys.path.insert(0, str(Path(__file__).parent))
import peers

transformers = pytest.importorskip("transformers")


def gpt2_pair():
    config = transformers.GPT2Config(
        vocab_size=97, n_embd=32, n_layer=3, n_head=4, n_positions=64,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    peers.randomise(theirs)
    ours = family.gpt2(97, dim=32, depth=3, heads=4, max_tokens=64).eval()
    peers.load(ours, peers.gpt2_weights(theirs))
    return ours, theirs


def llama_pair():
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=80, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        rms_norm_eps=1e-6, eos_token_id=None, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    peers.randomise(theirs)
    ours = family.llama(97, dim=32, depth=3, heads=4, kv_heads=2, ffn_dim=80, max_tokens=64).eval()
    peers.load(ours, peers.llama_weights(theirs))
    return ours, theirs


def marian_pair():
    config = transformers.MarianConfig(
        vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
        max_position_embeddings=64, activation_function="swish", dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0, scale_embedding=True,
        pad_token_id=96, eos_token_id=0, forced_eos_token_id=None, decoder_start_token_id=96,
    )  # fmt: skip
    theirs = transformers.MarianMTModel(config).eval()
    positions = theirs.model.encoder.embed_positions.weight.clone()
    peers.randomise(theirs)
    with torch.no_grad():
        for stack in (theirs.model.encoder, theirs.model.decoder):
            stack.embed_positions.weight.copy_(positions)
        theirs.final_logits_bias.normal_()
    ours = family.transformer_base(
        97, dim=32, depth=2, decoder_depth=3, heads=4, ffn_dim=64, max_tokens=64, dropout=0.0,
        activation="silu", output_bias=True, bos_id=96,
    ).eval()  # fmt: skip
    peers.load(ours, peers.marian_weights(theirs, ours))
    return ours, theirs


CAUSAL = {"gpt2": (gpt2_pair, peers.gpt2_weights), "llama": (llama_pair, peers.llama_weights)}


def prompts(batch: int = 3, tokens: int = 11) -> torch.Tensor:
    return torch.randint(0, 96, (batch, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_outputs_and_gradients(name):
    (ours, theirs), weights = CAUSAL[name][0](), CAUSAL[name][1]
    ids = prompts()
    logits = ours(ids)
    expected = theirs(ids, labels=ids)
    peers.assert_close(logits, expected.logits)
    loss = language_model_loss(logits[:, :-1], ids[:, 1:])
    peers.assert_close(loss[None], expected.loss[None])
    loss.backward()
    expected.loss.backward()
    # Their gradients under our names: the same table, read on a copy whose weights are gradients.
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.data = parameter.grad
    gradients = weights(theirs)
    for parameter_name, parameter in ours.named_parameters():
        peers.assert_close(parameter.grad, gradients[parameter_name])


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batch_equals_single(name, side):
    ours, theirs = CAUSAL[name][0]()
    ids, mask = prompts(), torch.ones(3, 11, dtype=torch.bool)
    lengths = [11, 7, 4]
    for row, length in enumerate(lengths):
        padding = slice(0, 11 - length) if side == "left" else slice(length, 11)
        mask[row, padding] = False
    logits = ours(ids, mask)
    for row in range(3):
        alone = ids[row, mask[row]][None]
        peers.assert_close(logits[row, mask[row]][None], theirs(alone).logits)
    last, _ = ours.prefill(ids, mask, capacity=4)
    for row in range(3):
        peers.assert_close(last[row], theirs(ids[row, mask[row]][None]).logits[0, -1])


@pytest.mark.parametrize("name", CAUSAL)
def test_cached_decoding_and_generation(name):
    ours, theirs = CAUSAL[name][0]()
    ids, mask = prompts(), torch.ones(3, 11, dtype=torch.bool)
    mask[1, :4] = mask[2, :8] = False
    expected = theirs.generate(
        ids, attention_mask=mask.long(), max_new_tokens=20, do_sample=False, pad_token_id=0
    )[:, 11:]
    assert torch.equal(ours.generate(ids, mask, max_new_tokens=20), expected)
    step, cache = ours.prefill(ids, mask, capacity=20)
    grown, grown_mask = ids, mask
    for token in expected.T:
        peers.assert_close(step, ours(grown, grown_mask)[:, -1])
        step = ours.decode(token, cache)
        grown = torch.cat([grown, token[:, None]], 1)
        grown_mask = torch.cat([grown_mask, grown_mask.new_ones(3, 1)], 1)


def test_marian_outputs_and_gradients():
    ours, theirs = marian_pair()
    source, target = prompts(3, 9), prompts(3, 7)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, 5:] = mask[2, 2:] = False
    logits = ours(source, target, mask)
    expected = theirs(input_ids=source, attention_mask=mask.long(), decoder_input_ids=target).logits
    peers.assert_close(logits, expected)
    F.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
    F.cross_entropy(expected.flatten(0, 1), target.flatten()).backward()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.grad is not None:
                parameter.data = parameter.grad
    gradients = peers.marian_weights(theirs, ours)
    for name, parameter in ours.named_parameters():
        if name == "head.bias":
            continue  # a constant of theirs
        if name.endswith("qkv.bias") or name.endswith("key_value.bias"):
            # The gradient of a key bias is 0 but for rounding: compare with the whole.
            worst = (parameter.grad - gradients[name]).abs().max()
            assert worst <= 1e-5 * gradients[name].abs().max()
            continue
        peers.assert_close(parameter.grad, gradients[name])


@pytest.mark.parametrize("penalty", [1.0, 0.6])
def test_marian_beams(penalty):
    ours, theirs = marian_pair()
    source, mask = prompts(3, 9), torch.ones(3, 9, dtype=torch.bool)
    mask[1, 5:] = mask[2, 2:] = False
    expected = theirs.generate(
        source, attention_mask=mask.long(), num_beams=4, max_new_tokens=15, do_sample=False,
        length_penalty=penalty, early_stopping=True, bad_words_ids=None,
    )[:, 1:]  # fmt: skip
    got = ours.generate(
        source, mask, beams=4, max_new_tokens=15, length_penalty=penalty, stop_ids=(0,), pad_id=96
    )
    for ours_row, theirs_row in zip(got.tolist(), expected.tolist(), strict=True):
        assert [t for t in ours_row if t not in (0, 96)] == [
            t for t in theirs_row if t not in (0, 96)
        ]


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_beams_with_padded_prompts(name):
    ours, theirs = CAUSAL[name][0]()
    ids, mask = prompts(), torch.ones(3, 11, dtype=torch.bool)
    mask[1, :4] = mask[2, :8] = False
    expected = theirs.generate(
        ids, attention_mask=mask.long(), num_beams=3, max_new_tokens=12, do_sample=False,
        early_stopping=True, pad_token_id=0,
    )[:, 11:]  # fmt: skip
    assert torch.equal(ours.generate(ids, mask, beams=3, max_new_tokens=12), expected)
