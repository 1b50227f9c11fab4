"""Sound becomes tokens: a waveform its log-mel frames, and these, by two convolutions, vectors."""

from __future__ import annotations

import math
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from family.checks import check_value
from family.core.config import TransformerConfig
from family.inputs.pointers import refuse_pointer
from family.inputs.position import make_position
from family.inputs.text import Tokens

RATE = 16_000
"""Samples a second."""
WINDOW, HOP = 400, 160
"""Samples that a frame sees, and from one frame to the next: 25 and 10 ms."""
EDGE = WINDOW // 2
"""Samples that the first frame, centred on the first sample, sees before it: mirrored ones."""
LOUDEST = 100.0
"""Resampling or noise may take samples a little over 1; over this, they were never scaled."""
MOST_MELS = 128
"""With many more, some bands would fall between two frequencies of a window of so few samples."""


@dataclass(frozen=True)
class LogMel:
    """Log-mel frames, a hundred a second, as Whisper takes them (Radford et al. 2022, section 2.2).

    The power in bands of Slaney's mel scale up to 8,000 Hz, as its base 10 logarithm, nothing more
    than 8 below the example's greatest, brought near -1..1. Plain values, so that a checkpoint
    carries it.

    Args:
        mels: bands: 80, or 128 of large-v3; 128 at most.
        seconds: to which sound is filled up with silence, or cut; None leaves its length.

    Raises:
        ValueError: a value out of range, in one sentence.
    """

    mels: int = 80
    seconds: float | None = 30

    def __post_init__(self) -> None:
        check_value("mels", self.mels, (int,))
        check_value("seconds", self.seconds, (float, NoneType))
        if self.mels > MOST_MELS:
            raise ValueError(f"mels must be at most {MOST_MELS}, not {self.mels}.")
        if self.samples is not None and self.samples <= EDGE:
            raise ValueError(f"seconds must be over {EDGE / RATE}, not {self.seconds}.")

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> LogMel:
        """Of plain values."""
        return cls(**fields)

    @property
    def samples(self) -> int | None:
        """``seconds`` in samples."""
        return None if self.seconds is None else round(self.seconds * RATE)

    def __call__(
        self, waveform: Tensor | Sequence[Tensor], sampling_rate: int | None = None
    ) -> Tensor:
        """The frames alone; see :meth:`with_mask`."""
        return self.with_mask(waveform, sampling_rate)[0]

    def with_mask(
        self, waveform: Tensor | Sequence[Tensor], sampling_rate: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Frames, and which of them are real.

        What comes of an example does not depend on the others of its batch: with ``seconds=None``
        a shorter one ends as it would alone, and frames of silence follow.

        Args:
            waveform: ``(samples)`` or ``(batch, samples)`` of one channel, floats from -1 to 1; or a
                list of ``(samples)`` or ``(1, samples)``, which may differ in length.
            sampling_rate: what the waveform has, to be sure; None is 16,000.

        Returns:
            ``(batch, mels, frames)`` in float32, and ``(batch, frames)``, True where the sample
            that a frame is centred on is not filled up.

        Raises:
            ValueError: another sampling rate (nothing is resampled), several channels, integers or
                samples far over 1 (nothing is rescaled), NaN, or too few samples.
        """
        if sampling_rate is not None and sampling_rate != RATE:
            raise ValueError(f"sampling_rate={sampling_rate}: resample the waveform to {RATE}.")
        sounds = one_channel(waveform)
        real = [math.ceil(len(sound) / HOP) for sound in sounds]
        if self.samples is not None:
            sounds = [F.pad(sound, (0, self.samples - len(sound))) for sound in sounds]  # or cut
        for number, sound in enumerate(sounds):
            if len(sound) <= EDGE:
                raise ValueError(
                    f"waveform {number} has {len(sound)} samples: seconds=None needs {EDGE + 1} of "
                    "them, a window's half and one."
                )
        made = [len(sound) // HOP for sound in sounds]
        counts = torch.tensor([*map(min, real, made)], device=sounds[0].device)
        mask = torch.arange(max(made), device=counts.device) < counts[:, None]
        with torch.autocast(counts.device.type, enabled=False):
            power = mel_power(sounds, self.mels)
        if self.samples is None:  # past its end, an example has the mirrored samples yet
            power = power.masked_fill(~mask[:, None], 0.0)
        levels = power.clamp(min=1e-10).log10()
        levels = levels.maximum(levels.amax((1, 2), keepdim=True) - 8)
        return (levels + 4) / 4, mask


def one_channel(waveform: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The ``(samples)`` in float32 of each example; see :meth:`LogMel.with_mask`.

    Raises:
        ValueError: what is no sound of one channel in floats, in one sentence.
    """
    sounds = waveform
    if isinstance(waveform, Tensor):
        shape = tuple(waveform.shape)
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] > shape[1]):
            raise ValueError(
                f"a waveform of the shape {shape} is neither (samples) nor (batch, samples): "
                "channels are to be mixed first."
            )
        sounds = [waveform] if len(shape) == 1 else list(waveform)
    if not isinstance(sounds, list | tuple) or not sounds:
        kind = "nothing" if isinstance(sounds, list | tuple) else f"a {type(sounds).__name__}"
        raise ValueError(f"a waveform must be a tensor, or a list of tensors, not {kind}.")
    return [checked(sound, number) for number, sound in enumerate(sounds)]


