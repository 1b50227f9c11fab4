"""A format that a user writes: the one of ``examples/own_format.py``."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import transformers
from cases.causal import LLAMA, batch, case, ours, theirs

__all__ = ["CASES", "batch", "ours", "theirs"]

FILE = Path(__file__).parents[3] / "examples" / "own_format.py"
STABLELM = runpy.run_path(str(FILE))["STABLELM"]


def stablelm(**options: Any) -> Any:
    rope = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    config = {**LLAMA, "rope_parameters": rope, **options}
    return lambda: transformers.StableLmForCausalLM(transformers.StableLmConfig(**config))


CASES = [
    case("StableLM, by examples/own_format.py", STABLELM, stablelm(use_qkv_bias=True)),
    case(
        "StableLM, by examples/own_format.py, tied",
        STABLELM,
        stablelm(tie_word_embeddings=True, rope_parameters=None),
    ),
]
