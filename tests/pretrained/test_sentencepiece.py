"""SentencePiece models of T5, Llama and Marian: the same ids as transformers', there and back."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import family
from family.inputs.tokenizer import Tokenizer
from family.pretrained.runs import tokenizer_of
from family.pretrained.sentencepiece import pipeline, read_sentencepiece
from family.pretrained.text import read_tokenizer, save_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")
import sentencepiece as spm
import transformers
from folders import change, write

from tasks.cli import main
from tasks.data.translation import TranslationData, most_new_tokens
from tasks.runs.sources import published_assets

LINES = [
    "the red circle is left of the green star, and the old house is near the sea",
    "a small model reads one file and writes another; it's read again and compared",
    "naïve café, Straße, déjà vu: 12,345.678 a_b-c/d def f(x): return x**2  # code",
    "東京は大きい。我喜欢猫 한국어 텍스트 각",
]
FRENCH = [
    "le cercle rouge est à gauche de l'étoile verte, la vieille maison près de la mer",
    "un petit modèle lit un fichier et en écrit un autre; où ça, garçon? 我喜欢 français",
]
TEXTS = [
    "the red house, it's a naïve café!",
    "ÀÉÎÕÜ Straße ŁÓDŹ ﬁne e\u0301 ①",
    "東京は大きい。我喜欢猫 ｶﾞ and dogs",
    "emoji 🙂👍🏽 and zero\u200bwidth, 👍 ЖΩ ж",
    "def f(x):\n\treturn  x**2   # code\n\n",
    "long          spaces   here ",
    " leading and trailing ",
    "[MASK] <mask> </s> <|endoftext|> inside",
    "a</s>b <unk>d<pad>e </s> <extra_id_0> x <extra_id_99>y",
    "\u3000wide\u00a0space ▁ raw ▁▁x",
    ">>fra<< the red circle",
    ">>deu<<the  star ",
    "</s>",
    "   \n ",
    " ",
    "",
]
HANGUL = "\u1100\u1161\u11a8 \u1100\u1161"
"""Syllables in parts, which the normalisation composes."""
PARTS = ["pad", "bos", "eos", "unk"]


def train(lines=LINES, model_type="unigram", size=300, **options):
    """A SentencePiece model, as bytes."""
    file = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 3),
        model_writer=file,
        model_type=model_type,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return file.getvalue()


def folder_of(place, model_type, own=None, **files):
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"model_type": model_type}))
    (place / "tokenizer_config.json").write_text(json.dumps(own or {}))
    for name, content in files.items():
        (place / name.replace("_", ".")).write_bytes(content)
    return place


@pytest.fixture(scope="module")
def unigram():
    return train(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


@pytest.fixture(scope="module")
def bpe():
    return train(
        model_type="bpe",
        size=480,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["<turn>"],
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A folder of Marian's: some pieces have no id, some characters only the other language has."""
    source, target = train(size=200), train(FRENCH, size=120)
    own = {"source_lang": "en", "target_lang": "fr", "model_max_length": 512}
    place = folder_of(
        tmp_path_factory.mktemp("pair") / "model",
        "marian",
        own,
        source_spm=source,
        target_spm=target,
    )
    pieces = [*names(place / "source.spm")[:-30], *names(place / "target.spm")]
    tokens = ["</s>", "<unk>", *dict.fromkeys(pieces), ">>fra<<", ">>deu<<", "<pad>"]
    (place / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    return place


def names(file):
    model = spm.SentencePieceProcessor(str(file))
    return [model.id_to_piece(i) for i in range(3, len(model))]


def llama(place, content, **own):
    return folder_of(place, "llama", {"add_bos_token": True, **own}, tokenizer_model=content)


def compare(ours, theirs, **target):
    """Ids with and without special tokens, and texts again."""
    assert ours.vocab_size == len(theirs)
    for text in TEXTS:
        given = {"text_target": text} if target else {"text": text}
        for special in (True, False):
            expected = theirs(**given, add_special_tokens=special).input_ids
            assert ours.encode(text, special, parse_special=True) == expected, text
        assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=True), text
    for name in PARTS:
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_token_id"), name


