"""GPT-2's 124 million parameters on one GPU, in bfloat16: training beside nanoGPT, both compiled, and decoding one text
beside transformers with a static cache and a compiled step (gpt-fast's way).

    python benchmarks/gpu.py --out results.json --nanogpt FOLDER [--only train]
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import transformers
from language import as_ours, filled
from timing import medians, product_peak, report, run, same, train_step
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import family
from family.losses.token_loss import TokenLoss

DEVICE = "cuda"
VOCAB, CONTEXT, BATCH = 50_304, 1024, 32
PROMPT, NEW = 32, 512


def train(nanogpt: str | None, rounds: int) -> dict[str, Any]:
    """A step of AdamW over 32 x 1,024 tokens; a vocabulary that is a multiple of 64, as nanoGPT advises."""
    ids = torch.randint(0, VOCAB, (BATCH, CONTEXT + 1), device=DEVICE)
    inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    theirs = transformers.GPT2LMHeadModel(published())
    ours = as_ours(theirs)
    models: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "ours": (ours, lambda: ours(inputs, loss=TokenLoss(labels))),
    }
    if nanogpt is not None:
        nano = their_nanogpt(nanogpt, theirs)
        with torch.no_grad():  # its GELU is exact, GPT-2's is not
            same("nanoGPT", ours(inputs[:1]), nano(inputs[:1], labels[:1])[0], 2e-3)
        models["nanoGPT"] = nano, lambda: nano(inputs, labels)[1]
    with FlopCounterMode(display=False) as counter:
        train_step(ours, models["ours"][1], half=True)()
    flops, peak = counter.get_total_flops(), product_peak(torch.bfloat16, 8192)
    for model, _ in models.values():
        model.compile()
    steps = {name: train_step(*given, half=True) for name, given in models.items()}
    rows = report("Training step, GPT-2 124M, bf16, compiled", medians(steps, rounds, 4))
    for name, row in rows.items():
        torch.cuda.reset_peak_memory_stats()
        steps[name]()
        row["tokens_per_second"] = round(BATCH * CONTEXT / row["seconds"])
        row["share_of_peak"] = round(flops / row["seconds"] / peak, 3)
        row["bytes"] = torch.cuda.max_memory_allocated()
        print(f"  {name:28} {row['share_of_peak']:9.1%} of what products alone reach")
    return {**rows, "product_peak": round(peak / 1e12, 1)}


def decode(nanogpt: str | None, rounds: int) -> dict[str, Any]:
    """512 greedy tokens after a prompt of 32, one text."""
    config = published(initializer_range=0.2)
    theirs = transformers.GPT2LMHeadModel(config).to(DEVICE).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = family.from_pretrained(folder).to(DEVICE).eval()
    theirs, ours = theirs.bfloat16(), ours.bfloat16()
    plain = copy.deepcopy(ours)
    ours.compile_decoding()
    prompt = torch.randint(0, VOCAB, (1, PROMPT), device=DEVICE)
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    steps: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours.generate(prompt, max_new_tokens=NEW),
        "ours, not compiled": lambda: plain.generate(prompt, max_new_tokens=NEW),
        "transformers, static, compiled": lambda: theirs.generate(
            prompt, cache_implementation="static", **options
        )[:, PROMPT:],
    }
    first = steps["ours, not compiled"]()
    for name, step in steps.items():
        alike = (step()[0] == first[0]).long().cumprod(0).sum()
        print(f"{name}: the first {int(alike)} of {NEW} tokens are the same")
    rows = report("Decoding 512 tokens, GPT-2 124M, bf16, one text", medians(steps, rounds, 2))
    bandwidth = copying()
    # A step reads all weights but the table of words, whose one row it takes; the head is that table.
    weights = sum(p.numel() * p.element_size() for p in ours.parameters())
    for name, row in rows.items():
        row["tokens_per_second"] = round(NEW / row["seconds"], 1)
        row["share_of_bandwidth"] = round(weights * row["tokens_per_second"] / bandwidth, 3)
        print(f"  {name:32} {row['share_of_bandwidth']:9.1%} of what a copy reaches")
    return {**rows, "bandwidth": round(bandwidth / 1e9)}


def published(**more: Any) -> transformers.GPT2Config:
    return transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=CONTEXT, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        eos_token_id=None, bos_token_id=None, **more,
    )  # fmt: skip


def their_nanogpt(folder: str, theirs: transformers.GPT2LMHeadModel) -> nn.Module:
    sys.path.insert(0, folder)
    from model import GPT, GPTConfig

    nano = GPT(GPTConfig(CONTEXT, VOCAB, dropout=0.0, bias=True))
    return filled(nano, theirs.state_dict())


def copying(count: int = 2**30) -> float:
    """Bytes a second that a copy reads and writes."""
    a = torch.empty(count, dtype=torch.uint8, device=DEVICE)
    b = torch.empty_like(a)
    return 2 * count / medians({"": lambda: b.copy_(a)}, 12, 3)[""]


if __name__ == "__main__":
    run(__doc__, {"train": train, "decode": decode}, 9, nanogpt="a checkout of nanoGPT")
