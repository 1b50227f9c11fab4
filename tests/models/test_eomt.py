"""EoMT: what queries attend to, annealing, semantic and instance output, and training as a task."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

import family
import tasks
from family.look import record_attention
from tasks.errors import UserError


def small(position="learned", **options):
    config = family.TransformerConfig(dim=16, depth=3, heads=2, position=position)
    torch.manual_seed(0)
    model = family.EoMT(3, config, 32, 8, 5, 2, 1, **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_every_pixel_has_logits_and_every_parameter_a_gradient(position):
    model = small(position)
    for size in ((32, 32), (16, 40), (27, 13)):
        assert model.eval()(torch.randn(2, 3, *size)).shape == (2, 3, *size)
    labels = torch.randint(3, (2, 32, 32))
    terms = model.train().losses(torch.randn(2, 3, 32, 32), labels)
    assert {*terms} == {"loss", "class", "mask", "dice"}
    terms["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_score_of_a_class_is_the_sum_over_queries():
    model, x = small().eval(), torch.randn(2, 3, 32, 32)
    found = model.found(x)[-1]
    masks = nn.functional.interpolate(found.masks, (32, 32), mode="bilinear").sigmoid()
    chances = found.logits.softmax(-1)
    wanted = torch.zeros(2, 3, 32, 32)
    for query in range(5):
        for label in range(3):
            wanted[:, label] += chances[:, query, label, None, None] * masks[:, query]
    torch.testing.assert_close(model(x).exp(), wanted)


def test_a_query_attends_to_the_patches_of_its_mask_until_it_is_let_go():
    model, x = small().eval(), torch.randn(1, 3, 32, 32)
    for progress, held in ((0.0, [True, True]), (0.45, [False, True]), (1.0, [False, False])):
        model.anneal(progress)
        found = model.found(x)
        assert len(found) == sum(held) + 1
        with record_attention(model) as maps:
            model.found(x)
        late = [calls[0] for calls in list(maps.values())[-2:]]
        for is_held, one in zip(held, late, strict=True):
            to_patches = one[0, :, :5, 6:]
            assert bool((to_patches == 0).any()) == is_held
            assert (one[0, :, 5:] > 0).all()  # patches attend to all
        if all(held):
            grid = nn.functional.interpolate(found[0].masks, (4, 4), mode="bilinear")
            assert torch.equal(late[0][0, 0, :5, 6:] > 0, grid[0].flatten(1) > 0)


def test_annealing_lets_one_block_go_after_the_other():
    model = small()
    shares = []
    for step in range(9):
        model.anneal(step / 8)
        shares.append([round(share, 3) for share in model.shares])
    half = round(0.5**0.9, 3)
    assert shares == [
        *[[1, 1]] * 3,
        [half, 1],
        [0, 1],
        [0, half],
        *[[0, 0]] * 3,
    ]
    again = small()
    again.load_state_dict(model.state_dict())
    assert again.shares == [0, 0]


def test_a_saved_model_has_let_its_queries_go(tmp_path):
    model, x = small().eval(), torch.randn(1, 3, 32, 32)
    held = model(x)
    model.anneal(1.0)
    family.save_pretrained(model, tmp_path)
    again = family.from_pretrained(tmp_path)
    assert again.shares == [0, 0]
    assert torch.equal(again(x), model(x)) and not torch.equal(again(x), held)


def test_masks_that_are_not_annealed():
    """They stay, or were never there."""
    for how, share in (("always", 1), ("never", 0)):
        model = small(masked_attention=how)
        for progress in (0.0, 0.5, 1.0):
            model.anneal(progress)
            assert model.shares == [share, share]
        assert len(model.train().found(torch.randn(1, 3, 32, 32))) == 3


def test_half_of_the_queries_are_let_go_in_training():
    model = small().train()
    masks = torch.full((400, 5, 8, 8), -1.0)
    seen = model._attended(masks, (4, 4), 0.25, 5 + 1 + 16)[:, :5, 6:]
    free = seen.all(-1)
    assert torch.equal(free, seen.any(-1)) and 0.7 < free.float().mean() < 0.8
    assert model._attended(masks, (4, 4), 0.0, 22) is None


def test_instances():
    model = small().eval()
    masks = torch.full((1, 5, 8, 8), -9.0)
    masks[0, 0, :4], masks[0, 3, 4:, 4:] = 9, 9
    logits = torch.tensor(
        [[[9.0, 0, 0, 0], [0, 0, 0, 9], [0, 0, 0, 9], [0, 0, 3, 0], [0, 0, 0, 9]]]
    )
    model.found = lambda _: [(logits, masks)]
    (one,) = model.instances(torch.zeros(1, 3, 8, 8), threshold=0.5)
    assert one["labels"].tolist() == [0, 2]
    assert one["scores"][0] > 0.99 and 0.8 < one["scores"][1] < 0.9
    assert one["masks"].sum((1, 2)).tolist() == [32, 16] and one["masks"][0, :4].all()
    (one,) = model.instances(torch.zeros(1, 3, 8, 8), threshold=0.95)
    assert one["labels"].tolist() == [0]
    (one,) = model.instances(torch.zeros(1, 3, 8, 8), 0.0, sizes=[(16, 24)])
    assert len(one["labels"]) == 2  # the others' masks have no pixel
    assert one["masks"].shape == (2, 16, 24) and one["masks"][0, :7].all()
    (one,) = model.instances(torch.zeros(1, 3, 8, 8), 1.0, sizes=[(16, 24)])
    assert one["masks"].shape[0] == 0


def test_it_learns_as_a_task():
    """The class of a pixel is its colour."""
    labels = torch.randint(3, (64, 4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    pixels = nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float() * 2 - 1
    loader = [
        {"pixel_values": pixels[i : i + 16], "labels": labels[i : i + 16]} for i in range(0, 64, 16)
    ]
    torch.manual_seed(0)
    config = family.TransformerConfig(dim=32, depth=2, heads=2, position="learned")
    model = family.EoMT(3, config, 16, 4, 6, 1, 1)
    task = tasks.Segmentation(model, lr=3e-3, warmup_steps=0)
    trainer = pl.Trainer(
        max_steps=60,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=15,
    )
    trainer.fit(task, DataLoader(loader, batch_size=None), DataLoader(loader, batch_size=None))
    assert trainer.callback_metrics["val/miou"] > 0.8
    assert model.shares == [0]


def test_one_sentence_for_what_cannot_be():
    with pytest.raises(ValueError, match="query_blocks=4 must be between 1 and the depth, 2"):
        family.EoMT(3, family.TransformerConfig(dim=16, depth=2, heads=2))
    with pytest.raises(ValueError, match="masked_attention='some' is unknown"):
        small(masked_attention="some")
    task = tasks.Segmentation(small(), label_smoothing=0.1)
    batch = {"pixel_values": torch.randn(1, 3, 32, 32), "labels": torch.zeros(1, 32, 32).long()}
    with pytest.raises(UserError, match="EoMT learns from losses of its own: leave them out"):
        task.model = small()
        task.loss(batch)
