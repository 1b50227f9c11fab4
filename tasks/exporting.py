"""Models in files that other programs run: ONNX, and PyTorch's own exported programs."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from tasks.errors import UserError

Run = Callable[[dict[str, Tensor]], list[Tensor]]
"""A model that was loaded again: inputs by name -> outputs."""


@dataclass(frozen=True)
class Inputs:
    """What a member's ``forward`` takes.

    Args:
        dynamic: name -> the dimensions that may differ from call to call.
        outputs: the names of what it gives.
        draw: model, a number -> a batch; another number, other sizes.
    """

    dynamic: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    draw: Callable[[Any, int], dict[str, Tensor]]


def draw_text(model: Any, more: int, longest: int | None = None) -> dict[str, Tensor]:
    """Rows of unequal length, filled at the right."""
    tokens = min(12 + 5 * more, longest or model.config.max_tokens)
    lengths = torch.arange(tokens, tokens - 2 - more, -1).clamp(min=1)
    mask = torch.arange(tokens) < lengths[:, None]
    return {"input_ids": torch.randint(model.vocab_size, mask.shape), "mask": mask}


def draw_pair(model: Any, more: int) -> dict[str, Tensor]:
    """A source and what is written so far of its target."""
    source, target = draw_text(model, more), draw_text(model, more)
    vocab_size = getattr(model, "target_vocab_size", None) or model.vocab_size
    return {
        "source": source["input_ids"],
        "target": target["input_ids"][:, 2:] % vocab_size,
        "source_mask": source["mask"],
    }


def draw_pictures(model: Any, more: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2 + more, 3, *model.image_size)}


def draw_scenes(model: Any, more: int) -> dict[str, Tensor]:
    """Pictures of unequal size, filled below and at the right."""
    height, width = (256, 256) if model.preprocess is None else model.preprocess.size
    height, width = height + 32 * more, width + 64 * more
    mask = torch.ones(2 + more, height, width, dtype=torch.bool)
    mask[1, height - 40 :] = mask[1, :, width - 24 :] = False
    return {"pixel_values": torch.randn(2 + more, 3, height, width), "pixel_mask": mask}


def draw_both(model: Any, more: int) -> dict[str, Tensor]:
    """Pictures, and more texts than pictures."""
    pictures = {"pixel_values": torch.randn(2 + more, 3, *model.image.image_size)}
    return pictures | draw_text(model, more + 1, model.text.config.max_tokens)


TEXT = {"input_ids": (0, 1), "mask": (0, 1)}
PAIR = {"source": (0, 1), "target": (0, 1), "source_mask": (0, 1)}
INPUTS = {
    "GPT": Inputs(TEXT, ("logits",), draw_text),
    "BERT": Inputs(TEXT, ("logits",), draw_text),
    "SentenceEncoder": Inputs(TEXT, ("sentence_embedding",), draw_text),
    "Seq2Seq": Inputs(PAIR, ("logits",), draw_pair),
    "T5": Inputs(PAIR, ("logits",), draw_pair),
    "ViT": Inputs({"pixel_values": (0,)}, ("logits",), draw_pictures),
    "Segmenter": Inputs({"pixel_values": (0,)}, ("logits",), draw_pictures),
    "DETR": Inputs(
        {"pixel_values": (0, 2, 3), "pixel_mask": (0, 1, 2)}, ("logits", "boxes"), draw_scenes
    ),
    "CLIP": Inputs({"pixel_values": (0,), **TEXT}, ("logits",), draw_both),
}
"""By the name of the member."""


def inputs_of(model: nn.Module) -> Inputs:
    """Raises:
    UserError: a model that is none of these members.
    """
    name = type(model).__name__
    if name not in INPUTS:
        raise UserError(f"a {name} cannot be exported; these can: {', '.join(INPUTS)}.")
    return INPUTS[name]


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
    torch.export.save(program, file)
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
    was exported with; relative to the largest answer."""
    torch.manual_seed(1)
    batch = inputs_of(model).draw(model, 1)
    worst = 0.0
    for ours, theirs in zip(answers(model, batch), run(batch), strict=True):
        if ours.shape != theirs.shape:
            raise UserError(
                f"the exported model gives answers of the shape {tuple(theirs.shape)} in place of "
                f"{tuple(ours.shape)}."
            )
        largest = ours.abs().max().clamp(min=1e-12)
        worst = max(worst, float((ours - theirs).abs().max() / largest))
    return worst


def quietly(export: Callable[[nn.Module, Path], Run], model: nn.Module, folder: Path) -> Run:
    """Export, without what the exporters say on the way; their errors end in one sentence."""
    torch.manual_seed(0)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return export(model, folder)
        except UserError:
            raise
        except Exception as error:  # exporters have many kinds of their own
            reason = str(error).strip().split("\n")[0]
            raise UserError(f"a {type(model).__name__} could not be exported: {reason}") from error