def checked(sound: Any, number: int) -> Tensor:
    """One of :func:`one_channel`, ``number`` in the batch."""
    if not isinstance(sound, Tensor):
        raise ValueError(f"waveform {number} must be a tensor, not a {type(sound).__name__}.")
    if sound.dim() == 2 and len(sound) == 1:
        sound = sound[0]
    if sound.dim() != 1 or not len(sound):
        raise ValueError(
            f"waveform {number} has the shape {tuple(sound.shape)}, but must be (samples) of one "
            "channel: several are to be mixed first."
        )
    if not sound.is_floating_point():
        raise ValueError(
            f"waveform {number} is of {sound.dtype}, but must be floats from -1 to 1: 16-bit samples "
            "are to be divided by 32768."
        )
    sound = sound.float()
    greatest = sound.detach().abs().amax()
    if not greatest <= LOUDEST:  # NaN is no less
        raise ValueError(
            f"waveform {number} reaches {float(greatest):.4g}, but its samples must be from -1 to 1."
        )
    return sound


def mel_power(sounds: list[Tensor], mels: int) -> Tensor:
    """The power of each band in each frame, the last frame dropped.

    Args:
        sounds: ``(samples)``, over :data:`EDGE` of them.

    Returns:
        ``(batch, mels, frames)``, frames of the longest.
    """
    # Each is mirrored at its own end; torch.stft would do so at that of the longest.
    mirrored = [F.pad(sound[None], (EDGE, EDGE), "reflect")[0] for sound in sounds]
    batch = pad_sequence(mirrored, batch_first=True)
    window = torch.hann_window(WINDOW, device=batch.device)
    spectrum = torch.stft(batch, WINDOW, HOP, window=window, center=False, return_complex=True)
    power = (spectrum.real.square() + spectrum.imag.square())[..., :-1]
    return mel_filters(mels).to(batch.device) @ power


