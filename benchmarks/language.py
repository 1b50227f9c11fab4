"""Language models against their peers: a training step, cached decoding, beam search, task overhead.

    python benchmarks/language.py --out results.json --nanogpt FOLDER

FOLDER is a checkout of nanoGPT; without it that row is left out. Two threads, float32.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import transformers
from timing import medians, report, save, train_step
from torch import nn

import family
from family.accelerate import accelerate
from family.losses.language_model import language_model_loss
from tasks import LanguageModeling

VOCAB, CONTEXT, BATCH = 8192, 256, 8
SIZE = {"dim": 256, "depth": 6, "heads": 8}


def training(nanogpt: str | None, rounds: int) -> dict[str, Any]:
    """6 layers, 256 wide, 8 heads, vocabulary 8,192, context 256, batch 8."""
    ids = torch.randint(0, VOCAB, (BATCH, CONTEXT + 1))
    inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    ours = accelerate(family.gpt2(VOCAB, **SIZE, max_tokens=CONTEXT))
    steps = {"ours": train_step(ours, lambda: language_model_loss(ours(inputs), labels))}
    exact = accelerate(family.gpt2(VOCAB, **SIZE, max_tokens=CONTEXT, activation="gelu"))
    steps["ours with nanoGPT's GELU"] = train_step(
        exact, lambda: language_model_loss(exact(inputs), labels)
    )
    if nanogpt is not None:
        sys.path.insert(0, nanogpt)
        from model import GPT, GPTConfig

        config = GPTConfig(CONTEXT, VOCAB, n_layer=6, n_head=8, n_embd=256, dropout=0.0, bias=True)
        nano = GPT(config)
        steps["nanoGPT"] = train_step(nano, lambda: nano(inputs, labels)[1])
    theirs = their_gpt2().train()

    def their_loss() -> torch.Tensor:
        logits = theirs(inputs, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    steps["transformers GPT-2"] = train_step(theirs, their_loss)
    plain = Plain()
    steps["nn.TransformerEncoder"] = train_step(
        plain, lambda: F.cross_entropy(plain(inputs).flatten(0, 1), labels.flatten())
    )
    return report("Training step, GPT 6 x 256", medians(steps, rounds))


def their_gpt2() -> transformers.GPT2LMHeadModel:
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=CONTEXT, n_embd=256, n_layer=6, n_head=8,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


class Plain(nn.Module):
    """PyTorch's own encoder made causal."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCAB, 256), nn.Embedding(CONTEXT, 256)
        layer = nn.TransformerEncoderLayer(
            256, 8, 1024, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.stack = nn.TransformerEncoder(layer, 6, nn.LayerNorm(256), enable_nested_tensor=False)
        for table in (self.tokens, self.places):  # drawn at 1, tiny gradients would slow it down
            nn.init.normal_(table.weight, std=0.02)
        self.head = nn.Linear(256, VOCAB, bias=False)
        self.head.weight = self.tokens.weight
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        self.register_buffer("mask", mask)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places.weight
        return self.head(self.stack(x, self.mask, is_causal=True))


def decoding(rounds: int) -> dict[str, Any]:
    """128 greedy tokens after a prompt of 16, with a cache, at batch 1."""
    prompt = torch.randint(0, VOCAB, (1, 16))
    ours = accelerate(family.gpt2(VOCAB, **SIZE, max_tokens=CONTEXT).eval())
    theirs = their_gpt2().eval()
    options = {"max_new_tokens": 128, "do_sample": False, "pad_token_id": 0}
    steps = {
        "ours": lambda: ours.generate(prompt, max_new_tokens=128),
        "transformers GPT-2": lambda: theirs.generate(prompt, **options),
    }
    compiled = family.gpt2(VOCAB, **SIZE, max_tokens=CONTEXT).eval()
    compiled.compile_decoding()
    steps["ours, compiled"] = lambda: compiled.generate(prompt, max_new_tokens=128)
    seconds = medians(steps, rounds)
    rows = report("Decoding 128 tokens at batch 1", seconds)
    for name, value in seconds.items():
        rows[name]["tokens_per_second"] = round(128 / value)
        print(f"  {name:28} {128 / value:9.0f} tokens/s")
    return rows


def beams(rounds: int) -> dict[str, Any]:
    """Beam 4 over 32 sentences of 32 tokens, 32 tokens each, against Marian."""
    source = torch.randint(3, VOCAB, (32, 32))
    mask = torch.ones_like(source, dtype=torch.bool)
    ours = family.transformer_base(VOCAB, dim=256, depth=6, heads=8, activation="silu").eval()
    accelerate(ours)
    config = transformers.MarianConfig(
        vocab_size=VOCAB, d_model=256, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=1024, decoder_ffn_dim=1024,
        pad_token_id=0, eos_token_id=2, decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    theirs = transformers.MarianMTModel(config).eval()
    options = {
        "attention_mask": mask.long(), "num_beams": 4, "max_new_tokens": 32, "min_new_tokens": 32,
        "do_sample": False, "early_stopping": True,
    }  # fmt: skip
    steps = {
        "ours": lambda: ours.generate(source, mask, beams=4, max_new_tokens=32),
        "transformers Marian": lambda: theirs.generate(source, **options),
    }
    return report("Beam 4, 32 sentences of 32 tokens", medians(steps, rounds, warmup=1))


class Bare(pl.LightningModule):
    """What Lightning costs without us."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        return language_model_loss(self.model(batch["input_ids"]), batch["labels"])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-4, fused=True)


class Repeated(pl.LightningDataModule):
    """The same small batch again and again."""

    def __init__(self, steps: int, vocab_size: int = 65) -> None:
        super().__init__()
        self.model_arguments = {"vocab_size": vocab_size}
        ids = torch.randint(0, vocab_size, (4, 17))
        self.batches = [{"input_ids": ids[:, :-1], "labels": ids[:, 1:]}] * steps

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.batches, batch_size=None)


def overhead(steps: int = 1000) -> dict[str, Any]:
    """Milliseconds that Lightning and our tasks add to a step of a bare loop, on a tiny model."""

    def tiny(vocab_size: int) -> nn.Module:
        return family.gpt_nano(vocab_size, dim=16, depth=1, heads=1, max_tokens=16)

    def bare_loop() -> float:
        model = tiny(65)
        data = Repeated(steps)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        start = time.perf_counter()
        for batch in data.train_dataloader():
            optimizer.zero_grad(set_to_none=True)
            language_model_loss(model(batch["input_ids"]), batch["labels"]).backward()
            optimizer.step()
        return (time.perf_counter() - start) / steps

    def lightning(module: pl.LightningModule) -> float:
        clock = Clock()
        trainer = pl.Trainer(
            max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
        )  # fmt: skip
        trainer.fit(module, datamodule=Repeated(steps))
        return clock.seconds / steps

    found: dict[str, list[float]] = {"bare loop": [], "Lightning": [], "our task": []}
    for _ in range(5):
        found["bare loop"].append(bare_loop())
        found["Lightning"].append(lightning(Bare(tiny(65))))
        found["our task"].append(lightning(LanguageModeling(tiny, schedule="constant")))
    best = {name: min(values) * 1000 for name, values in found.items()}
    print("\nMilliseconds a step on a tiny model: the difference is overhead")
    for name, value in best.items():
        print(f"  {name:28} {value:9.3f} ms")
    print(f"  {'ours beyond Lightning':28} {best['our task'] - best['Lightning']:9.3f} ms")
    return {name: round(value, 4) for name, value in best.items()}


class Clock(pl.Callback):
    """Seconds from the first batch to the end of training."""

    start, seconds = 0.0, 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: Any, batch: Any, index: int
    ) -> None:
        self.start = self.start or time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", help="a checkout of nanoGPT")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", help="a JSON file for the results")
    options = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore")
    results = {
        "training": training(options.nanogpt, options.rounds),
        "decoding": decoding(options.rounds),
        "beams": beams(max(3, options.rounds // 3)),
        "overhead_ms": overhead(),
    }
    save(options.out, results)


if __name__ == "__main__":
    main()
