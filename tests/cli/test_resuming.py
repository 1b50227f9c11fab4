"""A resumed run: what its config says was run, and options that a checkpoint overrides are refused."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import tasks
from tasks.cli import main
from tasks.data.base import FamilyData

TINY = {"dim": 16, "depth": 1, "heads": 2, "ffn_dim": 32}
SMALL = [
    *(f"--model.model.init_args.config.{name}={value}" for name, value in TINY.items()),
    "--trainer.val_check_interval=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--model.optimizer=adamw",
    "--data.examples=64",
    "--data.batch_size=8",
    "--data.image_size=16",
]
FIT = ["fit", "--config=image_classification/shapes", *SMALL]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def half(*more):
    main([*FIT, "--run_folder=half", "--trainer.max_steps=4", *more])


def go_on(*more, folder="rest"):
    resume = [f"--run_folder={folder}", "--ckpt_path=half", "--trainer.max_steps=6"]
    main([*FIT, *resume, *more])


def refused(call, capsys, *more):
    with pytest.raises(SystemExit):
        call(*more)
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return said


def rates(run):
    rows = torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)
    return [group["lr"] for group in rows["optimizer_states"][0]["param_groups"]]


@pytest.mark.slow
def test_a_resumed_run_is_scored_by_its_own_checkpoint(capsys):
    half()
    go_on()
    saved = yaml.safe_load(Path("rest/config.yaml").read_text())
    assert "ckpt_path" not in saved
    record = json.loads(Path("rest/metrics-fit.json").read_text())
    assert record["checkpoint"] == "half/checkpoints/last.ckpt"
    validate = ["validate", "--config=rest/config.yaml", "--run_folder=scored"]
    assert "needs --ckpt_path" in refused(main, capsys, validate)
    # A config of before names the ancestor: nobody scores that one by mistake.
    Path("rest/config.yaml").write_text(yaml.safe_dump({**saved, "ckpt_path": "half"}))
    assert "give --ckpt_path=rest for the run itself" in refused(main, capsys, validate)
    main([*validate, "--ckpt_path=rest"])
    scored = json.loads(Path("scored/metrics-validate.json").read_text())
    assert scored["checkpoint"] == "rest/checkpoints/best.ckpt"


@pytest.mark.slow
def test_rate_decay_and_schedule_of_the_call_are_taken():
    half("--model.lr=0.01", "--model.schedule=constant", "--model.warmup_steps=0")
    given = ["--model.lr=0.001", "--model.weight_decay=0.3", "--model.betas=[0.5,0.6]"]
    go_on(*given, "--model.schedule=linear", "--model.warmup_steps=0")
    state = torch.load("rest/checkpoints/last.ckpt", weights_only=True)
    groups = state["optimizer_states"][0]["param_groups"]
    assert groups[1]["weight_decay"] == 0.0 and groups[0]["weight_decay"] == 0.3
    assert tuple(groups[0]["betas"]) == (0.5, 0.6)
    assert rates("rest") == [0.0, 0.0]  # linear, at its end
    rows = Path("rest/config.yaml").read_text()
    assert yaml.safe_load(rows)["model"]["init_args"]["lr"] == 0.001
    go_on("--model.lr=0.001", "--model.schedule=constant", "--model.warmup_steps=0", folder="flat")
    assert rates("flat") == [0.001, 0.001]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model.optimizer=muon"], "model.optimizer='adamw'"),
        (["--model.freeze=[embedding.*]"], "model.freeze=None"),
        (["--model.layer_decay=0.5"], "model.layer_decay=None"),
        (["--data.image_size=24"], "data.image_size=16"),
        (["--data.mean=[0,0,0]"], "data.mean="),
        (["--seed_everything=3"], "seed_everything=0"),
    ],
)
@pytest.mark.slow
def test_what_resuming_overrides_is_refused(options, says, capsys):
    half()
    said = refused(go_on, capsys, *options)
    assert says in said and "half/checkpoints/last.ckpt" in said
    assert not Path("rest").exists()


def test_evaluation_refuses_what_the_checkpoint_decides(capsys):
    half()
    test = ["test", "--config=half/config.yaml", "--ckpt_path=half", "--run_folder=test"]
    assert "data.image_size=16" in refused(main, capsys, [*test, "--data.image_size=24"])


@pytest.mark.slow
def test_the_order_of_batches_is_recorded_as_it_goes_on():
    half("--seed_everything=3")
    go_on()
    assert yaml.safe_load(Path("rest/config.yaml").read_text())["seed_everything"] == 3


@pytest.mark.slow
def test_a_finished_run_leaves_no_empty_folder(capsys):
    half()
    said = refused(go_on, capsys, "--trainer.max_steps=4")
    assert "is at its end, with 4 of trainer.max_steps=4" in said
    said = refused(go_on, capsys, "--trainer.max_steps=-1", "--trainer.max_epochs=0")
    assert "trainer.max_epochs" in said
    assert not Path("rest").exists()


@pytest.mark.parametrize(
    ("limit", "value"), [("max_steps", 1), ("max_epochs", 1), ("max_time", "00:00:00:01")]
)
@pytest.mark.slow
def test_a_finished_run_says_what_makes_it_train_longer(limit, value, capsys, folder):
    """By whatever it came to its end; one by counting, whichever of its checkpoints is named."""
    ends = [
        "--trainer.max_steps=-1",
        "--trainer.limit_train_batches=2",
        "--model.schedule=constant",
    ]
    ends += [f"--trainer.{limit}={value}"]
    main([*FIT, "--run_folder=half", *ends])
    for run in ["half"] + ["half/checkpoints/best.ckpt"] * (limit != "max_time"):
        said = refused(main, capsys, ["resume", run])
        assert "is at its end" in said and f"give a larger trainer.{limit} to go on" in said
    assert sorted(path.name for path in folder.iterdir()) == ["half"]


def test_paths_of_a_run_hold_everywhere(folder, monkeypatch):
    for split in ("train", "val"):
        for label in ("a", "b"):
            place = Path("pictures") / split / label
            place.mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (16, 16), (i * 9, 3, 200 * (label == "a"))).save(
                    place / f"{i}.png"
                )
    here = [a for a in FIT if "examples" not in a and "batch" not in a]
    here += ["--data.root=pictures", "--data.batch_size=2", "--trainer.max_steps=2"]
    main([*here, "--run_folder=run"])
    (folder / "else").mkdir()
    monkeypatch.chdir(folder / "else")
    main(["validate", "--config=../run/config.yaml", "--ckpt_path=../run", "--run_folder=v"])


# Options that are no names of files, and another value of each.
OTHERS = {
    "image_size": (24, 24),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.1, 0.2, 0.3),
    "background": (0, 0, 0),
    "tokenizer": "char",
    "vocab_size": 370,  # a hundred are for spans
    "lowercase": None,
    "shared_vocabulary": False,
    "max_tokens": 9,
}
SHORT = {"examples": 40, "tokenizer": "bpe", "vocab_size": 380}
DATA = [
    name for name in dir(tasks) if name.endswith("Data") and name not in ("FamilyData", "OwnData")
]
NEEDED = {"VisionChatData": {"image_size": (16, 16), "slots": 4}}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.slow
def test_every_option_that_a_checkpoint_carries_is_held_against_it(name):
    cls = getattr(tasks, name)
    assert issubclass(cls, FamilyData)
    parameters = inspect.signature(cls).parameters
    small = {name: value for name, value in SHORT.items() if name in parameters}
    small |= NEEDED.get(name, {})
    before = cls(**small)
    before.prepare_data()
    for option in OTHERS.keys() & parameters.keys():
        other = OTHERS[option]
        other = not parameters[option].default if other is None else other
        changed = cls(**{**small, option: other})
        changed.prepare_data()
        assert option in cls.decided or changed.assets() == before.assets(), option


@pytest.mark.slow
def test_a_run_is_named_alone(capsys):
    half()
    main(["resume", "half", "--trainer.max_steps=6", "--run_folder=rest"])
    assert json.loads(Path("rest/metrics-fit.json").read_text())["step"] == 6
    main(["validate", "rest", "--run_folder=seen"])
    found = json.loads(Path("seen/metrics-validate.json").read_text())["metrics"]
    assert found["val/accuracy"] >= 0
    main(["test", "half/checkpoints/last.ckpt", "--run_folder=tested"])
    assert "test/accuracy" in json.loads(Path("tested/metrics-test.json").read_text())["metrics"]
    assert "there is no run nowhere." in refused(main, capsys, ["test", "nowhere"])
    assert "family resume RUN" in refused(main, capsys, ["resume"])
    Path("bare").mkdir()
    assert "bare has no config.yaml of a run" in refused(main, capsys, ["resume", "bare"])


def test_a_limit_below_what_is_done_is_refused_and_nothing_is_lost(capsys):
    half()
    before = Path("half/checkpoints/last.ckpt").read_bytes()
    said = refused(lambda: main(["resume", "half", "--trainer.max_steps=3"]), capsys)
    assert "at its end, with 4 of trainer.max_steps=3" in said and "larger" in said
    assert Path("half/checkpoints/last.ckpt").read_bytes() == before


def test_the_same_data_are_not_divided_otherwise(capsys, folder):
    for i in range(20):
        for kind in "ab":
            (folder / "pictures" / kind).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (i * 10, 0, 0)).save(folder / f"pictures/{kind}/{i}.png")
    half("--data.root=pictures", "--data.test_fraction=0.2")
    said = refused(
        lambda: main(["test", "half", "--data.split_seed=5", "--trainer.accelerator=cpu"]), capsys
    )
    assert "data.split_seed=" in said and "trained on" in said
    main(["test", "half", "--trainer.accelerator=cpu", "--run_folder=tested"])
