"""GGUF files of the Llama family, written here tensor by tensor as llama.cpp's converter does."""

from __future__ import annotations

import json
import sys

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers, trainers

import family
import family.pretrained.gguf as reading
from family.core.rotary import rotary_frequency
from family.pretrained.gguf_text import WORDS

gguf = pytest.importorskip("gguf")

SPECIALS = ["<unk>", "<s>", "</s>"]
TEMPLATE = "{{ messages[0]['content'] }}"
TEXTS = ["Hello, it's 2026!", "  5 apples\n\n  x", "<s>hi</s>", "naïve ½ 日本 🎉", "I'LL", ""]


def model_of(**options):
    """64 wide, so that rows divide into the blocks of a quantisation."""
    sizes = {"dim": 64, "depth": 2, "heads": 4, "kv_heads": 2, "ffn_dim": 96, "max_tokens": 128}
    torch.manual_seed(0)
    model = family.llama(300, **{**sizes, **options}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def tensors_of(model, permuted):
    """Rows of queries and keys: the converter puts the two channels that turn together side by side."""
    yield "token_embd.weight", model.embedding.tokens.weight
    yield "output_norm.weight", model.transformer.norm.weight
    if not model.tie_embeddings:
        yield "output.weight", model.head.weight
    for i, block in enumerate(model.transformer.blocks):
        attention, feedforward = block.self_attention.sublayer, block.feedforward.sublayer
        for kind, values in attention.qkv.named_parameters():
            for name, rows in zip("qkv", values.split([64, 32, 32]), strict=True):
                if permuted and name != "v":
                    rows = rows.unflatten(0, (-1, 2, 8)).transpose(1, 2).flatten(0, 2)
                yield f"blk.{i}.attn_{name}.{kind}", rows
        gate, up = feedforward.up.weight.chunk(2)
        yield f"blk.{i}.attn_norm.weight", block.self_attention.norm.weight
        yield f"blk.{i}.attn_output.weight", attention.out.weight
        yield f"blk.{i}.ffn_norm.weight", block.feedforward.norm.weight
        yield f"blk.{i}.ffn_gate.weight", gate
        yield f"blk.{i}.ffn_up.weight", up
        yield f"blk.{i}.ffn_down.weight", feedforward.down.weight


def write(file, model, architecture="llama", kind=None, extra=(), **metadata):
    """A file; ``None`` takes a field of the metadata out."""
    config = model.config
    writer = gguf.GGUFWriter(file, architecture)
    fields = {
        f"{architecture}.block_count": config.depth,
        f"{architecture}.context_length": config.max_tokens,
        f"{architecture}.embedding_length": config.dim,
        f"{architecture}.feed_forward_length": config.ffn_dim,
        f"{architecture}.attention.head_count": config.heads,
        f"{architecture}.attention.head_count_kv": config.kv_heads,
        f"{architecture}.attention.layer_norm_rms_epsilon": config.norm_eps,
        f"{architecture}.rope.freq_base": float(config.rotary_base),
        f"{architecture}.rope.dimension_count": config.rotary_dim,
    }
    for name, value in {**fields, **metadata}.items():
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif value is not None:
            writer.add_uint32(name, value)
    for name, value in [*tensors_of(model, architecture == "llama"), *extra]:
        array = value.detach().numpy()
        if kind is None or array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def assert_equal(ours, model):
    assert not ours.training
    expected = model.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name
    ids = torch.arange(20)[None]
    torch.testing.assert_close(ours(ids), model(ids))


@pytest.mark.parametrize("tied", [True, False])
def test_llama(tmp_path, tied):
    model = model_of(tie_embeddings=tied, rotary_base=5000.0)
    ours = family.from_pretrained(write(tmp_path / "small.gguf", model))
    assert_equal(ours, model)
    assert ours.config.diff(model.config).keys() <= {"norm_eps"}  # which is in float32
    assert ours.tokenizer is None


def test_folder_with_one_file_or_two(tmp_path):
    model = model_of()
    write(tmp_path / "small.gguf", model)
    assert_equal(family.from_pretrained(tmp_path), model)
    write(tmp_path / "other.gguf", model)
    with pytest.raises(ValueError, match=r"other.gguf, small.gguf"):
        family.from_pretrained(tmp_path)


def test_qwen2_has_biases_and_rows_in_order(tmp_path):
    model = model_of(qkv_bias=True, tie_embeddings=True)
    ours = family.from_pretrained(write(tmp_path / "qwen.gguf", model, "qwen2"))
    assert_equal(ours, model)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16", "BF16"])
def test_quantised_in_pieces(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 1000)
    model, kind = model_of(), gguf.GGMLQuantizationType[kind]
    ours = family.from_pretrained(write(tmp_path / "small.gguf", model, kind=kind))
    for name, value in model.state_dict().items():
        if value.dim() == 2:
            rounded = gguf.quants.dequantize(gguf.quants.quantize(value.numpy(), kind), kind)
            assert torch.equal(ours.state_dict()[name], torch.from_numpy(rounded))


def test_dtype(tmp_path):
    file = write(tmp_path / "small.gguf", model_of())
    dtypes = {p.dtype for p in family.from_pretrained(file, dtype=torch.bfloat16).parameters()}
    assert dtypes == {torch.bfloat16}


def test_linear_scaling(tmp_path):
    model = model_of(rotary_scaling=4.0)
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    assert_equal(family.from_pretrained(write(tmp_path / "small.gguf", model, **scaling)), model)


def test_llama3_scaling(tmp_path):
    """A tensor of factors says it; any other factors are refused."""
    model = model_of(rotary_scaling=(32.0, 1.0, 4.0, 8192.0), rotary_base=500_000.0)
    base = model.config.rotary_base
    scaled = rotary_frequency(16, base, model.config.rotary_scaling)
    factors = rotary_frequency(16, base) / scaled
    extra = [("rope_freqs.weight", factors)]
    ours = family.from_pretrained(write(tmp_path / "small.gguf", model, extra=extra))
    assert ours.config.rotary_scaling == pytest.approx(model.config.rotary_scaling)
    other = [("rope_freqs.weight", factors.sqrt())]
    with pytest.raises(ValueError, match="rope_freqs.weight"):
        family.from_pretrained(write(tmp_path / "other.gguf", model, extra=other))


def test_as_transformers_reads_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    write(tmp_path / "small.gguf", model_of(), **{"llama.vocab_size": 300})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="small.gguf", dtype=torch.float32
    )
    ids = torch.arange(20)[None]
    ours = family.from_pretrained(tmp_path)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)


