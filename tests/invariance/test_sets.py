"""What has no order has none: classes, queries, boxes that are looked for, tokens without a place."""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import CASES, batch_of, model_of, of_those, outputs, same, targets_of

from family.core.config import TransformerConfig
from family.losses.set_matching import SetLoss
from family.models.member import build


def tells_classes(case):
    return bool(case.cls.facts.classes) and case.given.get("num_classes", 0) > 1


@of_those(tells_classes)
@torch.no_grad()
def test_classes_in_another_order(name):
    """Of the weights that the number of classes decides."""
    model, batch = copy.deepcopy(model_of(name)), batch_of(name)
    count = model.num_classes
    order = torch.randperm(count)
    expected = outputs(model, batch)
    moved = 0
    for key, parameter in model.named_parameters():
        if key.startswith(model.facts.classes):
            moved += turn(parameter, count, order) is not None
    assert moved
    turn(expected["logits"], count, order)
    same(outputs(model, batch), expected)


def turn(value, count, order):
    """Put classes in this order, wherever they are counted; "no object" behind them stays."""
    dims = [i for i, size in enumerate(value.shape) if size in (count, count + 1)]
    if not dims:
        return None
    part = value.narrow(dims[-1], 0, count)
    return part.copy_(part.index_select(dims[-1], order))


def asks_by_queries(case):
    model = model_of_case(case)
    return hasattr(model, "queries") and getattr(model, "proposals", None) is None


def model_of_case(case):
    return model_of(next(name for name, each in CASES.items() if each is case))


@of_those(asks_by_queries)
@torch.no_grad()
def test_queries_in_another_order(name):
    model, batch = copy.deepcopy(model_of(name)), batch_of(name)
    expected = outputs(model, batch)
    tables = [p for p in model.queries.parameters() if p.dim() > 1]
    count = len(tables[0])
    moved = [p for p in tables if len(p) == count]
    order = torch.randperm(count)
    for parameter in moved:
        parameter.copy_(parameter[order])
    for key, value in expected.items():
        of_each = value.dim() == 3 and value.shape[1] == count  # not what is made of them together
        expected[key] = value[:, order] if of_each else value
    same(outputs(model, batch), expected)


def learns_from_boxes(case):
    return "targets" in case.inputs


@of_those(learns_from_boxes)
def test_boxes_in_another_order(name):
    """Of what is looked for."""
    model, batch = model_of(name), batch_of(name)
    loss = SetLoss(model.classification)
    found = model(**batch)
    targets = targets_of(len(batch["pixel_values"]))
    turned = [{key: value.flip(0) for key, value in target.items()} for target in targets]
    same(loss(found, turned), loss(found, targets))


def placeless(case):
    """A member's arguments with no place for anything, where its stacks read both ways; None for others."""
    stacks = {k: v for k, v in case.given.items() if isinstance(v, TransformerConfig)}
    if not stacks or any(config.causal or config.window for config in stacks.values()):
        return None
    if all(config.position == "none" for config in stacks.values()):
        return None  # it has places of its own
    without = {key: dataclasses.replace(config, position="none") for key, config in stacks.items()}
    return {**case.given, **without}


def reads_sets(case):
    return placeless(case) is not None and set(names_of(case)) & {
        "input_ids",
        "source",
        "pixel_values",
    }


def names_of(case):
    return case.cls.facts.inputs.dynamic


@of_those(reads_sets)
@torch.no_grad()
def test_tokens_without_a_place_in_another_order(name):
    """The first stays where it is: it may be what is read in the end."""
    case, batch = CASES[name], batch_of(name)
    torch.manual_seed(0)
    model = build(case.cls, placeless(case)).double().eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    batch = {key: value for key, value in batch.items() if "mask" not in key}
    for key in ("input_ids", "source", "pixel_values"):
        if key not in batch:
            continue
        value = batch[key]
        expected = outputs(model, batch)
        turned, order = moved(value, case.given.get("patch_size"))
        if turned is None:
            continue
        found = outputs(model, {**batch, key: turned})
        for output, one in found.items():
            whole = expected[output]
            if key == "input_ids" and whole.dim() > 1 and whole.shape[1] == value.shape[1]:
                whole = whole[:, order]
            if whole.dim() < 4:  # a picture comes out where it went in
                same({output: one}, {output: whole})


def moved(value, patch):
    """Ids or patches in another order, and that order; None for what has one by itself."""
    if value.dim() == 2:
        order = torch.cat(
            [torch.zeros(1, dtype=torch.long), 1 + torch.randperm(value.shape[1] - 1)]
        )
        return value[:, order], order
    if value.dim() < 4 or patch is None:
        return None, None
    rows, columns = (side // patch for side in value.shape[-2:])
    squares = value.unflatten(-2, (rows, patch)).unflatten(-1, (columns, patch)).transpose(-3, -2)
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(rows * columns - 1)])
    flat = squares.flatten(-4, -3)[..., order, :, :].unflatten(-3, (rows, columns))
    return flat.transpose(-3, -2).flatten(-2).flatten(-3, -2), order
