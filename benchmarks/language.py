"""Training language models beside their peers: a step of GPT in float32 and bfloat16, its memory at GPT-2's
vocabulary, a step of an encoder-decoder, and what a task costs beyond Lightning.

    python benchmarks/language.py --out results.json --nanogpt FOLDER [--only gpt]

FOLDER is a checkout of nanoGPT; without it its rows are left out. Two threads; on a GPU the same.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import transformers
from timing import medians, peak_memory, product_peak, report, run, same, share_of_peak, train_step
from torch import Tensor, nn

import family
from family.accelerate import accelerate
from family.losses.language_model import language_model_loss
from family.losses.token_loss import TokenLoss
from tasks import LanguageModeling

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCAB, CONTEXT, BATCH = 8192, 256, 8
SIZE = {"dim": 256, "depth": 6, "heads": 8}
LARGE_VOCAB = 50_257
SENTENCES, WORDS = 64, 32

Loss = Callable[[], Tensor]


# --- GPT -----------------------------------------------------------------------------------------


def gpt(nanogpt: str | None, rounds: int) -> dict[str, Any]:
    """6 layers, 256 wide, 8 heads, vocabulary 8,192, context 256, batch 8: the same weights in all."""
    ids = torch.randint(0, VOCAB, (BATCH, CONTEXT + 1), device=DEVICE)
    inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    theirs = their_gpt2(VOCAB).to(DEVICE).train()
    ours = accelerate(as_ours(theirs))
    same("GPT-2 of transformers", ours(inputs), theirs(inputs, use_cache=False).logits)
    exact = accelerate(family.gpt2(VOCAB, **SIZE, max_tokens=CONTEXT, activation="gelu").to(DEVICE))

    def their_loss() -> Tensor:
        logits = theirs(inputs, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    losses: dict[str, tuple[nn.Module, Loss]] = {
        "ours": (ours, lambda: ours(inputs, loss=TokenLoss(labels))),
        "ours with nanoGPT's GELU": (exact, lambda: exact(inputs, loss=TokenLoss(labels))),
    }
    if nanogpt is not None:
        nano = their_nanogpt(nanogpt, VOCAB, exact)
        same("nanoGPT", exact(inputs), nano(inputs, labels)[0])
        losses["nanoGPT"] = nano, lambda: nano(inputs, labels)[1]
    losses["transformers GPT-2"] = theirs, their_loss
    plain = Plain().to(DEVICE)
    losses["nn.TransformerEncoder"] = (
        plain,
        lambda: F.cross_entropy(plain(inputs).flatten(0, 1), labels.flatten()),
    )
    steps = {name: train_step(model, loss) for name, (model, loss) in losses.items()}
    halved = ("ours", "nanoGPT", "transformers GPT-2")
    steps |= {
        f"{name}, bf16": train_step(*losses[name], half=True) for name in halved if name in losses
    }
    rows = report("Training step, GPT 6 x 256", medians(steps, rounds))
    peaks = {"float32": product_peak(torch.float32), "bfloat16": product_peak(torch.bfloat16)}
    precision = {name: "bfloat16" for name in rows if name.endswith("bf16")}
    share_of_peak(rows, steps["transformers GPT-2"], peaks, precision)
    return {**rows, "product_peak": {name: round(value / 1e9) for name, value in peaks.items()}}


def their_gpt2(vocab_size: int) -> transformers.GPT2LMHeadModel:
    config = transformers.GPT2Config(
        vocab_size=vocab_size, n_positions=CONTEXT, n_embd=256, n_layer=6, n_head=8,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def as_ours(theirs: transformers.PreTrainedModel) -> nn.Module:
    """Our model of a published one's weights."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return family.from_pretrained(folder).to(DEVICE).train()


def their_nanogpt(folder: str, vocab_size: int, ours: nn.Module) -> nn.Module:
    """nanoGPT with our weights: its names are GPT-2's, its products the other way round."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
    from model import GPT, GPTConfig

    config = GPTConfig(CONTEXT, vocab_size, n_layer=6, n_head=8, n_embd=256, dropout=0.0, bias=True)
    nano = GPT(config)
    with tempfile.TemporaryDirectory() as saved:
        family.save_pretrained(ours, saved, format="gpt2")
        weights = transformers.GPT2LMHeadModel.from_pretrained(saved).state_dict()
    return filled(nano, weights)


def filled(nano: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """nanoGPT with GPT-2's weights, on the device."""
    turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    nano.load_state_dict({n: w.t() if n.endswith(turned) else w for n, w in weights.items()})
    return nano.to(DEVICE)


