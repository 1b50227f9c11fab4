"""Sound against transformers' Whisper; what is refused; padding that changes nothing."""

from __future__ import annotations

import dataclasses
import json
import struct
import wave

import numpy as np
import pytest
import torch
from torch import nn

import family
from family.inputs.audio import AudioEmbedding, LogMel, read_wav
from family.inputs.preprocess import Preprocess, as_preprocess

NEAR = {"rtol": 0, "atol": 1e-5}


def noise(samples: int, seed: int = 0, size: float = 0.1) -> torch.Tensor:
    return size * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def sine(samples: int, hertz: float) -> torch.Tensor:
    return 0.5 * torch.sin(torch.arange(samples) * (2 * torch.pi * hertz / 16_000))


def theirs(waves, mels=80, **options):
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(feature_size=mels)
    options = {"sampling_rate": 16_000, "return_tensors": "pt", **options}
    found = extractor([one.numpy() for one in waves], return_attention_mask=True, **options)
    return found.input_features, found.attention_mask.bool()


SOUNDS = {
    "noise": noise(40_000),
    "loud": noise(16_000, 1, 3.0),
    "sine": sine(30_001, 440.0),
    "high sine": sine(30_000, 7_900.0),
    "silence": torch.zeros(20_000),
    "one sample": torch.ones(1),
    "too long": noise(31 * 16_000),
    "click": torch.cat([torch.zeros(5_000), torch.ones(3), torch.zeros(5_000)]),
}


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("name", SOUNDS)
def test_whisper(name, mels):
    expected, mask = theirs([SOUNDS[name]], mels)
    found, real = LogMel(mels).with_mask(SOUNDS[name], 16_000)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, **NEAR)
    assert torch.equal(real, mask)


def test_batches_of_unequal_sound():
    """The floor is each example's own: the quiet one keeps what is 8 below the loud one's peak."""
    waves = [noise(20_000, 0, 1e-5), noise(48_161, 1, 1.0), torch.zeros(16_000)]
    expected, mask = theirs(waves)
    found, real = LogMel().with_mask(waves)
    torch.testing.assert_close(found, expected, **NEAR)
    assert torch.equal(real, mask)
    both = torch.stack([noise(9_000, 2, 1e-5), noise(9_000, 3, 1.0)])
    torch.testing.assert_close(LogMel()(both), theirs(both)[0], **NEAR)


@pytest.mark.parametrize("samples", [201, 16_000, 16_159, 16_161])
def test_length_as_it_is(samples):
    both = torch.stack([noise(samples), sine(samples, 300.0)])
    expected, mask = theirs(both, padding="longest")
    found, real = LogMel(seconds=None).with_mask(both)
    assert found.shape[-1] == samples // 160
    torch.testing.assert_close(found, expected, **NEAR)
    assert torch.equal(real, mask) and real.all()


def test_a_batch_changes_no_example():
    """Theirs would end the shorter in zeros, where alone it ends mirrored."""
    waves = [noise(16_050), noise(30_000, 1), sine(250, 500.0)]
    found, mask = LogMel(seconds=None).with_mask(waves)
    assert mask.sum(1).tolist() == [100, 187, 1]
    for row, real, one in zip(found, mask, waves, strict=True):
        alone = theirs([one], padding="longest")[0][0]
        torch.testing.assert_close(row[:, real], alone, **NEAR)
        # What follows are frames of silence, which do not lift the floor either.
        quiet = ((alone.max() - 2).clamp(min=-1.5)).expand_as(row[:, ~real])
        torch.testing.assert_close(row[:, ~real], quiet)


def test_other_lengths():
    sound = noise(40_000)
    found, real = LogMel(seconds=1.5).with_mask([sound, sound[:8_001]])
    expected, mask = theirs([sound, sound[:8_001]], max_length=24_000)
    torch.testing.assert_close(found, expected, **NEAR)
    assert torch.equal(real, mask) and real.sum(1).tolist() == [150, 51]


def test_dtype_and_autocast():
    sound = noise(8_000)
    expected = LogMel(seconds=None)(sound)
    torch.testing.assert_close(LogMel(seconds=None)(sound.double()), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(LogMel(seconds=None)(sound), expected)


@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (torch.zeros(1, 2, 9_000), "channels"),
        (torch.zeros(9_000, 2), "channels"),
        ([torch.zeros(9_000), torch.zeros(2, 9_000)], "waveform 1 .*channel"),
        (torch.zeros(9_000, dtype=torch.int16), "int16.*32768"),
        ([torch.zeros(9_000), torch.full((9_000,), torch.nan)], "waveform 1 reaches nan"),
        (torch.full((9_000,), torch.inf), "reaches inf"),
        (12_000 * torch.ones(9_000), "reaches 1.2e.04"),
        (torch.zeros(0), "shape .0,"),
        (torch.zeros(200), "200 samples.*201"),
        (torch.zeros(()), "shape"),
        ([], "nothing"),
        (np.zeros(9_000), "ndarray"),
        ([np.zeros(9_000)], "ndarray"),
        ([0.1, 0.2], "float"),
    ],
)
def test_what_is_no_sound_of_one_channel_is_refused(waveform, words):
    with pytest.raises(ValueError, match=words) as error:
        LogMel(seconds=None)(waveform)
    assert "\n" not in str(error.value)