def compare_pair(ours, theirs):
    compare(ours, theirs)
    compare(ours.target, theirs, target=True)
    for ids in torch.randint(ours.vocab_size, (50, 9)).tolist():
        assert ours.target.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_as_sentencepiece_cuts(tmp_path, unigram, bpe):
    for content, texts in ((unigram, [*TEXTS, HANGUL]), (bpe, TEXTS)):
        (tmp_path / "model").write_bytes(content)
        theirs = spm.SentencePieceProcessor(model_proto=content)
        inner = pipeline(read_sentencepiece(tmp_path / "model"))
        # Special tokens are marked later; a space in front counts twice in theirs.
        for text in (text.strip(" ") for text in texts if "</s>" not in text and "▁" not in text):
            assert inner.encode(text, add_special_tokens=False).ids == theirs.encode(text), text


def test_t5(tmp_path, unigram):
    folder = folder_of(tmp_path / "model", "t5", spiece_model=unigram)
    ours = read_tokenizer(folder)
    compare(ours, transformers.T5Tokenizer.from_pretrained(folder))
    assert ours.encode("<extra_id_0>", True, parse_special=True) == [ours.vocab_size - 1, 1]
    (folder / "tokenizer_config.json").write_text('{"extra_ids": 7, "model_max_length": 512}')
    theirs = transformers.T5Tokenizer.from_pretrained(folder)
    assert read_tokenizer(folder).vocab_size == len(theirs) == ours.vocab_size - 93
    assert read_tokenizer(folder).max_tokens == 512


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"legacy": True, "pad_token": "<unk>"},
        {"add_prefix_space": False, "add_bos_token": False, "add_eos_token": True},
        {"additional_special_tokens": ["the"]},
    ],
    ids=str,
)
def test_llama(tmp_path, bpe, own):
    folder = llama(tmp_path / "model", bpe, **own)
    ours = read_tokenizer(folder)
    compare(ours, transformers.LlamaTokenizer.from_pretrained(folder))
    assert "👍🏽" in ours.decode(ours.encode("👍🏽"))


def test_gemma(tmp_path):
    """A BPE that puts no space in front of a text, with tokens of other names."""
    content = train(
        model_type="bpe",
        size=480,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        add_dummy_prefix=False,
        user_defined_symbols=["<mask>", "<start_of_turn>"],
        **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3},
        **{"bos_piece": "<bos>", "eos_piece": "<eos>"},
    )
    own = {"add_bos_token": True, "tokenizer_class": "GemmaTokenizer", "mask_token": "<mask>"}
    folder = folder_of(tmp_path / "model", "gemma2", own, tokenizer_model=content)
    ours = read_tokenizer(folder)
    compare(ours, transformers.GemmaTokenizer.from_pretrained(folder))
    (folder / "tokenizer_config.json").unlink()
    again = read_tokenizer(folder)
    assert again.bos_id == ours.bos_id == 2 and again.encode(TEXTS[0]) == ours.encode(TEXTS[0])


def test_tokens_beyond_the_vocabulary(tmp_path, bpe):
    size = len(spm.SentencePieceProcessor(model_proto=bpe))
    more = {str(size): {"content": "<im_end>", "special": True, "normalized": False}}
    folder = llama(tmp_path / "model", bpe, added_tokens_decoder=more, pad_token="<im_end>")
    ours = read_tokenizer(folder)
    compare(ours, transformers.LlamaTokenizer.from_pretrained(folder))
    assert ours.pad_id == size and ours.encode("a<im_end>b<turn>", parse_special=True)[1::2] == [
        size,
        3,
    ]


def test_bos_where_no_file_says(tmp_path, bpe):
    ours = read_tokenizer(folder_of(tmp_path / "model", "mistral", tokenizer_model=bpe))
    assert ours.encode("a", special_tokens=True)[0] == ours.bos_id == 1


