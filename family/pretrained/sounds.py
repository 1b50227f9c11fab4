"""Preprocessing of sound, as transformers writes it down for Whisper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from family.inputs.audio import HOP, RATE, WINDOW, LogMel
from family.pretrained.images import described, understood

KIND = "WhisperFeatureExtractor"
FIXED = {
    "feature_extractor_type": KIND,
    "sampling_rate": RATE,
    "n_fft": WINDOW,
    "hop_length": HOP,
    "padding_side": "right",
    "padding_value": 0.0,
    "dither": 0.0,
}
"""The only values that we have; but for the first, absence means them too."""


def read_sound(folder: Path) -> LogMel | None:
    """What a folder of transformers says; None where it says nothing of sound."""
    for fields, origin in described(folder, "feature_extractor"):
        if "sampling_rate" in fields:
            return understood(from_transformers, fields, origin)
    return None


def from_transformers(fields: Mapping[str, Any]) -> LogMel:
    """Of a ``preprocessor_config.json``; what follows from other fields is not read.

    Raises:
        ValueError: steps that we do not have.
    """
    for name, wanted in FIXED.items():
        value = fields.get(name, None if wanted == KIND else wanted)
        if value != wanted:
            raise ValueError(f"{name}={value!r} is not supported; only {wanted!r} is.")
    return LogMel(fields.get("feature_size", 80), fields.get("chunk_length", 30))


def to_transformers(logmel: LogMel) -> dict[str, Any]:
    """The fields of a ``preprocessor_config.json``.

    Raises:
        ValueError: a length that transformers does not have.
    """
    seconds = logmel.seconds
    if seconds is None or seconds != int(seconds):
        raise ValueError(f"{KIND} needs a whole number of seconds, not seconds={seconds}.")
    return {
        **FIXED,
        "feature_size": logmel.mels,
        "chunk_length": int(seconds),
        "n_samples": int(seconds) * RATE,
        "nb_max_frames": int(seconds) * RATE // HOP,
        "return_attention_mask": False,
    }
