"""A text's worth as one number: GPT or BERT with a scalar head (Stiennon et al. 2020, section 3.4; Ouyang et
al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.heads.classifier import class_head
from family.heads.pooling import POOLINGS, pool_end
from family.models.bert import BERT
from family.models.examples import REWARDS
from family.models.gpt import GPT
from family.models.member import member

HEADS = {
    "num_classes": 0,
    "masked_head": False,
    "replaced_head": False,
    "tie_embeddings": True,
    "logit_cap": None,
}
"""Arguments of a body's own heads -> what they are where its head is a reward."""
READS = (
    "scale_embeddings",
    "token_types",
    "embedding_dim",
    "embedding_position",
    "pooling",
    "pooler",
    "pooler_norm",
    "dense_bias",
    "head_dropout",
)
"""Those that say how it reads."""


@member(
    task="RewardModeling",
    reads=("text",),
    inputs=REWARDS,
    example={
        "vocab_size": 40,
        "config": TransformerConfig(
            dim=16, depth=2, heads=2, causal=True, position="rotary", max_tokens=32
        ),
    },
    variants=(
        {"config": TransformerConfig(dim=16, depth=2, heads=2, position="learned", max_tokens=32)},
        {"config": TransformerConfig(dim=16, depth=2, heads=2), "pooling": "max"},
    ),
    classes=("head.",),
)
class RewardModel(nn.Module):
    """embed -> Transformer -> one token -> a number: how good a prompt's answer is, both in one row.

    The stack is that of a :class:`GPT` where the config is causal, which reads the reward from the last
    token, the only one that has seen all; else that of a :class:`BERT`, which reads it from its pooled
    tokens. The head begins at zero: all texts are worth the same.

    Args:
        vocab_size, config: of that model.
        head_bias: of the scalar head, which pairs of answers cannot teach; None is as published: an
            encoder has it, a causal stack not.
        body: further arguments of that model: ``scale_embeddings``; ``token_types``, ``pooling``,
            ``pooler``, ``head_dropout`` ...

    Raises:
        ValueError: an argument of another head, or a pooling that pools nothing.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        *,
        head_bias: bool | None = None,
        **body: Any,
    ) -> None:
        super().__init__()
        wrong = next((name for name in body if name in HEADS), None)
        if wrong is not None:
            raise ValueError(f"a reward is one number: {wrong}={body[wrong]!r} is of another head.")
        if body.get("pooling", "class") not in POOLINGS:
            choices = ", ".join(POOLINGS)
            raise ValueError(
                f"pooling={body['pooling']!r} gives no reward of a text; choose one of: {choices}."
            )
        self.config, self.vocab_size, self.causal = config, vocab_size, config.causal
        self.body: Any
        if config.causal:
            self.body = GPT(vocab_size, config, **body)
            self.body.head = nn.Identity()
        else:
            self.body = BERT(vocab_size, config, masked_head=False, **body)
        self.head_bias = not config.causal if head_bias is None else head_bias
        self.head = class_head(config.dim, 1, self.head_bias)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """The rewards ``(batch)``.

        Args:
            input_ids: ``(batch, tokens)``.
            mask: ``(batch, tokens)``, True = a token; padding may stand left or right.
        """
        if self.causal:
            one = pool_end(self.body.features(input_ids, mask), input_ids, mask)
        else:
            one = self.body.pooled(self.body.encode(input_ids, mask), mask)
            one = self.body.head_dropout(one)
        return self.head(one).squeeze(-1)


@torch.no_grad()
def as_reward_model(model: nn.Module) -> nn.Module:
    """A GPT or BERT as a reward model, with its weights and its tokenizer; the head is new, but that of a BERT
    with one number (a published reward model, say) is kept. Any other model is returned as it is."""
    if type(model) not in (GPT, BERT):
        return model
    source: Any = model
    arguments = source.arguments
    kept = {name: arguments[name] for name in READS if name in arguments}
    if kept.get("pooling", "class") not in POOLINGS:  # of each token
        kept["pooling"] = "class"
    made = RewardModel(source.vocab_size, source.config, **kept)
    for name in ("embedding", "transformer", "pooler"):
        if hasattr(source, name):
            setattr(made.body, name, getattr(source, name))
    made.head.to(next(source.parameters()))
    if getattr(source, "num_classes", 0) == 1:
        made.head.load_state_dict(source.class_head.state_dict())
    made.tokenizer = source.tokenizer
    return made.train(source.training)


@torch.no_grad()
def as_regression(model: RewardModel) -> BERT:
    """The BERT with one number that a reward model with such a body is, as published formats know it; it
    shares the weights.

    Raises:
        ValueError: a head without a bias.
    """
    if not model.head_bias:
        raise ValueError("no published format has a reward of an encoder with head_bias=False.")
    given: Any = model.arguments
    kept = {name: given[name] for name in READS if name in given}
    made = BERT(model.vocab_size, model.config, num_classes=1, masked_head=False, **kept)
    made.embedding, made.transformer = model.body.embedding, model.body.transformer
    made.pooler, made.class_head = model.body.pooler, model.head
    made.tokenizer = model.tokenizer
    return made.train(model.training)
