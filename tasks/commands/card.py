"""A model card: what a run learnt from what, how well, by which command, and where its limits are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from family.inference.loaded import assets_of
from tasks.compare.provenance import data_hash, installed
from tasks.runs.numbers import short
from tasks.runs.overview import RunFolder

TAGS = {
    "AudioTranscription": "automatic-speech-recognition",
    "Captioning": "image-to-text",
    "ChatTuning": "text-generation",
    "Detection": "object-detection",
    "ImageClassification": "image-classification",
    "ImageText": "zero-shot-image-classification",
    "LanguageModeling": "text-generation",
    "MaskedLanguageModeling": "fill-mask",
    "PolicyTuning": "text-generation",
    "PreferenceTuning": "text-generation",
    "QuestionAnswering": "question-answering",
    "Segmentation": "image-segmentation",
    "SentenceEmbedding": "sentence-similarity",
    "Tagging": "token-classification",
    "TextClassification": "text-classification",
    "TextToImage": "text-to-image",
    "TextToText": "text2text-generation",
    "Translation": "translation",
    "VideoClassification": "video-classification",
    "VisualQuestions": "visual-question-answering",
}
"""What the Hub calls our tasks."""
PLACES = ("root", "pretrained")
"""Options with paths of the machine that trained, of which a card has the last part."""


class Result(NamedTuple):
    """What was written.

    Args:
        layout: the published format; "" is our own.
        metrics: of the checkpoint that was handed on.
        signatures: of those that have one.
    """

    layout: str
    metrics: dict[str, float]
    signatures: dict[str, Any]


def card(one: RunFolder, model: Any, result: Result) -> str:
    """The text of ``README.md``, with the front matter that the Hub reads."""
    data = one.config.get("data") or {}
    options = data.get("init_args") or {}
    root = options.get("root")
    dataset = Path(str(root)).name if root else "built-in shapes (generated)"
    parts = [
        "---\n"
        + yaml.safe_dump(front(one, dataset, result), sort_keys=False, allow_unicode=True)
        + "---",
        f"# {one.folder.resolve().name}",
        what(one, model),
        "## Use\n\n" + use(one, result),
        f"## Data\n\n{dataset}, read by `{data.get('class_path', '')}`.\nHash of the files: "
        f"`{data_hash(data)}`.",
        "## Results\n\n" + results(result),
        "## Training\n\n" + training(one),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in limits(model, dataset)),
    ]
    return "\n\n".join(parts) + "\n"


def front(one: RunFolder, dataset: str, result: Result) -> dict[str, Any]:
    """The Hub's metadata; a licence is for whoever publishes to choose."""
    tag = TAGS.get(one.task)
    name, values = one.folder.resolve().name, []
    for metric, value in result.metrics.items():
        if metric.startswith(("val/", "test/")):
            values.append({"type": metric.partition("/")[2], "name": metric, "value": value})
    found: dict[str, Any] = {
        "library_name": "transformers" if result.layout else "transformer-family",
        **({"pipeline_tag": tag} if tag else {}),
        "tags": ["transformer-family", *([result.layout] if result.layout else [])],
    }
    if tag and values:
        index = {"task": {"type": tag}, "dataset": {"name": dataset, "type": "local"}}
        found["model-index"] = [{"name": name, "results": [index | {"metrics": values}]}]
    return found


def what(one: RunFolder, model: Any) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    said = f"A `{type(model).__name__}` with {short(count)} parameters, trained for `{one.task}`"
    source = ((one.config.get("model") or {}).get("init_args") or {}).get("pretrained")
    return said + (
        f" from the weights of {Path(str(source)).name}." if source else ", from scratch."
    )


def use(one: RunFolder, result: Result) -> str:
    lines = [
        "import family",
        "",
        'loaded = family.load("FOLDER")',
        "answers = loaded.predict([...])",
    ]
    said = "```python\n" + "\n".join(lines) + "\n```"
    if result.layout:
        said += (
            f"\n\nThe files are in the layout `{result.layout}`: transformers' `from_pretrained` reads them, "
            "too, with the same answers."
        )
    return said


def results(result: Result) -> str:
    """A table of the checkpoint's metrics, each with what it was computed by, where that is said."""
    if not result.metrics:
        return "None were written."
    rows = ["| metric | value | signature |", "| --- | --- | --- |"]
    for name, value in result.metrics.items():
        signature = result.signatures.get(name, "")
        rows.append(f"| {name} | {value:.5g} | {f'`{signature}`' if signature else ''} |")
    return "\n".join(rows) + "\n\nOf the checkpoint that lies here."


def training(one: RunFolder) -> str:
    command = " ".join(one.state.get("command") or [])
    versions = ", ".join(f"{name} {installed(name)}" for name in ("torch", "pytorch-lightning"))
    said = f"```\n{command}\n```\n\n" if command else ""
    seed = one.config.get("seed_everything")
    return said + (
        f"{one.step:,} steps, seed {seed}; {versions}. All options, with their values, are in "
        "`training_config.yaml`."
    )


def limits(model: Any, dataset: str) -> list[str]:
    """What follows from the model and its data, and what nobody has looked at."""
    said = [f"It knows what is in {dataset}, and nothing of other data was measured."]
    assets = assets_of(model)
    if assets.get("max_tokens"):
        said.append(f"Texts of more than {assets['max_tokens']} tokens are cut, or refused.")
    size = (assets.get("preprocess") or {}).get("size")
    if size:
        said.append(
            f"Pictures are seen at {size if isinstance(size, int) else ' x '.join(map(str, size))} pixels."
        )
    if labels := assets.get("labels"):
        some = ", ".join(map(str, labels[:20])) + " ..." * (len(labels) > 20)
        said.append(
            f"It knows {len(labels)} classes, and names one of them for whatever it is shown: {some}."
        )
    said.append("Bias, safety and behaviour under attack were not examined.")
    return said


def shared(config: dict[str, Any]) -> dict[str, Any]:
    """A config without the paths of the machine that trained."""
    if not isinstance(config, dict):
        return config
    return {
        name: Path(value).name if name in PLACES and isinstance(value, str) else shared(value)
        for name, value in config.items()
    }
