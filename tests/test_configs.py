"""Every config that is shipped runs, on the built-in data, into the corners of the libraries that it uses."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml

import tasks
from tasks.cli import main
from tasks.cli.building import build_task
from tasks.runs.checkpoints import load_checkpoint
from tasks.training.problem import monitor_of

ROOT = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(file for file in ROOT.glob("*/*.yaml") if file.parent.name != "compare")
EXAMPLES, SEEN = 400, 300
"""Of each config's data, so that all labels are among them; and how many of these, as training sees them."""
BATCHES = {"batch_size": 8, "tokens_per_batch": 512}
"""Sizes of batches, where a config's are not smaller."""
BRIEF = (
    "--trainer.max_steps=2",
    "--trainer.max_epochs=null",
    "--trainer.limit_val_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)
SOURCES = {
    "chat": "chat_tuning/shapes",
    "text": "masked_language_modeling/shapes",
    "judge": "text_classification/shapes",
    "pictures": "image_classification/shapes",
    "tokens": "image_tokenizing/shapes",
}
"""What stands for published models that continue texts, for those that read them, and for runs that a config's
header trains first."""
PARTS = {"image_tokenizer": "tokens", "vision": "pictures", "language": "chat"}
"""Options that name such a run."""

BY_METRIC = ("image_text", "policy_tuning", "sentence_embedding")
"""Tasks that validate by their metrics alone: a contrast depends on the batch, and a reward is no loss. So do
detectors with a loss of their own, which they have in training alone."""


def fit(name: str, folder: Path) -> str:
    file = ROOT / f"{name}.yaml"
    few = sizes(file.read_text(encoding="utf-8"))
    main(["fit", f"--config={file}", *BRIEF, *few, f"--run_folder={folder}"])
    return str(folder)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    place = tmp_path_factory.mktemp("sources")
    made = {kind: fit(name, place / kind) for kind, name in SOURCES.items()}
    return {**made, "label": load_checkpoint(made["judge"]).model.labels[0]}


def command_of(config: Path) -> str:
    """The command in a config's header that trains it, of one or more lines."""
    name, text = f"{config.parent.name}/{config.stem}", config.read_text(encoding="utf-8")
    for command in re.findall(r"family fit .*", text.replace("\\\n#", "")):
        if (found := re.findall(r"--config (\S+)", command)) and found[-1] == name:
            return command
    raise AssertionError(f"the header of {config} has no command")


def sizes(text: str) -> list[str]:
    """What makes a config's data few, in small batches."""
    data = yaml.safe_load(text)["data"]
    kind = getattr(tasks, data["class_path"].rpartition(".")[2])
    known = {name: one.default for name, one in inspect.signature(kind).parameters.items()}
    known |= data["init_args"]
    few = {"examples": EXAMPLES, **BATCHES}
    return [
        f"--data.{name}={min(size, known[name])}" for name, size in few.items() if known.get(name)
    ]


def options_of(text: str, command: str, sources: dict[str, str]) -> list[str]:
    """What makes a config run here: built-in data, no weights from outside, no compiler, no workers."""
    found = ["--data.root=null", *sizes(text)]
    if "num_workers:" in text:
        found.append("--data.num_workers=0")
    if "compile: true" in text:
        found.append("--model.compile=false")
    if "context: 512" in text:
        found.append("--data.context=256")  # the stand-in's
    if "languages: " in text and "zh" in text:
        found.append("--data.languages=[en, fr, de]")  # the built-in ones
    if "source: en" in text:
        found += ["--data.source=fr", "--data.target=en"]
    if "loss: cosent" in text:
        found.append("--model.loss=ranking")  # built-in pairs have no numbers
    if "pretrained: " in text or "--model.pretrained " in command:
        reads = re.search(r"pretrained: (sentence-|pretrained/)", text)
        found.append(f"--model.pretrained={sources['text' if reads else 'chat']}")
    for option, source in PARTS.items():
        if f"--model.{option} " in command:
            found.append(f"--model.{option}={sources[source]}")
    if "ClassifierScorer" in text:
        found.append(f"--model.scorer.init_args.source={sources['judge']}")
        found.append(f"--model.scorer.init_args.label={sources['label']}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_shipped_configs_run(config, sources, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = command_of(config)
    first, *over = (str(ROOT / f"{name}.yaml") for name in re.findall(r"--config (\S+)", command))
    text = Path(first).read_text(encoding="utf-8")
    options = [*(f"--config={file}" for file in over), *options_of(text, command, sources)]
    task, data = build_task(first, [*options, *BRIEF])
    seen = 0
    for batch in data.train_dataloader():
        seen += max(len(value) for value in batch.values() if isinstance(value, torch.Tensor))
        if seen >= SEEN:
            break
    task.trainer.fit(task, datamodule=data)
    found, watched = task.trainer.callback_metrics, ["train/loss", monitor_of(task, data)[0]]
    if config.parent.name not in BY_METRIC and getattr(task, "own_loss", None) is None:
        watched.append("val/loss")
    assert task.trainer.global_step == 2
    assert all(torch.isfinite(found[name]) for name in watched)
