"""What a policy learns from: its answers to a batch of prompts, scored."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from family.inference.texts import stops_of
from family.losses.language_model import IGNORE
from family.losses.log_probs import token_log_probs
from family.losses.policy import (
    generalised_advantages,
    group_advantages,
    kl_estimates,
    whitened,
)
from tasks.errors import UserError
from tasks.training.answers import (
    Answers,
    Rows,
    joined,
    parts,
    read,
    text_of,
    together,
    uniform_numbers,
    write,
)
from tasks.training.scorers import rewards_of

TRAIN, EVALUATE = 0, 1
"""What random numbers are for."""


def answer(
    task: Any, batch: dict[str, Any], purpose: int, count: int, greedy: bool = False
) -> tuple[Answers, list[str], list[float]]:
    """So many answers to each prompt, those to one after another: tokens, texts and rewards.

    Args:
        task: a :class:`~tasks.policy_tuning.PolicyTuning`.
    """
    if hasattr(task.scorer, "to"):
        task.scorer.to(task.device)
    ids, mask = batch["input_ids"], batch["mask"]
    step = task.global_step if purpose == TRAIN else 0  # each validation draws alike
    seed = getattr(task.data, "order_seed", int(os.environ.get("PL_GLOBAL_SEED", 0)))
    first = task.trainer.global_rank * len(ids)
    places = batch.get("index", range(first, first + len(ids)))
    keys = [(seed, purpose, step, place, i) for place in places for i in range(count)]
    stops = tuple(sorted(stops_of(task.model, task.tokenizer())))
    found = write(
        task.model,
        ids.repeat_interleave(count, 0),
        mask.repeat_interleave(count, 0),
        None if greedy else uniform_numbers(keys, task.max_new_tokens).to(ids.device),
        temperature=task.temperature,
        max_new_tokens=task.max_new_tokens,
        stops=stops,
    )
    texts = text_of(task.tokenizer(), found.labels, stops)
    prompts = [one for one in batch["prompt"] for _ in range(count)]
    fields = {
        name: [one for one in values for _ in range(count)]
        for name, values in batch.get("fields", {}).items()
    }
    return found, texts, rewards_of(task.scorer, prompts, texts, fields, task.global_step + 1)


@torch.no_grad()
def roll_out(task: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """What is trained on until the next time.

    Returns:
        ``rows`` of :meth:`PolicyTuning.loss`, ``found``, numbers for the log, and the ``index`` of the
        prompts.
    """
    each = task.samples_each
    answers, _, rewards = answer(task, batch, TRAIN, each)
    labels = answers.labels
    if len(labels) % task.minibatches:
        raise UserError(
            f"{len(labels)} answers do not divide into model.minibatches={task.minibatches}: choose "
            "another data.batch_size or model.samples."
        )
    ids, mask = (batch[name].repeat_interleave(each, 0) for name in ("input_ids", "mask"))
    rows = {**joined(ids, mask, labels), "sampled_log_probs": answers.log_probs}
    rows |= together([numbers(task, part) for part in parts(rows, task.minibatches)])
    written = labels != IGNORE
    scores = torch.tensor(rewards, dtype=torch.float32, device=written.device)
    if task.method == "grpo":
        advantages = group_advantages(scores, each, not task.unbiased)
        rows["advantages"] = advantages[:, None].expand(written.shape).clone()
    else:
        rows |= token_advantages(task, rows, scores, written)
    groups = scores.view(-1, each)
    found = {
        "reward": scores.mean(),
        "reward_std": scores.std(unbiased=False),
        "even_groups": (groups == groups[:, :1]).all(1).float().mean(),
        "length": written.sum(1).float().mean(),
        "cut_off": answers.cut.float().mean(),
    }
    index = list(batch.get("index", ()))
    return {"rows": rows, "found": {n: float(x) for n, x in found.items()}, "index": index}


def numbers(task: Any, rows: Rows) -> Rows:
    """What policy, reference and value head said of answers when they were written, where a loss will ask
    for it."""
    found: Rows = {}
    labels = rows["labels"]
    if task.steps or task.method == "ppo":
        logits, features = read(task.model, rows)
        found["old_log_probs"] = token_log_probs(logits, labels, task.temperature)
        if task.value_head is not None and features is not None:
            values = task.value_head(features).squeeze(-1)
            found["old_values"] = values.to(torch.promote_types(values.dtype, torch.float32))
    if task.reference is not None:
        with task.reference.of(task.model) as model:
            logits, _ = read(model, rows)
        found["reference_log_probs"] = token_log_probs(logits, labels, task.temperature)
    return found


def token_advantages(task: Any, rows: Rows, scores: Tensor, written: Tensor) -> Rows:
    """Those of PPO, and the returns that the value head learns."""
    values, rewards = rows["old_values"], torch.zeros_like(rows["old_values"])
    if "reference_log_probs" in rows:
        rewards -= task.kl * kl_estimates(rows["old_log_probs"], rows["reference_log_probs"]).k1
    last = written.sum(1, keepdim=True) - 1
    rewards.scatter_add_(1, last, scores[:, None].to(rewards))
    found = generalised_advantages(rewards, values, written, task.gamma, task.lam)
    return {"advantages": whitened(found, written), "returns": found + values}
