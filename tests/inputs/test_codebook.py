"""Codebooks: what they learn, when, and what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist

from family.inputs.codebook import CodebookConfig, make_codebook, rotated

SIZE, DIM = 64, 4


def vectors(seed, batch=32, dim=DIM):
    """``(batch, dim, 4, 4)``, around the corners of a cube far from 0, most of them around one."""
    drawn = torch.Generator().manual_seed(seed)
    corners = 20 + 3 * torch.randint(2, (batch * 16, dim), generator=drawn).float()
    corners[: batch * 8] = 20.0
    rows = corners + 0.3 * torch.randn(corners.shape, generator=drawn)
    return rows[torch.randperm(len(rows), generator=drawn)].view(batch, 4, 4, dim).movedim(-1, 1)


def trained(codebook, steps, first=0):
    for step in range(first, first + steps):
        codebook(vectors(step))
    return codebook


def share_used(codebook):
    ids = torch.cat([codebook.ids(vectors(1000 + i)).flatten() for i in range(8)])
    return float((ids.bincount(minlength=SIZE) > 0).float().mean())


@pytest.mark.parametrize("kind", ["ema", "rotation"])
def test_codes_that_begin_far_away_are_used_in_the_end(kind):
    far = make_codebook(CodebookConfig(kind, SIZE, DIM, decay=0.8))
    far.steps += 1  # as if it had begun, elsewhere
    assert share_used(far) < 0.1
    assert share_used(trained(copy.deepcopy(far), 40)) > 0.9
    left = copy.deepcopy(far)
    left.config = CodebookConfig(kind, SIZE, DIM, decay=0.8, restart=0)
    assert share_used(trained(left, 40)) < 0.1  # what restarts are for


def test_codes_begin_at_vectors_of_the_first_batch():
    codebook = make_codebook(CodebookConfig(size=SIZE, dim=DIM))
    assert share_used(trained(codebook, 1)) > 0.5


def test_few_vectors_for_many_codes():
    codebook = make_codebook(CodebookConfig(size=SIZE, dim=DIM))
    made = codebook(vectors(0, batch=1))
    assert made.ids.shape == (1, 16) and torch.isfinite(codebook.codes).all()


@pytest.mark.parametrize("kind", ["ema", "rotation"])
def test_a_resumed_codebook_goes_on_to_the_bit(kind):
    config = CodebookConfig(kind, SIZE, DIM, decay=0.8)
    torch.manual_seed(0)
    whole = trained(make_codebook(config), 6)
    half = trained(make_codebook(config), 3)
    torch.manual_seed(5)
    rest = make_codebook(config)
    rest.load_state_dict(half.state_dict())
    trained(rest, 3, first=3)
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name


@pytest.mark.parametrize("kind", ["ema", "rotation", "fsq"])
def test_nothing_is_learnt_in_evaluation_or_by_reading_ids(kind):
    codebook = trained(make_codebook(CodebookConfig(kind, SIZE, DIM)), 2)
    before = copy.deepcopy(codebook.state_dict())
    codebook.ids(vectors(3))
    made = codebook.eval()(vectors(3))
    assert all(torch.equal(value, before[n]) for n, value in codebook.state_dict().items())
    again = codebook.vectors(made.ids).transpose(1, 2).view_as(made.latents)
    assert torch.equal(again, made.latents)
    assert torch.equal(codebook.ids(vectors(3)), made.ids)


@pytest.mark.parametrize("kind", ["ema", "rotation", "fsq"])
def test_autocast_does_not_reach_it(kind):
    config = CodebookConfig(kind, SIZE, DIM)
    torch.manual_seed(0)
    one = make_codebook(config)
    other = copy.deepcopy(one)
    x = vectors(0)
    for step in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            inside = other(vectors(step))
        outside = one(vectors(step))
        assert torch.equal(inside.ids, outside.ids)
        assert inside.commitment.dtype == torch.float32
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    assert one(x.bfloat16()).latents.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["ema", "rotation", "fsq"])
def test_gradients_go_through(kind):
    codebook = trained(make_codebook(CodebookConfig(kind, SIZE, DIM)), 2)
    x = (vectors(3) / 20 if kind == "fsq" else vectors(3)).requires_grad_()
    codebook(x).latents.square().sum().backward()
    assert x.grad.abs().min() > 0


def test_a_rotation_keeps_angles_and_stretches():
    """Gradients stand to the vector as those behind stand to the code."""
    x, to, above = torch.randn(3, 50, 6, dtype=torch.float64).unbind()
    x.requires_grad_()
    made = rotated(x, to)
    torch.testing.assert_close(made, to)
    made.backward(above)
    ratio = to.norm(dim=1) / x.norm(dim=1)
    torch.testing.assert_close(x.grad.norm(dim=1), ratio * above.norm(dim=1))
    angle = (x.grad * x).sum(1) / (x.grad.norm(dim=1) * x.norm(dim=1))
    wanted = (above * to).sum(1) / (above.norm(dim=1) * to.norm(dim=1))
    torch.testing.assert_close(angle, wanted)


def test_levels_count_the_first_number_fastest():
    codebook = make_codebook(CodebookConfig("fsq", levels=(3, 4, 5)))
    ids = torch.arange(60)
    assert codebook.vocab_size == 60 and codebook.config.latent_dim == 3
    assert len(codebook.vectors(ids).unique(dim=0)) == 60
    assert codebook.vectors(ids)[:3].tolist() == [[-1, -1, -1], [0, -1, -1], [1, -1, -1]]
    x = torch.randn(2, 3, 4, 4)
    near = codebook.continuous(x) - codebook.eval()(x).latents
    assert 0 < near.abs().max() <= 0.5  # half of a level at most


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kind": "vq"}, "codebook.kind='vq' is unknown"),
        ({"size": 0}, "codebook.size must be at least 1, not 0"),
        ({"decay": 1.0}, "codebook.decay must be at least 0 and below 1"),
        ({"kind": "fsq", "levels": (8, 2)}, "codebook.levels must be whole numbers of at least 3"),
        ({"commitment": -1.0}, "codebook.commitment must be at least 0"),
    ],
)
def test_impossible_fields(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        CodebookConfig(**given)


def test_ids_beyond_the_codebook():
    codebook = make_codebook(CodebookConfig(size=8))
    with pytest.raises(ValueError, match="the id 8 is beyond the codebook, .* 0 to 7"):
        codebook.vectors(torch.tensor([[0, 8]]))
    with pytest.raises(ValueError, match="whole numbers"):
        codebook.vectors(torch.tensor([[0.0]]))


@pytest.mark.parametrize(
    ("theirs", "ours", "sentence"),
    [
        ({"size": 8}, {"size": 9}, "has 8 codes of 16 numbers, but this model's 9 codes"),
        ({"kind": "fsq"}, {}, r"has the levels \[8, 5, 5, 5\], but this model's 512 codes"),
        (
            {"kind": "fsq", "levels": (3, 4)},
            {"kind": "fsq", "levels": (4, 3)},
            r"the levels \[3, 4\], but this model's the levels \[4, 3\]",
        ),
    ],
)
def test_another_codebook_is_refused_in_a_sentence(theirs, ours, sentence):
    state = make_codebook(CodebookConfig(**theirs)).state_dict()
    with pytest.raises(RuntimeError, match=sentence):
        make_codebook(CodebookConfig(**ours)).load_state_dict(state)


# --- Several processes ---


def share(rank, folder, restart):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    codebook = begun(restart)
    for step in range(5):
        codebook(vectors(step)[16 * rank : 16 * rank + 16])
    torch.save(codebook.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def begun(restart):
    torch.manual_seed(0)
    codebook = make_codebook(CodebookConfig("ema", SIZE, DIM, decay=0.8, restart=restart))
    codebook.steps += 1
    codebook.codes.copy_(vectors(99).movedim(1, -1).reshape(-1, DIM)[:SIZE])
    return codebook


@pytest.mark.slow
@pytest.mark.parametrize("restart", [0.0, 0.2])
def test_processes_agree(tmp_path, restart):
    torch.multiprocessing.spawn(share, (str(tmp_path), restart), nprocs=2)
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value)
    if not restart:
        alone = trained(begun(restart), 5).state_dict()
        torch.testing.assert_close(states[0], alone)
