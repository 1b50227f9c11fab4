"""Compare a member with the implementation that it was published with, on the same random weights.

A :class:`Case` says how both are called; :func:`compare` does the rest, for the tests of this folder
and for the table in ``examples/parity.md`` (``python tests/parity/table.py``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import family
from family.pretrained import Format

Batch = dict[str, Tensor]
NEW_TOKENS = 64


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        member: the published model, as the table names it.
        format: what ``save_pretrained(format=...)`` calls it; None where there is no way back. One of
            a user's own is read by it too.
        build: their model, small, in float32; its weights are drawn anew, see :func:`randomise`.
        batch: inputs, rows of unequal length, with their masks.
        ours, theirs: model, batch -> outputs, of real tokens alone; the same shape for both.
        losses: outputs -> loss, by ours and by the reference's library; None is a weighted sum.
        generate: their model, batch -> the 64 tokens after each prompt; None for what generates not.
        prompt: the entries of a batch that generation takes.
        next: our model, batch, tokens so far -> logits of the next one, computed without a cache.
        reload: folder -> their model, by their own loader; None is ``from_pretrained`` of its class.
        source: their model -> what ``from_pretrained`` takes; None is the model itself.
        keep: parts of names of weights that are not drawn anew (tables of sines).
        float32: tolerance where the reference is itself less exact than 1e-5; the reason in ``note``.
    """

    member: str
    format: str | Format | None
    build: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    ours: Callable[[Any, Batch], Tensor]
    theirs: Callable[[Any, Batch], Tensor]
    losses: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None = None
    generate: Callable[[Any, Batch], Tensor] | None = None
    prompt: tuple[str, ...] = ("input_ids", "mask")
    next: Callable[[Any, Batch, Tensor], Tensor] | None = None
    reload: Callable[[Path], nn.Module] | None = None
    source: Callable[[Any], Any] | None = None
    keep: tuple[str, ...] = ()
    float32: float = 1e-5
    note: str = ""


@dataclass(frozen=True)
class Difference:
    """The largest difference of one comparison, absolute and relative to the reference's largest."""

    what: str
    absolute: float
    relative: float


def randomise(model: nn.Module, keep: tuple[str, ...] = (), seed: int = 0) -> None:
    """Draw every parameter at random: a bias of 0 or a norm of 1 would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.shape.numel() or not parameter.dim() or any(p in name for p in keep):
                continue
            spread = 0.3 if parameter.dim() == 1 else 0.5 * parameter[0].numel() ** -0.5
            noise = torch.randn(parameter.shape, generator=generator)
            norm = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(noise * spread + norm)


def enliven(theirs: Any) -> None:
    """Change the weights of an encoder-decoder of BART's kind, drawn at random, so that many tokens
    follow each other: else one follows itself for ever."""
    scaled = getattr(theirs.config, "scale_embedding", False)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "decoder.embed_positions" in name:
                parameter.mul_(5)
            elif "shared" in name or "embed_tokens" in name:
                parameter.mul_(0.1 if scaled else 0.3)
            elif parameter.dim() == 2 and "embed_positions" not in name:
                parameter.mul_(3)


def pair(case: Case, dtype: torch.dtype) -> tuple[Any, Any]:
    """Ours, read from theirs, and theirs; both in eval mode."""
    torch.manual_seed(0)
    theirs = case.build().eval()
    randomise(theirs, case.keep)
    theirs = theirs.to(dtype)
    return read(case, theirs), theirs


def read(case: Case, theirs: nn.Module) -> Any:
    """Ours with their weights."""
    own = case.format if isinstance(case.format, Format) else None
    source = theirs if case.source is None else case.source(theirs)
    return family.from_pretrained(source, format=own)


def cast(batch: Batch, dtype: torch.dtype) -> Batch:
    """Floating inputs in the dtype of the models."""
    return {n: v.to(dtype) if v.is_floating_point() else v for n, v in batch.items()}


def compare(case: Case, dtype: torch.dtype) -> list[Difference]:
    """All comparisons of a case."""
    ours, theirs = pair(case, dtype)
    batch = cast(case.batch(), dtype)
    output, expected = case.ours(ours, batch), case.theirs(theirs, batch)
    found = [difference("output", output, expected)]
    our_loss, reference_loss = case.losses or (made_loss, made_loss)
    loss, their_loss = our_loss(output), reference_loss(expected)
    found.append(difference("loss", loss, their_loss))
    loss.backward()
    their_loss.backward()
    found.append(gradients(case, ours, theirs))
    ours, theirs = pair(case, dtype)  # the gradients stand where the weights were
    if case.generate is not None:
        with torch.no_grad():
            found += generation(case, ours, theirs, batch)
    if case.format is not None:
        found.append(saved_back(case, ours, batch, expected))
    return found


def made_loss(output: Tensor) -> Tensor:
    """A loss in which every output counts, each otherwise."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    return (output * weights.to(output.dtype)).sum() / weights.numel() ** 0.5