def test_marian(pair):
    ours, theirs = read_tokenizer(pair), transformers.MarianTokenizer.from_pretrained(pair)
    compare_pair(ours, theirs)
    assert ours.max_tokens == 512 and ours.target.target is ours.target
    # Known to SentencePiece alone, to neither, and to the other language alone.
    missing = names(pair / "source.spm")[-1]
    assert ours.encode(missing)[-1] == ours.encode("ж")[-1] == ours.unk_id != ours.encode("ç")[-1]
    ids, mask = ours.batch(["the red circle is left", "a"], max_tokens=4)
    assert ids[:, 3].tolist() == [ours.eos_id, ours.pad_id] and mask.sum(1).tolist()[0] == 4


def test_marian_with_two_vocabularies(tmp_path, pair):
    shutil.copytree(pair, tmp_path / "model")
    tokens = ["</s>", "<unk>", *names(pair / "target.spm"), "<pad>"]
    own = {token: i for i, token in enumerate(tokens)}
    (tmp_path / "model" / "target_vocab.json").write_text(json.dumps(own))
    (tmp_path / "model" / "tokenizer_config.json").write_text('{"separate_vocabs": true}')
    ours = read_tokenizer(tmp_path / "model")
    theirs = transformers.MarianTokenizer.from_pretrained(tmp_path / "model")
    text = "la vieille maison"
    ids = theirs(text_target=text).input_ids
    assert ours.target.encode(text, special_tokens=True) == ids
    assert ours.target.decode(ids) == theirs.decode(ids, skip_special_tokens=True) == text
    save_tokenizer(Model(ours), tmp_path)
    again = read_tokenizer(tmp_path)
    assert again.target.vocabulary == own != again.vocabulary
    assert again.max_tokens == ours.max_tokens == theirs.model_max_length == 512  # of its class
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 512


class Model(torch.nn.Module):
    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer


def test_written_for_transformers_and_read_again(tmp_path, unigram, bpe, pair):
    folders = {
        "t5": folder_of(tmp_path / "t5", "t5", spiece_model=unigram),
        "llama": llama(tmp_path / "llama", bpe),
        "marian": pair,
    }
    for name, folder in folders.items():
        ours, written = read_tokenizer(folder), tmp_path / f"{name} again"
        folder_of(written, name)
        save_tokenizer(Model(ours), written)
        theirs = transformers.AutoTokenizer.from_pretrained(written)
        again = read_tokenizer(written)
        (compare_pair if name == "marian" else compare)(again, theirs)
        for each in (again, Tokenizer.from_json(ours.to_json())):
            assert [each.encode(text, True) for text in TEXTS] == [
                ours.encode(text, True) for text in TEXTS
            ]
            assert (each.target is each) == (name != "marian")
            assert each.target.encode("à la mer") == ours.target.encode("à la mer")
    assert (tmp_path / "marian again" / "target.spm").read_bytes() == (
        pair / "target.spm"
    ).read_bytes()


def test_tokenizer_json_goes_first(tmp_path, unigram, pair):
    first = read_tokenizer(folder_of(tmp_path / "t5", "t5", spiece_model=unigram))
    shutil.copytree(pair, tmp_path / "model")
    first.inner.save(str(tmp_path / "model" / "tokenizer.json"))
    (tmp_path / "model" / "spiece.model").write_bytes(b"broken")
    found = read_tokenizer(tmp_path / "model")
    assert found.vocab_size == first.vocab_size and found.vocabulary is None


def check_refused(folder, *words):
    with pytest.raises(ValueError) as caught:
        read_tokenizer(folder)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    for word in (str(folder), *words):
        assert word in message, message


