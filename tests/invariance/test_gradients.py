"""What an answer depends on, by gradients: no padding, nothing that comes later, and every parameter."""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from common import (
    PADDED,
    batch_of,
    everyone,
    finds_alone,
    generates,
    may_be_padded,
    model_of,
    of_those,
    outputs,
    targets_of,
    weighted,
)


@contextlib.contextmanager
def looked_up(ids):
    """The vectors of these ids, wherever a table gives them: a gradient of theirs is one of the tokens."""
    plain, found = F.embedding, []

    def watched(input, *arguments, **options):
        vectors = plain(input, *arguments, **options)
        # Slots of pictures have no row of their own.
        if input.shape == ids.shape and (input == ids).float().mean() > 0.5:
            vectors.retain_grad()
            found.append(vectors)
        return vectors

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "embedding", watched)
        yield found


def learns_from_padding(case):
    return may_be_padded(case) and not finds_alone(case)


@of_those(learns_from_padding)
def test_nothing_comes_from_padding(name):
    model, batch = model_of(name), batch_of(name)
    mask = next(mask for mask in PADDED if mask in batch)
    value, real = batch[PADDED[mask]], batch[mask]
    if value.is_floating_point():
        found = [value.requires_grad_()]
        weighted(real_ones(outputs(model, batch), batch)).backward()
    else:
        with looked_up(value) as found:
            weighted(real_ones(outputs(model, batch), batch)).backward()
    model.zero_grad()
    if not found:
        pytest.skip("it moves its tokens elsewhere before it looks them up")
    gradient = torch.stack([one.grad for one in found]).sum(0)
    if value.is_floating_point() and mask != "step_mask":
        gradient = gradient.movedim(1, -1)
    assert gradient[real].any()
    assert not gradient[~real].any()


def real_ones(found, batch):
    """What was found, but at padding."""
    mask = batch.get("mask")
    return {
        name: value[mask] if mask is not None and value.shape[:2] == mask.shape else value
        for name, value in found.items()
    }


def continues(case):
    return generates(case) or "image_ids" in case.inputs


@of_those(continues)
def test_nothing_comes_from_the_future(name):
    """Of what is written: a token is predicted from those before."""
    model, batch = model_of(name), batch_of(name)
    batch = {name: value for name, value in batch.items() if name not in PADDED}
    if "image_ids" in batch:
        place, ids, last = "codes", batch["image_ids"][:, :-1], -1
    else:
        place, ids, last = "logits", batch["target" if "target" in batch else "input_ids"], 0
    for i in (ids.shape[1] // 2, ids.shape[1] - 2):
        with looked_up(ids) as found:
            weighted({place: outputs(model, batch)[place][:, i]}).backward()
        model.zero_grad()
        seen = found[-1].grad.any(-1).any(0)
        assert not seen[i + last + 1 :].any()
        assert seen[i + last]


@of_those(everyone)
def test_every_parameter_gets_a_gradient(name):
    model, batch = copy.deepcopy(model_of(name)).train(), batch_of(name)
    loss = getattr(model, "losses", None)
    takes = inspect.signature(model.forward if loss is None else loss).parameters
    if "targets" in takes:
        pixels = batch["pixel_values"]
        batch["targets"] = targets_of(len(pixels))
        if model.facts.task == "Segmentation":
            batch["targets"] = torch.randint(model.num_classes, (len(pixels), *pixels.shape[-2:]))
    if "pixel_values" in takes and "pixel_values" not in batch:
        batch["pixel_values"] = torch.randn(len(batch["input_ids"]), 3, *model.image_size).double()
    torch.manual_seed(0)
    silent = reads_zeros(model)
    found = (loss or model)(**{name: value for name, value in batch.items() if name in takes})
    weighted(dict(enumerate(tensors(found)))).backward()
    learns = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert [name for name, p in learns if p.grad is None] == []
    assert {name for name, p in learns if not p.grad.any()} <= silent


def reads_zeros(model):
    """The names of those weights that multiply nothing but zeros in the calls to come: a first norm of queries
    that know only their place, say."""
    norms = {n: m for n, m in model.named_modules() if getattr(m, "normalized_shape", None)}
    names = {f"{name}.weight" for name in norms}

    def watch(name):
        def see(module, given, result):
            if given[0].any():
                names.discard(f"{name}.weight")

        return see

    for name, module in norms.items():
        module.register_forward_hook(watch(name))
    return names


def tensors(found):
    """Those that something may learn from, wherever they lie."""
    if isinstance(found, torch.Tensor):
        return [found] if found.requires_grad else []
    values = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return [one for value in values for one in tensors(value)]
