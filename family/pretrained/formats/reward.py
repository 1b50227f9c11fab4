"""Reward models as transformers stores them: ``...ForSequenceClassification`` with one label. Those of an
encoder are its own regressions; those of a causal stack have a format for each of its kinds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from family.heads.problem import REGRESSION
from family.models.reward import RewardModel, as_regression
from family.pretrained.formats import gpt2, llama, qwen3
from family.pretrained.shared_fields import count_labels, token_ids
from family.pretrained.table import Format, Names, nested

SUFFIX = "ForSequenceClassification"


def of_rewards(layout: Format) -> Format:
    """The format of reward models whose body is of another format, a causal one."""
    bare = layout.architectures[0].removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    kind = f"{bare}{SUFFIX}"

    def names(model: RewardModel) -> Names:
        own = layout.table(model.body)
        body = {name: theirs for name, theirs in own.items() if name != "head"}
        return {**nested(body, "body."), "head": "score"}

    def detect(config: dict[str, Any], weights: set[str]) -> dict[str, Any]:
        count = count_labels(config)
        if count != 1:
            raise ValueError(f"a {kind} of {count} labels is not supported; only of 1, a reward.")
        return layout.detect(config, weights)

    def finish(model: RewardModel, config: dict[str, Any]) -> dict[str, Any]:
        check_padding(model, layout.name)
        labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        own = layout.finish(model, config)
        return {**own, **token_ids(model), **labels, "problem_type": REGRESSION}

    return replace(
        layout,
        member=RewardModel,
        architectures=(kind,),
        fields=tuple(field for field in layout.fields if field.ours != "tie_embeddings"),
        constants={**layout.constants, "head_bias": False},
        names=names,
        detect=detect,
        finish=finish,
    )


REWARDS = {
    layout.name: of_rewards(layout)
    for layout in (gpt2.FORMAT, llama.FORMAT, llama.MISTRAL, llama.QWEN2, qwen3.FORMAT)
}
"""By the names of the formats of their bodies."""


def named(layout: Format, architectures: list[str]) -> Format:
    """The format of reward models in place of that of their kind, where a config names it."""
    rewards = REWARDS.get(layout.name)
    return rewards if rewards and {*architectures} & {*rewards.architectures} else layout


def architectures_of(layout: Format) -> tuple[str, ...]:
    """Those of the reward models of a kind."""
    return REWARDS[layout.name].architectures if layout.name in REWARDS else ()


def fitted(model: nn.Module, layout: Format) -> tuple[nn.Module, Format]:
    """A model and a format to write it by: of a reward model what published formats take it for.

    Raises:
        ValueError: one that has no such format.
    """
    if not isinstance(model, RewardModel) or layout.member is RewardModel:
        return model, layout
    if not model.causal:
        return as_regression(model), layout
    if layout.name not in REWARDS:
        raise ValueError(
            f"format={layout.name!r} has no place for a reward of a causal stack; choose one of: "
            f"{', '.join(REWARDS)}."
        )
    return model, REWARDS[layout.name]


def check_padding(model: RewardModel, name: str) -> None:
    """Refuse to write a model that transformers would read elsewhere: it takes the last token that is not
    the padding token.

    Raises:
        ValueError: padding is a token that also ends an answer.
    """
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return
    if tokenizer.pad_id is None or tokenizer.pad_id in tokenizer.stop_ids():
        has = "no pad_token" if tokenizer.pad_id is None else "a pad_token that also ends an answer"
        raise ValueError(
            f"format={name!r}: transformers reads a reward from the last token that is no padding, but "
            f"this tokenizer has {has}: give it one of its own, or write our own format."
        )
