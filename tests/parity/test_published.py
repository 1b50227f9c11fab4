"""Every published format: loaded, compared with its reference, saved back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("transformers")
import harness
from cases import (
    causal,
    contrast,
    encoders,
    fusion,
    gemmas,
    llamas,
    own,
    seq2seq,
    speech,
    text_encoders,
    video,
    vision,
)

MODULES = (
    causal,
    llamas,
    gemmas,
    own,
    encoders,
    text_encoders,
    seq2seq,
    speech,
    vision,
    video,
    contrast,
    fusion,
)
CASES = [case for module in MODULES for case in module.CASES]
LONG = (
    *("Gemma", "Llama", "OPT", "Phi", "Qwen", "SmolLM3", "DETR", "DINOv2", "DINOv3", "VideoMAE"),
    *("DistilBERT", "ELECTRA", "MPNet", "ModernBERT", "RoBERTa", "XLM-RoBERTa"),
)
"""Kinds of whose cases the first runs always, and the others, named after a comma, in the long run."""
ALIKE = ("GPT-NeoX", "Gemma", "Gemma 2", "Mistral", "OPT", "Phi-3", "Qwen2", "SmolLM3")
"""Kinds that have nothing that others of the short run have not: in the long run alone."""
FIRST = {case.member.partition(",")[0]: case for case in reversed(CASES)}


def marks(case, dtype):
    """Whether a case is for the long run."""
    kind = case.member.partition(",")[0]
    variant = kind.startswith(LONG) and FIRST[kind] is not case
    return [pytest.mark.slow] if variant or kind in ALIKE or dtype == torch.float32 else []


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(
            case,
            dtype,
            id=f"{str(dtype).removeprefix('torch.')}-{case.member}",
            marks=marks(case, dtype),
        )
        for dtype in (torch.float64, torch.float32)
        for case in CASES
    ],
)
def test_equal(case, dtype):
    tolerance = 1e-9 if dtype == torch.float64 else case.float32
    for found in harness.compare(case, dtype):
        assert found.relative <= tolerance, f"{found.what}: {found.relative:.1e}"
