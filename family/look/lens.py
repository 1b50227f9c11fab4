"""The logit lens: what a model would say after each of its layers (nostalgebraist 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from family.core.transformer import Transformer


def logit_lens(model: Any, *inputs: Any, **named: Any) -> Tensor:
    """Logits ``(depth + 1, batch, tokens, vocab)`` that the head makes of what enters the first layer, and of
    what leaves each; the last are the model's own.

    Args:
        model: a language model, a masked one, or an encoder-decoder, whose decoder is meant.
        inputs, named: what the model is called with.

    Raises:
        ValueError: a model that says no words.
    """
    stack, read = writer(model)
    seen: list[Tensor] = []
    hooks = [stack.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))]
    hooks += [
        block.register_forward_hook(lambda _, given, made: seen.append(made))
        for block in stack.blocks
    ]
    try:
        with torch.no_grad():
            model(*inputs, **named)
            return torch.stack([read(stack.norm(x)) for x in seen])
    finally:
        for hook in hooks:
            hook.remove()


def writes(model: Any) -> bool:
    """Whether :func:`logit_lens` can read a model."""
    try:
        writer(model)
    except ValueError:
        return False
    return True


def writer(model: Any) -> tuple[Transformer, Callable[[Tensor], Tensor]]:
    """The stack whose tokens become words, and what makes logits of them.

    Raises:
        ValueError: there is none.
    """
    decoder = getattr(model, "decoder", None)
    if isinstance(decoder, Transformer) and hasattr(model, "output_factor"):
        return decoder, lambda x: model.head(x * model.output_factor)
    language = getattr(model, "language", model)
    stack = getattr(language, "transformer", None)
    if isinstance(stack, Transformer):
        if hasattr(language, "logits"):
            return stack, language.logits
        if getattr(model, "masked_head", None) is not None:
            return stack, model.masked_logits
    raise ValueError(f"a {type(model).__name__} says no words: the logit lens has nothing to read.")
