"""Losses of sentence pairs: by their formulas, as sentence-transformers computes them, over two processes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from family.losses.sentence_pairs import cosent_loss, cosine_loss, ranking_loss

LABELS = torch.tensor([0.2, 1.0, 0.2, 0.0, 0.7, 1.0], dtype=torch.float64)


def embeddings(sides: int = 3, batch: int = 6, dim: int = 5):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(sides, batch, dim, generator=generator, dtype=torch.float64)
    return [2 * side.clone().requires_grad_() for side in drawn]


def cosines(rows, columns):
    return F.cosine_similarity(rows[:, None], columns[None], dim=-1)


def by_formula(kind, sides):
    if kind in ("cosine", "cosent"):
        cosine = F.cosine_similarity(sides[0], sides[1])
        if kind == "cosine":
            return ((cosine - LABELS) ** 2).mean()
        terms = [
            (20 * (cosine[j] - cosine[i])).exp()
            for i in range(6)
            for j in range(6)
            if LABELS[i] > LABELS[j]
        ]
        return (1 + sum(terms)).log()
    forth = -(20 * cosines(sides[0], torch.cat(sides[1:]))).log_softmax(1).diagonal().mean()
    if kind == "ranking":
        return forth
    back = -(20 * cosines(sides[1], sides[0])).log_softmax(1).diagonal().mean()
    return (forth + back) / 2


def ours(kind, sides):
    if kind == "cosine":
        return cosine_loss(*sides[:2], LABELS)
    if kind == "cosent":
        return cosent_loss(*sides[:2], LABELS)
    return ranking_loss(*sides, symmetric=kind == "symmetric")


def theirs(kind, sides):
    losses = pytest.importorskip("sentence_transformers.losses")
    if kind == "cosine":
        return losses.CosineSimilarityLoss(nn.Module()).compute_loss_from_embeddings(sides, LABELS)
    if kind == "cosent":
        return losses.CoSENTLoss(nn.Module()).compute_loss_from_embeddings(sides[:2], LABELS)
    options = {}
    if kind == "symmetric":
        directions = ("query_to_doc", "doc_to_query")
        options = {"directions": directions, "partition_mode": "per_direction"}
    loss = losses.MultipleNegativesRankingLoss(nn.Module(), **options)
    return loss.compute_loss_from_embeddings(sides, None)


CASES = [
    ("ranking", 2), ("ranking", 3), ("symmetric", 2), ("symmetric", 3), ("cosine", 2), ("cosent", 2)
]  # fmt: skip


@pytest.mark.parametrize(("kind", "sides"), CASES)
@pytest.mark.parametrize("reference", [by_formula, pytest.param(theirs, marks=pytest.mark.slow)])
def test_value_and_gradient(kind, sides, reference):
    given = embeddings(sides)
    single = reference is theirs and kind == "cosine"  # which makes float32 of labels
    expected = reference(kind, given)
    found = ours(kind, given)
    torch.testing.assert_close(found, expected.double(), rtol=1e-6 if single else 1e-12, atol=0)
    gradients = zip(
        torch.autograd.grad(found, given), torch.autograd.grad(expected, given), strict=True
    )
    for mine, other in gradients:
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7 if single else 1e-12)


def test_what_stands_with_a_text_is_no_negative_of_it():
    # a, b, c ...: rows 0 and 2 share their anchor, 1 and 3 their partner; row 4 has the anchor of row 1 as
    # its partner, and row 5's negative is the partner of row 0.
    texts = ["abz", "cdy", "aex", "fdw", "gcv", "hib"]
    ids = torch.tensor([[ord(letter) for letter in row] for row in texts])
    sides = embeddings()
    known = {frozenset(row[:2]) for row in texts}

    def stay(asked, at, candidates, row):
        """Whether a candidate stays in the softmax of a row."""
        other = candidates[at]
        return at == row or not (asked == other or frozenset((asked, other)) in known)

    candidates = [row[1] for row in texts] + [row[2] for row in texts]
    logits = 20 * cosines(sides[0], torch.cat(sides[1:]))
    back = 20 * cosines(sides[1], sides[0])
    forth_loss = back_loss = 0
    left_out = 0
    for i, row in enumerate(texts):
        kept = [j for j in range(12) if stay(row[0], j, candidates, i)]
        left_out += 12 - len(kept)
        forth_loss -= logits[i, kept].log_softmax(0)[kept.index(i)] / 6
        kept = [j for j in range(6) if stay(row[1], j, [r[0] for r in texts], i)]
        back_loss -= back[i, kept].log_softmax(0)[kept.index(i)] / 6
    assert left_out == 7
    found = ranking_loss(*sides, text_ids=ids)
    torch.testing.assert_close(found, forth_loss, rtol=1e-12, atol=0)
    both = ranking_loss(*sides, symmetric=True, text_ids=ids)
    torch.testing.assert_close(both, (forth_loss + back_loss) / 2, rtol=1e-12, atol=0)
    unlike = torch.arange(18).view(6, 3)
    assert ranking_loss(*sides, text_ids=unlike) == ranking_loss(*sides)


def test_nothing_to_tell_apart_has_no_gradient():
    one, other = (side[:1] for side in embeddings(2))
    assert ranking_loss(one, other) == 0
    same = cosent_loss(one, other, torch.ones(1))
    assert same == 0
    assert all((x == 0).all() for x in torch.autograd.grad(same, (one, other)))


@pytest.mark.parametrize("loss", [ranking_loss, cosine_loss, cosent_loss])
def test_float32_inside_for_half_precision(loss):
    one, other = (side.detach().bfloat16() for side in embeddings(2))
    more = () if loss is ranking_loss else (LABELS.float(),)
    expected = loss(one.float(), other.float(), *more)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(one, other, *more)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_shapes_that_do_not_fit():
    one, other = embeddings(2)
    with pytest.raises(ValueError, match=r"\(6, 5\) and \(4, 5\)"):
        ranking_loss(one, other[:4])
    with pytest.raises(ValueError, match=r"text_ids must be \(6, 2\), not \(6, 3\)"):
        ranking_loss(one, other, text_ids=torch.zeros(6, 3))
    with pytest.raises(ValueError, match=r"one number a row, \(6,\), not \(5,\)"):
        cosent_loss(one, other, LABELS[:5])


# --- Two processes ---

IDS = torch.tensor([list(map(ord, row)) for row in ("abz", "cdy", "aex", "fdw", "gcv", "hib")])
SHARED = {
    name: (kind, counts)
    for kind in ("ranking", "symmetric", "cosine", "cosent")
    for name, counts in ((kind, [3, 3]), (f"{kind} unequal", [1, 5]))
}


def new_model():
    torch.manual_seed(0)
    return nn.Linear(5, 4).double()


def loss_of(model, kind, rows):
    sides = [model(side.detach()[rows]) for side in embeddings(2 if "cos" in kind else 3)]
    if kind == "cosine":
        return cosine_loss(*sides, LABELS[rows])
    if kind == "cosent":
        return cosent_loss(*sides, LABELS[rows])
    return ranking_loss(*sides, symmetric=kind == "symmetric", text_ids=IDS[rows])


def one_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = {}
    for name, (kind, counts) in SHARED.items():
        model = DistributedDataParallel(new_model())
        loss = loss_of(model, kind, slice(0, counts[0]) if rank == 0 else slice(counts[0], 6))
        loss.backward()
        results[name] = (loss.detach(), model.module.weight.grad)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("processes"))
    torch.multiprocessing.spawn(one_process, (folder,), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_two_processes_have_the_gradient_of_one(name, of_two_processes):
    kind, _ = SHARED[name]
    model = new_model()
    loss = loss_of(model, kind, slice(0, 6))
    loss.backward()
    mean = sum(results[name][0] for results in of_two_processes) / 2
    torch.testing.assert_close(mean, loss.detach(), rtol=1e-9, atol=0)
    assert math.isfinite(mean) and model.weight.grad.abs().max() > 1e-4
    for results in of_two_processes:
        torch.testing.assert_close(results[name][1], model.weight.grad, rtol=1e-6, atol=1e-9)
