"""The contrastive losses: written out by hand, without false negatives, over two processes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from family.losses.contrastive import clip_loss, siglip_loss

SCALE, BIAS = torch.tensor(2.0), torch.tensor(-3.0)


def embeddings(batch: int = 6, dim: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(batch, dim, generator=generator, dtype=torch.float64) for _ in range(2)]
    return draw[0], draw[1]


def cosine_logits(images, texts):
    return SCALE.double().exp() * F.cosine_similarity(images[:, None], texts[None], dim=-1)


def test_clip_loss_is_the_symmetric_cross_entropy():
    images, texts = embeddings()
    logits = cosine_logits(images, texts)
    rows = -logits.log_softmax(1).diagonal().mean()
    columns = -logits.log_softmax(0).diagonal().mean()
    got = clip_loss(7 * images, texts / 3, SCALE)
    torch.testing.assert_close(got, (rows + columns) / 2, rtol=1e-9, atol=0)


def test_siglip_loss_sums_over_pairs_and_divides_by_the_batch():
    images, texts = embeddings()
    logits = cosine_logits(images, texts) + BIAS
    expected = 0.0
    for i in range(6):
        for j in range(6):
            sign = 1 if i == j else -1
            expected += math.log(1 + math.exp(-sign * float(logits[i, j]))) / 6
    assert float(siglip_loss(images, texts, SCALE, BIAS)) == pytest.approx(expected, rel=1e-9)


def test_equal_captions_are_no_negatives_in_clip_loss():
    images, texts = embeddings()
    captions = torch.tensor([4, 1, 4, 2, 1, 4])
    logits = cosine_logits(images, texts)
    expected = 0.0
    for i in range(6):
        kept = [j for j in range(6) if j == i or captions[j] != captions[i]]
        expected -= float(logits[i, kept].log_softmax(0)[kept.index(i)])
        expected -= float(logits[kept, i].log_softmax(0)[kept.index(i)])
    got = float(clip_loss(images, texts, SCALE, caption_ids=captions))
    assert got == pytest.approx(expected / 12, rel=1e-9)
    unique = torch.arange(6)
    assert clip_loss(images, texts, SCALE, unique, unique) == clip_loss(images, texts, SCALE)


def test_equal_captions_are_no_negatives_in_siglip_loss():
    images, texts = embeddings()
    pictures = torch.tensor([4, 1, 4, 2, 1, 4])
    logits = cosine_logits(images, texts) + BIAS
    same = pictures[:, None] == pictures
    pairs = F.softplus(logits)[~same].sum() + F.softplus(-logits.diagonal()).sum()
    got = siglip_loss(images, texts, SCALE, BIAS, pictures)
    torch.testing.assert_close(got, pairs / 6, rtol=1e-9, atol=0)


# Each picture has a sentence of its own, and shares one with either neighbour.
RING = [(i, text) for i in range(6) for text in (f"own {i}", f"both {i}", f"both {(i + 1) % 6}")]


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_what_is_shared_makes_nothing_else_alike(loss):
    images, texts = embeddings(len(RING))
    pictures = torch.tensor([picture for picture, _ in RING])
    names = sorted({text for _, text in RING})
    captions = torch.tensor([names.index(text) for _, text in RING])
    logits = cosine_logits(images, texts)
    # No negative: what stands with this very picture in some row, other than the pair itself.
    left_out = torch.tensor([[(i, b) in RING for _, b in RING] for i, _ in RING])
    assert left_out.sum(1).tolist() == [5] * len(RING)
    left_out &= ~torch.eye(len(RING), dtype=torch.bool)
    if loss == "clip":
        got = clip_loss(images, texts, SCALE, pictures, captions)
        masked = logits.masked_fill(left_out, -math.inf)
        expected = -(masked.log_softmax(1) + masked.log_softmax(0)).diagonal().mean() / 2
    else:
        got = siglip_loss(images, texts, SCALE, BIAS, pictures, captions)
        terms = F.softplus(logits + BIAS) - torch.diag(logits.diagonal() + BIAS)
        expected = terms[~left_out].sum() / len(RING)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)


def test_equal_captions_alone_have_a_finite_gradient():
    images, texts = embeddings()
    images.requires_grad_()
    same = torch.zeros(6, dtype=torch.long)
    clip_loss(images, texts, SCALE, same, same).backward()
    assert torch.equal(images.grad, torch.zeros_like(images))


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_float32_inside_for_half_precision(loss):
    images, texts = (x.bfloat16() for x in embeddings())
    arguments = (SCALE,) if loss == "clip" else (SCALE, BIAS)
    function = clip_loss if loss == "clip" else siglip_loss
    expected = function(images.float(), texts.float(), *arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = function(images, texts, *arguments)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_shapes_that_do_not_fit():
    images, texts = embeddings()
    with pytest.raises(ValueError, match=r"\(6, 5\) and \(4, 5\)"):
        clip_loss(images, texts[:4], SCALE)
    with pytest.raises(ValueError, match=r"picture_ids must hold one id a row, \(6,\), not \(3,\)"):
        siglip_loss(images, texts, SCALE, BIAS, torch.arange(3))


def test_sigmoid_loss_without_a_bias():
    with pytest.raises(ValueError, match="needs a logit_bias: build the model with one"):
        siglip_loss(*embeddings(), SCALE, None)


class Towers(nn.Module):
    """The least that has an image tower, a text tower and a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(4, 5), nn.Linear(3, 5)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, pixels, words):
        return self.image(pixels), self.text(words), self.logit_scale, self.logit_bias


