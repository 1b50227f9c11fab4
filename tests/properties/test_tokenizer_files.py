"""Whatever a tokenizer's folder holds, it is read, passed over, or refused in one sentence; and whatever a text
holds, it is encoded, or refused so."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from answers import PROFILES, answered, search
from damage import Damage, contents, damages, write
from odd_texts import TEXTS

from family.inputs.tokenizer import Tokenizer
from family.pretrained.tokenizers import find_tokenizer
from tasks.data.tokenizers import make_tokenizer

SHORTER = [text for text in TEXTS if len(text) < 7000]
"""Of 70,000 characters without white space a unigram tokenizer learns for a quarter of a minute."""
WORDS = ["A red Circle", "two  Blue squares here ", "a", "A red Circle beside two blue squares"]


def trained(kind: str, folder: Path) -> None:
    made = make_tokenizer(kind, WORDS, 300 if kind == "bpe" else 40)
    (folder / "tokenizer.json").write_text(made.inner.to_str())
    config = {f"{name}_token": token for name, token in made.specials.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 64}))


def of_bert(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "##s", "circle"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def of_gpt2(folder: Path) -> None:
    inner = json.loads(make_tokenizer("bpe", WORDS, 300).inner.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps({**inner["vocab"], "<|endoftext|>": 300}))
    merges = [one if isinstance(one, str) else " ".join(one) for one in inner["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')


def of_sentencepiece(folder: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    (folder / "texts").write_text("\n".join(WORDS * 9))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts"),
        model_prefix=str(folder / "spiece"),
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=9,
    )
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    for name in ("texts", "spiece.vocab"):
        (folder / name).unlink()


def of_fixture(folder: Path) -> None:
    fixture = Path(__file__).parents[1] / "fixtures" / "folders" / "gpt"
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(fixture / name, folder)


FOLDERS = {
    **{
        kind: lambda folder, kind=kind: trained(kind, folder) for kind in ("bpe", "unigram", "char")
    },
    "BERT's": of_bert,
    "GPT-2's": of_gpt2,
    "SentencePiece": of_sentencepiece,
    "ours": of_fixture,
}


def use(tokenizer: Tokenizer) -> None:
    for text in (WORDS[1], "\x00\u2028é<pad>[MASK]", ""):
        tokenizer.decode(tokenizer.encode(text, special_tokens=True))
    Tokenizer.from_json(tokenizer.to_json()).batch(WORDS)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", FOLDERS)
def test_damaged_files_end_in_an_answer(name, profile, tmp_path):
    (tmp_path / "right").mkdir()
    FOLDERS[name](tmp_path / "right")
    files = contents(tmp_path / "right")

    def holds(chosen: list[Damage]) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as place:
            write(Path(place), files, chosen)
            with answered(ValueError, root=Path(place)):
                use(find_tokenizer(place))

    holds([])
    search(holds, damages(), profile)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", ["bpe", "unigram", "word", "char"])
def test_odd_texts_are_learnt_and_encoded(kind, profile):
    texts = st.lists(st.text(max_size=40) | st.sampled_from(SHORTER), max_size=6)

    def holds(pair: tuple[list[str], list[str]]) -> None:
        with answered(ValueError):
            tokenizer = make_tokenizer(kind, pair[0], 600)
            for text in pair[1]:
                tokenizer.decode(tokenizer.encode(text))
                tokenizer.encode(text, special_tokens=True, parse_special=True)
            Tokenizer.from_json(tokenizer.to_json())

    search(holds, st.tuples(texts, texts), profile)
