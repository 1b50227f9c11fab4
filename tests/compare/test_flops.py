"""FLOPs: what is counted as it runs is what one works out by hand."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

import family
from family.adapt.lora import add_lora
from tasks.compare.counting import flops_of_batch
from tasks.compare.flops import counted_flops, recurrent_formula
from tasks.language_modeling import LanguageModeling


def counted(model: nn.Module, ids: torch.Tensor) -> int:
    return counted_flops(lambda: model.train()(ids).float().sum().backward())


@pytest.fixture
def gpt():
    return family.gpt_nano(10, dim=16, depth=2, heads=2, max_tokens=8)


IDS = torch.arange(16).view(2, 8) % 7
TOKENS = IDS.numel()
BLOCK = {"attention": 16 * 48 + 16 * 16, "feedforward": 16 * 64 + 64 * 16}
"""The weights of a block of GPT of width 16."""
SCORES = 2 * (2 * 8 * 8 * 16) * 2
"""Two products of queries with all keys, which a fused kernel works out once more going back."""


def test_members_by_hand(gpt):
    """A product and a sum are two; linear layers cost 3 times their forward pass, attention 3.5."""
    block = 3 * 2 * TOKENS * sum(BLOCK.values()) + int(3.5 * SCORES)
    by_hand = 2 * block + 3 * 2 * TOKENS * 16 * 10  # two blocks and the head
    assert counted(gpt, IDS) == by_hand == 662_528
    lstm = family.LSTMLanguageModel(7, dim=8, depth=2)
    layer = 3 * 2 * TOKENS * (4 * 8 * 8 + 4 * 8 * 8)
    assert counted(lstm, IDS) == 2 * layer + 3 * 2 * TOKENS * 8 * 7


def test_weights_that_do_not_learn_cost_two_thirds(gpt):
    whole = counted(gpt, IDS)
    for parameter in gpt.transformer.blocks[1].feedforward.parameters():
        parameter.requires_grad = False
    assert whole - counted(gpt, IDS) == 2 * TOKENS * BLOCK["feedforward"]


def test_adapters_cost_what_they_do(gpt):
    """What lies below the first adapter costs its forward pass alone."""
    add_lora(gpt, rank=2, targets=["transformer.blocks.1.feedforward.*.down"])
    head, first, second = 16 * 10, 64 * 2, 2 * 16
    forward = 2 * TOKENS * (2 * sum(BLOCK.values()) + head + first + second) + 2 * SCORES
    # Of inputs: the head's and the second matrix's; of weights: the adapter's.
    gradients = 2 * TOKENS * (head + second + second + first)
    assert counted(gpt, IDS) == forward + gradients


def test_the_counter_sees_attention_and_lstms_forward_alone():
    x = torch.randn(2, 4, 16, 8)
    square = 2 * 2 * (2 * 4) * 16 * 16 * 8
    assert counted_flops(lambda: F.scaled_dot_product_attention(x, x, x)) == square
    assert counted_flops(lambda: F.scaled_dot_product_attention(x, x, x, is_causal=True)) == square
    lstm = nn.LSTM(8, 6, batch_first=True)
    tokens = torch.randn(2, 5, 8)
    assert counted_flops(lambda: lstm(tokens)) == 2 * (2 * 5) * (24 * 8 + 24 * 6)


def test_cudnn_hands_over_all_weights_in_a_list():
    weights = [(24, 8), (24, 6), (24,), (24,)]
    by_hand = 2 * 2 * (5 * 2) * sum(map(prod, weights[:2]))
    assert recurrent_formula(2)((5, 2, 8), weights, 4) == by_hand


def test_a_run_counts_what_learns():
    """As a run counts itself: adapters alone cost a gradient of weights, and frozen layers none."""
    batch = {"input_ids": IDS, "labels": IDS}
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)

    def of_run(change: Callable[[nn.Module], Any] = lambda model: None, **options: Any) -> float:
        model = family.gpt_nano(10, dim=16, depth=2, heads=2, max_tokens=8)
        change(model)
        task = LanguageModeling(model, **options)
        task.trainer = trainer
        task.configure_model()
        return flops_of_batch(trainer, task, batch)

    whole = of_run()
    frozen = of_run(freeze=["transformer.blocks.1.feedforward.*"])
    assert whole - frozen == 2 * TOKENS * BLOCK["feedforward"]
    lora = of_run(lambda model: add_lora(model, rank=2))
    assert 1 / 3 < lora / whole < 0.85
