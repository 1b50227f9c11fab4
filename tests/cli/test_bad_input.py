"""Every mistake of a user ends in one sentence, before anything is done."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import family
import tasks
from family import TransformerConfig
from tasks.cli import main
from tasks.commands.pictures import make_folder
from tasks.data.tokenizers import train_tokenizer
from tasks.errors import UserError, at_least, between

TEXTS = ["a red circle", "a blue square", "two red circles"]
STACK = {"dim": 16, "depth": 1, "heads": 2, "max_tokens": 32, "position": "sinusoidal"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(arguments, capsys):
    """The one line that the command prints on stderr, and what it printed before."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code != 0
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    return printed.err, printed.out


# --- Options of data -------------------------------------------------------------------------


def test_a_range_is_said_with_the_value():
    for value in (0, -3, math.nan):
        with pytest.raises(UserError, match=f"data.examples must be at least 1, not {value}"):
            at_least(1, examples=value)
    with pytest.raises(UserError, match="--threshold must be between 0 and 1, not 2"):
        between(0, 1, of="--", threshold=2)
    at_least(1, examples=1)
    between(0, 1, crop=0, colour=1)


LEAST = {
    tasks.TranslationData: {
        "tokens_per_batch": 0,
        "max_tokens": 0,
        "examples": 0,
        "temperature": 0.5,
    },
    tasks.TextToTextData: {
        "tokens_per_batch": 0,
        "max_tokens": 0,
        "examples": 0,
        "temperature": 0.0,
    },
    tasks.LanguageModelingData: {"batch_size": 0, "context": 0},
    tasks.MaskedLanguageModelingData: {"batch_size": 0, "context": 0},
    tasks.SpanCorruptionData: {
        "batch_size": 0,
        "context": 0,
        "noise_density": 1.5,
        "mean_noise_span_length": 0.0,
    },
    tasks.TextClassificationData: {"batch_size": 0, "examples": 0, "max_tokens": 2},
    tasks.ImageClassificationData: {
        "batch_size": 0,
        "examples": 0,
        "image_size": 0,
        "mixup": -1.0,
        "cutmix": -1.0,
        "random_erasing": 2.0,
        "crop_scale": 0.0,
        "std": (1.0, 0.0, 1.0),
        "mean": (0.5, math.nan, 0.5),
    },
    tasks.DetectionData: {
        "batch_size": 0,
        "examples": 0,
        "image_size": (32, -1),
        "crop": 1.5,
        "colour": -0.1,
        "scale": (1.0, 0.5),
    },
    tasks.SegmentationData: {
        "batch_size": 0,
        "examples": 0,
        "image_size": (32, 32, 32),
        "colour": 1.1,
        "scale": (0.0, 1.0),
        "std": (0.0, 1.0, 1.0),
    },
    tasks.ImageTextData: {
        "batch_size": 0,
        "examples": 0,
        "image_size": (0, 0),
        "crop": 0.0,
        "colour": 2.0,
        "max_tokens": 2,
    },
}


@pytest.mark.parametrize("data", LEAST)
def test_values_out_of_range_are_refused_by_name(data):
    wrong = {**LEAST[data], "seed": -1}
    if not issubclass(data, tasks.LanguageModelingData):
        wrong["num_workers"] = -1
    for name, value in wrong.items():
        with pytest.raises(UserError, match=rf"data\.{name}\b"):
            data(**{name: value})


def test_the_tokens_cannot_go_into_a_file(folder):
    (folder / "cache").write_text("")
    with pytest.raises(UserError, match="data.cache cache is a file"):
        tasks.LanguageModelingData(cache="cache")


def test_no_training_pair_is_short_enough():
    data = tasks.TranslationData(tokenizer="char", max_tokens=5, examples=20)
    with pytest.raises(UserError, match=r"max_tokens=5 leaves none of 20 .* shortest needs \d+"):
        data.train_dataloader()


def test_a_table_with_a_header_alone(folder):
    (folder / "train.tsv").write_text("fr\ten\n")
    with pytest.raises(UserError, match="train.tsv has a header alone"):
        tasks.TranslationData(str(folder)).pairs("train")


