"""What every command that runs a model shares: where it runs, how exactly, how much at a time."""

from __future__ import annotations

import argparse

import torch

from family.models.member import overflows_float16
from family.quantise import quantise
from tasks.errors import UserError, at_least
from tasks.runs.checkpoints import Loaded, load_checkpoint

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
"""By Lightning's names."""
INT8 = "int8"
"""Weights of linear layers in eight bits, see :func:`family.quantise.quantise`; the rest in float32."""


def model_options(parser: argparse.ArgumentParser, batch_size: int | None) -> None:
    """Add ``--device``, ``--precision`` and ``--batch_size`` to a command; None has no batches."""
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, mps ... (default: an accelerator, if any)",
    )
    parser.add_argument(
        "--precision",
        choices=[*PRECISIONS, INT8],
        default="32",
        help="of the weights, in bits; int8 needs the extra quantise",
    )
    if batch_size is not None:
        parser.add_argument("--batch_size", type=int, default=batch_size, help="inputs at a time")


def open_model(source: str, options: argparse.Namespace, *tasks: str) -> Loaded:
    """The model of a checkpoint or a published source, where and as :func:`model_options` say.

    Raises:
        UserError: see :func:`~tasks.runs.checkpoints.load_checkpoint`; no such device; float16 for a
            model whose numbers are beyond its range.
    """
    at_least(1, of="--", batch_size=getattr(options, "batch_size", 1))
    device = find_device(options.device)
    loaded = load_checkpoint(source, *tasks)
    if options.precision == "16" and overflows_float16(loaded.model):
        raise UserError(
            f"--precision 16: what a {type(loaded.model).__name__} computes is beyond the range of "
            "float16: give bf16, or 32."
        )
    loaded.model.to(device=device, dtype=PRECISIONS.get(options.precision, torch.float32))
    if options.precision == INT8:
        try:
            quantise(loaded.model)
        except ImportError as error:
            raise UserError(f"--precision int8: {error}") from error
    return loaded


def find_device(name: str) -> torch.device:
    """The device of this name, "auto" for the accelerator, or else the CPU.

    Raises:
        UserError: there is none.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if found is None else found
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(f"--device {name} cannot be used here: {reason}.") from None
    if device.type == "meta":
        raise UserError("--device meta computes nothing: give cpu, cuda, mps ...")
    return device