CASES = {
    "clip": ("clip", [3, 3], False),
    "siglip": ("siglip", [3, 3], False),
    "clip unequal": ("clip", [4, 2], False),
    "siglip unequal": ("siglip", [1, 5], False),
    "clip ids": ("clip", [3, 3], True),
    "siglip ids": ("siglip", [4, 2], True),
}


def loss_of(model, kind, pixels, words, ids):
    images, texts, scale, bias = model(pixels, words)
    if kind == "clip":
        # DistributedDataParallel wants every parameter used.
        return clip_loss(images, texts, scale, *ids) + 0 * bias
    return siglip_loss(images, texts, scale, bias, *ids)


def case_inputs(grouped):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    words = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    if not grouped:
        return pixels, words, (None, None)
    # Ids recur in the other process.
    return pixels, words, (torch.tensor([1, 2, 1, 5, 1, 2]), torch.tensor([9, 9, 3, 9, 4, 5]))


def new_towers():
    torch.manual_seed(0)
    return Towers().double()


def one_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = {}
    for name, (kind, counts, grouped) in CASES.items():
        model = DistributedDataParallel(new_towers())
        rows = slice(0, counts[0]) if rank == 0 else slice(counts[0], 6)
        pixels, words, ids = case_inputs(grouped)
        own = [None if values is None else values[rows] for values in ids]
        loss = loss_of(model, kind, pixels[rows], words[rows], own)
        loss.backward()
        gradients = {n: p.grad for n, p in model.module.named_parameters()}
        results[name] = (loss.detach(), gradients)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("processes"))
    # Both are forks of one process, which has imported this module once.
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    two = {"nprocs": 2, "start_method": "forkserver"}
    torch.multiprocessing.start_processes(one_process, (folder,), **two)
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_gradient_of_one(name, of_two_processes):
    kind, _, grouped = CASES[name]
    model = new_towers()
    loss = loss_of(model, kind, *case_inputs(grouped))
    loss.backward()
    mean = sum(results[name][0] for results in of_two_processes) / 2
    torch.testing.assert_close(mean, loss.detach(), rtol=1e-9, atol=0)
    for results in of_two_processes:
        for parameter_name, parameter in model.named_parameters():
            if kind == "clip" and parameter_name == "logit_bias":
                continue
            assert parameter.grad.abs().max() > 1e-4
            torch.testing.assert_close(
                results[name][1][parameter_name], parameter.grad, rtol=1e-6, atol=1e-9
            )