COCO = {
    "images": [{"id": 1, "file_name": "0.png", "width": 16, "height": 16}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
    "categories": [{"id": 1, "name": "cell"}],
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": []}, "train.json has no picture"),
        ({"images": [{**COCO["images"][0], "width": "a"}]}, "0.png has a side of 'a' pixels"),
        (
            {"images": [{**COCO["images"][0], "file_name": 3}]},
            "images[0] has file_name=3: give a text",
        ),
        (
            {"annotations": [{**COCO["annotations"][0], "area": "big"}]},
            "annotation 1 has area='big'",
        ),
        ({"annotations": []}, "data.train='train' of . has no box in any of 1 pictures"),
    ],
)
def test_annotations_that_cannot_be_learnt_from(change, said):
    Image.new("RGB", (16, 16)).save("0.png")
    Path("val.json").write_text(json.dumps(COCO))
    Path("train.json").write_text(json.dumps({**COCO, **change}))
    with pytest.raises(UserError, match=re.escape(said)):
        tasks.DetectionData(".").setup("fit")


def test_voc_with_a_size_that_is_no_number():
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        Path(name).mkdir(parents=True)
    Path("ImageSets/Main/train.txt").write_text("0\n")
    Path("Annotations/0.xml").write_text("<a><size><width>wide</width></size></a>")
    with pytest.raises(UserError, match="0.xml has a side of 'wide' pixels"):
        tasks.DetectionData(".").setup("fit")


def test_sizes_that_leave_nothing_to_see():
    with pytest.raises(UserError, match="data.image_size must be at least 16, not 8"):
        tasks.DetectionData(image_size=(8, 32))
    with pytest.raises(
        UserError, match=r"data.scale=\[0.05, 1.0\] leaves no pixel of image_size=16"
    ):
        tasks.SegmentationData(image_size=16, scale=(0.05, 1.0))


def test_a_character_that_only_validation_has(folder):
    (folder / "train.txt").write_text("abc " * 100)
    (folder / "val.txt").write_text("abz " * 100)
    data = tasks.LanguageModelingData(str(folder), context=8)
    with pytest.raises(UserError, match="the val split of .* does not know the character 'z'"):
        data.setup("fit")
    assert not list(folder.glob(".cache/tokens/*.[0-9]*"))


@pytest.mark.parametrize("size", [-1, 0, 4, 5])
def test_a_vocabulary_too_small_for_the_characters(size):
    with pytest.raises(UserError, match=f"vocab_size={size} is too small for unigram"):
        train_tokenizer("unigram", TEXTS, size)


def test_other_errors_while_a_tokenizer_reads_stay_as_they_are():
    def texts():
        yield "a"
        raise UserError("train.txt is not UTF-8.")

    with pytest.raises(UserError, match="train.txt"):
        train_tokenizer("unigram", texts(), 100)


# --- Commands --------------------------------------------------------------------------------


@pytest.fixture
def language_model(folder):
    return checkpoint(folder, "LanguageModeling", "family.GPT", {**STACK, "causal": True}, False)


@pytest.fixture
def translator(folder):
    return checkpoint(folder, "Translation", "family.Seq2Seq", STACK, True)


def checkpoint(folder, task, path, stack, specials):
    """A file as training would leave it, of a model that learnt nothing."""
    tokenizer = train_tokenizer("char", TEXTS, specials=specials)
    torch.manual_seed(0)
    built = getattr(family, path.split(".")[1])(tokenizer.vocab_size, TransformerConfig(**stack))
    names = ("source", "target") if task == "Translation" else ("text",)
    record = {
        "task": f"tasks.{task}",
        "model": {"class_path": path, "init_args": {"config": stack}},
        "arguments": {"vocab_size": tokenizer.vocab_size},
        "assets": {"tokenizers": dict.fromkeys(names, tokenizer.to_json())},
    }
    state = {f"model.{name}": value for name, value in built.state_dict().items()}
    file = folder / f"{task}.ckpt"
    torch.save({"family": record, "state_dict": state}, file)
    return str(file)


