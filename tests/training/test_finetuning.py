"""Fine-tuning from published weights is a config line; what it makes is a checkpoint like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import family
import family.pretrained
import tasks
from family.inputs.preprocess import Preprocess
from tasks.cli import main
from tasks.data.shapes import CLASSES
from tasks.data.tokenizers import train_tokenizer
from tasks.errors import UserError
from tasks.runs.checkpoints import load_checkpoint
from tasks.training.finetuning import LoRA, adapt, load_source

STACK = {"dim": 16, "depth": 2, "heads": 2}
TRAINER = [
    "--trainer.max_steps=2",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
]
TEXT = "a red circle, a blue square and two green stars\n" * 40
LABELS = list(CLASSES)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders as they are published."""
    place = tmp_path_factory.mktemp("published")
    for name, build in SOURCES.items():
        torch.manual_seed(0)
        family.save_pretrained(build(), place / name)
    return place


@pytest.fixture(autouse=True)
def opened(tmp_path, monkeypatch, published):
    """A folder to work in, and a record of the sources that were read."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    read, asked = family.pretrained.from_pretrained, []

    def from_pretrained(source, *, dtype, **options):
        asked.append((source, options))
        if source not in SOURCES:
            raise ValueError(f"{source} is not to be had.")
        return read(published / source, dtype=dtype, **options)

    monkeypatch.setattr(family.pretrained, "from_pretrained", from_pretrained)
    return asked


def gpt():
    model = family.gpt_nano(300, **STACK, max_tokens=32)  # more rows than tokens
    model.tokenizer = train_tokenizer("bpe", [TEXT], vocab_size=280)
    return model


def vit(labels=tuple(LABELS[::-1])):
    model = family.vit_tiny(len(labels), 8, 16, **STACK)
    nn.init.normal_(model.head.weight)
    model.preprocess = Preprocess((16, 16), "crop", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), "bicubic")
    model.labels = list(labels)
    return model


def seq2seq():
    model = family.transformer_tiny(300, **STACK, bos_id=0, max_tokens=64)
    model.tokenizer = train_tokenizer("bpe", [TEXT], vocab_size=280)
    return model


def bert():
    config = family.TransformerConfig(**STACK, position="learned", max_tokens=24)
    model = family.BERT(300, config)
    model.tokenizer = train_tokenizer("bpe", [TEXT], vocab_size=280)
    return model


def sees(model):
    model.preprocess = Preprocess((16, 16), "longest", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    return model


def clip():
    towers = {**STACK, "embed_dim": 8, "image_size": 16, "max_tokens": 12}
    model = sees(family.clip_small(300, **towers))
    model.tokenizer = train_tokenizer("bpe", [TEXT], vocab_size=280)
    return model


def detr():
    config = family.TransformerConfig(**STACK)
    return sees(family.DETR(3, config, backbone="patch", queries=5))


SOURCES = {
    "detr": detr,
    "segmenter": lambda: sees(family.segmenter_tiny(3, 8, 16, **STACK)),
    "clip": clip,
    "gpt": gpt,
    "vit": vit,
    "others": lambda: vit(tuple("abcdefgh")),
    "fewer": lambda: vit(tuple("ab")),
    "seq2seq": seq2seq,
    "bert": bert,
    "mute": lambda: family.gpt_nano(300, **STACK),
    "bare": lambda: family.vit_tiny(0, 8, 16, **STACK),
}
LANGUAGE = [
    "--model=tasks.LanguageModeling",
    "--data=tasks.LanguageModelingData",
    "--data.root=text.txt",
    "--data.context=16",
    "--data.batch_size=2",
    *TRAINER,
]
PICTURES = [
    "--model=tasks.ImageClassification",
    "--data=tasks.ImageClassificationData",
    "--data.image_size=16",
    "--data.examples=60",
    "--data.batch_size=8",
    *TRAINER,
]


def state(file):
    return torch.load(file, weights_only=True)


def refused(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return said


# --- Through the command ---------------------------------------------------------------------


def test_a_language_model_with_lora_from_fit_to_generate(opened, capsys):
    lora = ["--model.pretrained=gpt", "--model.lora.rank=2", "--model.layer_decay=0.5"]
    fit = ["fit", *LANGUAGE, *lora, "--model.warmup_steps=1", "--model.lr=0.1"]
    main([*fit, "--run_folder=run"])
    first = state("run/checkpoints/last.ckpt")
    kept = {n.replace(".base.", "."): value for n, value in first["state_dict"].items()}
    for name, value in load_checkpoint("gpt", "LanguageModeling").model.state_dict().items():
        assert torch.equal(kept[f"model.{name}"], value), name
    opened.pop()
    assert len(first["optimizer_states"][0]["state"]) == 2 * 2 * STACK["depth"]  # A and B alone
    assert opened == [("gpt", {})]
    # A resumed run, a test and a prompt need the source no more.
    main([*fit, "--run_folder=more", "--ckpt_path=run", "--trainer.max_steps=3"])
    assert state("more/checkpoints/last.ckpt")["global_step"] == 3
    assert len(opened) == 1
    capsys.readouterr()
    main(["generate", "run", "--prompt", "a red", "--max_new_tokens=3"])
    assert capsys.readouterr().out.startswith("a red")
    assert len(opened) == 1


def test_an_interrupted_lora_run_ends_as_one_without_a_break():
    lora = ["--model.pretrained=gpt", "--model.lora.rank=2", "--model.warmup_steps=1"]
    fit = ["fit", *LANGUAGE, *lora, "--model.schedule=constant", "--trainer.max_steps=4"]
    main([*fit, "--run_folder=whole"])
    main([*fit, "--run_folder=half", "--trainer.max_steps=2"])
    main([*fit, "--run_folder=rest", "--ckpt_path=half"])
    whole, rest = (state(f"{name}/checkpoints/last.ckpt") for name in ("whole", "rest"))
    assert whole["state_dict"].keys() == rest["state_dict"].keys()
    assert whole["global_step"] == rest["global_step"] == 4
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, rest["state_dict"][name]), name


@pytest.mark.parametrize("source", ["others", "fewer"])
def test_pictures_with_other_classes_get_a_fresh_head(opened, source):
    fit = ["fit", *PICTURES, f"--model.pretrained={source}", "--model.lr=0"]
    main([*fit, "--run_folder=run", "--model.freeze=[embedding.*, '*.blocks.0.*']"])
    task = "ImageClassification"
    assert opened[0][1] == {"image_size": (16, 16), "num_classes": 8, "task": task}
    loaded = load_checkpoint("run", "ImageClassification")
    assert not loaded.model.head.weight.any()
    assert loaded.labels == LABELS
    assert loaded.preprocess == Preprocess((16, 16), "crop", (0.1, 0.2, 0.3), (0.5,) * 3, "bicubic")
    assert set(state("run/checkpoints/last.ckpt")["family"]) >= {"pretrained", "lora"}


def test_the_same_classes_keep_the_head_and_its_order(opened):
    task, data = tasks.ImageClassification(pretrained="vit"), pictures()
    load_source(task, data, "vit", training=True)
    assert data.classes == LABELS[::-1]
    assert task.build().head.weight.any()
    assert task.build().training


def pictures(**options):
    return tasks.ImageClassificationData(image_size=16, examples=20, **options)


def test_a_published_model_is_tested_with_its_own_classes_and_pictures(opened):
    config = [a for a in PICTURES if "image_size" not in a and "max_steps" not in a]
    main(["test", *config, "--ckpt_path=vit", "--run_folder=run"])
    assert opened == [("vit", {})]
    record = json.loads(Path("run/metrics-test.json").read_text())
    assert 0 <= record["metrics"]["test/accuracy"] <= 1
    assert record["checkpoint"] == "vit"


def test_an_encoder_learns_to_tell_texts_apart(opened, capsys):
    config = ["--model=tasks.TextClassification", "--data=tasks.TextClassificationData"]
    small = ["--data.examples=60", "--data.batch_size=8", "--data.max_tokens=99", *TRAINER]
    main(["fit", *config, *small, "--model.pretrained=bert", "--run_folder=run"])
    loaded = load_checkpoint("run", "TextClassification")
    assert loaded.assets["max_tokens"] == 24
    assert loaded.labels == sorted(LABELS)
    capsys.readouterr()
    main(["classify", "run", "the circle is left of the star"])
    assert capsys.readouterr().out.startswith("the circle")
    assert len(opened) == 1


def test_boxes_masks_and_captions_take_the_classes_and_size_of_the_data(opened):
    for source, task, data in [
        ("detr", tasks.Detection, tasks.DetectionData(image_size=(32, 32), examples=9)),
        ("segmenter", tasks.Segmentation, tasks.SegmentationData(image_size=24, examples=9)),
        ("clip", tasks.ImageText, tasks.ImageTextData(image_size=(24, 24), max_tokens=90)),
    ]:
        made = task(pretrained=source)
        load_source(made, data, source, training=True)
        model, size = made.build(), data.preprocess.size
        assert data.preprocess.mean == (0.1, 0.2, 0.3)
        if source == "clip":
            assert (model.image.image_size, data.max_tokens) == (size, 12)
            assert data.tokenizer.vocab_size == 280
        else:
            assert model.num_classes == len(data.assets()["labels"])
        assert getattr(model, "image_size", size) == size


def test_a_translation_begins_as_the_model_expects(opened):
    data = tasks.TranslationData(examples=30)
    load_source(tasks.Translation(pretrained="seq2seq"), data, "seq2seq", training=True)
    batch = next(iter(data.train_dataloader()))
    assert (batch["target"][:, 0] == 0).all()
    again = tasks.TranslationData(examples=30)
    again.use_assets(data.assets())
    assert again.start_id == 0


# --- What learns -----------------------------------------------------------------------------


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_lora_trains_adapters_and_the_head_of_classes():
    model = vit()
    adapt(model, LoRA(rank=2, targets=["*.qkv"]), [])
    assert {n for n in learning(model) if ".lora_" not in n} == {"head.weight", "head.bias"}
    assert len(learning(model)) == 2 + 2 * STACK["depth"]


def test_freezing_by_pattern_and_batch_norms():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)).train()
    adapt(model, None, ["0.*", "1.*"])
    assert learning(model) == {"2.weight", "2.bias"}
    assert [module.training for module in model] == [True, False, True]
    tied = family.gpt_nano(20, **STACK)
    adapt(tied, None, ["head.*"])
    assert "embedding.tokens.weight" not in learning(tied)


@pytest.mark.parametrize(
    ("lora", "freeze", "said"),
    [
        (None, ["embeding.*"], r"model.freeze: 'embeding\.\*' matches no name of a parameter"),
        (None, ["*"], r"model.freeze=\['\*'\] leaves nothing to train"),
        (LoRA(rank=0), [], "model.lora: rank=0"),
        (LoRA(targets=["*.qvk"]), [], r"model.lora: '\*.qvk' matches .* nearest are: \*.qkv"),
    ],
)
def test_what_cannot_learn_is_said(lora, freeze, said):
    with pytest.raises(UserError, match=said):
        adapt(gpt(), lora, freeze)


# --- What does not go together ---------------------------------------------------------------


def test_options_that_exclude_each_other():
    with pytest.raises(UserError, match="brings its own architecture: leave model.model out"):
        tasks.LanguageModeling(family.gpt2, pretrained="gpt")
    with pytest.raises(UserError, match="model.lora without model.pretrained"):
        tasks.LanguageModeling(family.gpt2, lora=LoRA())
    with pytest.raises(UserError, match="model.lora beside model.freeze"):
        tasks.LanguageModeling(pretrained="gpt", lora=LoRA(), freeze=["*"])
    with pytest.raises(UserError, match="model.layer_decay must be between 0 and 1, not 2"):
        tasks.LanguageModeling(pretrained="gpt", layer_decay=2)
    with pytest.raises(UserError, match="the task has no model"):
        tasks.LanguageModeling().configure_model()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "nowhere is not to be had."),
        ("no/such/folder", "no/such/folder is no file or folder here, nor the name of a model"),
        ("vit", "vit is a ViT, made for ImageClassification, but this needs LanguageModeling."),
        ("mute", "mute has no tokenizer, and its model reads text."),
    ],
)
def test_a_source_that_does_not_fit_ends_in_one_sentence(source, said, capsys):
    fit = ["fit", *LANGUAGE, f"--model.pretrained={source}", "--run_folder=run"]
    assert said in refused(fit, capsys)
    assert not Path("run").exists()


def test_commands_take_published_models_and_refuse_what_is_none(opened, capsys):
    loaded = load_checkpoint("gpt", "LanguageModeling")
    assert loaded.tokenizer is loaded.model.tokenizer
    assert (
        load_checkpoint("vit", "TextClassification", "ImageClassification").labels == LABELS[::-1]
    )
    main(["generate", "gpt", "--prompt", "a red", "--max_new_tokens=3"])
    assert capsys.readouterr().out.startswith("a red")
    for source, said in [
        ("vit", "vit is a ViT, made for ImageClassification, but this needs LanguageModeling or "),
        ("none.ckpt", "none.ckpt does not exist"),
        ("no/such/folder", "is no file or folder here"),
    ]:
        assert said in refused(["generate", source, "--prompt", "a"], capsys)
    with pytest.raises(UserError, match="bare has no classes of its own yet: train it first"):
        load_checkpoint("bare", "ImageClassification")


def test_a_checkpoint_goes_on_with_the_same_options_alone(opened, capsys):
    fit = ["fit", *PICTURES, "--model.pretrained=vit"]
    main([*fit, "--run_folder=run"])
    for more, said in [
        (["--model.pretrained=others"], "with pretrained='vit', but the config says 'others'"),
        (["--model.lora.rank=4"], "lora.alpha=None, but the config says 16.0"),
        (["--ckpt_path=vit"], "--ckpt_path vit is no checkpoint of ours to go on from"),
    ]:
        again = [*fit, "--run_folder=again", "--ckpt_path=run", *more]
        assert said in refused(again, capsys)
    assert "needs --ckpt_path" in refused(["test", *fit[1:]], capsys)
