"""Tiny language models."""

from __future__ import annotations

import pytest
import torch

import family
from family import TransformerConfig
from tasks.data.tokenizers import train_tokenizer

TEXTS = [
    "a red circle above two blue squares",
    "the star is small",
    "three large crosses",
    "Q A: ?",
]


def language_model(max_tokens=256):
    torch.manual_seed(0)
    tokenizer = train_tokenizer("bpe", TEXTS * 3, 290)
    config = TransformerConfig(
        dim=16, depth=1, heads=2, causal=True, position="rotary", max_tokens=max_tokens
    )
    model = family.GPT(tokenizer.vocab_size, config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.tokenizer = tokenizer
    return model


@pytest.fixture(scope="session")
def make_model():
    return language_model


@pytest.fixture(scope="session")
def model():
    return language_model()
