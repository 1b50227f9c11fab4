"""What says how good an answer is: texts go in, numbers come out.

A scorer is any callable ``(prompts, answers, **fields) -> list of float``: lists of texts (of a conversation
its prompt is what the user said last, and ``messages`` has all of it), and the further fields of the prompts.
One that has ``to(device)`` is put where the model is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from family.heads.problem import MULTI, problem_of
from family.inference.classes import text_logits
from family.inference.loaded import load
from family.inference.rewards import reward_rows
from family.inputs.conversation import answer_ids, prompt_ids
from family.models.member import longest_text
from tasks.data.shape_dialogues import judge
from tasks.errors import NotFiniteError, UserError, closest, user_errors

Scorer = Callable[..., list[float]]


def name_of(scorer: Any) -> str:
    """What a message calls it."""
    return getattr(scorer, "__name__", type(scorer).__name__)


def rewards_of(
    scorer: Scorer,
    prompts: list[str],
    answers: list[str],
    fields: Mapping[str, list[Any]],
    step: int,
) -> list[float]:
    """A number for each answer.

    Raises:
        UserError: the scorer fails, or gives something else.
        NotFiniteError: a number is infinite or none.
    """
    said = f"the scorer {name_of(scorer)}"
    try:
        found = [float(one) for one in scorer(prompts, answers, **fields)]
    except Exception as error:  # what code of others may raise has no bounds
        reason = " ".join(str(error).split())
        raise UserError(f"{said} fails at step {step}: {type(error).__name__}: {reason}") from error
    if len(found) != len(answers):
        raise UserError(
            f"{said} gives {len(found)} rewards for {len(answers)} answers at step {step}: it must give "
            "one each."
        )
    for reward, answer in zip(found, answers, strict=True):
        if not math.isfinite(reward):
            raise NotFiniteError(
                f"{said} gives {reward} at step {step}, for the answer {answer[:60]!r}: a reward must be "
                "finite."
            )
    return found


# --- Rules ---


class ExactAnswer:
    """1 for the answer that a prompt's field names, else 0; spaces around it do not count.

    Args:
        field: of the prompts.
    """

    def __init__(self, field: str = "answer") -> None:
        self.field = field

    def __call__(
        self, prompts: Sequence[str], answers: Sequence[str], **fields: Sequence[Any]
    ) -> list[float]:
        if self.field not in fields:
            raise UserError(f"the prompts have no field {self.field!r}, which has what is right.")
        true = fields[self.field]
        return [
            float(one.strip() == str(right).strip())
            for one, right in zip(answers, true, strict=True)
        ]


class ShapesScorer:
    """How right an answer about a scene is by the words of its prompt, see
    :func:`tasks.data.shape_dialogues.judge`."""

    def __call__(
        self, prompts: Sequence[str], answers: Sequence[str], **fields: Sequence[Any]
    ) -> list[float]:
        return [judge(prompt, one) for prompt, one in zip(prompts, answers, strict=True)]


# --- Models ---


class ClassifierScorer:
    """How likely a text classifier finds a class: of prompt and answer as one text, which it reads by its
    own tokenizer; of a conversation, of the answer alone.

    Args:
        source: a run, or anything that :func:`family.load` takes.
        label: the class that is rewarded, by its name.
        log_odds: ``log p / (1 - p)`` in place of the probability, which goes on growing.
        batch_size: texts at a time.
    """

    def __init__(
        self, source: str, label: str, log_odds: bool = False, batch_size: int = 32
    ) -> None:
        with user_errors():
            loaded = load(source, dtype=torch.float32)
        if loaded.task != "TextClassification":
            raise UserError(
                f"the scorer's source {source} is for {loaded.task or 'no task that is known'}, not for "
                "TextClassification."
            )
        labels = [str(name) for name in loaded.labels or ()]
        if label not in labels:
            known = ", ".join(labels)
            raise UserError(
                f"the scorer's label {label!r} is none of {source}: it has {known}."
                f"{closest(label, labels)}"
            )
        self.model, self.label = loaded.model.requires_grad_(False), labels.index(label)
        self.log_odds, self.batch_size = log_odds, batch_size

    def to(self, device: torch.device) -> None:
        self.model.to(device)

    def __call__(
        self, prompts: Sequence[str], answers: Sequence[str], **fields: Sequence[Any]
    ) -> list[float]:
        bare = "messages" in fields
        texts = [one if bare else f"{p}{one}" for p, one in zip(prompts, answers, strict=True)]
        logits = text_logits(self.model, texts, self.batch_size)
        if problem_of(self.model, logits.shape[1]) == MULTI:  # each label by itself
            mine = logits[:, self.label]
            return (mine if self.log_odds else mine.sigmoid()).tolist()
        logs = logits.log_softmax(-1)
        mine = logs[:, self.label]
        if not self.log_odds:
            return mine.exp().tolist()
        others = torch.cat([logs[:, : self.label], logs[:, self.label + 1 :]], dim=1)
        return (mine - others.logsumexp(-1)).tolist()


class RewardModelScorer:
    """What a reward model ``model(input_ids, mask) -> (batch,)`` finds of a prompt and its answer, by its
    own tokenizer and chat template.

    Args:
        source: a run, or anything that :func:`family.load` takes.
        batch_size: texts at a time.
    """

    def __init__(self, source: str, batch_size: int = 32) -> None:
        with user_errors():
            loaded = load(source, dtype=torch.float32)
        if loaded.tokenizer is None:
            raise UserError(f"the scorer's source {source} has no tokenizer.")
        self.model, self.source = loaded.model.requires_grad_(False), source
        self.batch_size = batch_size

    def to(self, device: torch.device) -> None:
        self.model.to(device)

    def __call__(
        self, prompts: Sequence[str], answers: Sequence[str], **fields: Sequence[Any]
    ) -> list[float]:
        tokenizer = self.model.tokenizer
        given = fields.get("messages", prompts)
        rows = [
            [*prompt_ids(tokenizer, prompt), *answer_ids(tokenizer, prompt, one)]
            for prompt, one in zip(given, answers, strict=True)
        ]
        longest = longest_text(self.model)
        if max(map(len, rows)) > longest:
            raise UserError(
                f"a prompt and its answer have {max(map(len, rows))} tokens, more than the "
                f"{int(longest)} that {self.source} reads."
            )
        with user_errors():
            return reward_rows(self.model, rows, self.batch_size, self.source)
