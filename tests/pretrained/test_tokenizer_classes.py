"""What the class of a tokenizer does, and options beside a ``tokenizer.json``: ids and texts as transformers has
them in the same folder, there and back."""

from __future__ import annotations

import io
import json

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers
from torch import nn

from family.pretrained.text import read_tokenizer, save_tokenizer

transformers = pytest.importorskip("transformers")
spm = pytest.importorskip("sentencepiece")

LINES = [
    "the red circle is left of the green star, and the old house is near the sea.",
    "a small model reads one file and writes another; it's read again and compared!",
    "naïve café, Straße, déjà vu: 12,345.678 a_b-c/d def f(x): return x**2  # code",
    "東京は大きい。我喜欢猫 한국어 ΣΟΦΟΣ σοφος",
]
TEXTS = [
    "Hello world! The RED house, it's a naïve Café.",
    "ÀÉÎÕÜ Straße ŁÓDŹ ﬁne 東京は大きい。我喜欢猫 and dogs",
    "ΣΟΦΟΣ ΟΔΟΣ, Σ is said",
    "emoji 🙂👍🏽 and 12,345.678 a_b-c/d\\e",
    "def f(x):\n\treturn  x**2   # code\n\n",
    " leading and trailing ",
    "  ! two, then a mark",
    "!?",
    "   \n ",
    "",
]
BYTES = pre_tokenizers.ByteLevel.alphabet()
PARTS = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")
END = "<|endoftext|>"


class Model(nn.Module):
    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer


def write(folder, model_type, own=None, **files):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps(own or {}))
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def by_sentencepiece(size=300, **options):
    file = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 3),
        model_writer=file,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return file.getvalue()


def of_bytes(folder, special, model_type, own=None, **files):
    """``vocab.json`` and ``merges.txt``."""
    suffix = "</w>" if "CLIP" in (own or {}).get("tokenizer_class", "") else ""
    inner = tokenizers.Tokenizer(models.BPE(end_of_word_suffix=suffix))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700 if suffix else 400,
        special_tokens=special,
        initial_alphabet=BYTES,
        end_of_word_suffix=suffix,
        show_progress=False,
    )
    inner.train_from_iterator([text.lower() for text in LINES * 3], trainer)
    write(folder, model_type, own, **files)
    inner.model.save(str(folder))
    return folder


def words(folder, model_type="bert", own=None):
    """``vocab.txt``."""
    seen = [
        "hello",
        "world",
        "the",
        "red",
        "house",
        "it",
        "s",
        "a",
        "naive",
        "café",
        "cafe",
        "東",
        "京",
        "と",
        "strasse",
        "12",
        "and",
        "dogs",
    ]
    single = sorted({c for text in TEXTS for c in text + text.lower() if c.isalnum()})
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if model_type == "mpnet":
        marks = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    tokens = [*marks, *dict.fromkeys([*seen, *single, *(f"##{c}" for c in single), *",.!?'"])]
    return write(folder, model_type, own, vocab__txt="\n".join(tokens).encode())


def whole(folder, change=None):
    """The same tokenizer as a ``tokenizer.json``, and its other files gone."""
    inner = read_tokenizer(folder).inner
    if change is not None:
        change(inner)
    for name in ("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model"):
        (folder / name).unlink(missing_ok=True)
    inner.save(str(folder / "tokenizer.json"))


def compare(ours, theirs, parts=PARTS):
    for text in TEXTS:
        ids = theirs(text).input_ids
        assert ours.encode(text, True) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text
    for name in parts:
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_token_id"), name
    for side in ("padding_side", "truncation_side"):
        assert getattr(ours, side) == getattr(theirs, side), side
    assert (ours.max_tokens or 1e30) == min(theirs.model_max_length, 1e30)


