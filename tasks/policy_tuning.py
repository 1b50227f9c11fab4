"""Reinforcement learning on a language model's own answers: GRPO and PPO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from family.losses.language_model import IGNORE
from family.losses.log_probs import token_entropy, token_log_probs
from family.losses.policy import (
    aggregate,
    clipped_policy_loss,
    clipped_value_loss,
    kl_estimates,
)
from family.sharding import whole
from tasks.errors import UserError, at_least, between
from tasks.runs.gathering import gather
from tasks.training.answers import Rows, check_policy, parts, read, room_of, shows_features
from tasks.training.finite import check_finite
from tasks.training.reference import Reference
from tasks.training.rollout import EVALUATE, answer, roll_out
from tasks.training.task import Task

SHOWN = 8
"""Answers among the samples."""


class PolicyTuning(Task):
    """Let a language model write answers, score them, and make the better ones likelier.

    At the first use of a batch of prompts the model writes ``samples`` answers to each, by its cached
    decoding and under the weights that learn; the scorer's rewards become advantages, and the answers are
    trained on ``epochs * minibatches`` times before the next ones are written. An epoch of the data is so
    many times as long. Dropout is off throughout. All random numbers of an answer depend on the seed, the
    step, its prompt and its number alone: batches, processes and resumed runs write the same.

    - "grpo" (Shao et al. 2024): advantages within the answers to one prompt; the divergence from the
      reference (the model as it was) is a term of the loss. ``unbiased`` is Dr. GRPO (Liu et al. 2025).
    - "ppo" (Schulman et al. 2017; on text Ouyang et al. 2022): a linear value head on the model's features
      is trained beside it; the divergence is taken from the reward of each token, and advantages are
      those of generalised advantage estimation, whitened over the answers of all processes.

    A batch has ``input_ids`` and ``mask (batch, tokens)``, the prompts, and ``prompt``, these as texts; and,
    as :class:`tasks.PromptData` has them, ``fields``, ``index`` and ``use``. The model is one of the contract
    ``model(input_ids, mask) -> logits``, ``generate``. Logged are the mean reward, its deviation, the share
    of groups whose answers are all alike in reward, tokens an answer, the share that was cut off, the
    entropy, the share of tokens that is clipped, the largest ratio, the divergence, and the largest
    difference between the sampler's and the trainer's log-probabilities.

    Args:
        scorer: ``(prompts, answers, **fields) -> list of float``, see :mod:`tasks.training.scorers`.
        samples: answers to each prompt.
        max_new_tokens: of an answer, with the token that ends it.
        temperature: that answers are drawn with, and that the log-probabilities are of.
        kl: weight of the divergence from the reference; at 0 there is none.
        clip, clip_high: how far a ratio may leave 1, downwards and upwards.
        unbiased: advantages are not divided by a group's deviation (GRPO), and an answer counts by its
            length (both).
        epochs: over the answers; minibatches: steps of each, or parts of a step with
            ``trainer.accumulate_grad_batches``.
        gamma, lam: of generalised advantage estimation (PPO).
        value_weight: of the value head's loss (PPO).
        greedy: validation takes the likeliest tokens, not drawn ones.
        model, options: of :class:`~tasks.training.task.Task`.
    """

    monitor = ("val/reward", "max")
    trains = ("LanguageModeling",)
    gives = "LanguageModeling"
    loss_falls = False
    """As it learns; what rises is the reward."""
    fields = ("input_ids", "mask", "prompt")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        scorer: Callable[[list[str], list[str]], list[float]] | None = None,
        method: Literal["grpo", "ppo"] = "grpo",
        samples: int = 8,
        max_new_tokens: int = 32,
        temperature: float = 1.0,
        kl: float = 0.0,
        clip: float = 0.2,
        clip_high: float | None = None,
        unbiased: bool = False,
        epochs: int = 1,
        minibatches: int = 1,
        gamma: float = 1.0,
        lam: float = 0.95,
        value_weight: float = 0.1,
        greedy: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if method not in ("grpo", "ppo"):
            raise UserError(f"model.method={method!r} is unknown; choose grpo or ppo.")
        at_least(1, of="model.", max_new_tokens=max_new_tokens)
        at_least(1, of="model.", epochs=epochs, minibatches=minibatches)
        at_least(0, of="model.", kl=kl, clip=clip, value_weight=value_weight)
        between(0, 1, of="model.", gamma=gamma, lam=lam)
        at_least(0, of="model.", clip_high=clip if clip_high is None else clip_high)
        if samples < (least := 2 if method == "grpo" else 1):
            raise UserError(
                f"model.samples={samples}: {method} needs {least} answers to a prompt at least."
            )
        if not temperature > 0:
            raise UserError(f"model.temperature must be above 0, not {temperature}.")
        self.method, self.samples_each, self.max_new_tokens = method, samples, max_new_tokens
        self.temperature, self.kl, self.clip, self.clip_high = temperature, kl, clip, clip_high
        self.unbiased, self.epochs, self.minibatches = unbiased, epochs, minibatches
        self.gamma, self.lam, self.value_weight, self.greedy = gamma, lam, value_weight, greedy
        object.__setattr__(self, "scorer", scorer)  # if it is a module, it is none that learns
        self.scorer: Any
        self.value_head: nn.Linear | None = None
        self.reference: Reference | None = None
        self.rollouts: list[dict[str, Any]] = []
        """Of each process what was written last, while it is trained on."""
        self._kept_reference: Rows | None = None

    @property
    def uses(self) -> int:
        """How often the answers to a batch of prompts are trained on."""
        return self.epochs * self.minibatches

    @property
    def how(self) -> str:
        return "constant" if self.unbiased else "sequence"

    # --- The models ---

    @property
    def learner(self) -> nn.Module:
        if self.value_head is None:
            return self.model
        return nn.ModuleDict({"model": self.model, "value_head": self.value_head})

    def adapt_model(self) -> None:
        super().adapt_model()
        if self.method == "grpo" or self.value_head is not None:
            return
        if not shows_features(self.model):
            raise UserError(
                f"model.method=ppo needs a model with features and logits: {type(self.model).__name__} "
                "has not."
            )
        parameter = next(self.model.parameters())
        with torch.no_grad():
            some = torch.zeros(1, 1, dtype=torch.long, device=parameter.device)
            width = self.model.features(some).shape[-1]
        head = nn.Linear(width, 1, device=parameter.device, dtype=parameter.dtype)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.value_head = head

    def configure_model(self) -> None:
        super().configure_model()
        check_policy(self.model, self.max_new_tokens)
        if self.scorer is None:
            raise UserError("model.scorer says how good an answer is: give one by its class path.")
        if self.tokenizer() is None:
            raise UserError("the scorer reads texts: set model.tokenizer, or take data of ours.")
        if getattr(self.trainer.state, "fn", None) == "fit":
            self.check_steps()
        if hasattr(self.data, "check_lengths"):
            most = room_of(self.model) - self.max_new_tokens
            why = f"the model's context less model.max_new_tokens={self.max_new_tokens}"
            for split in ("train", "val") if self.trainer.state.fn == "fit" else ():
                self.data.check_lengths(split, most, why)

    def check_steps(self) -> None:
        """Refuse numbers that do not divide."""
        several = self.trainer.accumulate_grad_batches
        if self.minibatches % several and (self.uses > self.minibatches or several % self.uses):
            raise UserError(
                f"trainer.accumulate_grad_batches={several} must divide model.minibatches="
                f"{self.minibatches}, or, with model.epochs=1, be a multiple of it."
            )

    @property
    def steps(self) -> bool:
        """Whether the weights change while answers are in use."""
        return self.uses > self.trainer.accumulate_grad_batches

    def on_fit_start(self) -> None:
        if self.kl and self.reference is None:
            self.reference = Reference(self.model)
            if self._kept_reference is not None and self.reference.copy is not None:
                self.reference.copy.load_state_dict(self._kept_reference, strict=False)

    # --- Training ---

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Of answers that are written: rows of :func:`~tasks.training.rollout.roll_out`."""
        labels, mask = batch["labels"], batch["labels"] != IGNORE
        logits, features = read(self.model, batch)
        log_probs = token_log_probs(logits, labels, self.temperature)
        old = batch.get("old_log_probs", log_probs.detach())
        given = (log_probs, old, batch["advantages"], mask, self.clip, self.clip_high)
        clipped = clipped_policy_loss(*given)
        loss = aggregate(clipped.loss, mask, self.how, self.max_new_tokens)
        with torch.no_grad():
            count = mask.sum()
            entropy = token_entropy(logits, labels, self.temperature).sum() / count
            apart = (old - batch["sampled_log_probs"]).masked_fill(~mask, 0.0)
        terms = {
            "entropy": entropy,
            "clipped": clipped.share,
            "ratio_max": clipped.ratio.max(),
            "mismatch": apart.abs().max(),
        }
        if "reference_log_probs" in batch:
            kl = kl_estimates(log_probs, batch["reference_log_probs"]).k3
            terms["kl"] = kl.detach().masked_fill(~mask, 0.0).sum() / count
            if self.method == "grpo":
                loss = loss + self.kl * aggregate(kl, mask, self.how, self.max_new_tokens)
        if self.value_head is not None and features is not None:
            values = self.value_head(features).squeeze(-1)
            each = clipped_value_loss(
                values, batch["old_values"], batch["returns"], mask, self.clip
            )
            value_loss = aggregate(each, mask, self.how, self.max_new_tokens)
            terms |= {"policy_loss": loss, "value_loss": value_loss}
            loss = loss + self.value_weight * value_loss
        return {"loss": loss, **terms}

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        super().on_train_batch_start(batch, index)
        self.model.eval()  # without dropout: the policy that learns is the one that writes

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        rollout = self.current(batch)
        part = batch.get("use", 0) % self.minibatches
        terms = self.loss(parts(rollout["rows"], self.minibatches)[part])
        names = ("loss", "kl")
        seen = {f"train/{n}": terms[n].detach() for n in names if n in terms}
        check_finite(seen, self.global_step + 1)
        found = {name: torch.tensor(value) for name, value in rollout["found"].items()}
        self.log_training({**terms, **found})
        return terms["loss"]

    def current(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The answers to a batch of prompts: new ones at its first use."""
        if self.uses > 1 and "use" not in batch:
            raise UserError(
                "model.epochs and model.minibatches above 1 need data that give each batch so often: "
                "tasks.PromptData."
            )
        rank = self.trainer.global_rank
        known = self.rollouts[rank]["index"] if rank < len(self.rollouts) else None
        if batch.get("use", 0) == 0 or known != batch["index"]:
            with whole(self.learner):  # answers end at different tokens
                mine = roll_out(self, batch)
            # Each process keeps all, so that any may write the checkpoint.
            self.rollouts = gather([mine]) if self.steps else [mine] * self.trainer.world_size
        mine = self.rollouts[rank]
        mine["rows"] = {name: value.to(self.device) for name, value in mine["rows"].items()}
        return mine

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> list[dict[str, Any]]:
        """Log the mean reward of one answer to each prompt.

        Returns:
            Of each prompt the ``answer``, its ``reward`` and its ``tokens``.
        """
        answers, texts, rewards = answer(self, batch, EVALUATE, 1, self.greedy)
        tokens = (answers.labels != IGNORE).sum(1)
        means = {
            "reward": torch.tensor(rewards).mean(),
            "length": tokens.float().mean(),
            "cut_off": answers.cut.float().mean(),
        }
        if split != "predict":
            self.log_mean({f"{split}/{n}": x.to(self.device) for n, x in means.items()}, len(texts))
        found = {"prompt": batch["prompt"], "answer": texts, "reward": rewards}
        found |= {"tokens": tokens.tolist()}
        return [{name: row[i] for name, row in found.items()} for i in range(len(texts))]

    def on_validation_epoch_start(self) -> None:
        self.samples = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        made = self.evaluate(batch, "val")
        self.samples += [
            f"prompt: {row['prompt']}\nanswer: {row['answer']}\nreward: {row['reward']:.4g}"
            for row in made[: SHOWN - len(self.samples)]
        ]

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        made = self.evaluate(batch, "test")
        return {name: [row[name] for row in made] for name in ("reward", "tokens")}

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each prompt its answer and what the scorer says of it."""
        made = self.evaluate(batch, "predict")
        for name in ("file", "line"):
            for row, value in zip(made, batch.get(name, ()), strict=False):
                row[name] = value
        return made

    # --- Checkpoints ---

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.rollouts and self.steps:
            checkpoint["rollouts"] = self.rollouts
        if self.reference is not None and self.reference.copy is not None:
            learns = {n for n, p in self.model.named_parameters() if p.requires_grad}
            state = self.reference.copy.state_dict()
            checkpoint["reference"] = {name: state[name] for name in learns}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.rollouts = checkpoint.get("rollouts", [])
        self._kept_reference = checkpoint.get("reference")
