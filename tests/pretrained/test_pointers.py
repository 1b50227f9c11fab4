"""A clone without Git LFS: wherever a pointer stands for a file, one sentence says what to do."""

from __future__ import annotations

import pytest
import torch

import family
from family.inputs.audio import read_wav
from family.inputs.pictures import as_picture, read_image
from family.pretrained.tokenizers import find_tokenizer
from family.pretrained.weights import SINGLE, read_pickled
from tasks.data.text_files import read_text, text_start
from tasks.errors import UserError

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
SENTENCE = "{} is a Git LFS pointer: run git lfs pull."


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    family.save_pretrained(family.gpt2(61, dim=16, depth=1, heads=2), place, format="gpt2")
    return place


def refused(read, file, *arguments):
    with pytest.raises(ValueError) as caught:
        read(*arguments)
    assert str(caught.value).endswith(SENTENCE.format(file))


@pytest.mark.parametrize("name", [SINGLE, "config.json", "generation_config.json"])
def test_weights_and_configs(folder, name):
    (folder / name).write_text(POINTER)
    refused(family.from_pretrained, folder / name, folder)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt", "spiece.model"]
)
def test_tokenizers(folder, name):
    """Among them lists of words, which a pointer would be one of."""
    (folder / name).write_text(POINTER)
    refused(family.from_pretrained, folder / name, folder)
    refused(find_tokenizer, folder / name, str(folder))


def test_templates(folder):
    (folder / "chat_template.jinja").write_text(POINTER)
    refused(family.from_pretrained, folder / "chat_template.jinja", folder)


@pytest.mark.parametrize("name", ["model.gguf", "best.ckpt", "model.pth", "model.safetensors"])
def test_files_by_themselves(tmp_path, name):
    (tmp_path / name).write_text(POINTER)
    refused(family.from_pretrained, tmp_path / name, tmp_path / name)


def test_pickled_weights(folder):
    (folder / SINGLE).unlink()
    (folder / "pytorch_model.bin").write_text(POINTER)
    refused(family.from_pretrained, folder / "pytorch_model.bin", folder)


def test_pictures(tmp_path):
    file = tmp_path / "cat.png"
    file.write_text(POINTER)
    refused(as_picture, file, file)
    with pytest.raises(ValueError, match="cat is a Git LFS pointer"):
        read_image(POINTER.encode(), "cat")


def test_sounds_and_texts_of_training(tmp_path):
    """A text would be learnt as it is."""
    file = tmp_path / "a.wav"
    file.write_text(POINTER)
    refused(read_wav, file, file)
    for read in (read_text, text_start):
        with pytest.raises(UserError, match="a Git LFS pointer: run git lfs pull"):
            read(file)


class Odd:
    pass


@pytest.mark.parametrize("whole", [torch.nn.Linear(2, 2), Odd(), b"text"])
def test_nobody_is_told_to_execute_a_file(tmp_path, whole):
    file = tmp_path / "pytorch_model.bin"
    if isinstance(whole, bytes):
        file.write_bytes(whole)
    else:
        torch.save({"weights": whole}, file)
    with pytest.raises(ValueError, match="cannot be read as plain weights") as caught:
        read_pickled(file)
    message = str(caught.value)
    assert "weights_only" not in message and "\n" not in message
    if not isinstance(whole, bytes):
        assert type(whole).__name__ in message
