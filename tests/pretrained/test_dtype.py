"""Encoder-decoders in half precision: tables that no file holds follow."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import seq2seq, speech
from folders import write

BUILD = {
    "t5": (seq2seq.t5, seq2seq),
    "marian": (seq2seq.marian(), seq2seq),  # waves for positions
    "bart": (seq2seq.bart, seq2seq),
    "m2m_100": (seq2seq.m2m100, seq2seq),
    "whisper": (speech.whisper, speech),
}
formats = pytest.mark.parametrize("name", BUILD)
halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def asked(model, batch):
    """Logits, and tokens that are searched for; sounds come in the dtype of the model."""
    source, mask = batch["source"], batch.get("mask")
    if source.is_floating_point():
        source = source.to(model.head.weight.dtype)
    with torch.no_grad():
        logits = model(source, batch["target"], mask)
    options = {"stop_ids": (3,), "max_new_tokens": 6}
    return logits, *(model.generate(source, mask, beams=beams, **options) for beams in (1, 3))


def dtypes(model):
    return {parameter.dtype for parameter in model.parameters()}


@halves
@formats
def test_in_half_precision(tmp_path, name, dtype):
    """Asked for, made afterwards or stored so: all the same, and near to what is exact."""
    build, cases = BUILD[name]
    theirs, batch = write(build(), tmp_path / "whole", seq2seq.SINES), cases.batch()
    exact = asked(family.from_pretrained(tmp_path / "whole"), batch)[0]
    model = family.from_pretrained(tmp_path / "whole", dtype=dtype)
    assert dtypes(model) == {dtype}
    found = asked(model, batch)
    assert found[0].dtype == dtype
    worst = (found[0].float() - exact).abs().max() / exact.abs().max()
    assert worst < (0.05 if dtype == torch.bfloat16 else 0.005)
    made = family.from_pretrained(tmp_path / "whole").to(dtype)
    theirs.to(dtype).save_pretrained(tmp_path / "half")
    family.save_pretrained(model, tmp_path / "ours")
    family.save_pretrained(model, tmp_path / "published", format=name)
    stored = [family.from_pretrained(tmp_path / part) for part in ("half", "ours", "published")]
    for other in (made, *stored):
        assert dtypes(other) == {dtype}
        for one, two in zip(asked(other, batch), found, strict=True):
            assert torch.equal(one, two)


@formats
def test_stored_in_half_and_asked_for_whole(tmp_path, name):
    build, cases = BUILD[name]
    write(build(), tmp_path, seq2seq.SINES).half().save_pretrained(tmp_path / "half")
    model = family.from_pretrained(tmp_path / "half", dtype=torch.float32)
    assert dtypes(model) == {torch.float32}
    assert asked(model, cases.batch())[0].dtype == torch.float32
