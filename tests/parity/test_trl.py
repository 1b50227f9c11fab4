"""Losses of preferences against TRL's, to 1e-6 on random log-probabilities with masks; written against TRL 1.16.0,
whose DPO and IPO are in ``DPOTrainer`` and whose SimPO is in ``trl.experimental.cpo``. An optional check: it is left
out where TRL is not installed."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from family.losses.language_model import IGNORE
from family.losses.preferences import answer_log_probs, dpo_loss, ipo_loss, simpo_loss

pytest.importorskip("trl")

PAIRS, TOKENS, VOCAB = 5, 9, 11


def drawn():
    """Logits of two models, and rows whose answers begin and end where they like."""
    torch.manual_seed(0)
    ids = torch.randint(VOCAB, (2 * PAIRS, TOKENS))
    begin = torch.randint(1, 4, (2 * PAIRS, 1))
    end = torch.randint(5, TOKENS + 1, (2 * PAIRS, 1))
    columns = torch.arange(TOKENS)
    answer = (columns >= begin) & (columns < end)
    shape = (2 * PAIRS, TOKENS, VOCAB)
    logits = [3 * torch.randn(shape, dtype=torch.float64) for _ in range(2)]
    return ids, answer, logits


def ours(ids, answer, logits, mean):
    labels = ids.masked_fill(~answer, IGNORE).roll(-1, 1)
    labels[:, -1] = IGNORE
    return answer_log_probs(logits, labels, mean).chunk(2)


class Model:
    """Answers as TRL's patched models do: with log-probabilities of the labels."""

    training = True

    def __init__(self, logits):
        self.logits = logits.requires_grad_()

    def __call__(self, input_ids, labels, **options):
        logs = self.logits.log_softmax(-1)[:, :-1]
        chosen = logs.gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
        found = chosen.masked_fill(labels[:, 1:] < 0, 0)
        rest = {name: torch.zeros_like(found) for name in ("entropy", "mean_logits", "is_top1")}
        rest["is_top1"] = rest["is_top1"].bool()
        return SimpleNamespace(log_probs=found, **rest)


def theirs_of_dpo(kind, ids, answer, policy, reference, beta):
    """Their loss, its gradient along the logits, and the mean rewards."""
    from trl import DPOTrainer

    accelerator = SimpleNamespace(
        device="cpu",
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        unwrap_model=lambda x: x,
    )
    model = Model(policy)
    trainer = SimpleNamespace(
        model=model,
        accelerator=accelerator,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=0.0,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    chosen, rejected = ours(ids, answer, reference, False)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": answer.long(),
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    loss = DPOTrainer._compute_loss(trainer, model, inputs, False)
    loss.backward()
    metrics = trainer._metrics["train"]
    rewards = metrics["rewards/chosen"][0], metrics["rewards/rejected"][0]
    return loss.detach(), model.logits.grad, rewards


@pytest.mark.parametrize("kind", ["sigmoid", "sigmoid_norm", "ipo"])
def test_dpo_and_ipo(kind):
    ids, answer, (policy, reference) = drawn()
    mean = kind != "sigmoid"
    loss, gradient, rewards = theirs_of_dpo(kind, ids, answer, policy, reference, 0.3)
    mine = policy.detach().clone().requires_grad_()
    sides = (*ours(ids, answer, mine, mean), *ours(ids, answer, reference, mean))
    made = (ipo_loss if kind == "ipo" else dpo_loss)(*sides, beta=0.3)
    made.loss.mean().backward()
    torch.testing.assert_close(made.loss.mean().detach(), loss, atol=1e-6, rtol=0)
    torch.testing.assert_close(mine.grad, gradient, atol=1e-6, rtol=0)
    if not mean:  # they report rewards of sums alone
        found = made.chosen.mean().item(), made.rejected.mean().item()
        assert found == pytest.approx(rewards, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_simpo(smoothing):
    pytest.importorskip("trl.experimental.cpo")
    from trl.experimental.cpo import CPOTrainer

    ids, answer, (policy, _) = drawn()
    policy.requires_grad_()
    chosen, rejected = ours(ids, answer, policy, True)
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu"),
        alpha=0.0,
        loss_type="simpo",
        simpo_gamma=0.7,
        beta=1.5,
        label_smoothing=smoothing,
    )
    losses, *rewards = CPOTrainer.cpo_loss(trainer, chosen, rejected)
    made = simpo_loss(chosen, rejected, 1.5, 0.7, smoothing)
    torch.testing.assert_close(made.loss, losses, atol=1e-6, rtol=0)
    torch.testing.assert_close(made.chosen, rewards[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(made.rejected, rewards[1], atol=1e-6, rtol=0)
    grads = [
        torch.autograd.grad(x.sum(), policy, retain_graph=True)[0] for x in (made.loss, losses)
    ]
    torch.testing.assert_close(*grads, atol=1e-6, rtol=0)


def test_conservative_dpo_is_a_smoothed_simpo_without_a_margin():
    """TRL 1.16.0 has label smoothing of DPO no more: that of its SimPO, on differences to the reference."""
    from trl.experimental.cpo import CPOTrainer

    ids, answer, (policy, reference) = drawn()
    sides = (*ours(ids, answer, policy, False), *ours(ids, answer, reference, False))
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu"),
        alpha=0.0,
        loss_type="sigmoid",
        beta=0.3,
        label_smoothing=0.2,
    )
    losses = CPOTrainer.cpo_loss(trainer, sides[0] - sides[2], sides[1] - sides[3])[0]
    made = dpo_loss(*sides, beta=0.3, label_smoothing=0.2)
    torch.testing.assert_close(made.loss, losses, atol=1e-6, rtol=0)
