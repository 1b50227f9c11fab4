"""Profiles: what is measured has its place and adds up; batches have the sizes that were asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import family
from tasks.cli import main
from tasks.compare.cases import Variant, as_picture, grown, make_room, open_variant, own_lengths
from tasks.compare.flops import counted_flops
from tasks.compare.profile import exponent, exponents, with_data
from tasks.compare.shares import PARTS, PREFIX, part, parts_of, profiled, times_by_part

TINY = {"dim": 16, "depth": 2, "heads": 2, "ffn_dim": 32}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(name: str, task: str, model: str, arguments: dict, data: str, **options) -> str:
    """A file with a tiny model of a task."""
    given = {
        "model": {
            "class_path": f"tasks.{task}",
            "init_args": {"model": {"class_path": f"family.{model}", "init_args": arguments}},
        },
        "data": {"class_path": f"tasks.{data}", "init_args": {"batch_size": 4, **options}},
    }
    Path(f"{name}.yaml").write_text(json.dumps(given))
    return f"{name}.yaml"


def gpt(**options) -> str:
    stack = {**TINY, "causal": True, "position": "learned", "max_tokens": 8, **options}
    return config(
        "gpt", "LanguageModeling", "GPT", {"config": stack}, "LanguageModelingData", context=8
    )


def lstm() -> str:
    model = {"dim": 16}
    data = "LanguageModelingData"
    return config("lstm", "LanguageModeling", "LSTMLanguageModel", model, data, context=8)


def vit() -> str:
    model = {"config": {**TINY, "position": "learned"}, "patch_size": 4}
    data = {"image_size": 8, "augment": "none", "examples": 40}
    return config("vit", "ImageClassification", "ViT", model, "ImageClassificationData", **data)


# --- The command -----------------------------------------------------------------------------


@pytest.mark.slow
def test_two_language_models_longer_than_their_contexts(capsys):
    configs = ["--config", gpt(), "--config", lstm()]
    sizes = ["--lengths", "24,12", "--batch_sizes", "1,3", "--repeats", "1"]
    main(["profile", *configs, *sizes, "--out", "out"])
    found = json.loads(Path("out/profile.json").read_text())
    assert found["unit"] == "tokens" and found["threads"] == torch.get_num_threads()
    places = [(row["config"], row["length"], row["batch_size"]) for row in found["rows"]]
    assert places == [(c, n, b) for n in (12, 24) for b in (1, 3) for c in ("gpt", "lstm")]
    for row in found["rows"]:
        assert 0 < row["pass_seconds"] < row["train_seconds"]
        assert row["decode_seconds"] > 0
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert row["train_bytes"] > 4 * 4 * row["parameters"]  # weights, gradients, two of Adam
        own = {"gpt": {"attention", "feedforward"}, "lstm": {"recurrence"}}[row["config"]]
        rest = {"attention", "feedforward", "recurrence"} - own
        assert all(row["shares"][name] > 0 for name in (*own, "embedding", "loss", "optimizer"))
        assert all(row["shares"][name] == 0 for name in (*rest, "convolution"))
    by_place = {place: row["flops"] for place, row in zip(places, found["rows"], strict=True)}
    assert by_place["lstm", 24, 3] == 6 * by_place["lstm", 12, 1]
    assert len(found["exponents"]) == 4 and all(fit["decode"] for fit in found["exponents"])
    page = Path("out/profile.md").read_text()
    assert page in capsys.readouterr().out
    assert page.count("| gpt | 24 | 3 |") == 2 and "| recurrence |" in page
    assert Path("out/profile.svg").read_text().startswith("<?xml")
    assert Path("out/profile.png").stat().st_size > 10_000


@pytest.mark.slow
def test_pictures_have_sides_and_no_decoding():
    main(["profile", "--config", vit(), "--batch_sizes", "2", "--repeats", "1", "--out", "out"])
    found = json.loads(Path("out/profile.json").read_text())
    assert found["lengths"] == [8, 16, 24] and found["unit"] == "pixels of a side"
    assert {row["decode_seconds"] for row in found["rows"]} == {None}
    assert found["exponents"][0]["decode"] is None
    # Positions are as many as patches, and a class token: the model is built for each size.
    sizes = [row["parameters"] for row in found["rows"]]
    assert [size - sizes[0] for size in sizes] == [0, 12 * 16, 32 * 16]
    assert "power of the number of pixels" in Path("out/profile.md").read_text()


@pytest.mark.slow
def test_translation_reads_and_writes_as_many_tokens():
    stack = {**TINY, "position": "sinusoidal", "max_tokens": 4}
    path = config("to_en", "Translation", "Seq2Seq", {"config": stack}, "TranslationData")
    text = json.loads(Path(path).read_text())
    text["data"]["init_args"] = {"examples": 60, "vocab_size": 300}
    Path(path).write_text(json.dumps(text))
    sizes = ["--lengths", "9", "--batch_sizes", "2", "--repeats", "1"]
    main(["profile", "--config", path, *sizes, "--out", "out"])
    (row,) = json.loads(Path("out/profile.json").read_text())["rows"]
    model = family.Seq2Seq(300, family.TransformerConfig(**{**stack, "max_tokens": 9}))
    ids = torch.ones(2, 9, dtype=torch.long)
    flops = counted_flops(lambda: model(ids, ids).sum().backward())
    assert row["flops"] == pytest.approx(flops, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--lengths", "8,x"],
            "--lengths must be whole numbers above 0 such as 64,128, not '8,x'.",
        ),
        (["--batch_sizes", "0"], "--batch_sizes must be whole numbers above 0"),
        (["--repeats", "0"], "--repeats must be at least 1, not 0."),
        (["--config", "nothing"], "--config nothing: no such file"),
        (["--data.context=0"], "data.context must be at least 1, not 0."),
        (["--data.contxt=8"], "unknown option 'contxt' of data. Did you mean 'context'?"),
        (["--out", "."], "--out . exists and is not empty: choose another folder."),
    ],
)
def test_refusals_in_one_sentence(capsys, arguments, sentence):
    with pytest.raises(SystemExit) as stopped:
        main(["profile", "--config", gpt(), "--out", "out", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("family: ") and sentence in error
    assert not Path("out").exists()


@pytest.mark.slow
def test_what_does_not_go_together_is_refused(capsys):
    for configs, sentence in (
        ((gpt(), vit()), "gpt reads texts and vit sees pictures: profile them apart."),
        ((vit(),), "vit at length 10: model: a picture of 10 x 10 pixels does not divide"),
    ):
        given = [word for path in configs for word in ("--config", path)]
        with pytest.raises(SystemExit):
            main(["profile", *given, "--lengths", "10", "--batch_sizes", "1", "--out", "out"])
        assert f"family: {sentence}" in capsys.readouterr().err


# --- Batches ---------------------------------------------------------------------------------


def test_texts_repeat_rows_and_tokens_without_padding():
    batch = {
        "input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]),
        "mask": torch.tensor([[True] * 3, [True, True, False]]),
        "labels": torch.tensor([7, 8]),
        "text": ["a", "b"],
    }
    made = grown(batch, 5, 3)
    assert made["input_ids"].tolist() == [[1, 2, 3, 1, 2], [4, 5, 0, 4, 5], [1, 2, 3, 1, 2]]
    assert made["mask"].shape == (3, 5) and bool(made["mask"].all())
    assert made["labels"].tolist() == [7, 8, 7] and made["text"] == ["a", "b", "a"]
    assert grown(batch, 2, 1)["input_ids"].tolist() == [[1, 2]]


def test_pictures_grow_with_their_masks_and_captions_stay():
    batch = {
        "pixel_values": torch.rand(2, 3, 4, 6),
        "pixel_mask": torch.zeros(2, 4, 6, dtype=torch.bool),
        "labels": torch.arange(48).view(2, 4, 6),
        "input_ids": torch.zeros(2, 9, dtype=torch.long),
        "targets": [{"boxes": 1}, {"boxes": 2}],
    }
    made = grown(batch, 8, 3)
    assert made["pixel_values"].shape == (3, 3, 8, 8)
    assert made["pixel_mask"].shape == (3, 8, 8) and bool(made["pixel_mask"].all())
    assert made["labels"].shape == (3, 8, 8) and made["labels"].unique().numel() == 48
    assert made["input_ids"].shape == (3, 9) and made["targets"][2] == {"boxes": 1}
    assert torch.equal(as_picture(batch["labels"], 2)[0], batch["labels"][0][::2, ::3])


@pytest.mark.slow
def test_models_get_room_and_pictures_their_own_sizes():
    parsed = {"model.init_args.model.init_args.config.max_tokens": 8, "data.max_tokens": 8}
    make_room(parsed, 20)
    assert parsed == {
        "model.init_args.model.init_args.config.max_tokens": 20,
        "data.max_tokens": 8,
    }
    variant = open_variant("gpt", gpt(max_tokens=64), [], 20)
    assert isinstance(variant, Variant) and own_lengths(variant) == [64, 128, 256]
    variant.task.configure_model()
    assert variant.task.model.config.max_tokens == 64


# --- Numbers ---------------------------------------------------------------------------------


def test_exponents_of_lengths_and_of_pixels():
    assert exponent([(1, 3.0), (10, 300.0), (100, 30_000.0)]) == pytest.approx(2)
    assert exponent([(5, 1.0), (5, 2.0)]) is None
    row = {"config": "a", "batch_size": 1}
    rows = [{**row, "length": n, "pass_seconds": n**2, "decode_seconds": None} for n in (2, 4, 8)]
    (by_length,), (by_area,) = exponents(rows, area=False), exponents(rows, area=True)
    assert by_length == {**row, "pass": pytest.approx(2), "decode": None}
    assert by_area["pass"] == pytest.approx(1)


def test_shares_with_the_time_of_data():
    parts = dict.fromkeys(PARTS, 0.0) | {"attention": 0.75, "loss": 0.25}
    shares = with_data(parts, step=3.0, data=1.0)
    assert shares["attention"] == 0.5625 and shares["data"] == 0.25
    assert sum(shares.values()) == 1


class Sleepless(nn.Module):
    """Three parts of which one does nearly all the work, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 256)
        config = family.TransformerConfig(dim=256, heads=2, ffn_dim=8)
        self.attention = family.Attention(config)
        self.feedforward = family.FeedForward(config.replace(ffn_dim=8192))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.feedforward(self.attention(self.embedding(ids)))


