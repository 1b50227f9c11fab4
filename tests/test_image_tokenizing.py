"""Image tokens in training: what is logged, a run that is cut, and other networks' eyes."""

from __future__ import annotations

import json
import math

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import family
import tasks
from family.losses.perceptual import Perceptual, stages
from tasks.cli import main
from tasks.errors import UserError
from tasks.image_tokenizing import compared, likeness, use

CODES = 40
FIT = [
    "fit",
    "--config=image_tokenizing/shapes",
    "--model.model.init_args.width=8",
    "--model.model.init_args.depth=1",
    f"--model.model.init_args.codebook.size={CODES}",
    "--trainer.val_check_interval=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.examples=64",
    "--data.batch_size=8",
    "--data.image_size=16",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fit(folder, steps, *more):
    main([*FIT, f"--run_folder={folder}", f"--trainer.max_steps={steps}", *more])
    return json.loads(open(f"{folder}/metrics-fit.json").read())["metrics"]


def tokenizer(**given):
    torch.manual_seed(0)
    config = family.CodebookConfig(size=CODES, dim=4)
    return family.ImageTokenizer(16, width=8, depth=1, codebook=config, **given)


def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        accelerator="cpu", enable_checkpointing=False, **{**quiet, "max_steps": 2, **options}
    )


def pixels(count=8):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.slow
def test_a_run_is_cut_and_goes_on_to_the_bit():
    whole = fit("whole", 8)
    fit("half", 4)
    rest = fit("rest", 8, "--ckpt_path=half")
    for name in ("loss", "psnr", "ssim", "codes_used", "perplexity"):
        assert rest[f"val/{name}"] == whole[f"val/{name}"], name
    # Of the whole epoch of eight batches, though the second run saw but half of it.
    for name in ("codes_used", "perplexity"):
        assert rest[f"train/{name}"] == whole[f"train/{name}"]
    assert 0 < whole["val/codes_used"] <= 1 <= whole["val/perplexity"] <= CODES
    states = [torch.load(f"{run}/checkpoints/last.ckpt")["state_dict"] for run in ("whole", "rest")]
    assert any("codebook.counts" in name for name in states[0])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_another_codebook_than_the_checkpoint(capsys):
    fit("half", 2)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        fit("rest", 4, "--ckpt_path=half", "--model.model.init_args.codebook.size=41")
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "codebook.size=40, but the config says 41" in said


def test_the_use_is_of_all_batches_together():
    task, rows = tasks.ImageTokenizing(tokenizer().eval()), pixels(12)
    run = trainer()
    run.validate(task, DataLoader(rows, collate_fn=batch, batch_size=5), verbose=False)
    counts = task.model.tokenize(rows).flatten().bincount(minlength=CODES)
    shares = counts[counts > 0] / counts.sum()
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    assert found["val/codes_used"] == pytest.approx(len(shares) / CODES)
    entropy = -float((shares * shares.log()).sum())
    assert found["val/perplexity"] == pytest.approx(math.exp(entropy), rel=1e-5)
    made = task.model(rows).detach()
    error = ((made.clamp(-1, 1) - rows) / 2).square().mean((1, 2, 3))
    assert found["val/psnr"] == pytest.approx(float((-10 * error.log10()).mean()), rel=1e-5)
    assert task.pictures["reconstructions"].width > 5 * 96


def batch(rows):
    return {"pixel_values": torch.stack(list(rows))}


def test_numbers_of_a_perfect_picture_and_of_even_use():
    rows = pixels()
    found = likeness(rows, rows)
    assert found["psnr"].tolist() == [100] * 8 and found["ssim"].tolist() == [1] * 8
    assert "ssim" not in likeness(rows[..., :8, :8], rows[..., :8, :8])
    even = use(torch.tensor([3, 3, 3, 0]))
    assert even["codes_used"] == 0.75 and float(even["perplexity"]) == pytest.approx(3)


def test_originals_stand_above():
    true = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    page = compared(true, true + 255, columns=2)
    dark = [page.getpixel((20, y))[0] < 128 for y in range(12, page.height)]
    assert dark[20] and not dark[150] and dark[260]


def test_half_precision_throughout_is_refused():
    with pytest.raises(UserError, match=r"precision=bf16-true: .* set bf16-mixed"):
        trainer(precision="bf16-true").fit(
            tasks.ImageTokenizing(tokenizer()), DataLoader(pixels(), collate_fn=batch)
        )
    task = tasks.ImageTokenizing(tokenizer(), warmup_steps=0)
    trainer(precision="bf16-mixed").fit(task, DataLoader(pixels(), 4, collate_fn=batch))
    assert task.model.codebook.steps == 2 and task.model.codebook.sums.dtype == torch.float32


# --- Perceptual ---


def networks():
    torch.manual_seed(0)
    stack = family.TransformerConfig(dim=16, depth=3, heads=2, position="learned")
    return family.ViT(5, stack, 16, 8), family.CNN(5, width=8, small=True)


@pytest.mark.parametrize("which", [0, 1])
def test_a_network_compares_at_several_depths(which):
    network = networks()[which]
    assert len(stages(network)) == (3, 4)[which]
    looks = Perceptual(network, (0.5,) * 3, (0.2,) * 3, (16, 16))
    one, other = pixels(2), pixels(4)[2:].requires_grad_()
    assert looks(one, one) == 0
    distance = looks(other, one)
    distance.backward()
    assert distance > 0 and other.grad.any()
    assert all(p.grad is None for p in network.parameters())
    features = looks.features(one)
    assert len(features) == (3, 4)[which]
    torch.testing.assert_close(features[0].norm(dim=-1).max(), torch.tensor(1.0))
    with pytest.raises(ValueError, match="has no stages"):
        Perceptual(torch.nn.Linear(2, 2), (0.5,) * 3, (0.2,) * 3, (16, 16))


@pytest.mark.slow
def test_a_run_of_classification_is_looked_through(capsys):
    tiny = {"dim": 16, "depth": 2, "heads": 2, "ffn_dim": 32}
    stack = [f"--model.model.init_args.config.{name}={value}" for name, value in tiny.items()]
    quiet = [each for each in FIT if each.startswith(("--trainer", "--data"))]
    classify = ["fit", "--config=image_classification/shapes", "--run_folder=seen"]
    main([*classify, *quiet, *stack, "--trainer.max_steps=2"])
    found = fit("run", 2, "--model.perceptual=seen", "--model.perceptual_weight=0.5")
    parts = [found[f"val/{name}"] for name in ("reconstruction", "commitment", "perceptual")]
    assert found["val/loss"] == pytest.approx(parts[0] + parts[1] + 0.5 * parts[2], rel=1e-5)
    weights = torch.load("run/checkpoints/last.ckpt")["state_dict"]
    assert all(name.startswith("model.") for name in weights)
    assert str(family.load("run").task) == "ImageTokenizing"
    capsys.readouterr()
    with pytest.raises(SystemExit):
        fit("wrong", 2, "--model.perceptual=run")
    assert (
        "is for ImageTokenizing: a run of image classification is wanted" in capsys.readouterr().err
    )
