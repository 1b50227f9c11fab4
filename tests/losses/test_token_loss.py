"""Head and loss together are what they are apart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from family.losses import token_loss
from family.losses.language_model import IGNORE
from family.losses.token_loss import TokenLoss


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr(token_loss, "FEWEST", 1)


def by_hand(head, features, labels, smoothing, z_loss, cap):
    """By PyTorch's own, over whole logits."""
    logits = head(features)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    there = labels != IGNORE
    logits, labels = logits[there], labels[there]
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return loss + z_loss * logits.logsumexp(-1).square().mean()


def drawn(rows=23, dim=5, vocab=17, bias=True, dtype=torch.float64):
    torch.manual_seed(0)
    head = nn.Linear(dim, vocab, bias=bias, dtype=dtype)
    features = (3 * torch.randn(rows, dim, dtype=dtype)).requires_grad_()
    labels = torch.randint(vocab, (rows,))
    labels[::4] = IGNORE
    return head, features, labels


def gradients(loss, *of):
    return torch.autograd.grad(loss, of)


@pytest.mark.parametrize("part", [1, 17 * 4, 17 * 1000])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("smoothing", "z_loss", "cap"),
    [(0, 0, None), (0.1, 0, None), (0.2, 1e-2, None), (0.1, 1e-2, 2.0)],
)
def test_it_is_the_loss_of_whole_logits(monkeypatch, part, bias, smoothing, z_loss, cap):
    monkeypatch.setattr(token_loss, "PART_ON_CPU", part)
    head, features, labels = drawn(bias=bias)
    ours = TokenLoss(labels, smoothing, z_loss)(head, features, cap)
    theirs = by_hand(head, features, labels, smoothing, z_loss, cap)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    of = (features, *head.parameters())
    for mine, other in zip(gradients(3 * ours, *of), gradients(3 * theirs, *of), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fused", [False, True])
def test_where_nothing_is_dropped_ignored_rows_teach_nothing(fused):
    """On a GPU rows stay, so that nobody waits to hear how many there are; of a compiled model in fused kernels."""
    head, features, labels = drawn()
    loss = TokenLoss(labels, 0.1, 1e-2)
    total = token_loss.in_parts(head, features, labels, loss, 2.0, 17 * 4, fused)
    ours = total / (labels != IGNORE).sum()
    theirs = by_hand(head, features, labels, 0.1, 1e-2, 2.0)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    of = (features, *head.parameters())
    for mine, other in zip(gradients(ours, *of), gradients(theirs, *of), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


def test_without_a_token_or_gradients(monkeypatch):
    monkeypatch.setattr(token_loss, "PART_ON_CPU", 17)
    head, features, labels = drawn()
    nothing = TokenLoss(torch.full_like(labels, IGNORE))(head, features)
    nothing.backward()
    assert nothing == 0 and features.grad is not None and not features.grad.any()
    with torch.no_grad():
        still = TokenLoss(labels, 0.1)(head, features)
    assert still.item() == pytest.approx(by_hand(head, features, labels, 0.1, 0, None).item())
    assert not still.requires_grad


def test_frozen_heads_and_frozen_features_have_no_gradient(monkeypatch):
    monkeypatch.setattr(token_loss, "PART_ON_CPU", 17)
    head, features, labels = drawn()
    head.requires_grad_(False)
    TokenLoss(labels)(head, features).backward()
    assert features.grad is not None and head.weight.grad is None
    head.requires_grad_(True)
    TokenLoss(labels)(head, features.detach()).backward()
    assert head.weight.grad is not None


def test_under_autocast_as_whole_logits_are(monkeypatch):
    head, features, labels = drawn(rows=300, dim=32, vocab=100, dtype=torch.float32)
    found = []
    for part in (10**9, 700):
        monkeypatch.setattr(token_loss, "PART_ON_CPU", part)
        with torch.autocast("cpu", torch.bfloat16):
            loss = TokenLoss(labels)(head, features)
        assert loss.dtype == torch.float32
        found.append((loss, *gradients(loss, features, *head.parameters())))
    for whole, parts in zip(*found, strict=True):
        assert whole.dtype == parts.dtype
        assert (whole - parts).norm() < 0.02 * whole.norm()


def test_a_head_with_more_to_it_is_called(monkeypatch):
    monkeypatch.setattr(token_loss, "PART_ON_CPU", 17)
    head, features, labels = drawn()
    plain = TokenLoss(labels)(head, features)
    head.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert TokenLoss(labels)(head, features) != plain


def test_a_second_way_back_is_refused(monkeypatch):
    monkeypatch.setattr(token_loss, "PART_ON_CPU", 17)
    head, features, labels = drawn()
    loss = TokenLoss(labels)(head, features)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError):
        loss.backward()
