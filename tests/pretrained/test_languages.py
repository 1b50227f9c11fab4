"""Tokenizers of encoder-decoders, as transformers writes them: ids, roles, tokens of languages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

import family
from family.inputs.tokenizer import Tokenizer as Ours
from family.pretrained.text import read_tokenizer, save_tokenizer
from tasks import Translation, TranslationData
from tasks.cli import main
from tasks.data.translation import most_new_tokens, sources
from tasks.runs.sources import published_assets

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from harness import enliven, randomise

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
        ids = ours.encode(text, True, parse_special=True)
        assert ids == theirs(text)["input_ids"] and len(ids) > len(ours.encode(text))
        assert ours.decode(ids) == text
    if language is not None:
        number = theirs.convert_tokens_to_ids(language)
        assert ours.token_to_id(language) == number
        assert ours.encode(f"{language}{TEXTS[0]}", parse_special=True)[0] == number
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


SIZES = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "eos_token_id": 2,
    "decoder_start_token_id": 2,
}  # fmt: skip


def test_what_stands_around_a_source():
    """Theirs, or of a tokenizer that puts nothing there the end of a text."""
    for build, _ in KINDS.values():
        theirs = build()
        ours = Ours(theirs.backend_tokenizer, eos=theirs.eos_token)
        assert sources(ours, TEXTS) == theirs(TEXTS)["input_ids"]
        ours.inner.post_processor = processors.ByteLevel()
        assert sources(ours, TEXTS) == [[*ours.encode(text), ours.eos_id] for text in TEXTS]


@pytest.mark.parametrize(
    ("name", "kind"), [("bart", "Bart"), ("mbart50", "MBart"), ("nllb", "M2M100")]
)
def test_translate_puts_around_a_sentence_what_their_tokenizer_puts(tmp_path, capsys, name, kind):
    tokenizer = KINDS[name][0]()
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer), max_position_embeddings=64, forced_eos_token_id=None, **SIZES
    )
    theirs = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    randomise(theirs)
    enliven(theirs)
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    main(["translate", str(tmp_path), TEXTS[0]])
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    new = most_new_tokens(inputs.input_ids.shape[1], 64)
    ids = theirs.generate(**inputs, num_beams=4, max_new_tokens=new, early_stopping=True)
    expected = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert capsys.readouterr().out.rstrip("\n") == expected
    assert len(set(ids[0].tolist())) > 3


def test_t5_translates_a_sentence_longer_than_its_config_says(tmp_path, capsys):
    tokenizer = bart()
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
    theirs = transformers.T5ForConditionalGeneration(config)
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text()) | {"n_positions": 512}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    sentence = " ".join(["hello"] * 700)
    assert len(tokenizer(sentence).input_ids) > 700
    main(["translate", str(tmp_path), sentence, "--beams=1"])
    assert capsys.readouterr().out.endswith("\n")
    given = TranslationData()

    class Task(Translation):
        data = given

    task, model = Task(), family.from_pretrained(tmp_path)
    task.model = model
    given.use_assets(published_assets(model, "source"))
    source = torch.tensor([tokenizer(sentence).input_ids])
    batch = {"source": source, "source_mask": torch.ones_like(source).bool()}
    assert len(task.translate(batch, beams=1)) == 1


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