def difference(what: str, ours: Tensor, theirs: Tensor, least: float = 0.0) -> Difference:
    """The largest difference; relative to the largest value, or to ``least`` if that is more."""
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)}, {tuple(theirs.shape)}"
    ruled_out = theirs.isinf() & (ours == theirs)
    ours, theirs = ours.masked_fill(ruled_out, 0.0), theirs.masked_fill(ruled_out, 0.0)
    absolute = float((ours - theirs).abs().max().detach())
    return Difference(what, absolute, absolute / max(float(theirs.detach().abs().max()), least))


def gradients(case: Case, ours: nn.Module, theirs: nn.Module) -> Difference:
    """The worst of all gradients; theirs come under our names by the way that weights take. What is
    frozen in ours has none.

    A gradient that is 0 but for rounding (that of a key's bias) is measured against a thousandth of
    the largest gradient in the model.
    """
    with torch.no_grad():
        for parameter in theirs.parameters():
            gradient = parameter.grad
            parameter.data = torch.zeros_like(parameter) if gradient is None else gradient
    expected = dict(read(case, theirs).named_parameters())
    expected = {n: v for n, v in expected.items() if ours.get_parameter(n).requires_grad}
    least = 1e-3 * max(float(value.detach().abs().max()) for value in expected.values())
    found = []
    for name in expected:
        parameter = ours.get_parameter(name)
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found.append(difference(name, gradient, expected[name], least))
    worst = max(found, key=lambda one: one.relative)
    return Difference("gradient", worst.absolute, worst.relative)


def generation(case: Case, ours: Any, theirs: Any, batch: Batch) -> list[Difference]:
    """Greedy tokens must be the same; on the way, each cached step is compared with no cache."""
    assert case.generate is not None and case.next is not None
    expected = case.generate(theirs, batch)
    inputs = [batch[name] for name in case.prompt]
    tokens = ours.generate(*inputs, max_new_tokens=NEW_TOKENS)
    assert expected.shape[1] == NEW_TOKENS
    wrong = float((tokens != expected).sum())
    step, cache = ours.prefill(*inputs, capacity=NEW_TOKENS)
    worst = Difference("cached decoding", 0.0, 0.0)
    for count, token in enumerate(expected.T):
        whole = case.next(ours, batch, expected[:, :count])
        one = difference("cached decoding", step, whole)
        worst = max(worst, one, key=lambda d: d.relative)
        step = ours.decode(token, cache)
    return [worst, Difference("64 greedy tokens", wrong, wrong / expected.numel())]


def saved_back(case: Case, ours: nn.Module, batch: Batch, expected: Tensor) -> Difference:
    """Written in their format and loaded by them, it computes what it did before."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        family.save_pretrained(ours, folder, format=case.format)
        reload = case.reload or (lambda folder: type(case.build()).from_pretrained(folder))
        again = reload(folder).to(expected.dtype).eval()
        return difference("saved back", case.theirs(again, batch).detach(), expected.detach())