def test_the_part_that_does_the_work_has_the_time():
    torch.manual_seed(0)
    model = Sleepless()
    ids = torch.randint(0, 4, (4, 64))

    def step() -> None:
        with part("loss"):
            loss = model(ids).square().mean()
        loss.backward()

    step()
    model.zero_grad()
    shares, peak = profiled(step, model)
    assert set(shares) == set(PARTS) and sum(shares.values()) == pytest.approx(1)
    assert shares["feedforward"] > 0.6 > 0.3 > shares["attention"] > 0
    assert shares["optimizer"] == shares["recurrence"] == 0
    weights = sum(p.nbytes for p in model.parameters())
    hidden = 2 * 4 * 64 * 8192 * 4  # what feed-forward keeps: before and after its activation
    assert weights + hidden < peak < weights + 3 * hidden
    assert not any(module._forward_hooks for module in model.modules())


def test_a_backward_operation_belongs_to_the_part_that_recorded_it():
    def event(name, start, length, number=-1, inside=None):
        time_range = SimpleNamespace(start=start, elapsed_us=lambda: length)
        return SimpleNamespace(
            name=name, time_range=time_range, sequence_nr=number, cpu_parent=inside, scope=0
        )

    loss = event(f"{PREFIX}loss", 0, 100)
    attention = event(f"{PREFIX}attention", 10, 40, inside=loss)
    engine = "autograd::engine::evaluate_function: "
    events = [
        loss,
        attention,
        event("aten::view", 5, 1, 1, inside=loss),  # peeks at the number that mm then takes
        event("aten::mm", 12, 30, 1, inside=attention),
        event("aten::mean", 60, 30, 2, inside=loss),
        event(f"{engine}MeanBackward0", 110, 7, 2),
        event(f"{engine}MmBackward0", 120, 70, 1),
        event(f"{engine}AccumulateGrad", 190, 3),
    ]
    assert times_by_part(events, on_gpu=False) == {"loss": 60 + 7, "attention": 40 + 70, "other": 3}


def test_parts_of_members():
    def kinds(model: nn.Module) -> set[str]:
        return {name for name, _ in parts_of(model)}

    all_texts = {"attention", "feedforward", "embedding", "head", "other"}
    assert kinds(family.gpt_nano(20, **TINY)) == all_texts
    assert kinds(family.vit_tiny(3, 4, 8, **TINY)) == all_texts
    assert kinds(family.LSTMSeq2Seq(20, dim=16)) == {
        "attention",
        "recurrence",
        "embedding",
        "head",
        "other",
    }
    convolutions = nn.Sequential(nn.Conv2d(3, 3, 1))
    assert kinds(convolutions) == {"convolution", "other"}
