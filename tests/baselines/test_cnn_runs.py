"""Convolutional baselines train through ``family fit`` and are used from their checkpoints."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

import family
from tasks.cli import main
from tasks.compare.config import lay_over, read_yaml
from tasks.compare.describe import describe
from tasks.data import shapes
from tasks.errors import UserError
from tasks.runs.checkpoints import load_checkpoint
from tasks.training.building import build_for

SMALL = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.limit_predict_batches=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.examples=200",
    "--data.batch_size=4",
]
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shapes.draw(shapes.sample(0, split="test"), 96).save(tmp_path / "picture.png")
    return tmp_path


def fit(config: str, *more: str) -> dict[str, float]:
    main(["fit", "--config", config, "--run_folder=run", *SMALL, *more])
    return json.loads(Path("run/metrics-fit.json").read_text())["metrics"]


def evaluated() -> dict[str, float]:
    """Test and predict with the checkpoint of :func:`fit`."""
    again = ["--config=run/config.yaml", "--ckpt_path=run", *SMALL]
    main(["predict", *again, "--run_folder=predicted"])
    assert Path("predicted/predictions.jsonl").read_text()
    main(["test", *again, "--run_folder=tested"])
    return json.loads(Path("tested/metrics-test.json").read_text())["metrics"]


def test_classification(capsys):
    assert "val/accuracy" in fit("image_classification/shapes_cnn", "--trainer.max_steps=4")
    assert "test/accuracy" in evaluated()
    capsys.readouterr()
    main(["classify", "run", "picture.png", "--top=1"])
    assert capsys.readouterr().out.startswith("picture.png\t")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "terms"),
    [
        (
            "detection/shapes_faster_rcnn",
            {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"},
        ),
        ("detection/shapes_retinanet", {"classification", "bbox_regression"}),
    ],
)
def test_detection(config, terms):
    least = "--model.model.init_args.score_threshold=0.001"
    metrics = fit(config, least, "--model.model.init_args.width=8")
    assert "val/map" in metrics
    assert "retinanet" in config or "test/map" in evaluated()
    assert "val/loss" not in metrics
    logged = {f"train/{name}" for name in terms}
    assert logged <= metrics.keys()
    assert metrics["train/loss"] == pytest.approx(sum(metrics[name] for name in logged), rel=1e-4)
    main(["detect", "run", "picture.png", "--out=out", "--threshold=0"])
    found = json.loads(Path("out/picture.json").read_text())["objects"]
    assert 0 < len(found) <= 100
    for row in found:
        x0, y0, x1, y1 = row["box"]
        assert 0 <= x0 <= x1 <= 96
        assert 0 <= y0 <= y1 <= 96
        assert row["score"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn", "deeplab"])
def test_segmentation(name):
    assert 0 <= fit(f"segmentation/shapes_{name}")["val/miou"] <= 1
    main(["segment", "run", "picture.png", "--out=out"])
    assert Image.open("out/picture-mask.png").size == (96, 96)


@pytest.mark.slow
def test_image_text(capsys):
    image = "--model.model.init_args.image=test_resnet"
    assert "val/recall@1" in fit("image_text/shapes_cnn", image)
    assert isinstance(load_checkpoint("run", "ImageText").model.image, timm.models.ResNet)
    capsys.readouterr()
    main(["search", "run", "a red circle", "picture.png", "--out=found.png"])
    assert "picture.png" in capsys.readouterr().out


def test_faster_rcnn_is_laid_over_detr():
    """As in a comparison: another class of model leaves nothing of the one that it replaces."""
    base = read_yaml(CONFIGS / "detection/shapes.yaml")
    over = read_yaml(CONFIGS / "detection/shapes_faster_rcnn.yaml")
    found = describe("faster_rcnn", lay_over(base, over))
    assert found.monitor == ("val/map", "max")
    options = over["model"]["init_args"]["model"]["init_args"]
    model = family.FasterRCNN(len(shapes.CLASSES), **options)
    assert found.parameters == sum(p.numel() for p in model.parameters())


# --- Classes that are not ours ---


class Rows(nn.Module):
    """A classifier that counts no classes."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()

    def forward(self, pixel_values: Tensor) -> Tensor:
        return pixel_values.mean((2, 3))


class Around(nn.Module):
    """A user's module around one of torchvision's, to which it hands all else."""

    def __init__(self, num_classes: int, **options: object) -> None:
        super().__init__()
        self.net = family.CNN(num_classes, "test_resnet", **options)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.net(pixel_values)


@pytest.mark.parametrize("path", ["torchvision.models.MobileNetV2", "cnn_modules.Around"])
@pytest.mark.slow
def test_a_class_that_takes_no_size_of_pictures(folder, monkeypatch, path):
    (folder / "cnn_modules.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(folder)
    (folder / "other.yaml").write_text(f"model: {{init_args: {{model: {{class_path: {path}}}}}}}\n")
    config = "image_classification/shapes"
    main(["fit", "--config", config, "--config=other.yaml", "--run_folder=run", *SMALL])
    model = load_checkpoint("run", "ImageClassification").model
    assert model(torch.randn(1, 3, 48, 48)).shape == (1, len(shapes.CLASSES))


def test_a_class_that_takes_no_classes_is_refused(folder, monkeypatch, capsys):
    (folder / "cnn_modules.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(folder)
    (folder / "other.yaml").write_text(
        "model: {init_args: {model: {class_path: cnn_modules.Rows}}}\n"
    )
    with pytest.raises(SystemExit):
        main(["fit", "--config=image_classification/shapes", "--config=other.yaml", *SMALL])
    said = capsys.readouterr().err
    assert said == "family: model: Rows takes no num_classes, which the data decides.\n"


def test_what_is_handed_to_functions():
    data = {"num_classes": 4, "image_size": (48, 48)}
    assert build_for(family.vit_tiny, data).head.out_features == 4
    tiny = build_for(partial(family.vit_tiny, dim=24, depth=1, patch_size=8), data)
    assert tiny.embedding.image_size == (48, 48)
    assert build_for(partial(timm.create_model, "test_resnet"), data).num_classes == 4
    with pytest.raises(UserError, match="model: Rows takes no num_classes"):
        build_for(Rows, data)