def test_another_sampling_rate_is_refused():
    with pytest.raises(ValueError, match="sampling_rate=44100.*16000"):
        LogMel()(noise(9_000), 44_100)


def test_fields():
    for given in (LogMel(), LogMel(128, None), LogMel(40, 1.5)):
        fields = json.loads(json.dumps(dataclasses.asdict(given)))
        assert LogMel.from_dict(fields) == given == as_preprocess(fields)
    pictures = Preprocess((32, 24))
    assert as_preprocess(json.loads(json.dumps(dataclasses.asdict(pictures)))) == pictures
    for wrong in ({"mels": 0}, {"mels": 129}, {"mels": 80.0}, {"seconds": 0}, {"seconds": "30"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LogMel(**wrong)
    with pytest.raises(ValueError, match="seconds"):
        LogMel(seconds=float("nan"))


# --- Files -----------------------------------------------------------------------------------


def write_wav(path, width, channels, content, rate=8_000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(content)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav(width, tmp_path):
    """Two channels, read by the definition of two's complement; 8 bits are unsigned."""
    half = 1 << (8 * width - 1)
    levels = [[-half, half - 1], [0, 1], [-1, -half // 2], [half // 4, 7]]
    offset = half if width == 1 else 0
    content = b"".join(
        (value + offset).to_bytes(width, "little", signed=width > 1)
        for sample in levels
        for value in sample
    )
    write_wav(tmp_path / "a.wav", width, 2, content)
    waveform, rate = read_wav(tmp_path / "a.wav")
    assert rate == 8_000 and waveform.dtype == torch.float32
    expected = torch.tensor(levels, dtype=torch.float64).T / half
    torch.testing.assert_close(waveform, expected.float(), rtol=0, atol=0)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_as_scipy_reads_it(width, tmp_path):
    reader = pytest.importorskip("scipy.io.wavfile")
    content = np.random.default_rng(0).integers(0, 256, 600, dtype=np.uint8).tobytes()
    write_wav(tmp_path / "a.wav", width, 1, content)
    values = reader.read(tmp_path / "a.wav")[1].astype(np.float64)
    # It shifts 24 bits up to 32.
    values = (values - 128) / 128 if width == 1 else values / {2: 2**15, 3: 2**31, 4: 2**31}[width]
    found = read_wav(tmp_path / "a.wav")[0]
    torch.testing.assert_close(found[0], torch.from_numpy(values).float(), rtol=0, atol=0)


def test_wav_that_is_none(tmp_path):
    path = tmp_path / "sound.wav"

    def refuse(words):
        with pytest.raises(ValueError, match=words) as error:
            read_wav(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)

    refuse("No such file")
    path.write_bytes(b"ID3 of an mp3, say")
    refuse("RIFF")
    path.write_bytes(b"RIFF")
    refuse("too early")
    write_wav(path, 2, 1, b"")
    refuse("no samples")
    write_wav(path, 2, 1, bytes(2_000))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refuse("cut off.*2000 bytes")
    path.write_bytes(whole[:40] + struct.pack("<I", 2**32 - 1) + whole[44:])
    refuse("cut off")
    path.write_bytes(whole[:20] + struct.pack("<H", 3) + whole[22:])  # floats
    refuse("unknown format: 3")
    path.write_bytes(whole[:34] + struct.pack("<H", 64) + whole[36:])
    refuse("64 bits")
    path.write_bytes(whole[:24] + struct.pack("<I", 0) + whole[28:])
    refuse("rate of 0")
    path.write_bytes(whole[:36] + b"LIST" + struct.pack("<I", 5_000) + whole[36:])
    refuse("sound.wav")
    path.unlink()
    path.mkdir()
    refuse("directory")


# --- Embedding -------------------------------------------------------------------------------


def embedding(position: str = "learned", **fields) -> AudioEmbedding:
    torch.manual_seed(0)
    config = family.TransformerConfig(
        dim=24, depth=1, heads=2, position=position, max_tokens=20, **fields
    )
    made = AudioEmbedding(config, mels=10).double().eval()
    for parameter in made.parameters():  # off small values of initialisation
        nn.init.normal_(parameter, std=0.5)
    return made


def features(batch: int = 3, frames: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 10, frames, dtype=torch.float64, generator=generator)


def their_encoder(ours: AudioEmbedding, table: torch.Tensor) -> nn.Module:
    """Whisper's encoder up to its blocks."""
    transformers = pytest.importorskip("transformers")
    config = transformers.WhisperConfig(
        d_model=24, num_mel_bins=10, max_source_positions=20, encoder_layers=0, dropout=0.0
    )
    encoder = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).double().eval()
    encoder.layer_norm = nn.Identity()
    encoder.conv1.load_state_dict(ours.conv1.state_dict())
    encoder.conv2.load_state_dict(ours.conv2.state_dict())
    encoder.embed_positions.weight.data.copy_(table)
    return encoder


@pytest.mark.parametrize("position", ["learned", "timing"])
def test_embedding_is_whisper(position):
    ours = embedding(position)
    encoder = their_encoder(ours, ours.position(torch.arange(20)).detach())
    encoder.embed_positions.requires_grad_(True)
    x = features().requires_grad_()
    y = features().requires_grad_()
    found, mask, places = ours(x)
    expected = encoder(y).last_hidden_state
    assert mask is None and torch.equal(places, torch.arange(20))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    pull = torch.randn_like(expected)
    (found * pull).sum().backward()
    (expected * pull).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-12)
    for name in ("conv1", "conv2"):
        mine, others = getattr(ours, name), getattr(encoder, name)
        torch.testing.assert_close(mine.weight.grad, others.weight.grad, rtol=0, atol=1e-11)
        torch.testing.assert_close(mine.bias.grad, others.bias.grad, rtol=0, atol=1e-11)
    if position == "learned":
        table = encoder.embed_positions.weight.grad
        torch.testing.assert_close(ours.position.weight.grad, table, rtol=0, atol=1e-12)


def gradients(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("position", ["learned", "timing", "none"])
def test_padding_changes_nothing(position):
    """Neither tokens nor gradients, whatever the padded frames hold, for odd lengths and even."""
    ours, alone = embedding(position), embedding(position)
    lengths = [40, 27, 14, 1]
    x = features(4)
    mask = torch.arange(40) < torch.tensor(lengths)[:, None]
    x = x.masked_fill(~mask[:, None], torch.nan).requires_grad_()
    tokens, real, _ = ours(x, mask)
    assert real.sum(1).tolist() == [20, 14, 7, 1]
    pull = torch.randn_like(tokens)
    (tokens * pull)[real].sum().backward()
    for row, length in enumerate(lengths):
        part = x[row : row + 1, :, :length].detach().requires_grad_()
        expected = alone(part)[0]
        found = tokens[row : row + 1, real[row]]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        (expected * pull[row, real[row]]).sum().backward()
        torch.testing.assert_close(x.grad[row : row + 1, :, :length], part.grad)
        assert not x.grad[row, :, length:].any()
    for mine, others in zip(gradients(ours), gradients(alone), strict=True):
        torch.testing.assert_close(mine, others, rtol=0, atol=1e-11)
    # Without the mask, the same frames would be heard.
    heard = ours(features(4).detach())[0]
    assert not torch.allclose(heard[1, 13], tokens[1, 13])


def test_from_sound_to_a_stack_a_batch_changes_nothing():
    config = family.TransformerConfig(dim=16, depth=2, heads=2, position="sinusoidal")
    torch.manual_seed(0)
    front, stack = AudioEmbedding(config).eval(), family.Transformer(config).eval()
    sound, waves = LogMel(seconds=None), [noise(9_000), sine(4_001, 200.0)]
    x, mask, _ = front(*sound.with_mask(waves))
    both = stack(x, mask=mask)
    for row, one in enumerate(waves):
        alone = stack(front(sound(one))[0])
        torch.testing.assert_close(both[row, mask[row]], alone[0], rtol=0, atol=1e-5)


def test_fewer_frames_and_too_many():
    ours, x = embedding(), features()
    torch.testing.assert_close(ours(x[..., :20])[0][:, :9], ours(x)[0][:, :9], rtol=0, atol=1e-12)
    assert ours(x[..., :39])[0].shape == (3, 20, 24)
    with pytest.raises(ValueError, match="41 frames are 21 tokens.*max_tokens=20"):
        ours(features(1, 41))
    with pytest.raises(ValueError, match="9 mels.*10"):
        ours(x[:, :9])
    assert embedding("none")(features(1, 60))[0].shape == (1, 30, 24)


def test_dropout_and_autocast():
    ours = embedding(dropout=0.5).float()
    x = features().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert embedding("none").float()(x)[0].dtype == torch.float32
    ours.train()
    dropped = ours(x)[0] == 0
    assert 0.4 < float(dropped.float().mean()) < 0.6


def test_initial_size():
    """Tokens of frames of ordinary size start neither dead nor huge."""
    torch.manual_seed(0)
    config = family.TransformerConfig(dim=64, depth=1, heads=2, position="learned")
    x = AudioEmbedding(config)(torch.randn(2, 80, 100))[0].detach()
    assert 0.01 < float(x.std()) < 2
