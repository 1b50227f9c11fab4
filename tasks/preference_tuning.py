"""Preference tuning: a language model learns which of two answers is better, without a reward model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from family.adapt.lora import adapted
from family.losses.preferences import (
    Preference,
    answer_log_probs,
    dpo_loss,
    ipo_loss,
    simpo_loss,
)
from family.sharding import whole
from tasks.errors import UserError, at_least
from tasks.training.dropout import without_dropout
from tasks.training.pairs import check_pairs, columns, flat, judged, shown, won
from tasks.training.reading import check_room
from tasks.training.reference import Reference
from tasks.training.reference_log_probs import Kept
from tasks.training.task import Task

Loss = Literal["dpo", "ipo", "simpo"]
BETAS = {"dpo": 0.1, "ipo": 0.1, "simpo": 2.0}
"""Usual strengths."""


class PreferenceTuning(Task):
    """Tune a language model on pairs of answers: DPO (Rafailov et al. 2023), IPO (Azar et al. 2023) or SimPO
    (Meng et al. 2024), see :mod:`family.losses.preferences`.

    The reward of an answer is what the model itself implies: ``beta (log p - log p_ref)`` of the answer, where
    ``p_ref`` is the model that the run began with; of SimPO ``beta log p``. Of training and of a split it
    reports the loss; the mean reward of the better answers and of the worse ones (``val/reward_chosen``,
    ``val/reward_rejected``), the difference (``val/margin``), the share of pairs whose better answer has the
    greater one (``val/accuracy``; equal rewards are half right); and the mean log-probability of either
    (``val/log_prob_chosen``, ``val/log_prob_rejected``).

    **The reward of the better answers may fall**, below 0 too, while all goes well: the losses see the
    difference alone. Two answers to one prompt share most of their tokens; what makes the worse one unlikely
    pulls the shared ones down in both, and the probability that goes missing may go to answers that are in no
    pair (Pal et al. 2024, "Smaug"; Razin et al. 2025). Where ``log_prob_chosen`` falls far, the model says
    something third: look at samples, and give a greater ``beta``, fewer steps, or IPO, whose gap has an end.

    The reference is found once: with pairs of ours, the log-probabilities of all of training, validation and
    test, before the first step; they go with each checkpoint, so that a resumed run has the same. With
    adapters (``lora``) it is the model without them, and with loaders of others a frozen copy, which goes
    with each checkpoint. Dropout is off in training, adapters' too: chance would count as preference.

    A batch has ``input_ids (pairs, 2, tokens)``, of each pair the prompt with the better answer and with the
    worse one, ``labels``, the token after each position where it is of the answer, elsewhere -100, int64, and
    ``mask``, True = a token, where rows are padded; maybe ``key (pairs,)``, see
    :class:`~tasks.data.preferences.PreferenceData`; to be shown also lists of ``prompt``, ``chosen`` and
    ``rejected``.

    Args:
        model: the model, or what builds it from the vocabulary size; called with ids and a mask, it gives
            logits ``(batch, tokens, vocab)``.
        loss: "dpo", "ipo" or "simpo".
        beta: how near it is to stay to the reference, the greater the nearer; None is 0.1, or 2 of "simpo",
            where it is the scale of rewards.
        gamma: of "simpo", by how much the better answer's reward should be ahead.
        label_smoothing: how often a pair is taken to be the wrong way round (conservative DPO); not of
            "ipo".
        length_normalise: take the mean of log-probabilities over an answer's tokens, not their sum; None is
            as published: "ipo" (by its authors' word) and "simpo" do, "dpo" does not.
        options: of :class:`~tasks.training.task.Task`.
    """

    monitor = ("val/loss", "min")
    fields = ("input_ids", "labels", "mask")
    trains = ("LanguageModeling",)
    gives = "LanguageModeling"

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        loss: Loss = "dpo",
        beta: float | None = None,
        gamma: float = 1.0,
        label_smoothing: float = 0.0,
        length_normalise: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if loss not in get_args(Loss):
            known = ", ".join(get_args(Loss))
            raise UserError(f"model.loss={loss!r} is unknown; choose one of: {known}.")
        if beta is not None and not beta > 0:
            raise UserError(f"model.beta must be above 0, not {beta}.")
        if not 0 <= label_smoothing < 0.5:
            raise UserError(
                f"model.label_smoothing must be at least 0 and below 0.5, not {label_smoothing}."
            )
        if label_smoothing and loss == "ipo":
            raise UserError("model.label_smoothing is of dpo and simpo, not of model.loss=ipo.")
        at_least(0, of="model.", gamma=gamma)
        self.loss_name, self.gamma, self.label_smoothing = loss, gamma, label_smoothing
        self.beta = BETAS[loss] if beta is None else beta
        self.mean = loss != "dpo" if length_normalise is None else length_normalise
        self.cached = Kept()
        """The reference's log-probabilities of pairs of ours."""
        self.reference: Reference | None = None
        """The reference itself, where there is no such cache."""
        self.learnt = False
        """Whether the model is no longer what it began with."""
        self.rows: list[dict[str, Any]] = []
        """Pairs of a validation, with both rewards."""

    # --- Model and reference ---

    def configure_model(self) -> None:
        fresh = not self._prepared
        super().configure_model()
        check_room(self.model, self.data)
        if fresh:
            without_dropout(self.model)

    @property
    def needs_reference(self) -> bool:
        return self.loss_name != "simpo"

    def on_fit_start(self) -> None:
        self._find_reference("train", "val", "test")
        self.learnt = True

    def on_validation_start(self) -> None:
        self._find_reference("val")

    def on_test_start(self) -> None:
        self._find_reference("test")

    def _find_reference(self, *splits: str) -> None:
        """Find what the model says before it learns."""
        if self.learnt or not self.needs_reference or self.reference is not None:
            return
        if self.is_own or not hasattr(self.data, "every"):
            self.reference = Reference(self.model)
            return
        for split in splits:
            try:
                pairs, loader = self.data.encoded(split), self.data.every(split)
            except UserError:
                if split == "test" and len(splits) > 1:
                    continue  # a run may have none
                raise
            if self.cached.lacks(pair.key for pair in pairs):
                self._keep(loader)

    @property
    def is_own(self) -> bool:
        """Whether the model is its own reference, with its adapters off."""
        return any(True for _ in adapted(self.model))

    @torch.no_grad()
    def _keep(self, loader: Any) -> None:
        """Find the log-probabilities of all pairs, in the precision of training."""
        mode, strategy = self.model.training, self.trainer.strategy
        self.model.eval()
        keys, values = [], []
        with whole(self.model):
            for batch in loader:
                batch = strategy.batch_to_device(batch, self.device)
                with strategy.precision_plugin.forward_context():
                    values.append(self.log_probs(self.model, batch, False))
                keys.append(batch["key"])
        self.cached.add(keys, values)
        self.model.train(mode)

    def reference_log_probs(self, batch: dict[str, Any]) -> Tensor:
        """Log-probabilities of both answers under the reference, ``(pairs, 2)``, sums."""
        if len(self.cached):
            if "key" not in batch:
                raise UserError("the batch has no key, by which the run keeps what it began with.")
            return self.cached.of(batch["key"])
        if self.reference is None:  # asked without a trainer: the model as it is
            self.reference = Reference(self.model)
        with self.reference.of(self.model) as model:
            return self.log_probs(model, batch, False)

    # --- Training ---

    def log_probs(self, model: Any, batch: dict[str, Any], mean: bool) -> Tensor:
        """Log-probabilities of both answers of each pair, ``(pairs, 2)``, float32 at least.

        Raises:
            UserError: rows that are no pairs, or a model that says nothing of each token.
        """
        check_pairs(batch)
        ids = flat(batch, "input_ids")
        logits = model(ids, flat(batch, "mask"))
        if logits.dim() != 3 or logits.shape[:2] != ids.shape:
            raise UserError(
                f"the model gives {tuple(logits.shape)} of input_ids {tuple(ids.shape)}, but a language model "
                "says of each token what follows: (batch, tokens, vocab)."
            )
        return answer_log_probs(logits, flat(batch, "labels"), mean).view(-1, 2)

    def compare(self, batch: dict[str, Any]) -> tuple[Preference, Tensor]:
        """Loss and rewards of each pair, and the log-probabilities ``(pairs, 2)``."""
        own = self.log_probs(self.model, batch, self.mean)
        chosen, rejected = own[:, 0], own[:, 1]
        if not self.needs_reference:
            made = simpo_loss(chosen, rejected, self.beta, self.gamma, self.label_smoothing)
            return made, own.detach()
        theirs = self.reference_log_probs(batch).to(own.dtype)
        if self.mean:
            theirs = theirs / (batch["labels"] >= 0).sum(-1).clamp(min=1)
        sides = (chosen, rejected, theirs[:, 0], theirs[:, 1])
        if self.loss_name == "ipo":
            return ipo_loss(*sides, beta=self.beta), own.detach()
        smoothing = self.label_smoothing
        return dpo_loss(*sides, beta=self.beta, label_smoothing=smoothing), own.detach()

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return means(*self.compare(batch))

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> list[dict[str, Any]]:
        """Log what a batch says of a split; of each pair both rewards, and what is known of it."""
        made, logs = self.compare(batch)
        found = means(made, logs)
        self.log_mean({f"{split}/{name}": value for name, value in found.items()}, len(logs))
        return judged(batch, made.chosen, made.rejected)

    def on_validation_epoch_start(self) -> None:
        self.rows = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.rows += self.evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self.samples, self.rows = shown(self.rows), []

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By pair: both rewards, and whether the better answer has the greater one."""
        return columns(self.evaluate(batch, "test"))

    def predict_step(self, batch: dict[str, Any], index: int) -> None:
        raise UserError(
            "a tuned language model answers prompts: use family chat or family generate."
        )

    # --- Checkpoints ---

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if len(self.cached):
            checkpoint["reference_log_probs"] = self.cached.state_dict()
        if self.reference is not None and self.reference.copy is not None:
            checkpoint["reference"] = self.reference.copy.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.learnt = True
        if "reference_log_probs" in checkpoint:
            self.cached.load_state_dict(checkpoint["reference_log_probs"])
        if "reference" in checkpoint:
            self.adapt_model()
            self.reference = Reference(self.model)
            self.reference.copy.load_state_dict(checkpoint["reference"])


def means(made: Preference, logs: Tensor) -> dict[str, Tensor]:
    """What a batch is said to be: means over its pairs."""
    return {
        "loss": made.loss.mean(),
        "accuracy": won(made.chosen, made.rejected).mean().float(),
        "margin": (made.chosen - made.rejected).mean(),
        "reward_chosen": made.chosen.mean(),
        "reward_rejected": made.rejected.mean(),
        "log_prob_chosen": logs[:, 0].mean(),
        "log_prob_rejected": logs[:, 1].mean(),
    }
