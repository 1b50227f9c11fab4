"""T5, v1.0 and v1.1, against transformers, in float64 with the same random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import family
import tasks
from tasks.data.sampling import Pick
from tasks.data.spans import CorruptedChunks

sys.path.insert(0, str(Path(__file__).parent))
import peers

transformers = pytest.importorskip("transformers")

EXACT = 1e-9
VERSIONS = ["v1.0", "v1.1"]

ATTENTION = {
    "self_attention.norm": ["layer.0.layer_norm"],
    "self_attention.sublayer.qkv": [f"layer.0.SelfAttention.{name}" for name in "qkv"],
    "self_attention.sublayer.out": ["layer.0.SelfAttention.o"],
}
CROSS = {
    "cross_attention.norm": ["layer.1.layer_norm"],
    "cross_attention.sublayer.query": ["layer.1.EncDecAttention.q"],
    "cross_attention.sublayer.key_value": [f"layer.1.EncDecAttention.{name}" for name in "kv"],
    "cross_attention.sublayer.out": ["layer.1.EncDecAttention.o"],
}


def feedforward(layer, version):
    ups = ["wi"] if version == "v1.0" else ["wi_0", "wi_1"]
    return {
        "feedforward.norm": [f"layer.{layer}.layer_norm"],
        "feedforward.sublayer.up": [f"layer.{layer}.DenseReluDense.{up}" for up in ups],
        "feedforward.sublayer.down": [f"layer.{layer}.DenseReluDense.wo"],
    }


def weights(theirs, version):
    """Their weights under our names."""
    state = theirs.state_dict()
    ours = {
        "source_embedding.tokens.weight": state["shared.weight"],
        "target_embedding.tokens.weight": state["shared.weight"],
        "head.weight": state["lm_head.weight"],
    }
    stacks = {
        "encoder": (theirs.config.num_layers, ATTENTION | feedforward(1, version)),
        "decoder": (theirs.config.num_decoder_layers, ATTENTION | CROSS | feedforward(2, version)),
    }
    for stack, (depth, table) in stacks.items():
        first = f"{stack}.block.0.layer.0.SelfAttention"
        ours[f"{stack}.bias.table.weight"] = state[f"{first}.relative_attention_bias.weight"]
        ours[f"{stack}.norm.weight"] = state[f"{stack}.final_layer_norm.weight"]
        for i in range(depth):
            for our_name, parts in table.items():
                values = [state[f"{stack}.block.{i}.{part}.weight"] for part in parts]
                ours[f"{stack}.blocks.{i}.{our_name}.weight"] = torch.cat(values)
    return ours


def pair(version, decoder_depth=3):
    config = transformers.T5Config(
        vocab_size=97, d_model=32, d_kv=12, d_ff=40, num_layers=2, num_decoder_layers=decoder_depth,
        num_heads=3, relative_attention_num_buckets=8, relative_attention_max_distance=12,
        feed_forward_proj="relu" if version == "v1.0" else "gated-gelu",
        tie_word_embeddings=version == "v1.0", dropout_rate=0.0, decoder_start_token_id=0,
    )  # fmt: skip
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    if version == "v1.1":
        # Published files have a table of the head's own, but a new model shares it all the same.
        theirs.lm_head.weight = nn.Parameter(theirs.lm_head.weight.detach().clone())
    for module in list(theirs.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "T5LayerNorm":
                # The reference takes the variance in float32 whatever the dtype.
                setattr(module, name, nn.RMSNorm(32, eps=child.variance_epsilon))
    theirs = theirs.double()
    peers.randomise(theirs)
    builder = family.t5_small if version == "v1.0" else family.t5_v1_1_small
    ours = builder(
        97, dim=32, depth=2, decoder_depth=decoder_depth, heads=3, head_dim=12, ffn_dim=40,
        relative_buckets=8, relative_max_distance=12,
    ).eval().double()  # fmt: skip
    peers.load(ours, weights(theirs, version))
    return ours, theirs


def sources(side="right", tokens=20):
    """Long enough for distances past ``relative_max_distance``."""
    source = torch.randint(2, 97, (3, tokens), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, tokens, dtype=torch.bool)
    for row, length in enumerate([tokens, 11, 4]):
        mask[row, slice(0, tokens - length) if side == "left" else slice(length, tokens)] = False
    return source, mask


@pytest.mark.parametrize("version", VERSIONS)
def test_outputs_loss_and_gradients(version):
    ours, theirs = pair(version)
    source, mask = sources()
    labels = torch.randint(2, 97, (3, 17), generator=torch.Generator().manual_seed(2))
    labels[1, 12:] = labels[2, 5:] = -100
    target = F.pad(labels, (1, 0))[:, :-1].clamp(min=0)
    logits = ours(source, target, mask)
    expected = theirs(input_ids=source, attention_mask=mask.long(), labels=labels)
    peers.assert_close(logits, expected.logits, EXACT)
    context = expected.encoder_last_hidden_state
    peers.assert_close(ours.encode(source, mask)[mask], context[mask], EXACT)
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    peers.assert_close(loss[None], expected.loss[None], EXACT)
    loss.backward()
    expected.loss.backward()
    # Their gradients under our names: the same table, read on a copy whose weights are gradients.
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.data = parameter.grad
    gradients = weights(theirs, version)
    for name, parameter in ours.named_parameters():
        peers.assert_close(parameter.grad, gradients[name], EXACT)


@pytest.mark.parametrize("task", [tasks.SpanCorruption, tasks.TextToText])
@pytest.mark.parametrize("version", VERSIONS)
def test_loss_and_gradients_of_training(version, task):
    """Of what data of ours give: their model shifts the labels itself."""
    ours, theirs = pair(version)
    tokens = np.random.default_rng(0).integers(5, 60, 91)
    chunks = CorruptedChunks(tokens, 9, 19, (0.3, 2.0), [*range(96, 60, -1)], (0, 1, 0), seed=3)
    batch = chunks.__getitems__([Pick(i, 2) for i in range(0, len(chunks), 2)])
    assert not batch["source_mask"].all() and (batch["labels"] == -100).any()
    training = task(ours)
    training.adapt_model()
    loss = training.loss(batch)["loss"]
    loss.backward()
    expected = theirs(
        input_ids=batch["source"],
        attention_mask=batch["source_mask"].long(),
        labels=batch["labels"],
    ).loss
    expected.backward()
    assert float(loss) == pytest.approx(float(expected), rel=EXACT)
    for parameter in theirs.parameters():
        parameter.data = parameter.grad
    gradients = weights(theirs, version)
    for name, parameter in ours.named_parameters():
        peers.assert_close(parameter.grad, gradients[name], EXACT)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("version", VERSIONS)
def test_padded_batch_equals_single(version, side):
    ours, theirs = pair(version)
    source, mask = sources(side)
    target = F.pad(sources()[0], (1, 0))
    logits = ours(source, target, mask)
    for row in range(3):
        alone = source[row, mask[row]][None]
        expected = theirs(input_ids=alone, decoder_input_ids=target[row][None]).logits
        peers.assert_close(logits[row][None], expected, EXACT)


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_cached_decoding(version):
    ours, theirs = pair(version)
    source, mask = sources()
    target = F.pad(torch.randint(2, 97, (3, 18)), (1, 0))
    expected = theirs(input_ids=source, attention_mask=mask.long(), decoder_input_ids=target).logits
    step, cache = ours.prefill(source, mask, capacity=18)
    for column, token in enumerate(target.T[1:]):
        peers.assert_close(step, expected[:, column], EXACT)
        step = ours.decode(token, cache)
    peers.assert_close(step, expected[:, -1], EXACT)


@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (4, 1.0), (4, 0.6)])
@pytest.mark.parametrize("version", VERSIONS)
def test_generation(version, beams, penalty):
    # Their generation makes a cache of the encoder's depth, whatever the decoder's.
    ours, theirs = pair(version, decoder_depth=2)
    source, mask = sources()
    stopping = {"length_penalty": penalty, "early_stopping": True} if beams > 1 else {}
    expected = theirs.generate(
        source, attention_mask=mask.long(), num_beams=beams, max_new_tokens=24, do_sample=False,
        **stopping,
    )[:, 1:]  # fmt: skip
    got = ours.generate(
        source, mask, beams=beams, max_new_tokens=24, length_penalty=penalty, stop_ids=(1,),
        pad_id=-1,
    )  # fmt: skip
    for ours_row, theirs_row in zip(got.tolist(), expected.tolist(), strict=True):
        end = theirs_row.index(1) if 1 in theirs_row else len(theirs_row)
        assert [token for token in ours_row if token != -1] == theirs_row[:end]
