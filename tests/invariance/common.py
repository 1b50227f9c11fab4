"""Every member of the family, built from the examples that it carries, and what it reads and gives.

Nothing here knows a member: what each reads, and which of its inputs may be padded, is in its facts and in the
names of its ``forward``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import family
from family.inputs.preprocess import Preprocess
from family.models.member import build, is_member

Batch = dict[str, Any]
PADDED = {
    "mask": "input_ids",
    "source_mask": "source",
    "pixel_mask": "pixel_values",
    "step_mask": "values",
}
"""Masks, and the input whose padding each tells."""
SPARE = 3
"""Columns of a text that no row has: as much as padding adds."""
SIDE = 64
"""Of pictures of a member that takes any size."""


class Case(NamedTuple):
    """A member with the arguments of a tiny one."""

    cls: Any
    given: Mapping[str, Any]

    @property
    def inputs(self) -> list[str]:
        """The names of what its ``forward`` takes."""
        return list(inspect.signature(self.cls.forward).parameters)[1:]


def members() -> list[Any]:
    """The classes of all members that the package has, baselines too."""
    found = (getattr(family, name) for name in dir(family))
    return sorted({one for one in found if is_member(one)}, key=lambda one: one.__name__)


def all_cases() -> dict[str, Case]:
    """By a name to run it by: each member's example, and its variants."""
    found = {}
    for cls in members():
        for i, more in enumerate(({}, *cls.facts.variants)):
            said = "".join(
                f" {k}={v}" if isinstance(v, str | int) else f" {k} {i}" for k, v in more.items()
            )
            found[cls.__name__ + said] = Case(cls, {**cls.facts.example, **more})
    return found


CASES = all_cases()


def of_those(wanted: Callable[[Any], bool], *, first: bool = False) -> Any:
    """Parametrises ``name`` by those of the cases whose model is wanted.

    Args:
        first: of each member its example alone.
    """
    names = [
        name for name in CASES if (not first or CASES[name].given == CASES[name].cls.facts.example)
    ]
    return pytest.mark.parametrize("name", [name for name in names if wanted(CASES[name])])


def may_be_padded(case: Case) -> bool:
    return any(mask in masks_of(case) for mask in PADDED)


def masks_of(case: Case) -> list[str]:
    """The masks that it takes with what it reads."""
    found = [mask for mask, of in PADDED.items() if of in names_drawn(case) and mask in case.inputs]
    return [mask for mask in found if not reads_pictures(case, PADDED[mask]) or pads_pictures(case)]


def reads_pictures(case: Case, name: str) -> bool:
    return "pictures" in case.cls.facts.reads and name in ("pixel_values", "source")


def names_drawn(case: Case) -> list[str]:
    """The names of what its examples have."""
    return list(case.cls.facts.inputs.dynamic)


def everyone(case: Case) -> bool:
    return True


def generates(case: Case) -> bool:
    return hasattr(case.cls, "generate")


def finds_alone(case: Case) -> bool:
    """Whether what it gives in evaluation is chosen already (boxes), so that nothing is learnt from it."""
    return "targets" in inspect.signature(getattr(case.cls, "losses", lambda: None)).parameters


