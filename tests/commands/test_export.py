"""``family export``: each format loaded again, and compared with the model that it came from."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from torch import nn

import family
from family.inputs.preprocess import Preprocess
from family.models.sentence import SentenceEncoder
from tasks.cli import main
from tasks.data.tokenizers import train_tokenizer
from tasks.runs import export as exporting

SMALL = {"dim": 16, "depth": 1, "heads": 2}
STACK = {**SMALL, "position": "learned", "norm_order": "post", "max_tokens": 32}
MODELS = {
    "gpt": lambda: family.llama(97, kv_heads=1, max_tokens=32, **SMALL),
    "bert": lambda: family.bert_tiny(97, num_classes=3, masked_head=False, **STACK),
    "sentence": lambda: SentenceEncoder(97, family.TransformerConfig(**STACK), projection=8),
    "seq2seq": lambda: family.transformer_tiny(97, **SMALL),
    "t5": lambda: family.t5_small(97, **SMALL),
    "vit": lambda: family.vit_tiny(7, image_size=16, patch_size=8, **SMALL),
    "segmenter": lambda: family.segmenter_tiny(num_classes=5, image_size=16, patch_size=8, **SMALL),
    "clip": lambda: family.clip_small(97, image_size=16, **SMALL),
    "dit": lambda: family.DiT(**family.DiT.facts.example),
}


def saved(folder, name):
    """A small model with no weight left at 0 or 1."""
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    family.save_pretrained(model, folder)
    return model.eval()


def export(source, format, out, *more):
    main(["export", str(source), "--format", format, "--out", str(out), *more])


@pytest.mark.parametrize("name", MODELS)
def test_safetensors(tmp_path, capsys, name):
    model = saved(tmp_path / "model", name)
    export(tmp_path / "model", "safetensors", tmp_path / "out")
    assert "differ by 0.0e+00" in capsys.readouterr().out
    again = family.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


def test_a_published_layout(tmp_path, capsys):
    saved(tmp_path / "model", "gpt")
    export(tmp_path / "model", "safetensors", tmp_path / "out", "--layout=llama")
    assert "holds a GPT as llama" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == "llama"


@pytest.mark.parametrize("name", ["gpt", "vit"])
def test_torch_export(tmp_path, capsys, name):
    model = saved(tmp_path / "model", name)
    export(tmp_path / "model", "torch-export", tmp_path / "out")
    assert "differ by" in capsys.readouterr().out
    program = torch.export.load(tmp_path / "out/model.pt2").module()
    for more in (0, 2, 3):  # batches and lengths of other sizes than that of the export
        batch = exporting.inputs_of(model).draw(model, more)
        torch.testing.assert_close(program(**batch), model(**batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt", "t5", "vit"])
def test_onnx(tmp_path, capsys, name):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = saved(tmp_path / "model", name)
    export(tmp_path / "model", "onnx", tmp_path / "out")
    assert "differ by" in capsys.readouterr().out
    session = runtime.InferenceSession(tmp_path / "out/model.onnx")
    for more in (0, 2):
        batch = exporting.inputs_of(model).draw(model, more)
        found = session.run(["logits"], {key: value.numpy() for key, value in batch.items()})
        with torch.inference_mode():
            wanted = model(**batch)
        torch.testing.assert_close(torch.from_numpy(found[0]), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format"),
    [(name, "torch-export") for name in ("bert", "segmenter", "clip", "detr", "dit")]
    + [(name, "onnx") for name in ("sentence", "segmenter", "clip", "dit")],
)
def test_other_members(tmp_path, capsys, monkeypatch, name, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    monkeypatch.setitem(MODELS, "detr", lambda: family.detr_small(num_classes=5, **SMALL))
    saved(tmp_path / "model", name)
    export(tmp_path / "model", format, tmp_path / "out")
    assert "differ by" in capsys.readouterr().out


def test_a_run_takes_tokenizer_and_classes_along(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ("--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--data.examples=40")
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
    config = "--config=text_classification/shapes"
    main(["fit", config, "--run_folder=run", "--trainer.accelerator=cpu", *quick, *quiet])
    export("run", "safetensors", "out")
    said = []
    for source in ("run", "out"):
        capsys.readouterr()
        main(["classify", source, "a red circle is above a blue square"])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and said[0]


def test_of_two_tokenizers_a_published_layout_takes_none(tmp_path, capsys):
    model = family.t5_small(8, **SMALL)
    model.tokenizer, model.tokenizer.target = (train_tokenizer("char", [t]) for t in ("ab", "cd"))
    family.save_pretrained(model, tmp_path / "model")
    export(tmp_path / "model", "safetensors", tmp_path / "ours")
    tokenizer = family.from_pretrained(tmp_path / "ours").tokenizer
    assert tokenizer.decode(tokenizer.encode("ab")) == "ab"
    assert tokenizer.target.decode(tokenizer.target.encode("cd")) == "cd"
    export(tmp_path / "model", "safetensors", tmp_path / "t5", "--layout=t5")
    assert "t5 has room for one, so none is in" in capsys.readouterr().out
    assert family.from_pretrained(tmp_path / "t5").tokenizer is None


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        export(*arguments)
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and len(message.splitlines()) == 1
    return message


def test_refused_in_one_sentence(tmp_path, capsys, monkeypatch):
    source, out = tmp_path / "model", tmp_path / "out"
    saved(source, "gpt")
    assert "model exists and is not empty" in refused(capsys, source, "onnx", source)
    layout = refused(capsys, source, "onnx", out, "--layout=gpt2")
    assert "--layout is for --format safetensors, not onnx" in layout
    assert "unknown; choose one of" in refused(capsys, source, "safetensors", out, "--layout=gpt3")
    assert "cannot express" in refused(capsys, source, "safetensors", out, "--layout=gpt2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "transformer-family[export]" in refused(capsys, source, "onnx", out)


def test_an_export_that_answers_otherwise_is_an_error(tmp_path, capsys, monkeypatch):
    saved(tmp_path / "model", "vit")
    wrong = lambda model, folder: lambda batch: [model(**batch) + 1]  # noqa: E731
    monkeypatch.setattr("tasks.commands.export.to_program", wrong)
    said = refused(capsys, tmp_path / "model", "torch-export", tmp_path / "out")
    assert "gives other answers than its model" in said
    assert not (tmp_path / "out").exists()  # nothing that is wrong stays behind
    (tmp_path / "empty").mkdir()
    refused(capsys, tmp_path / "model", "torch-export", tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())
    broken = lambda model, folder: 1 / 0  # noqa: E731
    monkeypatch.setattr("tasks.commands.export.to_program", broken)
    said = refused(capsys, tmp_path / "model", "torch-export", tmp_path / "again")
    assert "a ViT could not be exported: division by zero" in said


def test_other_modules_are_named():
    with pytest.raises(Exception, match="a Linear cannot be exported: only a member"):
        exporting.inputs_of(nn.Linear(2, 2))


def test_answers_that_are_no_numbers_are_no_small_difference(tmp_path):
    model = saved(tmp_path / "model", "gpt")

    def broken(batch):
        return [torch.full_like(one, torch.nan) for one in exporting.answers(model, batch)]

    assert exporting.difference(model, broken) == torch.inf


def test_what_is_compared_differs_in_nothing_but_where_it_came_from(tmp_path, monkeypatch):
    """Kernels are chosen by whether a weight may have gradients."""
    saved(tmp_path / "model", "segmenter")
    seen = []

    def watched(model, batch):
        seen.append((model.training, {p.requires_grad for p in model.parameters()}))
        return answers(model, batch)

    answers = exporting.answers
    monkeypatch.setattr(exporting, "answers", watched)
    monkeypatch.setattr("tasks.commands.export.answers", watched)
    export(tmp_path / "model", "safetensors", tmp_path / "out")
    assert seen == [(False, {False})] * 2


def test_what_a_program_needs_lies_beside_it(tmp_path):
    model = saved(tmp_path / "model", "vit")
    model.labels, model.preprocess = list("abcdefg"), Preprocess((16, 16), mean=(0.1, 0.2, 0.3))
    family.save_pretrained(model, tmp_path / "named")
    export(tmp_path / "named", "torch-export", tmp_path / "out")
    said = json.loads((tmp_path / "out/model.json").read_text())
    assert said["labels"] == model.labels and said["category_ids"] == list(range(7))
    assert said["task"] == "ImageClassification"
    assert (said["inputs"], said["outputs"]) == (["pixel_values"], ["logits"])
    assert Preprocess.from_dict(said["preprocess"]) == model.preprocess
