"""A tokenizer that exists, in place of one that is trained, wherever it lies."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest
import torch

import family
import tasks
from family.pretrained.text import save_tokenizer
from family.pretrained.tokenizers import find_tokenizer
from tasks.data.tokenizers import MASK, SPECIALS, make_tokenizer, train_tokenizer
from tasks.errors import UserError

TEXTS = ["a red circle", "two blue squares"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def given(folder):
    """A folder in the hub's layout, without weights."""
    model = torch.nn.Module()
    model.tokenizer = train_tokenizer("bpe", TEXTS, 270, specials=(*SPECIALS, MASK))
    (folder / "given").mkdir()
    save_tokenizer(model, folder / "given")
    return model.tokenizer


def same(found, tokenizer):
    assert found.specials == tokenizer.specials
    assert found.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)


def test_a_folder_or_a_file_beside_others_or_alone(folder, given):
    same(find_tokenizer("given"), given)
    same(find_tokenizer("given/tokenizer.json"), given)
    shutil.copy("given/tokenizer.json", "alone.json")
    same(find_tokenizer("alone.json"), given)


def test_a_repository_of_which_no_weights_are_fetched(folder, given, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder / "given")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    same(find_tokenizer("some/model"), given)
    (name, patterns), *more = asked
    assert name == "some/model" and not more
    assert not any(p.endswith(("safetensors", "bin", "*")) for p in patterns)


def test_a_run(folder, given):
    data = tasks.MaskedLanguageModelingData(tokenizer="given", context=16)
    model = family.BERT(270, family.TransformerConfig(dim=8, depth=1, heads=1, max_tokens=16))
    record = {
        "task": "tasks.MaskedLanguageModeling",
        "model": {},
        "arguments": {},
        "assets": data.assets(),
    }
    torch.save({"family": record, "state_dict": model.state_dict()}, folder / "best.ckpt")
    same(find_tokenizer("best.ckpt"), data.tokenizer)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LanguageModelingData", {}),
        ("MaskedLanguageModelingData", {}),
        ("TextClassificationData", {"examples": 40}),
        ("ImageTextData", {"examples": 20, "image_size": (16, 16), "lowercase": False}),
    ],
)
def test_data_take_it_as_it_is(given, kind, options):
    data = getattr(tasks, kind)(tokenizer="given", **options)
    assert data.model_arguments["vocab_size"] == 270
    assert data.tokenizer.encode(TEXTS[0]) == given.encode(TEXTS[0])
    # A checkpoint carries it: the folder is needed no more.
    again = getattr(tasks, kind)(tokenizer="given", **options)
    again.use_assets(data.assets())
    assert again.tokenizer.encode(TEXTS[0]) == given.encode(TEXTS[0])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "bqe",
            "data.tokenizer='bqe' is unknown; choose one of: bpe, unigram, word, char, .* mean 'bpe'",
        ),
        ("no/such/folder", "data.tokenizer='no/such/folder': no/such/folder does not exist"),
        ("empty", "data.tokenizer='empty': empty holds no tokenizer"),
        (
            "broken.json",
            "data.tokenizer='broken.json': the tokenizer of broken.json cannot be read",
        ),
    ],
)
def test_refused_in_one_sentence(folder, source, said):
    (folder / "empty").mkdir()
    (folder / "broken.json").write_text("{")
    with pytest.raises(UserError, match=said) as refused:
        make_tokenizer(source, TEXTS)
    assert "\n" not in str(refused.value)


def test_letters_are_as_its_file_says(given):
    with pytest.raises(UserError, match="data.lowercase=true is for a tokenizer that is trained"):
        make_tokenizer("given", TEXTS, lowercase=True)
