"""Preprocessing of sound in folders of transformers and in our own."""

from __future__ import annotations

import json
import logging

import pytest
import torch

import family
from family.inputs.audio import LogMel
from family.pretrained.sounds import from_transformers, read_sound, to_transformers

FILE = "preprocessor_config.json"


def write(folder, **fields):
    (folder / FILE).write_text(json.dumps(fields))


@pytest.mark.parametrize("logmel", [LogMel(), LogMel(128), LogMel(40, 5)])
def test_transformers_reads_what_we_write(logmel, tmp_path):
    transformers = pytest.importorskip("transformers")
    write(tmp_path, **to_transformers(logmel))
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    assert isinstance(extractor, transformers.WhisperFeatureExtractor)
    wave = 0.1 * torch.randn(9_000, generator=torch.Generator().manual_seed(0))
    theirs = extractor(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(logmel(wave), theirs, rtol=0, atol=1e-5)
    assert extractor.to_dict().items() >= to_transformers(logmel).items()


@pytest.mark.parametrize("options", [{}, {"feature_size": 128}, {"chunk_length": 10}])
def test_we_read_what_transformers_writes(options, tmp_path):
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(**options)
    extractor.save_pretrained(tmp_path)
    expected = LogMel(options.get("feature_size", 80), options.get("chunk_length", 30))
    assert read_sound(tmp_path) == expected
    # Version 5 may put it among a processor's other parts.
    (tmp_path / FILE).unlink()
    fields = {"processor_class": "WhisperProcessor", "feature_extractor": extractor.to_dict()}
    (tmp_path / "processor_config.json").write_text(json.dumps(fields))
    assert read_sound(tmp_path) == expected


def test_older_files(tmp_path):
    """They hold the filters too, which transformers makes anew."""
    kind = {"feature_extractor_type": "WhisperFeatureExtractor", "mel_filters": [[0.0]]}
    write(tmp_path, **kind, sampling_rate=16_000, processor_class="WhisperProcessor")
    assert read_sound(tmp_path) == LogMel()


@pytest.mark.parametrize(
    "fields",
    [
        {"feature_extractor_type": "ASTFeatureExtractor"},
        {"feature_extractor_type": None},
        {"sampling_rate": 8_000},
        {"n_fft": 512},
        {"hop_length": 320},
        {"dither": 1e-4},
        {"padding_value": 0.5},
        {"padding_side": "left"},
        {"feature_size": 200},
        {"feature_size": "80"},
        {"chunk_length": [30]},
    ],
)
def test_what_we_cannot_do_is_said(fields, tmp_path, caplog):
    write(tmp_path, **{**to_transformers(LogMel()), **fields})
    with caplog.at_level(logging.WARNING):
        assert read_sound(tmp_path) is None
    assert "model.preprocess is None" in caplog.text and str(tmp_path) in caplog.text


def test_folders_without_sound(tmp_path, caplog):
    assert read_sound(tmp_path) is None
    write(tmp_path, image_mean=[0.5] * 3, feature_extractor_type="ViTFeatureExtractor")
    assert read_sound(tmp_path) is None
    assert not caplog.text


@pytest.mark.parametrize("seconds", [None, 1.5])
def test_lengths_that_transformers_does_not_have(seconds):
    with pytest.raises(ValueError, match=f"seconds={seconds}"):
        to_transformers(LogMel(seconds=seconds))


@pytest.mark.parametrize("format", [None, "gpt2"])
def test_a_model_keeps_it(format, tmp_path):
    """Of any member: which of them hear is not the files' matter."""
    model = family.gpt2(vocab_size=11, dim=8, depth=1, heads=2, max_tokens=8)
    model.preprocess = LogMel(128, 10)
    family.save_pretrained(model, tmp_path / "model", format=format)
    assert family.from_pretrained(tmp_path / "model").preprocess == model.preprocess
    assert (tmp_path / "model" / FILE).is_file() == (format is not None)
    if format is not None:
        fields = json.loads((tmp_path / "model" / FILE).read_text())
        assert from_transformers(fields) == model.preprocess


def test_our_file_out_of_order(tmp_path):
    model = family.gpt2(vocab_size=11, dim=8, depth=1, heads=2, max_tokens=8)
    model.preprocess = LogMel(seconds=None)
    family.save_pretrained(model, tmp_path / "model")
    assert family.from_pretrained(tmp_path / "model").preprocess == LogMel(seconds=None)
    file = tmp_path / "model" / "config.json"
    fields = json.loads(file.read_text())
    for wrong in ({"mels": 0}, {"mels": 80, "hop": 200}):
        file.write_text(json.dumps({**fields, "preprocess": wrong}))
        with pytest.raises(ValueError, match="config.json: preprocess: .*(mels|hop)"):
            family.from_pretrained(tmp_path / "model")