def compare_both(folder, tmp_path, parts=PARTS):
    """A folder, and what we write of it for transformers."""
    ours, theirs = read_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    compare(ours, theirs, parts)
    again = tmp_path / "written"
    write(again, json.loads((folder / "config.json").read_text())["model_type"])
    save_tokenizer(Model(ours), again)
    compare(ours, transformers.AutoTokenizer.from_pretrained(again), parts)
    assert read_tokenizer(again).to_json() == ours.to_json()
    return ours


@pytest.mark.parametrize(
    "own",
    [{}, {"do_lower_case": False, "model_max_length": 16, "truncation_side": "left"}],
    ids=str,
)
def test_siglip(tmp_path, own):
    """Small letters, no punctuation, and no ``tokenizer.json``: of a published folder it knows nothing of
    either."""
    content = by_sentencepiece(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    t5 = write(tmp_path / "t5", "t5", spiece__model=content)
    plain = read_tokenizer(t5)
    own = {"tokenizer_class": "SiglipTokenizer", **own}
    folder = write(tmp_path / "model", "siglip", own, spiece__model=content)
    plain.inner.save(str(folder / "tokenizer.json"))
    ours = compare_both(folder, tmp_path, ("pad", "eos", "unk"))
    upper = ours.encode("Hello, WORLD!") != ours.encode("hello world")
    assert upper == ("do_lower_case" in own)
    assert ours.encode("red, house!") == ours.encode("red house") != plain.encode("red, house!")


def test_xlm_roberta(tmp_path):
    content = by_sentencepiece()
    folder = write(tmp_path / "model", "xlm-roberta", sentencepiece__bpe__model=content)
    compare_both(folder, tmp_path)


CLIP = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
SPOKEN = [END, "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]


@pytest.mark.parametrize(
    ("special", "model_type", "own"),
    [
        (["<|startoftext|>", END], "clip", CLIP),
        ([END], "qwen2", {}),
        ([END, "<|im_end|>"], "qwen3", {"eos_token": "<|im_end|>", "add_prefix_space": True}),
        ([END, "<|padding|>"], "gpt_neox", {"add_bos_token": True}),
        (SPOKEN, "whisper", {"language": "en", "task": "transcribe"}),
        (["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "bart", {"add_prefix_space": True}),
    ],
    ids=["clip", "qwen2", "qwen3", "neox", "whisper", "bart"],
)
def test_of_bytes_by_their_class(tmp_path, special, model_type, own):
    folder = of_bytes(tmp_path / "model", special, model_type, own)
    ours = compare_both(folder, tmp_path)
    one, two = TEXTS[0], TEXTS[3]
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.inner.encode(one, two).ids == theirs(one, two).input_ids


BERT = [
    {"do_lower_case": False},
    {"strip_accents": False, "tokenize_chinese_chars": False},
    {"tokenizer_class": "BertTokenizerFast", "padding_side": "left", "model_max_length": 512},
    {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False},
]


@pytest.mark.parametrize("own", BERT, ids=str)
@pytest.mark.parametrize("cased", [True, False])
def test_options_of_words_beside_a_whole_file(tmp_path, own, cased):
    def change(inner):
        inner.normalizer = normalizers.BertNormalizer(lowercase=not cased, strip_accents=False)

    folder = words(tmp_path / "model")
    whole(folder, change)
    compare_both(write(folder, "bert", own), tmp_path)


@pytest.mark.parametrize("model_type", ["distilbert", "electra", "mpnet"])
def test_kin_of_bert(tmp_path, model_type):
    folder = words(tmp_path / "model", model_type, {"do_lower_case": False})
    whole(folder)
    parts = ("pad", "unk", "cls", "sep", "mask")
    assert compare_both(folder, tmp_path, parts).encode("Hello") != [5]


def spaced(inner):
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


@pytest.mark.parametrize("own", [{}, {"add_prefix_space": True}], ids=str)
@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        ("gpt2", "GPT2Tokenizer"),
        ("bart", "BartTokenizer"),
        ("llama", "PreTrainedTokenizerFast"),
        ("llama", "LlamaTokenizerFast"),
        ("mistral", "GPT2Tokenizer"),
        ("qwen2", None),
    ],
)
def test_a_space_in_front_beside_a_whole_file(tmp_path, model_type, kind, own):
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", END]
    named = {} if kind is None else {"tokenizer_class": kind}
    folder = of_bytes(tmp_path / "model", special, "gpt2", {"unk_token": END})
    change = None if model_type == "qwen2" else spaced
    if model_type in ("bart", "qwen2"):
        write(folder, model_type)
    whole(folder, change)
    write(folder, model_type, {**named, **own})
    compare_both(folder, tmp_path, ())


@pytest.mark.parametrize(
    "own",
    [{}, {"legacy": True}, {"add_prefix_space": False}, {"padding_side": "right"}],
    ids=str,
)
@pytest.mark.parametrize("prepended", [True, False])
def test_spaces_of_llama_beside_a_whole_file(tmp_path, own, prepended):
    content = by_sentencepiece(
        480,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )

    def change(inner):  # as files of Llama 2 have it
        if prepended:
            steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
            inner.normalizer, inner.pre_tokenizer = normalizers.Sequence(steps), None

    named = {"tokenizer_class": "LlamaTokenizer", **own}
    folder = write(tmp_path / "model", "llama", named, tokenizer__model=content)
    whole(folder, change)
    compare_both(folder, tmp_path)


def test_a_unigram_file_of_xlm_roberta_with_its_options(tmp_path):
    folder = write(tmp_path / "model", "xlm-roberta", sentencepiece__bpe__model=by_sentencepiece())
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "sentencepiece.bpe.model").unlink()
    for option, value in (("add_prefix_space", False), ("clean_up_tokenization_spaces", True)):
        own = {"tokenizer_class": "XLMRobertaTokenizer", option: value}
        compare_both(write(folder, "xlm-roberta", own), tmp_path / option)


def test_sides_of_a_whole_file(tmp_path):
    folder = of_bytes(tmp_path / "model", [END], "gpt2")

    def change(inner):
        inner.enable_truncation(9, direction="left")
        inner.enable_padding(direction="left")

    whole(folder, change)
    ours = read_tokenizer(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert (ours.padding_side, ours.truncation_side) == ("left", "left")
    assert (theirs.padding_side, theirs.truncation_side) == ("left", "left")
    ids = ours.batch(["the red house is near"], 5)[0].tolist()
    assert ids == theirs(["the red house is near"], truncation=True, max_length=5).input_ids
    own = {"padding_side": "right", "truncation_side": "up"}
    write(folder, "gpt2", own)
    with pytest.raises(ValueError, match='truncation_side=\'up\' must be "left" or "right"'):
        read_tokenizer(folder)


@pytest.mark.parametrize(
    ("kind", "model_type", "files"),
    [
        ("ByT5Tokenizer", "t5", {}),
        ("AlbertTokenizer", "bert", {"spiece__model": b"x"}),
        ("CodeLlamaTokenizer", "llama", {"tokenizer__model": b"x"}),
        ("BertweetTokenizer", "roberta", {"tokenizer__json": b"x", "vocab__txt": b"x"}),
        ("CodeGenTokenizer", "gpt2", {"vocab__json": b"{}", "merges__txt": b""}),
        ("NllbTokenizer", "m2m_100", {"sentencepiece__bpe__model": b"x"}),
        ("SiglipTokenizer", "siglip", {"tokenizer__json": b"x"}),
    ],
)
def test_a_class_that_is_not_known_is_named(tmp_path, caplog, kind, model_type, files):
    folder = write(tmp_path / "model", model_type, {"tokenizer_class": kind}, **files)
    assert read_tokenizer(folder) is None
    (message,) = caplog.messages
    assert kind in message and str(folder) in message and "not supported" in message
    assert all(name.replace("__", ".") in message for name in files if "merges" not in name)
