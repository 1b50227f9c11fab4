"""Tokenizers of GGUF files: SentencePiece's as its own library cuts, and what goes around a text."""

from __future__ import annotations

import io
import random

import pytest

from family.inputs.tokenizer import Tokenizer
from family.pretrained.gguf import read_gguf
from family.pretrained.gguf_text import read_gguf_tokenizer

gguf = pytest.importorskip("gguf")
spm = pytest.importorskip("sentencepiece")

LINES = [
    "the red circle is left of the green star, and the old house is near the sea",
    "a small model reads one file and writes another; it's read again and compared",
    "naïve café, Straße, déjà vu: 12,345.678 a_b-c/d def f(x): return  x**2  # code",
    "東京は大きい。我喜欢猫 한국어 텍스트 각",
]
TEXTS = [
    "the red house, it's a naïve café!",
    " leading and trailing ",
    "   three in front,   three inside   ",
    "emoji 🙂👍🏽 and zero\u200bwidth, ЖΩ ж 🙂",
    "def f(x):\n\treturn  x**2   # code\n\n",
    "東京は大きい。 我喜欢猫 ｶﾞ ﬁne e\u0301 ①",
    "<0x41> <unused> [MASK]",
    "long          spaces",
    "  ",
    " ",
    "\n",
    "",
]
AS_IS = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
SCORES, TYPES = "tokenizer.ggml.scores", "tokenizer.ggml.token_type"


def train(model_type="bpe", **options):
    """A SentencePiece model."""
    file = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 3),
        model_writer=file,
        model_type=model_type,
        vocab_size=480 if model_type == "bpe" else 200,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return spm.SentencePieceProcessor(model_proto=file.getvalue())


def described(model, kind="llama", **more):
    """The metadata of a model, as llama.cpp's converter writes them; ``more`` come in addition."""
    types = {model.is_unknown: UNKNOWN, model.is_control: CONTROL, model.is_byte: BYTE}
    pieces = range(len(model))
    fields = {
        "model": kind,
        "tokens": [model.id_to_piece(i) for i in pieces],
        "scores": [model.get_score(i) for i in pieces],
        "token_type": [next((t for of, t in types.items() if of(i)), NORMAL) for i in pieces],
        **more,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items()}