@functools.cache
def model_of(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """A tiny one, no weight of which is left at 0 or 1; for reading alone, as all tests share it."""
    torch.manual_seed(0)
    model = build(CASES[name].cls, CASES[name].given)
    with torch.no_grad():
        for parameter in model.parameters():
            wide = parameter.dim() > 1
            spread = 0.5 * parameter[0].numel() ** -0.5 if wide else 0.1
            parameter.add_(torch.randn_like(parameter) * spread)
    if model.facts.any_size:
        model.preprocess = Preprocess((SIDE, SIDE))
    return model.to(dtype).eval()


def batch_of(name: str, more: int = 2, dtype: torch.dtype = torch.float64) -> Batch:
    """Rows of unequal length, every input of floating point in this precision, with all masks that there are;
    a text's last columns are nobody's, see ``SPARE``."""
    model, case = model_of(name), CASES[name]
    torch.manual_seed(1)  # after the model, which is made at the first call alone
    batch = model.facts.inputs.draw(model, more)
    for mask, of in PADDED.items():
        if mask not in masks_of(case):
            continue
        value = batch[of]
        if value.dim() == 4:
            batch[mask] = picture_mask(value)
        elif mask == "step_mask":
            batch[of], batch[mask] = value[:, :-SPARE], batch[mask][:, :-SPARE]
        else:
            step = 1 if value.dim() == 2 else 2  # two frames of sound make a token
            value = batch[of] = value[..., : value.shape[-1] - SPARE * step]
            lengths = value.shape[-1] - 2 * step * torch.arange(len(value))
            batch[mask] = torch.arange(value.shape[-1]) < lengths.clamp(min=2)[:, None]
    return {n: v.to(dtype) if v.is_floating_point() else v for n, v in batch.items()}


def pads_pictures(case: Case) -> bool:
    """Whether it reads pictures of unequal size in one batch: learned positions must allow for it."""
    patches = inspect.signature(case.cls).parameters.get("patches")
    config = case.given.get("patches", patches and patches.default)
    learned = getattr(case.given.get("config"), "position", None) == "learned"
    return not learned or config is None or config.interpolation == "aligned"


def picture_mask(pixels: Tensor) -> Tensor:
    """The first picture whole, the next half as high, the next half as high and as wide."""
    height, width = pixels.shape[-2:]
    mask = torch.ones(len(pixels), height, width, dtype=torch.bool)
    mask[1:3, height // 2 :] = False
    mask[2:3, :, width // 2 :] = False
    return mask


def outputs(model: Any, batch: Batch) -> dict[str, Tensor]:
    """What it gives, by the names in its facts."""
    found = model(**batch)
    names = model.facts.inputs.outputs
    return {n: found[n] for n in names} if isinstance(found, dict) else {names[0]: found}


def sizes(batch: Batch) -> list[int]:
    """How many rows there are: one number, or that of pictures and that of texts."""
    return list(dict.fromkeys(len(value) for value in batch.values()))


def taken(batch: Batch, rows: list[int]) -> Batch:
    """These rows of all inputs, in this order."""
    return {name: value[rows] for name, value in batch.items()}


def row(found: dict[str, Tensor], batch: Batch, i: int, ways: int = 1) -> dict[str, Tensor]:
    """What was found for one row, its padding left out.

    Args:
        ways: 2 where pictures and texts are rows of their own, and answers are of both.
    """
    mask, chosen = batch.get("mask"), {}
    for name, value in found.items():
        one = value[(i,) * ways]
        if mask is not None and value.dim() > 1 and value.shape[1] == mask.shape[1]:
            one = one[mask[i]]
        chosen[name] = one
    if "boxes" in found:  # rows are filled up to the most that a picture has
        there = chosen["logits"].isfinite().any(-1)
        chosen = {name: one[there] for name, one in chosen.items()}
    return chosen


def alone(batch: Batch, i: int) -> Batch:
    """One row by itself, without its padding and without a mask."""
    one = {name: value[i] for name, value in batch.items()}
    for mask, of in PADDED.items():
        if mask not in one:
            continue
        real = one.pop(mask)
        if real.dim() == 2:
            rows, columns = real.any(1), real.any(0)
            one[of] = one[of][:, rows][:, :, columns]
        elif mask == "step_mask":
            one[of] = one[of][real]
        else:
            one[of] = one[of][..., real]
    return {name: value[None] for name, value in one.items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor], bound: float = 1e-6) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=bound, atol=bound, msg=lambda m, n=name: f"{n}: {m}"
        )


def weighted(found: dict[str, Tensor]) -> Tensor:
    """One number that depends on all that was found."""
    torch.manual_seed(2)
    values = [value for value in found.values() if value.is_floating_point()]
    return torch.stack([(value * torch.randn_like(value)).sum() for value in values]).sum()


def targets_of(count: int, classes: int = 5) -> list[dict[str, Tensor]]:
    """Boxes for so many pictures, two each."""
    boxes = torch.tensor([[0.3, 0.3, 0.3, 0.4], [0.2, 0.25, 0.3, 0.2]], dtype=torch.float64)
    labels = [torch.tensor([i % classes, (i + 1) % classes]) for i in range(count)]
    return [{"labels": each, "boxes": boxes} for each in labels]
