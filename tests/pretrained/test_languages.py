"""Tokenizers of encoder-decoders, as transformers writes them: ids, roles, tokens of languages."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import family
from family.inputs.tokenizer import Tokenizer as Ours
from family.pretrained.text import read_tokenizer, save_tokenizer

transformers = pytest.importorskip("transformers")

TEXTS = ["Hello there, my friend.", "Bonjour mon ami, ça va ?", "hello world"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
ROLES = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")


def trained(before, special, alphabet=()):
    """Vocabulary and merges."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = before
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=list(alphabet)
    )
    inner.train_from_iterator(TEXTS, trainer)
    made = json.loads(inner.to_str())["model"]
    return made["vocab"], [tuple(pair) for pair in made["merges"]]


def byte_level(special):
    before = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(before, special, pre_tokenizers.ByteLevel.alphabet())


def bart():
    return transformers.BartTokenizer(*byte_level(SPECIAL))


def pieces():
    words = " ".join(TEXTS).split()
    letters = [(letter, -9.0) for letter in "▁" + "".join(sorted(set("".join(words))))]
    known = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    return [*known, *((f"▁{word}", -3.0 - i) for i, word in enumerate(words)), *letters]


def mbart():
    return transformers.MBartTokenizer(pieces(), src_lang="fr_XX")


def mbart50():
    return transformers.MBart50Tokenizer(pieces(), src_lang="fr_XX")


def nllb():
    return transformers.NllbTokenizer(
        *trained(pre_tokenizers.Metaspace(), SPECIAL), src_lang="fra_Latn"
    )


def whisper():
    more = ["startoftranscript", "en", "translate", "transcribe", "notimestamps"]
    tokenizer = transformers.WhisperTokenizer(*byte_level(["<|endoftext|>"]))
    tokenizer.add_special_tokens({"extra_special_tokens": [f"<|{token}|>" for token in more]})
    tokenizer.set_prefix_tokens(language="en", task="transcribe")
    return tokenizer


KINDS = {
    "bart": (bart, None),
    "mbart": (mbart, "en_XX"),
    "mbart50": (mbart50, "en_XX"),
    "nllb": (nllb, "eng_Latn"),
    "whisper": (whisper, "<|en|>"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_of_theirs(tmp_path, name):
    """Again where their config leaves all to the class, as the first folders do."""
    build, language = KINDS[name]
    theirs = build()
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    kind = json.loads(file.read_text())["tokenizer_class"]
    for content in (None, {"tokenizer_class": kind}):
        if content is not None:
            file.write_text(json.dumps(content))
        ours = read_tokenizer(tmp_path)
        for role in ROLES:
            expected = getattr(theirs, f"{role}_token_id", None)
            assert getattr(ours, f"{role}_id") == expected, role
        check(ours, theirs, language)


def check(ours, theirs, language):
    assert ours.vocab_size == len(theirs)
    for text in TEXTS:
        ids = ours.encode(text, special_tokens=True)
        assert ids == theirs(text)["input_ids"] and len(ids) > len(ours.encode(text))
        assert ours.decode(ids) == text
    if language is not None:
        number = theirs.convert_tokens_to_ids(language)
        assert ours.token_to_id(language) == number
        assert ours.encode(f"{language}{TEXTS[0]}")[0] == number
        assert ours.decode([number, *ours.encode(TEXTS[0])]) == TEXTS[0]


@pytest.mark.parametrize("name", KINDS)
def test_written_again(tmp_path, name):
    build, language = KINDS[name]
    theirs = build()
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    model = family.Seq2Seq(5, family.TransformerConfig(dim=4, depth=1, heads=1))
    model.tokenizer = read_tokenizer(tmp_path / "theirs")
    save_tokenizer(model, tmp_path / "ours")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert [again(text)["input_ids"] for text in TEXTS] == [theirs(t)["input_ids"] for t in TEXTS]
    check(read_tokenizer(tmp_path / "ours"), theirs, language)
    check(Ours.from_json(model.tokenizer.to_json()), theirs, language)


def test_bart_without_a_whole_tokenizer(tmp_path):
    """Vocabulary and merges, a class without names of tokens: so were its first folders."""
    theirs = bart()
    vocabulary, merges = byte_level(SPECIAL)
    (tmp_path / "vocab.json").write_text(json.dumps({**vocabulary, "<mask>": len(vocabulary)}))
    lines = [" ".join(pair) for pair in merges]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    ours = read_tokenizer(tmp_path)
    assert (ours.bos_id, ours.pad_id, ours.eos_id, ours.unk_id) == (0, 1, 2, 3)
    check(ours, theirs, None)
