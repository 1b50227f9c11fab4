"""LSTM baselines: what they compute, padding, decoding step by step, beams, and how they start."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import family
from family.baselines.lstm import LSTM, ScaledEmbedding
from family.baselines.lstm_lm import lstm_large, lstm_medium
from family.generation import beam_search
from family.models.member import build, describe

VOCAB = 13
BUILD = {
    "attention": lambda **more: family.LSTMSeq2Seq(VOCAB, dim=8, depth=2, **more),
    "vector": lambda **more: family.LSTMSeq2Seq(VOCAB, dim=8, depth=2, attention=False, **more),
    "lm": lambda **more: family.LSTMLanguageModel(VOCAB, dim=8, depth=2, **more),
    "max": lambda **more: family.LSTMClassifier(VOCAB, 3, dim=8, depth=2, pool="max", **more),
    "mean": lambda **more: family.LSTMClassifier(VOCAB, 3, dim=8, depth=2, pool="mean", **more),
    "last": lambda **more: family.LSTMClassifier(VOCAB, 3, dim=8, depth=2, pool="last", **more),
}
SEQ2SEQ = ("attention", "vector")


def small(name, **more):
    """In double precision, weights drawn wide so that tokens differ."""
    torch.manual_seed(0)
    model = BUILD[name](**more).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def ids(batch=3, tokens=9, seed=1):
    return torch.randint(0, VOCAB, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def padded(tokens, side):
    """9, 6 and 2 tokens a row."""
    mask = torch.ones_like(tokens, dtype=torch.bool)
    width = tokens.shape[1]
    for row, length in enumerate([width, 6, 2]):
        mask[row, slice(0, width - length) if side == "left" else slice(length, width)] = False
    return mask


def call(model, source, mask):
    if isinstance(model, family.LSTMSeq2Seq):
        return model(source, ids(len(source), 5, seed=2)[: len(source)], mask)
    return model(source, mask)


# --- What they compute ---


def test_attention_as_the_paper_writes_it():
    model, source, target = small("attention"), ids(1), ids(1, 5, seed=2)
    context, state = model.encode(source)
    hidden, _ = model.decoder(model.target_embedding(target), state)
    for t, logits in enumerate(model(source, target)[0]):
        h = hidden[0, t]
        scores = torch.stack([h @ model.attention.score.weight.T @ s for s in context[0]])
        weights = scores.exp() / scores.exp().sum()
        read = sum(weight * s for weight, s in zip(weights, context[0], strict=True))
        attended = torch.tanh(model.attention.combine.weight @ torch.cat([read, h]))
        torch.testing.assert_close(logits, model.head.weight @ attended)


def test_decoder_starts_where_both_directions_ended():
    model, source = small("attention"), ids(1)
    _, state = model.encode(source)
    for part, raw in zip(state, model.encoder(model.source_embedding(source))[1], strict=True):
        # PyTorch's order: layer 0 ahead, layer 0 back, layer 1 ahead, layer 1 back.
        for layer in range(2):
            both = torch.cat([raw[2 * layer, 0], raw[2 * layer + 1, 0]])
            torch.testing.assert_close(part[layer, 0], both)


def test_without_attention_the_source_is_read_backwards():
    model, source = small("vector"), ids(1)
    mask = torch.ones_like(source, dtype=torch.bool)
    mask[0, 6:] = False
    _, (hidden, _) = model.encode(source, mask)
    backwards = model.source_embedding(source[:, :6].flip(1))
    torch.testing.assert_close(hidden, model.encoder(backwards)[1][0])


@pytest.mark.parametrize("name", ["max", "mean", "last"])
def test_pooling(name):
    model, texts = small(name), ids(2)
    outputs, (hidden, _) = model.lstm(model.embedding(texts))
    if name == "last":
        pooled = torch.cat([outputs[:, -1, :4], outputs[:, 0, 4:]], dim=-1)
        torch.testing.assert_close(pooled, torch.cat([hidden[-2], hidden[-1]], dim=-1))
    else:
        pooled = outputs.amax(1) if name == "max" else outputs.mean(1)
    torch.testing.assert_close(model(texts), model.head(pooled))


def test_embeddings_have_unit_variance_and_their_table_rows_of_unit_length():
    torch.manual_seed(0)
    table = ScaledEmbedding(2000, 64).requires_grad_(False)
    assert float(table(torch.arange(2000)).var()) == pytest.approx(1, rel=0.05)
    assert float(table.weight.norm(dim=1).mean()) == pytest.approx(1, rel=0.05)


def test_a_vocabulary_of_its_own_for_the_target():
    model = small("attention", target_vocab_size=7)
    assert model(ids(), ids(3, 4) % 7).shape == (3, 4, 7)
    assert model.head.weight is model.target_embedding.weight
    assert model.target_embedding is not model.source_embedding
    apart = small("attention", tie_embeddings=False)
    assert apart.target_embedding is apart.source_embedding
    assert apart.head.weight is not apart.target_embedding.weight


# --- Padding ---


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", BUILD)
def test_padding_changes_nothing(name, side):
    model, tokens = small(name), ids()
    mask = padded(tokens, side)
    together = call(model, tokens, mask)
    assert torch.equal(together, call(model, tokens.masked_fill(~mask, 5), mask))
    for row in range(3):
        own = tokens[row, mask[row]][None]
        if name in ("max", "mean", "last"):
            torch.testing.assert_close(together[row], model(own)[0], rtol=1e-9, atol=1e-9)
        elif name == "lm":
            torch.testing.assert_close(
                together[row][mask[row]], model(own)[0], rtol=1e-9, atol=1e-9
            )
        else:
            target = ids(3, 5, seed=2)[row][None]
            torch.testing.assert_close(together[row], model(own, target)[0], rtol=1e-9, atol=1e-9)


def test_nothing_comes_out_at_padding():
    model, tokens = small("attention"), ids()
    mask = padded(tokens, "left")
    mask[1] = False
    outputs, _ = model.encode(tokens, mask)
    assert not bool(outputs[~mask].any()) and bool(outputs[mask].all())


@pytest.mark.parametrize("name", BUILD)
def test_rows_without_any_token_stay_finite(name):
    model, tokens = small(name).train(), ids()
    mask = padded(tokens, "right")
    mask[1] = False
    logits = call(model, tokens, mask)
    assert bool(logits.isfinite().all())
    logits.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


# --- Gradients and the start ---


@pytest.mark.parametrize("name", BUILD)
def test_gradients_reach_every_weight_and_no_padding(name):
    model, tokens = small(name), ids() % (VOCAB - 1)
    mask = padded(tokens, "right")
    tokens = tokens.masked_fill(~mask, VOCAB - 1)
    if name in SEQ2SEQ:
        logits = model(tokens, ids(3, 5, seed=2) % (VOCAB - 1), mask)
    else:
        logits = model(tokens, mask)
        logits = logits[mask] if name == "lm" else logits
    # Of one class alone, so that a tied table gets nothing from the head for the padding's id.
    logits[..., 0].pow(2).sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), label
    table = model.embedding if hasattr(model, "embedding") else model.source_embedding
    assert not bool(table.weight.grad[VOCAB - 1].any())


def test_start_of_an_lstm():
    torch.manual_seed(0)
    lstm = LSTM(12, 2, bidirectional=True)
    for name, parameter in lstm.named_parameters():
        gates = parameter.detach().chunk(4)
        if "weight_hh" in name:
            for gate in gates:
                torch.testing.assert_close(gate @ gate.T, torch.eye(6))
        elif "bias" in name:
            expected = [0.0, float("bias_ih" in name), 0.0, 0.0]
            assert [float(gate.unique()) for gate in gates] == expected
        else:
            assert float(parameter.detach().abs().max()) <= math.sqrt(6 / (12 + 6))


@pytest.mark.parametrize(("builder", "million"), [(lstm_medium, 19.770), (lstm_large, 66.024)])
def test_published_sizes(builder, million):
    with torch.device("meta"):
        model = builder()
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(million, abs=1e-3)


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_learns_to_reverse(name):
    torch.manual_seed(0)
    model = family.LSTMSeq2Seq(7, dim=32, depth=1, dropout=0.0, attention=name == "attention")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        source = torch.randint(2, 7, (32, 3))
        target = source.flip(1)
        loss = F.cross_entropy(
            model(source, F.pad(target, (1, 0), value=1)[:, :-1]).flatten(0, 1), target.flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made = model.eval().generate(source, max_new_tokens=3)
    assert float((made == target).float().mean()) > 0.9


# --- Decoding ---


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", SEQ2SEQ)
@torch.no_grad()
def test_steps_of_a_decoder_equal_the_whole_target(name, side):
    model, source = small(name, bos_id=3), ids()
    mask = padded(source, side)
    target = F.pad(ids(3, 6, seed=2), (1, 0), value=3)
    whole = model(source, target, mask)
    step, cache = model.prefill(source, mask, capacity=6)
    for column, token in enumerate(target.T[1:]):
        torch.testing.assert_close(step, whole[:, column])
        step = model.decode(token, cache)
    torch.testing.assert_close(step, whole[:, -1])


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_steps_of_a_language_model_equal_the_whole_text(side):
    model, prompt, later = small("lm"), ids(), ids(3, 4, seed=2)
    mask = padded(prompt, side)
    step, cache = model.prefill(prompt, mask, capacity=4)
    for column in range(4):
        for row in range(3):
            text = torch.cat([prompt[row, mask[row]], later[row, :column]])[None]
            torch.testing.assert_close(step[row], model(text)[0, -1])
        step = model.decode(later[:, column], cache)


def inputs_of(name):
    tokens = ids()
    return small(name), (tokens, padded(tokens, "right"))


def chances(model, inputs, tokens):
    """Log-probability of each of ``(batch, tokens)``, read anew at one go."""
    text, mask = inputs
    if isinstance(model, family.LSTMSeq2Seq):
        return model(text, F.pad(tokens, (1, 0), value=1)[:, :-1], mask).log_softmax(-1)
    rows = []
    for prompt, real, new in zip(text, mask, tokens, strict=True):
        whole = torch.cat([prompt[real], new])[None]
        rows.append(model(whole)[0, int(real.sum()) - 1 : -1].log_softmax(-1))
    return torch.stack(rows)


@pytest.mark.parametrize("name", [*SEQ2SEQ, "lm"])
@torch.no_grad()
def test_the_score_of_a_beam_is_that_of_its_tokens_read_anew(name):
    model, inputs = inputs_of(name)
    tokens, scores = beam_search(model, inputs, beams=4, max_new_tokens=8)
    total = chances(model, inputs, tokens).gather(2, tokens[..., None]).sum((1, 2))
    torch.testing.assert_close(scores.double(), total / tokens.shape[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("name", [*SEQ2SEQ, "lm"])
@torch.no_grad()
def test_beam_search_with_room_for_all_finds_the_best_of_all(name, length_penalty):
    model, inputs = inputs_of(name)
    choices, stop, longest = (0, 4, 7, 9), 4, 3
    # Only these may follow: all others are out of reach.
    model.head.bias = torch.nn.Parameter(torch.full((VOCAB,), -1e9, dtype=torch.float64))
    model.head.bias[list(choices)] = torch.tensor([0.0, -1.0, 0.3, 0.1], dtype=torch.float64)
    best = [(-math.inf, ()) for _ in range(3)]
    for count in range(1, longest + 1):
        for made in itertools.product(choices, repeat=count):
            ends = made[-1] == stop
            if stop in made[:-1] or (count < longest and not ends):
                continue
            tokens = torch.tensor([made] * 3)
            total = chances(model, inputs, tokens).gather(2, tokens[..., None]).sum((1, 2))
            shown = made[:-1] if ends else made
            best = [
                max(old, (float(score), shown))
                for old, score in zip(best, total / count**length_penalty, strict=True)
            ]
    tokens, scores = beam_search(
        model, inputs, beams=40, max_new_tokens=longest, stop_ids=(stop,),
        length_penalty=length_penalty, pad_id=VOCAB,
    )  # fmt: skip
    for row, (score, made) in enumerate(best):
        assert tuple(t for t in tokens[row].tolist() if t != VOCAB) == made
        assert float(scores[row]) == pytest.approx(score, abs=1e-4)


def test_generation_options():
    model, (prompt, mask) = inputs_of("lm")
    made = model.generate(prompt, mask, max_new_tokens=6)
    assert torch.equal(torch.stack(list(model.stream(prompt, mask, max_new_tokens=6)), 1), made)
    stop = int(made[0, 2])
    ended = model.generate(prompt, mask, max_new_tokens=6, stop_ids=(stop,), pad_id=VOCAB)
    assert ended[0, 2:].tolist() == [VOCAB] * (ended.shape[1] - 2)
    # The penalty counts the prompt, but not its padding.
    penalised = family.Sampling(repetition_penalty=1e9)
    fresh = model.generate(prompt, mask, max_new_tokens=1, sampling=penalised)
    logits = model.prefill(prompt, mask)[0].detach()
    for row in range(3):
        seen = prompt[row, mask[row]]
        values = logits[row, seen]
        logits[row, seen] = torch.where(values > 0, values / 1e9, values * 1e9)
        assert int(fresh[row, 0]) == int(logits[row].argmax())
    with pytest.raises(ValueError, match="prompt is empty"):
        model.generate(prompt[:, :0], max_new_tokens=1)


# --- Members ---


@pytest.mark.parametrize("name", BUILD)
def test_built_again_from_its_description(name, tmp_path):
    model = BUILD[name]().eval()
    again = build(type(model), describe(model)["arguments"]).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(call(again, ids(), None), call(model, ids(), None))
    family.save_pretrained(model, tmp_path / "saved")
    loaded = family.from_pretrained(tmp_path / "saved").eval()
    assert type(loaded) is type(model)
    assert torch.equal(call(loaded, ids(), None), call(model, ids(), None))


def test_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="dim=7 must be even"):
        family.LSTMSeq2Seq(9, dim=7)
    family.LSTMSeq2Seq(9, dim=7, attention=False)
    with pytest.raises(ValueError, match="pool='sum' is unknown"):
        family.LSTMClassifier(9, 2, pool="sum")
