"""Folders of sentence-transformers: the same embeddings, there and back, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import family
from family.inputs.tokenizer import Tokenizer
from family.models.sentence import SentenceEncoder

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import encoders, text_encoders
from harness import randomise

ENCODERS = {"BertModel": encoders.BERT, "RobertaModel": encoders.ROBERTA}
ENCODERS["DistilBertModel"] = encoders.DISTILBERT
ENCODERS |= {f"{kind}Model": sizes for kind, sizes in text_encoders.SIZES.items()}
PACKAGE = "sentence_transformers.models."
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "morning", "##s"]


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def folder_of(folder, name="BertModel", kinds=("Pooling", "Normalize"), pooling=None, first=""):
    """A folder as their library writes it, and the encoder in it, of transformers."""
    encoder = encoders.build(name, **ENCODERS[name]).eval()
    randomise(encoder)
    encoder.save_pretrained(folder / first)
    kinds = ("Transformer", *kinds)
    paths = [first, *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
    places = zip(kinds, paths, strict=True)
    write(folder / "modules.json", [{"type": PACKAGE + kind, "path": p} for kind, p in places])
    write(folder / first / "sentence_bert_config.json", {"max_seq_length": 9})
    write(folder / "1_Pooling/config.json", pooling or {"pooling_mode_mean_tokens": True})
    if "Dense" in kinds:
        generator = torch.Generator().manual_seed(3)
        sizes = {"in_features": 32, "out_features": 7, "bias": True}
        activation = {"activation_function": "torch.nn.modules.activation.Tanh"}
        write(folder / "2_Dense/config.json", sizes | activation)
        linear = {
            "linear.weight": torch.randn(7, 32, generator=generator),
            "linear.bias": torch.randn(7, generator=generator),
        }
        save_file(linear, folder / "2_Dense/model.safetensors")
        encoder.linear = linear
    if first == "":
        words = WORDS
        if name == "MPNetModel":
            words = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *WORDS[5:]]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return encoder


def tokens(encoder, batch):
    return encoder(**encoders.arguments(batch)).last_hidden_state, batch["mask"].unsqueeze(-1)


def mean(encoder, batch):
    x, mask = tokens(encoder, batch)
    return (x * mask).sum(1) / mask.sum(1)


def largest(encoder, batch):
    x, mask = tokens(encoder, batch)
    return x.masked_fill(~mask, -1e9).max(1).values


def first(encoder, batch):
    return tokens(encoder, batch)[0][:, 0]


def embed(folder, batch):
    model = family.from_pretrained(folder)
    assert isinstance(model, SentenceEncoder) and not model.training
    return model.encode_text(batch["input_ids"], batch["mask"])


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, mean),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, first),
        ({"pooling_mode": "max", "include_prompt": True}, largest),
        ({"pooling_mode": ["cls"]}, first),
    ],
)
def test_each_pooling_of_each_encoder(tmp_path, name, pooling, expected):
    encoder, batch = folder_of(tmp_path, name, pooling=pooling), encoders.batch(False)
    wanted = F.normalize(expected(encoder, batch), dim=1)
    torch.testing.assert_close(embed(tmp_path, batch), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", ["", "0_Transformer"])
@pytest.mark.parametrize(
    "kinds", [("Pooling",), ("Pooling", "Dense"), ("Pooling", "Dense", "Normalize")]
)
def test_modules_behind(tmp_path, kinds, place):
    encoder = folder_of(tmp_path, kinds=kinds, first=place)
    batch = encoders.batch(False)
    wanted = mean(encoder, batch)
    if "Dense" in kinds:
        wanted = torch.tanh(F.linear(wanted, *encoder.linear.values()))
    if "Normalize" in kinds:
        wanted = F.normalize(wanted, dim=1)
    torch.testing.assert_close(embed(tmp_path, batch), wanted, rtol=1e-5, atol=1e-6)


def test_an_embedding_does_not_depend_on_the_batch(tmp_path):
    folder_of(tmp_path, kinds=("Pooling", "Dense", "Normalize"))
    model = family.from_pretrained(tmp_path)
    tokenizer = model.tokenizer
    assert model.max_tokens == 9 and tokenizer.max_tokens is None
    texts = ["good mornings", "good " * 20, "morning", ""]
    together = model.encode_text(*tokenizer.batch(texts, model.max_tokens))
    assert together.shape == (4, 7)
    for text, embedding in zip(texts, together, strict=True):
        alone = model.encode_text(*tokenizer.batch([text], model.max_tokens))[0]
        torch.testing.assert_close(alone, embedding)
    assert tokenizer.batch(texts, model.max_tokens)[0].shape == (4, 9)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("format", [None, "sentence-transformers"])
def test_written_and_read_again(tmp_path, name, format):
    folder_of(tmp_path / "theirs", name, kinds=("Pooling", "Dense", "Normalize"))
    model, batch = family.from_pretrained(tmp_path / "theirs"), encoders.batch(False)
    if model.tokenizer is None:  # RoBERTa's is of another kind
        theirs = folder_of(tmp_path / "bert")
        model.tokenizer = family.from_pretrained(tmp_path / "bert").tokenizer
        assert theirs is not None
    family.save_pretrained(model, tmp_path / "again", format=format)
    again = family.from_pretrained(tmp_path / "again")
    ours = again.encode_text(batch["input_ids"], batch["mask"])
    assert torch.equal(ours, model.encode_text(batch["input_ids"], batch["mask"]))
    assert again.arguments == model.arguments and isinstance(again.tokenizer, Tokenizer)
    assert again.tokenizer.encode("good mornings") == [5, 6, 7]
    if format is not None:
        config = json.loads((tmp_path / "again/config.json").read_text())
        # XLM-RoBERTa computes what RoBERTa does.
        assert config["architectures"] == [name.removeprefix("XLM")]
        theirs = transformers.AutoModel.from_pretrained(tmp_path / "again").eval()
        expected = theirs(**encoders.arguments(batch)).last_hidden_state[batch["mask"]]
        found = again.encoder.encode(batch["input_ids"], batch["mask"])[batch["mask"]]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_with_classes_the_encoder_alone_is_taken(tmp_path):
    folder_of(tmp_path)
    model = family.from_pretrained(tmp_path, num_classes=3)
    assert type(model) is family.BERT and model.num_classes == 3 and model.tokenizer is not None


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("modules.json", {}, "modules  are not supported"),
        ("modules.json", [{"type": "x.Transformer"}], "no list of modules"),
        ("modules.json", [{"type": "x.WordEmbeddings", "path": ""}], "WordEmbeddings are not"),
        ("1_Pooling/config.json", {"pooling_mode_lasttoken": True}, "'lasttoken' is not supported"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "max"]}, "['cls', 'max'] is not"),
        ("1_Pooling/config.json", [], "holds a list"),
        ("2_Dense/config.json", {"bias": False}, "bias=False is not supported"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, "'os.system' is not"),
        ("2_Dense/config.json", {"activation_function": [1]}, "activation_function='[1]' is not"),
        ("2_Dense/config.json", {"out_features": 6}, "has the shape (7, 32)"),
        ("2_Dense/config.json", {"out_features": "6"}, "config.json"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case=True"),
        ("sentence_bert_config.json", {"max_seq_length": "x"}, "max_tokens"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "query"},
            "default_prompt_name='query'",
        ),
    ],
)
def test_refused_in_one_sentence(tmp_path, file, content, said):
    folder_of(tmp_path, kinds=("Pooling", "Dense", "Normalize"))
    write(tmp_path / file, content)
    with pytest.raises(ValueError) as raised:
        family.from_pretrained(tmp_path)
    message = str(raised.value)
    assert said in message and str(tmp_path) in message and "\n" not in message


def test_prompts_that_are_not_applied_are_named(tmp_path, caplog):
    folder_of(tmp_path)
    for prompts, said in (({"query": "query: ", "document": ""}, "(query)"), ({"query": ""}, "")):
        write(tmp_path / "config_sentence_transformers.json", {"prompts": prompts})
        caplog.clear()
        family.from_pretrained(tmp_path)
        assert said in caplog.text and bool(said) == ("prompts" in caplog.text)


def test_a_pooler_that_nothing_depends_on_does_not_learn():
    config = family.TransformerConfig(dim=8, depth=1, heads=1)
    model = SentenceEncoder(9, config, pooler="tanh")
    model(torch.tensor([[1, 2]])).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_a_folder_outside_is_not_read(tmp_path):
    folder_of(tmp_path / "model")
    modules = json.loads((tmp_path / "model/modules.json").read_text())
    modules[1]["path"] = "../1_Pooling"
    write(tmp_path / "model/modules.json", modules)
    with pytest.raises(ValueError, match="names of folders"):
        family.from_pretrained(tmp_path / "model")


def test_other_models_encode_no_sentences(tmp_path):
    encoder = encoders.build("BertForMaskedLM", **encoders.BERT)
    folder_of(tmp_path)
    encoder.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="only a bare BERT"):
        family.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="this is a BERT"):
        format = "sentence-transformers"
        family.save_pretrained(family.bert_tiny(97), tmp_path / "x", format=format)
    config = family.TransformerConfig(dim=8, depth=1, heads=1)
    with pytest.raises(ValueError, match="pooling='last' is unknown; choose one of: mean, class"):
        SentenceEncoder(9, config, pooling="last")
    with pytest.raises(ValueError, match="projection_activation='relu' is unknown"):
        SentenceEncoder(9, config, projection_activation="relu")