def read(place, metadata):
    """The tokenizer of a file with these metadata."""
    file = place / "small.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    for name, value in metadata.items():
        kinds = {int: gguf.GGUFValueType.UINT32, bytes: gguf.GGUFValueType.ARRAY}
        kind = kinds.get(type(value)) or gguf.GGUFValueType.get_type(value)
        writer.add_key_value(name, value, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return read_gguf_tokenizer(read_gguf(file)[0], file)


def compare(ours, theirs):
    """Ids, and texts from them and from any other ids."""
    assert ours.vocab_size == len(theirs)
    rows = [theirs.encode(text) for text in TEXTS]
    assert [ours.encode(text) for text in TEXTS] == rows
    # But for bytes, of which our library takes all as broken that stand beside a broken one.
    apart = (theirs.is_unknown, theirs.is_control, theirs.is_byte)
    plain = [i for i in range(len(theirs)) if not any(of(i) for of in apart)]
    rows += [random.Random(seed).choices(plain, k=9) for seed in range(50)]
    for ids in rows:
        # What is unknown is left out, as all special tokens are.
        assert ours.decode(ids) == theirs.decode([i for i in ids if i != theirs.unk_id()])


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("bytes_too", [True, False])
def test_llama(tmp_path, prefix, bytes_too):
    theirs = train(byte_fallback=bytes_too, add_dummy_prefix=prefix, **AS_IS)
    more = {} if prefix else {"add_space_prefix": False}
    ours = read(tmp_path, described(theirs, **more))
    compare(ours, theirs)
    compare(Tokenizer.from_json(ours.to_json()), theirs)
    assert ours.encode("<s>a", parse_special=True) == [1, *theirs.encode("a")]
    assert (ours.bos_id, ours.eos_id, ours.unk_id, ours.pad_id) == (1, 2, 0, None)


def test_pieces_that_reach_over_spaces(tmp_path):
    theirs = train(
        byte_fallback=True,
        split_by_whitespace=False,
        allow_whitespace_only_pieces=True,
        **AS_IS,
    )
    assert any("▁" in theirs.id_to_piece(i)[1:] for i in range(len(theirs)))
    compare(read(tmp_path, described(theirs)), theirs)


def test_extra_spaces_are_removed(tmp_path):
    theirs = train(byte_fallback=True, normalization_rule_name="identity")
    compare(read(tmp_path, described(theirs, remove_extra_whitespaces=True)), theirs)


def test_t5(tmp_path):
    """With a few rules of NFKC, as of all of them reading takes seconds."""
    rules = tmp_path / "rules.tsv"
    rules.write_text("65 301\tE9\n1100 1161\tAC00\n1100 1161 11A8\tAC01\nFB01\t66 69\n2460\t31\n")
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    theirs = train("unigram", normalization_rule_tsv=str(rules), **ids)
    proto = pytest.importorskip("sentencepiece.sentencepiece_model_pb2").ModelProto()
    proto.ParseFromString(theirs.serialized_model_proto())
    charsmap = proto.normalizer_spec.precompiled_charsmap
    more = {"add_space_prefix": True, "remove_extra_whitespaces": True}
    ours = read(tmp_path, described(theirs, "t5", **more, precompiled_charsmap=charsmap))
    compare(ours, theirs)
    hangul = "\u1100\u1161\u11a8 \u1100\u1161"
    assert ours.encode(hangul, special_tokens=True) == [*theirs.encode(hangul), 1]
    assert ours.encode("caf\u00e9 fi 1") == ours.encode("cafe\u0301 \ufb01 \u2460")
    assert (ours.bos_id, ours.eos_id, ours.unk_id, ours.pad_id) == (None, 1, 2, 0)


def test_special_tokens_in_a_text(tmp_path):
    """They stay whole, and what follows begins as a text does."""
    theirs = train(byte_fallback=True, user_defined_symbols=["<turn>"], **AS_IS)
    metadata = described(theirs)
    metadata[TYPES][3] = USER_DEFINED
    ours = read(tmp_path, metadata)
    cut = theirs.encode
    text = "<s>the star<turn> red</s>  sea <unk></s>"
    ids = [1, *cut("the star"), 3, *cut(" red"), 2, *cut("  sea "), 0, 2]
    assert ours.encode(text, parse_special=True) == ids
    assert ours.decode(ids) == "the star<turn>  red   sea "


def test_vocabularies_of_a_tokenizer_json(tmp_path):
    """Their scores are all the same, and the unknown token is a control token."""
    theirs = train(byte_fallback=True, **AS_IS)
    metadata = described(theirs, unknown_token_id=0)
    metadata[SCORES] = [-1000.0] * len(theirs)
    metadata[TYPES][0] = CONTROL
    compare(read(tmp_path, metadata), theirs)


@pytest.mark.parametrize("tokens", [{}, {"unk": 2, "bos": 0, "eos": 1, "pad": 3}], ids=str)
def test_as_transformers(tmp_path, tokens):
    transformers = pytest.importorskip("transformers")
    theirs = train(byte_fallback=True, **AS_IS, **{f"{n}_id": i for n, i in tokens.items()})
    names = {"unk": "unknown", "pad": "padding"}
    more = {f"{names.get(name, name)}_token_id": i for name, i in tokens.items()}
    ours = read(tmp_path, described(theirs, **more))
    (tmp_path / "tokenizer.model").write_bytes(theirs.serialized_model_proto())
    pad = {"pad_token": "<pad>"} if tokens else {}
    theirs = transformers.LlamaTokenizer.from_pretrained(
        tmp_path, legacy=True, add_bos_token=True, **pad
    )
    for text in (*TEXTS, "<s>a</s>b", "<unk>"):
        if not text.startswith(" "):  # where theirs leaves out the space in front
            ids = theirs(text).input_ids
            assert ours.encode(text, True, parse_special=True) == ids
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    for name in ("bos", "eos", "unk", "pad"):
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_token_id")


BYTES = {
    "model": "gpt2",
    "pre": "gpt-2",
    "tokens": ["<s>", "</s>", "a", "b", "ab"],
    "token_type": [CONTROL, CONTROL, NORMAL, NORMAL, NORMAL],
    "merges": ["a b"],
    "bos_token_id": 0,
    "eos_token_id": 1,
}
PIECES = {
    "model": "llama",
    "tokens": ["</s>", "<s>", "<unk>", "▁", "a"],
    "token_type": [CONTROL, CONTROL, UNKNOWN, NORMAL, NORMAL],
    "scores": [0.0, 0.0, 0.0, -1.0, -2.0],
    "bos_token_id": 1,
    "eos_token_id": 0,
    "unknown_token_id": 2,
    "add_space_prefix": False,
}


def small(place, fields, **more):
    """The tokenizer of a file with these fields; ``None`` takes one out."""
    fields = {name: value for name, value in {**fields, **more}.items() if value is not None}
    return read(place, {f"tokenizer.ggml.{name}": value for name, value in fields.items()})


@pytest.mark.parametrize(
    ("fields", "kind", "bos", "eos"),
    [
        (BYTES, {"pre": "gpt-2"}, False, False),
        (BYTES, {"pre": "smollm"}, False, False),
        (BYTES, {"pre": "qwen2"}, False, False),
        (BYTES, {"pre": "llama-bpe"}, True, False),
        (BYTES, {"pre": "llama3"}, True, False),
        (BYTES, {"pre": "llama-v3"}, True, False),
        (PIECES, {"model": "llama"}, True, False),
        (PIECES, {"model": "llama", "pre": "default"}, True, False),
        (PIECES, {"model": "t5"}, False, True),
    ],
    ids=lambda value: "" if value in (BYTES, PIECES) else str(value),
)
def test_what_goes_around_a_text(tmp_path, fields, kind, bos, eos):
    """As llama.cpp has it, unless the file says otherwise."""

    def ends(**more):
        tokenizer = small(tmp_path, fields, **kind, **more)
        ids = tokenizer.encode("a", special_tokens=True)
        text = tokenizer.encode("a")
        assert len(text) == 1 and set(ids) <= {tokenizer.bos_id, *text, tokenizer.eos_id}
        return ids[0] == tokenizer.bos_id, ids[-1] == tokenizer.eos_id

    assert ends() == (bos, eos)
    assert ends(add_bos_token=not bos) == (not bos, eos)
    assert ends(add_eos_token=not eos) == (bos, not eos)
    assert ends(add_bos_token=not bos, add_eos_token=not eos) == (not bos, not eos)


def test_ids_that_no_field_gives(tmp_path):
    none = {"bos_token_id": None, "eos_token_id": None, "unknown_token_id": None}
    tokenizer = small(tmp_path, PIECES, **none, tokens=["<unk>", "<s>", "</s>", "a", "b"])
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (1, 2, 0)
    tokenizer = small(tmp_path, PIECES, **none, model="t5", padding_token_id=4)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (None, 1, 4)
    tokenizer = small(tmp_path, BYTES, **none)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "more", "reason"),
    [
        (PIECES, {"tokens": None}, "tokenizer.ggml.tokens is missing"),
        (PIECES, {"scores": None}, "tokenizer.ggml.scores is missing"),
        (BYTES, {"merges": None}, "tokenizer.ggml.merges is missing"),
        (PIECES, {"scores": [0.0] * 4}, "tokenizer.ggml.scores has 4 entries for 5 tokens"),
        (PIECES, {"token_type": [1]}, "tokenizer.ggml.token_type has 1 entries for 5 tokens"),
        (PIECES, {"tokens": ["<s>", "a", "b", "c", "a"]}, "tokenizer.ggml.tokens has the same"),
        (PIECES, {"eos_token_id": 5}, "tokenizer.ggml.eos_token_id=5, but there are 5 tokens"),
        (BYTES, {"pre": "llama3", "bos_token_id": None}, "ggml.bos_token_id is missing"),
        (BYTES, {"add_eos_token": True, "eos_token_id": None}, "ggml.eos_token_id is missing"),
        (PIECES, {"model": "t5", "precompiled_charsmap": b"broken"}, "cannot be read"),
    ],
    ids=lambda value: "" if value in (BYTES, PIECES) else str(value),
)
def test_refused(tmp_path, fields, more, reason):
    with pytest.raises(ValueError) as caught:
        small(tmp_path, fields, **more)
    message = str(caught.value)
    assert "small.gguf" in message and reason in message and message.endswith(".")


def test_other_kinds_are_left_out_with_a_warning(tmp_path, caplog):
    assert small(tmp_path, PIECES, model="bert") is None
    assert "tokenizer.ggml.model='bert'" in caplog.text and "llama, t5" in caplog.text