def memory(nanogpt: str | None, rounds: int) -> dict[str, Any]:
    """Bytes of a step over 2,048 tokens at GPT-2's vocabulary, beyond weights, gradients and optimizer."""
    ids = torch.randint(0, LARGE_VOCAB, (BATCH, CONTEXT + 1), device=DEVICE)
    inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    ours = accelerate(
        family.gpt2(LARGE_VOCAB, **SIZE, max_tokens=CONTEXT, activation="gelu").to(DEVICE)
    )
    steps = {"ours": train_step(ours, lambda: ours(inputs, loss=TokenLoss(labels)))}
    if nanogpt is not None:
        nano = their_nanogpt(nanogpt, LARGE_VOCAB, ours)
        steps["nanoGPT"] = train_step(nano, lambda: nano(inputs, labels)[1])
    rows: dict[str, Any] = {}
    print("\nMemory of a step, vocabulary 50,257, 2,048 tokens")
    gradients = sum(p.numel() * p.element_size() for p in ours.parameters())
    for name, step in steps.items():
        step()
        taken = peak_memory(step) - gradients
        rows[name] = {
            "bytes": taken,
            "times_ours": round(taken / rows.get("ours", {"bytes": taken})["bytes"], 3),
        }
        print(f"  {name:28} {taken / 2**20:9.0f} MiB")
    return rows


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


# --- An encoder-decoder ----------------------------------------------------------------------------


def seq2seq(nanogpt: str | None, rounds: int) -> dict[str, Any]:
    """3 + 3 layers, 256 wide, 64 pairs of 32 tokens, vocabulary 8,192."""
    source, target = (torch.randint(3, VOCAB, (SENTENCES, WORDS), device=DEVICE) for _ in range(2))
    config = transformers.MarianConfig(
        vocab_size=VOCAB, d_model=256, encoder_layers=3, decoder_layers=3, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=1024, decoder_ffn_dim=1024, dropout=0.0,
        activation_function="relu", pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
    )  # fmt: skip
    theirs = transformers.MarianMTModel(config).to(DEVICE).train()
    ours = accelerate(
        family.transformer_base(VOCAB, dim=256, depth=3, heads=8, dropout=0.0).to(DEVICE)
    )
    labels = target.roll(-1, 1)
    plain = PlainPair().to(DEVICE)

    def their_loss() -> Tensor:
        logits = theirs(input_ids=source, decoder_input_ids=target).logits
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    steps = {
        "ours": train_step(ours, lambda: ours(source, target, loss=TokenLoss(labels))),
        "transformers Marian": train_step(theirs, their_loss),
        "nn.Transformer": train_step(
            plain, lambda: F.cross_entropy(plain(source, target).flatten(0, 1), labels.flatten())
        ),
    }
    for name, model in (("ours", ours), ("transformers Marian", theirs), ("nn.Transformer", plain)):
        print(f"{name}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    return report("Training step, 3 + 3 layers of 256", medians(steps, rounds))


class PlainPair(nn.Module):
    """PyTorch's own encoder and decoder, one table for all words."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCAB, 256), nn.Embedding(WORDS, 256)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.stacks = nn.Transformer(256, 8, 3, 3, 1024, 0.0, batch_first=True)
        self.head = nn.Linear(256, VOCAB, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(WORDS))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        source, target = (self.tokens(ids) + self.places.weight for ids in (source, target))
        return self.head(self.stacks(source, target, tgt_mask=self.mask, tgt_is_causal=True))


# --- A task ------------------------------------------------------------------------------------------


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


def overhead(nanogpt: str | None, rounds: int, steps: int = 1000) -> dict[str, Any]:
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


PARTS = {"gpt": gpt, "memory": memory, "seq2seq": seq2seq, "overhead_ms": overhead}


if __name__ == "__main__":
    run(__doc__, PARTS, 12, nanogpt="a checkout of nanoGPT")
