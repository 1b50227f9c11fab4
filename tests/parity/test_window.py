"""The sliding window against transformers' Mistral, in float64 with the same random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parent))
import peers
from cases.widened import Widened

transformers = pytest.importorskip("transformers")

TOKENS = 11


def pair(window):
    config = transformers.MistralConfig(
        vocab_size=97, hidden_size=32, intermediate_size=80, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        sliding_window=window, eos_token_id=None, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    theirs = transformers.MistralForCausalLM(config).eval()
    peers.randomise(theirs)
    sizes = {"dim": 32, "depth": 3, "heads": 4, "kv_heads": 2, "ffn_dim": 80, "max_tokens": 64}
    ours = family.llama(97, **sizes, window=window).eval()
    peers.load(ours, peers.llama_weights(theirs))
    return ours.double(), theirs.double()


def prompts():
    ids = torch.randint(0, 97, (3, TOKENS), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, TOKENS, dtype=torch.bool)
    mask[1, :4] = mask[2, :8] = False
    return ids, mask


@pytest.mark.parametrize("window", [1, 4, TOKENS - 1, TOKENS])
def test_outputs(window):
    (ours, theirs), (ids, mask) = pair(window), prompts()
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    with Widened():
        expected = theirs(ids, attention_mask=mask.long(), position_ids=positions).logits
        alone = theirs(ids).logits
    peers.assert_close(ours(ids, mask)[mask], expected[mask], 1e-9)
    peers.assert_close(ours(ids), alone, 1e-9)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_passes_the_window(beams):
    (ours, theirs), (ids, mask) = pair(5), prompts()
    expected = theirs.generate(
        ids, attention_mask=mask.long(), num_beams=beams, max_new_tokens=20, do_sample=False,
        early_stopping=beams > 1, pad_token_id=0,
    )[:, TOKENS:]  # fmt: skip
    assert torch.equal(ours.generate(ids, mask, beams=beams, max_new_tokens=20), expected)
