"""What is found for a row depends neither on its neighbours, nor on their order, nor on padding."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import (
    CASES,
    PADDED,
    SPARE,
    alone,
    batch_of,
    everyone,
    finds_alone,
    may_be_padded,
    model_of,
    of_those,
    outputs,
    row,
    same,
    sizes,
    taken,
    weighted,
)


@of_those(everyone)
@torch.no_grad()
def test_batch_size_and_order_change_nothing(name):
    model, batch = model_of(name), batch_of(name)
    found, least, ways = outputs(model, batch), min(sizes(batch)), len(sizes(batch))
    assert any(value[0].ne(value[1]).any() for value in found.values() if value.dim())
    order = [2, 0, *range(3, least), 1]
    turned = taken(batch, order)
    mixed = outputs(model, turned)
    for i in (0, 1, 2):
        same(row(mixed, turned, order.index(i), ways), row(found, batch, i, ways))
    one = taken(batch, [1])
    same(row(outputs(model, one), one, 0, ways), row(found, batch, 1, ways))


def padded(batch, side):
    """More padding on this side, full of noise; pictures have theirs already."""
    batch = dict(batch)
    for mask, of in PADDED.items():
        if mask not in batch:
            continue
        value, real = batch[of], batch[mask]
        noise = torch.randn_like(value) if value.is_floating_point() else value.flip(0) % 5
        if real.dim() == 3:
            batch[of] = torch.where(real[:, None], value, noise)
            continue
        if mask == "step_mask":
            value = torch.where(real[..., None], value, noise)
            batch[of] = torch.cat([value, noise[:, :SPARE]], 1)
            batch[mask] = torch.cat([real, torch.zeros_like(real[:, :SPARE])], 1)
            continue
        columns = real.unsqueeze(1) if value.dim() == 3 else real
        value = torch.where(columns, value, noise)
        count = SPARE * (value.dim() - 1)
        more, empty = noise[..., :count], torch.zeros_like(real[:, :count])
        if side == "left" and value.dim() == 2:
            # Rows end together.
            order = real.long().argsort(dim=1, stable=True)
            value, real = value.gather(1, order), real.gather(1, order)
            batch[of], batch[mask] = torch.cat([more, value], -1), torch.cat([empty, real], -1)
        else:
            batch[of], batch[mask] = torch.cat([value, more], -1), torch.cat([real, empty], -1)
    return batch


@of_those(may_be_padded)
@torch.no_grad()
def test_padding_changes_nothing(name):
    """Of a text at either side; each row is what it is alone, without any."""
    model, batch = model_of(name), batch_of(name)
    ways, texts = len(sizes(batch)), any(v.dim() == 2 for n, v in batch.items() if n in PADDED)
    expected = [
        row(outputs(model, one), one, 0, ways)
        for one in (alone(batch, i) for i in range(min(3, *sizes(batch), 3)))
    ]
    for side in ("right", "left") if texts else ("right",):
        filled = padded(batch, side)
        found = outputs(model, filled)
        for i, one in enumerate(expected):
            same(row(found, filled, i, ways), one)


@of_those(may_be_padded)
def test_a_row_without_anything_is_finite_forward_and_backward(name):
    """Or refused, where a picture has no pixel that a network of convolutions could see."""
    model, batch = model_of(name), batch_of(name)
    ways, before = len(sizes(batch)), outputs(model, batch)
    for mask in PADDED:
        if mask in batch:
            batch[mask] = batch[mask].clone()
            batch[mask][1] = False
    if finds_alone(CASES[name]):
        with pytest.raises(ValueError, match="picture 1 has no pixel"):
            outputs(model, batch)
        return
    found = outputs(model, batch)
    for i in (0, 2):
        same(row(found, batch, i, ways), row(before, batch, i, ways))
    assert all(value.isfinite().all() for value in found.values())
    model.zero_grad()
    weighted(found).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
