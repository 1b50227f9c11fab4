"""Words of our own in the trainer's options."""

from __future__ import annotations

import logging

import pytest
import torch

from tasks.training import trainer
from tasks.training.trainer import Trainer, best_precision, fast_bfloat16


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("fpu sse avx2", None),
        ("avx512f avx512_bf16", "avx512_bf16"),
        ("amx_bf16 avx512_bf16", "amx_bf16"),
    ],
)
def test_what_a_processor_multiplies_fast(monkeypatch, flags, found):
    text = f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n"
    monkeypatch.setattr(trainer.Path, "read_text", lambda self: text)
    fast_bfloat16.cache_clear()
    try:
        assert fast_bfloat16() == found
        precision, why = best_precision("cpu")
    finally:
        fast_bfloat16.cache_clear()
    assert precision == ("32-true" if found is None else "bf16-mixed")
    assert (found or "neither AMX nor AVX512-BF16") in why


@pytest.mark.parametrize("fast", [True, False])
def test_what_a_gpu_multiplies_fast(monkeypatch, fast):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert best_precision("cuda")[0] == ("bf16-mixed" if fast else "32-true")


def test_the_choice_is_said(monkeypatch, caplog):
    monkeypatch.setattr(trainer, "fast_bfloat16", lambda: "amx_bf16")
    with caplog.at_level(logging.INFO):
        made = Trainer(accelerator="cpu", precision="auto", logger=False)
    assert made.precision == "bf16-mixed"
    assert "trainer.precision=auto is bf16-mixed: this processor multiplies" in caplog.text