def mel_filters(mels: int) -> Tensor:
    """Triangles of equal area, evenly spaced on Slaney's mel scale from 0 to 8,000 Hz.

    The scale is linear up to 1,000 Hz, which is 15 mel, and logarithmic above, 27 mel for a factor
    of 6.4 (Slaney 1998, Auditory Toolbox).

    Returns:
        ``(mels, WINDOW / 2 + 1)`` in float32.
    """
    highest, steep = RATE / 2, math.log(6.4) / 27
    last = 15 + math.log(highest / 1000) / steep
    points = torch.linspace(0, last, mels + 2, dtype=torch.float64)[:, None]
    corners = torch.where(points < 15, points * 200 / 3, 1000 * ((points - 15) * steep).exp())
    lower, centre, upper = corners[:-2], corners[1:-1], corners[2:]
    frequency = torch.linspace(0, highest, WINDOW // 2 + 1, dtype=torch.float64)
    rising = (frequency - lower) / (centre - lower)
    falling = (upper - frequency) / (upper - centre)
    return (rising.minimum(falling).clamp(min=0) * 2 / (upper - lower)).float()


def read_wav(path: str | Path) -> tuple[Tensor, int]:
    """The sound of a wav file of PCM with 8, 16, 24 or 32 bits.

    Returns:
        ``(channels, samples)`` in float32 from -1 to 1, and the sampling rate. Several channels are
        to be mixed for :class:`LogMel`, which would take them for a batch: ``waveform.mean(0)``.

    Raises:
        ValueError: one sentence: no such file, another kind of file, or one that is cut off or
            empty.
    """
    refuse_pointer(Path(path))
    try:
        with wave.open(str(path), "rb") as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            count = file.getnframes() * channels * width
            # Asked before it is read, for a broken file may name any number.
            content = (
                b"" if count > Path(path).stat().st_size else file.readframes(file.getnframes())
            )
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except (wave.Error, EOFError, RuntimeError) as error:  # the last: a part longer than its file
        reason = str(error) or "it ends too early"
        raise ValueError(f"{path} cannot be read as a wav file of PCM: {reason}.") from None
    if not count:
        raise ValueError(f"{path} holds no samples.")
    if len(content) < count:
        raise ValueError(f"{path} is cut off: it is to hold {count} bytes of samples.")
    if width > 4:
        raise ValueError(f"{path} has {8 * width} bits a sample; 8, 16, 24 and 32 are read.")
    if not rate:
        raise ValueError(f"{path} has a sampling rate of 0.")
    return from_pcm(content, width).view(-1, channels).T.contiguous(), rate


def from_pcm(content: bytes, width: int) -> Tensor:
    """Samples ``(count)`` of ``width`` bytes each as float32; those of one byte have no sign."""
    raw = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, width)
    if width == 1:
        return (raw[:, 0].float() - 128) / 128
    # The upper bytes of 32 bits; the shift leaves the value relative to the greatest.
    whole = F.pad(raw, (4 - width, 0)).view(torch.int32)
    return (whole[:, 0].double() / 2**31).float()


class AudioEmbedding(nn.Module):
    """Two convolutions, the second of which halves the frames; position where it is added, dropout
    (Radford et al. 2022, section 2.2).

    Args:
        config: of the stack that follows: ``dim``, ``position``, ``max_tokens``, ``dropout``.
        mels: bands of the frames.
    """

    def __init__(self, config: TransformerConfig, mels: int = 80) -> None:
        super().__init__()
        self.mels, self.max_tokens = mels, config.max_tokens
        self.conv1 = nn.Conv1d(mels, config.dim, 3, padding=1)
        self.conv2 = nn.Conv1d(config.dim, config.dim, 3, stride=2, padding=1)
        # Published checkpoints have the table of their sines, rounded as they were made or trained.
        self.position = make_position(config, config.dim, stored=True)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_features: Tensor, mask: Tensor | None = None) -> Tokens:
        """``(batch, mels, frames)`` -> ``(batch, ceil(frames / 2), dim)`` and its mask.

        Args:
            mask: ``(batch, frames)``, True = sound; the others count as the nothing beyond the ends.
                None is all of it, silence that was filled up included: so Whisper was trained.

        Returns:
            the tokens, and ``(batch, tokens)`` by the frame that each is centred on, or None.

        Raises:
            ValueError: another number of bands, or more tokens than the table has rows.
        """
        bands, frames = input_features.shape[1:]
        tokens = (frames + 1) // 2
        if bands != self.mels:
            raise ValueError(f"input_features have {bands} mels, but the model takes {self.mels}.")
        if self.position is not None and tokens > self.max_tokens:
            raise ValueError(
                f"{frames} frames are {tokens} tokens, which do not fit max_tokens={self.max_tokens}."
            )
        positions = torch.arange(tokens, device=input_features.device)
        x = F.gelu(self.conv1(silenced(input_features, mask)))
        x = F.gelu(self.conv2(silenced(x, mask))).transpose(1, 2)
        # Contiguous, for what follows is faster then; the dtype under autocast is as that of text.
        x = x.to(self.conv2.weight.dtype).contiguous()
        if self.position is not None:
            x = x + self.position(positions).to(x.dtype)
        return Tokens(self.dropout(x), None if mask is None else mask[:, ::2], positions)

    read = forward


def silenced(frames: Tensor, mask: Tensor | None) -> Tensor:
    """``(batch, channels, frames)`` with zeros where the mask ``(batch, frames)`` is not True."""
    return frames if mask is None else frames.masked_fill(~mask[:, None], 0.0)
