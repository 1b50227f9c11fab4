"""``family export SOURCE --format onnx --out FOLDER``: a model in files that others read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from family.inference.loaded import assets_of
from family.models.member import facts_of
from family.pretrained import from_pretrained, save_pretrained
from family.pretrained.text import save_tokenizer, two_of_ours
from tasks.commands.examples import command_parser
from tasks.commands.results import write_json
from tasks.errors import UserError
from tasks.runs.export import Run, answers, difference, inputs_of, quietly, to_onnx, to_program
from tasks.runs.sources import open_published

TOLERANCE = {"safetensors": 0.0, "onnx": 1e-4, "torch-export": 1e-5}
"""How far an export may be from its model, relative to the largest answer."""

BESIDE = "model.json"
"""What :func:`beside` says, in the folder of an ONNX file or an exported program."""


def run(arguments: list[str]) -> None:
    """Write the model, load it again, and compare the two on a random batch."""
    parser = command_parser(
        "export",
        __doc__,
        "family export RUN --format onnx --out exported",
        "family export RUN --format safetensors --layout gpt2 --out published",
    )
    parser.add_argument("source", help="a .ckpt file, the folder of a run, or a published model")
    parser.add_argument(
        "--format", choices=list(TOLERANCE), required=True, help="what other program is to read it"
    )
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--layout",
        help="safetensors: as which published format, like gpt2 or sentence-transformers; none: our "
        "own, which family.from_pretrained and all commands read",
    )
    options = parser.parse_args(arguments)
    if options.layout is not None and options.format != "safetensors":
        raise UserError(f"--layout is for --format safetensors, not {options.format}.")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(f"--out {options.out} exists and is not empty: choose another folder.")
    model = load(options.source)
    inputs_of(model)  # refused before anything is written
    there = options.out.exists()
    try:
        again = export(model, options.format, options.layout, options.out)
        if options.format != "safetensors":
            write_json(options.out / BESIDE, beside(model))
        worst, allowed = difference(model, again), TOLERANCE[options.format]
        if not worst <= allowed:
            raise UserError(
                f"what was written gives other answers than its model: they differ by {worst:.1e} "
                f"of the largest, and at most {allowed:.0e} is allowed. {options.out} is removed."
            )
    except BaseException:
        remove(options.out, there)
        raise
    print(f"{options.out} holds a {type(model).__name__} as {options.layout or options.format}.")
    print(f"Loaded again, its answers differ by {worst:.1e} of the largest (random batch).")


def export(model: Any, format: str, layout: str | None, folder: Path) -> Run:
    """Write a model; returns it, loaded again."""
    if format == "safetensors":
        if layout is not None and two_of_ours(model.tokenizer):
            print(
                f"The tokenizers of source and target differ: {layout} has room for one, so none is in."
            )
            model.tokenizer = None
        try:
            save_pretrained(model, folder, format=layout)
            # As the model: kernels are chosen by whether gradients may be asked for, too.
            again = from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
        except ValueError as error:
            raise UserError(f"--layout {layout}: {error}" if layout else str(error)) from None
        return lambda batch: answers(again, batch)
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(model, folder)
    return quietly(to_onnx if format == "onnx" else to_program, model, folder)


def beside(model: Any) -> dict[str, Any]:
    """What a program needs to know to use an exported model: ``task``, the names of ``inputs`` and
    ``outputs``, ``labels`` and their ids in the data, ``preprocess`` (size, mean, std ...), the longest
    text, the ``threshold`` of boxes; the tokenizer lies in its own files."""
    inputs, assets = inputs_of(model), assets_of(model)
    assets.pop("tokenizers", None)
    facts = facts_of(model)
    return {
        "class": type(model).__name__,
        "task": "" if facts is None else facts.task,
        "inputs": list(inputs.draw(model, 0)),
        "outputs": list(inputs.outputs),
        **assets,
    }


def remove(folder: Path, there: bool) -> None:
    """What was written, and the folder unless it was there; before, it was empty."""
    if folder.is_dir():
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not there:
            folder.rmdir()


def load(source: str) -> Any:
    """The model of a source, with all that goes with it."""
    model = open_published(source)
    # Attention takes another way where gradients may be asked for.
    return model.requires_grad_(False)
