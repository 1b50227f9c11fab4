"""The losses of GRPO and Dr. GRPO beside those of TRL's own trainer (checked with TRL 1.16.0), on random
numbers with masks: its ``_compute_loss`` runs as it is, on a stub that has its options, and that hands it
log-probabilities in the place of a model's."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from family.losses.policy import aggregate, clipped_policy_loss, group_advantages, kl_estimates

grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer", exc_type=ImportError)
GRPOTrainer = grpo_trainer.GRPOTrainer
ANSWERS, STEPS = 8, 7


class Stub:
    """As much of a trainer as the loss asks for."""

    def __init__(self, log_probs, loss_type, kl, high):
        self.log_probs = log_probs
        self.loss_type, self.beta, self.epsilon_low, self.epsilon_high = loss_type, kl, 0.2, high
        self.importance_sampling_level, self.top_entropy_quantile = "token", 1.0
        self.off_policy_mask_threshold, self.use_vllm = None, False
        self._entropy_bonus_enabled = False
        self.aux_loss_enabled, self.current_gradient_accumulation_steps = False, 1
        self.max_completion_length = STEPS + 2
        self.args = SimpleNamespace(
            delta=None,
            use_bias_correction_kl=False,
            max_completion_length=STEPS + 2,
        )
        self.model = SimpleNamespace(training=True)
        self.accelerator = SimpleNamespace(
            gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1
        )
        self._metrics: Any = {"train": defaultdict(list), "eval": defaultdict(list)}

    def _get_per_token_logps_and_entropies(self, *inputs, **options):
        return self.log_probs, torch.zeros_like(self.log_probs), None


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo"])
@pytest.mark.parametrize("kl", [0.0, 0.1])
@pytest.mark.parametrize("high", [0.2, 0.28])
def test_losses_and_gradients_are_theirs(loss_type, kl, high):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    lengths = torch.randint(1, STEPS + 1, (ANSWERS,), generator=generator)
    mask = torch.arange(STEPS) < lengths[:, None]
    old, reference = -draw(ANSWERS, STEPS).abs(), -draw(ANSWERS, STEPS).abs()
    advantages = group_advantages(draw(ANSWERS), 4, scaled=loss_type == "grpo")
    theirs = (old + 0.3 * draw(ANSWERS, STEPS)).requires_grad_()
    ours = theirs.detach().clone().requires_grad_()
    inputs = {
        "prompt_ids": torch.zeros(ANSWERS, 2, dtype=torch.long),
        "prompt_mask": torch.ones(ANSWERS, 2, dtype=torch.long),
        "completion_ids": torch.zeros(ANSWERS, STEPS, dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
    }
    stub = Stub(theirs, loss_type, kl, high)
    expected = GRPOTrainer._compute_loss(stub, None, inputs)
    expected.backward()
    how = "sequence" if loss_type == "grpo" else "constant"
    clipped = clipped_policy_loss(ours, old, advantages[:, None], mask, 0.2, high)
    each = clipped.loss + kl * kl_estimates(ours, reference).k3
    found = aggregate(each, mask, how, STEPS + 2)
    found.backward()
    theirs_clipped = stub._metrics["train"]["clip_ratio/region_mean"][0]
    assert 0 < clipped.share < 1 and float(clipped.share) == pytest.approx(theirs_clipped)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12)