def test_broken_files(tmp_path, unigram, bpe, pair):
    folder = llama(tmp_path / "model", bpe)
    whole = len(unigram)
    cut = [unigram[:size] for size in (0, 1, 40, 5000, whole // 2, whole - 3)]
    for content in (
        *cut,
        b"\n\x06\n\x04\xff\xfe\xfa\xfb",
        b"version 1\n" * 50,
        b"\x1f\x8b\x08" * 9,
    ):
        (folder / "tokenizer.model").write_bytes(content)
        check_refused(folder, "tokenizer.model cannot be read")
    (folder / "tokenizer.model").write_bytes(train(model_type="char"))
    check_refused(folder, "tokenizer.model", "model_type=4")
    (folder / "tokenizer.model").write_bytes(train(treat_whitespace_as_suffix=True, size=120))
    check_refused(folder, "treat_whitespace_as_suffix")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("target.spm", None, ["target.spm"]),
        ("source.spm", b"{}", ["source.spm", "no SentencePiece model"]),
        ("vocab.json", b'{"a": 0}', ["vocab.json", "<unk>"]),
        ("vocab.json", b'{"<unk>": 0, "a": "b"}', ["vocab.json", "ids"]),
        ("vocab.json", b'{"<unk>": 0}', ["no token '</s>'"]),
        ("vocab.json", b"[", ["vocab.json", "no JSON"]),
    ],
)
def test_broken_files_of_marian(tmp_path, pair, name, content, words):
    folder = tmp_path / "model"
    shutil.copytree(pair, folder)
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    check_refused(folder, *words)


@pytest.fixture
def translator(tmp_path, pair):
    """Random weights, as published: the padding begins a translation, and is never part of it."""
    vocabulary = json.loads((pair / "vocab.json").read_text())
    pad = vocabulary["<pad>"]
    config = transformers.MarianConfig(
        vocab_size=len(vocabulary),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=None,
    )
    torch.manual_seed(0)
    theirs = write(transformers.MarianMTModel(config), tmp_path / "model", ["embed_positions"])
    theirs.model.shared.weight.data *= 0.1  # else a token follows itself for ever
    theirs.save_pretrained(tmp_path / "model")
    for name in ("source.spm", "target.spm", "vocab.json", "tokenizer_config.json"):
        shutil.copy(pair / name, tmp_path / "model")
    change(tmp_path / "model", bad_words_ids=[[pad]])
    return theirs, tmp_path / "model"


def test_translate(tmp_path, translator, capsys):
    theirs, folder = translator
    sentence = "the red circle,  ЖΩ ç"
    main(["translate", str(folder), sentence, "--beams=1"])
    said = capsys.readouterr().out
    tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
    inputs = tokenizer([sentence], return_tensors="pt")
    pad = [[tokenizer.pad_token_id]]
    new = most_new_tokens(inputs.input_ids.shape[1], 64)
    ids = theirs.generate(**inputs, num_beams=1, max_new_tokens=new, bad_words_ids=pad)
    expected = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert len(set(ids[0].tolist())) > 5 and said.rstrip("\n") == expected
    family.save_pretrained(family.from_pretrained(folder), tmp_path / "again", format="marian")
    family.save_pretrained(family.from_pretrained(folder), tmp_path / "ours")
    for again in ("again", "ours"):
        main(["translate", str(tmp_path / again), sentence, "--beams=1"])
        assert capsys.readouterr().out == said
    again = transformers.MarianTokenizer.from_pretrained(tmp_path / "again")
    assert again(sentence).input_ids == tokenizer(sentence).input_ids


def test_a_run_keeps_both_tokenizers(translator):
    model = family.from_pretrained(translator[1])
    data = TranslationData()
    data.use_assets(published_assets(model, "source"))
    for _ in range(2):  # as a checkpoint carries them
        assert data.target_tokenizer.encode("garçon") == model.tokenizer.target.encode("garçon")
        assert data.source_tokenizer.encode("garçon") == model.tokenizer.encode("garçon")
        assets = data.assets()
        data = TranslationData()
        data.use_assets(assets)
    exported = tokenizer_of(assets)
    assert exported.file == (translator[1] / "source.spm").read_bytes()
    assert exported.target.encode("garçon") == data.target_tokenizer.encode("garçon")
