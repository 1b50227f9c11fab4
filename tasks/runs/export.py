"""Models in files that other programs run: ONNX, and PyTorch's own exported programs."""

from __future__ import annotations

import importlib.util
import io
import logging
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from family.checks import first_line
from family.files import no_room, write_bytes
from family.models.examples import Inputs
from family.models.member import facts_of
from tasks.errors import UserError

Run = Callable[[dict[str, Tensor]], list[Tensor]]
"""A model that was loaded again: inputs by name -> outputs."""


def inputs_of(model: nn.Module) -> Inputs:
    """What a member's ``forward`` takes and gives.

    Raises:
        UserError: no member.
    """
    facts = facts_of(model)
    if facts is None or facts.inputs is None:
        raise UserError(
            f"a {type(model).__name__} cannot be exported: only a member of the family says what it "
            "reads."
        )
    return facts.inputs


def answers(model: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    """What a model gives, in the order of its names."""
    with torch.inference_mode():
        found = model(**batch)
    names = inputs_of(model).outputs
    return [found[name] for name in names] if isinstance(found, dict) else [found]


def shapes(inputs: Inputs) -> dict[str, dict[int, Any]]:
    return {name: dict.fromkeys(free, Dim.DYNAMIC) for name, free in inputs.dynamic.items()}


def to_program(model: nn.Module, folder: Path) -> Run:
    """``model.pt2``: what ``torch.export.load`` reads, with no code of ours."""
    inputs, file = inputs_of(model), folder / "model.pt2"
    batch = inputs.draw(model, 0)
    program = torch.export.export(model, (), batch, dynamic_shapes=shapes(inputs))
    content = io.BytesIO()  # where a disk is full, torch's own writer of archives ends the process
    torch.export.save(program, content)
    write_bytes(file, content.getbuffer())
    again = torch.export.load(file).module()
    return lambda batch: answers_of(again(**batch), inputs)


def answers_of(found: Any, inputs: Inputs) -> list[Tensor]:
    return [found[name] for name in inputs.outputs] if isinstance(found, dict) else [found]


def to_onnx(model: nn.Module, folder: Path) -> Run:
    """``model.onnx``, its weights beside it, checked in onnxruntime.

    Raises:
        UserError: a package is missing.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"--format onnx needs the package {package}: pip install "
                "'transformer-family[export]'."
            )
    import onnxruntime

    inputs, file = inputs_of(model), folder / "model.onnx"
    batch = inputs.draw(model, 0)
    torch.onnx.export(
        model,
        kwargs=batch,
        f=file,
        input_names=list(batch),
        output_names=list(inputs.outputs),
        dynamic_shapes=shapes(inputs),
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(batch: dict[str, Tensor]) -> list[Tensor]:
        arrays = {name: value.numpy() for name, value in batch.items()}
        return [torch.from_numpy(found) for found in session.run(list(inputs.outputs), arrays)]

    return run


def difference(model: nn.Module, run: Run) -> float:
    """The largest difference between a model and its export, on a batch of other sizes than that it
    was exported with; relative to the largest answer. It is infinite where an answer is no number.

    Raises:
        UserError: the export holds for those sizes alone.
    """
    torch.manual_seed(1)
    batch = inputs_of(model).draw(model, 1)
    worst = 0.0
    try:
        made = run(batch)
    except Exception as error:  # guards have many kinds of their own
        raise UserError(
            f"a {type(model).__name__} could be exported for one size of its inputs alone: {first_line(error)}."
        ) from error
    for ours, theirs in zip(answers(model, batch), made, strict=True):
        if ours.shape != theirs.shape:
            raise UserError(
                f"the exported model gives answers of the shape {tuple(theirs.shape)} in place of "
                f"{tuple(ours.shape)}."
            )
        largest = ours.abs().max().clamp(min=1e-12)
        found = float((ours - theirs).abs().max() / largest)
        worst = max(worst, math.inf if math.isnan(found) else found)
    return worst


def quietly(export: Callable[[nn.Module, Path], Run], model: nn.Module, folder: Path) -> Run:
    """Export, without what the exporters say on the way; their errors end in one sentence."""
    torch.manual_seed(0)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Of the exporters alone, which a user of theirs could act on, but not one of ours.
        warnings.filterwarnings("ignore", module=r"torch\.(onnx|export|_export)|onnx")
        try:
            return export(model, folder)
        except UserError:
            raise
        except Exception as error:  # exporters have many kinds of their own
            if (number := no_room(error)) is not None:
                raise OSError(number, os.strerror(number), str(folder)) from error
            reason = str(error).strip().split("\n")[0]
            raise UserError(f"a {type(model).__name__} could not be exported: {reason}") from error
