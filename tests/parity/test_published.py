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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.member)
@pytest.mark.parametrize(
    "dtype",
    [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)],
    ids=["float64", "float32"],
)
def test_equal(case, dtype):
    tolerance = 1e-9 if dtype == torch.float64 else case.float32
    for found in harness.compare(case, dtype):
        assert found.relative <= tolerance, f"{found.what}: {found.relative:.1e}"
