"""Shipped configs made small, so that they run here: built-in data, stand-ins for what is published."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import yaml

import tasks
from tasks.cli import main
from tasks.runs.checkpoints import load_checkpoint

ROOT = Path(__file__).parents[1] / "configs"
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


def fit(name: str, folder: Path) -> str:
    file = ROOT / f"{name}.yaml"
    few = sizes(file.read_text(encoding="utf-8"))
    main(["fit", f"--config={file}", *BRIEF, *few, f"--run_folder={folder}"])
    return str(folder)


def stand_ins(place: Path) -> dict[str, str]:
    """Sources of each kind, trained for two steps, and a label that a judge knows."""
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
    if "image_tokenizer: " in text and "image_size: [64, 64]" in text:
        found.append("--data.image_size=[48, 48]")  # the stand-in's
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