def trained(words):
    """A byte-level tokenizer of up to 300 tokens, and the metadata that describe it."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = words()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS * 3, trainer)
    vocabulary = sorted(inner.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(inner.to_str())["model"]["merges"]
    return inner, {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [token for token, _ in vocabulary],
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(vocabulary) - 3),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    }


@pytest.mark.parametrize("kind", WORDS)
def test_tokenizer(tmp_path, kind):
    inner, metadata = trained(WORDS[kind])
    metadata |= {"tokenizer.ggml.pre": kind, "tokenizer.ggml.add_bos_token": False}
    file = write(tmp_path / "small.gguf", model_of(), **metadata)
    tokenizer = family.from_pretrained(file).tokenizer
    assert tokenizer.specials == {"bos": "<s>", "eos": "</s>"}
    assert tokenizer.chat([{"role": "user", "content": "hi"}]) == "hi"
    assert tokenizer.vocab_size == inner.get_vocab_size()
    for text in TEXTS:
        ids = tokenizer.encode(text, True, parse_special=True)
        assert ids == inner.encode(text).ids
        assert tokenizer.inner.decode(ids, skip_special_tokens=False) == text
    assert tokenizer.encode("<s>", parse_special=True) == [1]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("gpt-2", ["ĠIn", "Ġ2026", ",", "ĠI", "'m", "Ġ", "Ġ12", "."]),
        ("smollm", ["ĠIn", "Ġ", "2", "0", "2", "6", ",", "ĠI", "'m", "ĠĠ", "1", "2", "."]),
        ("llama-bpe", ["ĠIn", "Ġ", "202", "6", ",", "ĠI", "'m", "Ġ", "Ġ", "12", "."]),
        ("qwen2", ["ĠIn", "Ġ", "2", "0", "2", "6", ",", "ĠI", "'m", "Ġ", "Ġ", "1", "2", "."]),
    ],
)
def test_words_of_each_kind(kind, words):
    found = WORDS[kind]().pre_tokenize_str(" In 2026, I'm  12.")
    assert [word for word, _ in found] == words


def test_tokens_around_a_text(tmp_path):
    inner, metadata = trained(WORDS["gpt-2"])
    metadata |= {"tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.add_bos_token": True}
    file = write(tmp_path / "small.gguf", model_of(), **metadata)
    tokenizer = family.from_pretrained(file).tokenizer
    ids = inner.encode("Hello").ids
    assert tokenizer.encode("Hello", special_tokens=True) == [1, *ids]
    assert tokenizer.encode("Hello") == ids


def test_llama3_takes_whole_words(tmp_path):
    """A word that is a token counts as one, though its merges lead elsewhere."""
    _, metadata = trained(WORDS["llama-bpe"])
    metadata["tokenizer.ggml.tokens"][-1] = "Hxz"
    del metadata["tokenizer.ggml.merges"][1:]
    for kind, count in {"llama-bpe": 1, "qwen2": 3}.items():
        metadata["tokenizer.ggml.pre"] = kind
        file = write(tmp_path / f"{kind}.gguf", model_of(), **metadata)
        assert len(family.from_pretrained(file).tokenizer.encode("Hxz")) == count


@pytest.mark.parametrize("field", ["model", "pre"])
def test_other_tokenizers_are_left_out_with_a_warning(tmp_path, field, caplog):
    _, metadata = trained(WORDS["gpt-2"])
    metadata |= {"tokenizer.ggml.pre": "gpt-2", f"tokenizer.ggml.{field}": "other"}
    ours = family.from_pretrained(write(tmp_path / "small.gguf", model_of(), **metadata))
    assert ours.tokenizer is None
    assert f"tokenizer.ggml.{field}='other'" in caplog.text


def test_broken_tokenizer(tmp_path):
    _, metadata = trained(WORDS["gpt-2"])
    metadata |= {"tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.merges": ["no such"]}
    with pytest.raises(ValueError, match="the tokenizer of .*small.gguf"):
        family.from_pretrained(write(tmp_path / "small.gguf", model_of(), **metadata))


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"llama.expert_count": 8}, ["expert_count=8"]),
        ({"llama.rope.scaling.type": "yarn"}, ["yarn"]),
        ({"llama.attention.sliding_window": 16}, ["attention.sliding_window=16"]),
        ({"llama.embedding_length": None}, ["embedding_length"]),
        ({"llama.attention.head_count": 3}, ["heads"]),
        ({"llama.attention.head_count": 16}, ["rotary_dim=16", "head_dim=4"]),
        ({"llama.attention.head_count_kv": 1}, ["blk.0.attn_q.weight", "(128, 64)", "(96, 64)"]),
        ({"llama.block_count": 3}, ["blk.2.attn_norm.weight"]),
        ({"llama.block_count": 1}, ["blk.1.", "no place"]),
        ({"llama.vocab_size": 301}, ["token_embd.weight", "(300, 64)", "(301, 64)"]),
        ({"llama.feed_forward_length": [96, 32]}, ["ffn_dim"]),
    ],
    ids=str,
)
def test_refused(tmp_path, metadata, words):
    file = write(tmp_path / "small.gguf", model_of(), **metadata)
    with pytest.raises(ValueError) as caught:
        family.from_pretrained(file)
    for word in (str(file), *words):
        assert word in str(caught.value)


def test_another_architecture(tmp_path):
    file = write(tmp_path / "small.gguf", model_of(), "falcon")
    with pytest.raises(ValueError, match="general.architecture='falcon'.*llama, qwen2"):
        family.from_pretrained(file)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_cut_off_files(tmp_path, share):
    file = write(tmp_path / "small.gguf", model_of())
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="small.gguf is no whole GGUF file"):
        family.from_pretrained(file)


def test_package_that_is_not_there(tmp_path, monkeypatch):
    file = write(tmp_path / "small.gguf", model_of())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match="needs the gguf package: pip install gguf"):
        family.from_pretrained(file)
