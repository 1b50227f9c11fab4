"""Speech to text: sizes, frames that are padding, prompts, cache, limits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import family
from family.inputs.position import sinusoidal
from family.models.member import build, describe


def small(**overrides) -> family.SpeechToText:
    torch.manual_seed(0)
    sizes = {"dim": 16, "depth": 2, "heads": 2, "ffn_dim": 24, "max_tokens": 20, "mels": 6}
    model = family.whisper_tiny(31, **{**sizes, **overrides})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.double().eval()


def frames(batch: int = 3, count: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 6, count, dtype=torch.float64, generator=generator)


def target(batch: int = 3, tokens: int = 7) -> torch.Tensor:
    return torch.randint(0, 31, (batch, tokens), generator=torch.Generator().manual_seed(2))


# Without the sines of 1500 places, which transformers counts among its parameters.
@pytest.mark.parametrize(("name", "million"), [("whisper_tiny", 37.185), ("whisper_base", 71.826)])
def test_published_sizes(name, million):
    with torch.device("meta"):
        model = getattr(family, name)()
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(million, abs=1e-3)
    assert model.bos_id == 50_258 and model.source_embedding.position.table.shape[0] == 1500
    assert model.decoder_config.max_tokens == 448
    assert not any("key_bias" in n or "qkv.bias" in n for n, _ in model.named_parameters())


def test_the_decoder_unless_given_is_as_the_encoder():
    model = small(dropout=0.1)
    config, decoder = model.config, model.decoder_config
    assert config.position == "timing" and decoder.position == "learned"
    changed = {"causal", "cross_attention", "position", "max_tokens"}
    assert set(config.diff(decoder)) == changed
    assert build(family.SpeechToText, describe(model)["arguments"]).decoder_config == decoder


def test_a_decoder_of_its_own():
    stack = family.TransformerConfig(
        dim=24, depth=1, heads=3, causal=True, cross_attention=True, context_dim=16,
        position="learned", max_tokens=12,
    )  # fmt: skip
    model = small(decoder_config=stack)
    assert model(frames(), target()).shape == (3, 7, 31)
    with pytest.raises(ValueError, match="SpeechToText: decoder_config needs.*16"):
        small(decoder_config=stack.replace(context_dim=24))
    with pytest.raises(ValueError, match="SpeechToText: config describes the encoder"):
        small(causal=True)


def test_frames_that_are_padding_change_nothing():
    model, sound, text = small(), frames(), target()
    mask = torch.arange(40) < torch.tensor([[40], [23], [8]])
    for parameter in (sound, sound.masked_fill(~mask[:, None], 100.0)):
        logits = model(parameter, text, mask)
        for row, count in enumerate(mask.sum(1)):
            alone = model(sound[row : row + 1, :, :count], text[row : row + 1])[0]
            torch.testing.assert_close(logits[row], alone, rtol=0, atol=1e-9)
    assert not torch.allclose(model(sound, text)[1], logits[1])
    torch.testing.assert_close(model(sound, text, torch.ones_like(mask)), model(sound, text))


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_cached_steps_equal_the_whole_target(masked):
    model, sound, text = small(), frames(), target(3, 12)
    mask = torch.arange(40) < torch.tensor([[40], [23], [8]]) if masked else None
    whole = model(sound, text, mask)
    step, cache = model.prefill(sound, mask, text[:, :4], capacity=9)
    for column in range(4, 12):
        torch.testing.assert_close(step, whole[:, column - 1])
        step = model.decode(text[:, column], cache)
    torch.testing.assert_close(step, whole[:, -1])


def test_prompts():
    model, sound = small(bos_id=5), frames()
    plain = model.generate(sound, max_new_tokens=6)
    start = torch.full((3, 1), 5)
    assert torch.equal(model.generate(sound, prompt=start, max_new_tokens=6), plain)
    longer = torch.cat([start, plain[:, :2]], 1)
    assert torch.equal(model.generate(sound, prompt=longer, max_new_tokens=4), plain[:, 2:])
    for wrong in (torch.zeros(2, 3), torch.zeros(3, 0), torch.zeros(3)):
        with pytest.raises(ValueError, match="prompt must be .3 rows"):
            model.generate(sound, prompt=wrong.long())


@pytest.mark.parametrize("beams", [1, 3])
def test_no_more_tokens_than_the_decoder_has_places(beams):
    stack = family.TransformerConfig(
        dim=16, depth=1, heads=2, causal=True, cross_attention=True, position="learned",
        max_tokens=10,
    )  # fmt: skip
    model, sound = small(decoder_config=stack), frames()
    # The last of them is not read.
    assert model.generate(sound, beams=beams).shape == (3, 10)
    assert model.generate(sound, beams=beams, prompt=target(3, 4)).shape == (3, 7)
    with pytest.raises(ValueError, match="prompt of 4 tokens and 8 new ones.*max_tokens=10"):
        model.generate(sound, beams=beams, prompt=target(3, 4), max_new_tokens=8)


def test_the_sines_are_part_of_a_checkpoint_and_learn_nothing(tmp_path):
    model = small()
    table = model.source_embedding.position.table
    torch.testing.assert_close(table, sinusoidal(torch.arange(20), 16, timing=True).double())
    assert not table.requires_grad
    table.mul_(1.5)  # as if it were another's
    family.save_pretrained(model, tmp_path / "model")
    again = family.from_pretrained(tmp_path / "model")
    assert torch.equal(again(frames(), target()), model(frames(), target()))


def test_learns_to_tell_sounds_apart():
    torch.manual_seed(0)
    model = family.whisper_tiny(12, dim=32, depth=1, heads=2, ffn_dim=64, max_tokens=8, mels=6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    sound, text = torch.randn(8, 6, 16), torch.randint(2, 12, (8, 4))
    for _ in range(60):
        logits = model(sound, F.pad(text, (1, 0), value=1)[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), text.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5
    assert torch.equal(model.eval().generate(sound, max_new_tokens=4), text)