def type_in(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_generate_refuses_before_it_prints(language_model, capsys):
    for prompt, more, what in [
        (
            "a red" * 9,
            [],
            "a prompt of 45 tokens and 1 new ones do not fit the model's context of 32",
        ),
        ("a red", ["--max_new_tokens=28"], "5 tokens and 28 new ones do not fit"),
        ("a red", ["--max_new_tokens=0"], "--max_new_tokens must be at least 1, not 0"),
        ("a red", ["--max_new_tokens=-3"], "--max_new_tokens must be at least 1, not -3"),
        ("a red", ["--top_k=-1"], "top_k must be at least 0, not -1"),
        ("", [], "the prompt is empty"),
        ("zebra?", [], "does not know the character"),
        ("a \udcff", [], "is not UTF-8"),
    ]:
        said, printed = refused(["generate", language_model, "--prompt", prompt, *more], capsys)
        assert what in said
        assert printed == ""


def test_generate_fills_what_room_there_is(language_model, capsys):
    main(["generate", language_model, "--prompt", "a red", "--max_new_tokens=27"])
    assert len(capsys.readouterr().out) == 32 + 1


def test_generate_goes_on_after_an_empty_line(language_model, monkeypatch, capsys):
    type_in(monkeypatch, b"a red\n\n  \na blue\r\n")
    main(["generate", language_model, "--max_new_tokens=2"])
    lines = capsys.readouterr().out.split("\n")
    assert [line[:5] for line in lines] == ["a red", "", "", "a blu", ""]


@pytest.mark.parametrize("command", ["generate", "translate"])
def test_standard_input_is_not_utf_8(language_model, translator, monkeypatch, capsys, command):
    type_in(monkeypatch, b"a red\na bl\xffe\n")
    file = language_model if command == "generate" else translator
    said, printed = refused([command, file], capsys)
    assert "standard input is not UTF-8: see line 2, byte 5." in said
    assert printed.count("\n") == 1


def test_translate_answers_line_by_line(translator, monkeypatch, capsys):
    main(["translate", translator, "a red", "", "a blue", "--beams=1"])
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 4
    assert lines[1] == lines[3] == ""
    type_in(monkeypatch, b"a red\n\na blue")
    main(["translate", translator, "--beams=1"])
    assert capsys.readouterr().out.split("\n") == lines


def test_translate_refuses(translator, capsys):
    said, _ = refused(["translate", translator, "a", "--beams=0"], capsys)
    assert "--beams must be at least 1, not 0" in said
    said, _ = refused(["translate", translator, "a red" * 9], capsys)
    assert "46 tokens does not fit the model's max_tokens=32" in said
    said, _ = refused(["translate", translator, "a \udcff"], capsys)
    assert "the sentence 'a \\udcff' is not UTF-8" in said


def test_a_long_translation_ends_where_the_model_does(translator, capsys):
    main(["translate", translator, "a red circle a red circle", "--beams=2"])
    assert len(capsys.readouterr().out) <= 33


def test_results_cannot_go_into_a_file(folder, capsys):
    (folder / "out").write_text("")
    for place in ("out", "out/more"):
        with pytest.raises(UserError, match=f"--out {place} .*: give a folder"):
            make_folder(folder.joinpath(place).relative_to(folder))
    make_folder(folder / "a/b")
    assert (folder / "a/b").is_dir()


def test_picture_commands_refuse(folder, capsys):
    Image.new("RGB", (8, 8)).save("a.png")
    for arguments, what in [
        (["classify", "x", "a.png", "--top=0"], "--top must be at least 1, not 0"),
        (["search", "x", "red", "a.png", "--top=-1"], "--top must be at least 1, not -1"),
        (["search", "x", " ", "a.png"], "the sentence is empty"),
        (["search", "x", "red", "a.png", "--out=found"], "--out found is no name of a picture"),
        (["search", "x", "red", "a.png", "--out=a.xyz"], "--out a.xyz is no name of a picture"),
        (["detect", "x", "a.png", "--threshold=2"], "--threshold must be between 0 and 1, not 2.0"),
    ]:
        assert what in refused(arguments, capsys)[0]
