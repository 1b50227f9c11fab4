"""Parts of ELECTRA's pre-training: generator and discriminator side by side."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor, nn

from family.inputs.text import TextEmbedding, share_tables
from family.losses.replaced_tokens import Corrupted
from tasks.errors import UserError
from tasks.training.reading import check_documents, check_room

SHOWN = 8
"""Texts among the samples."""
LOGGED = (
    "generator_loss",
    "discriminator_loss",
    "replaced",
    "called_replaced",
    "rightly_called",
)
"""Means that others follow from."""


class Detected(NamedTuple):
    """What both made of a batch."""

    guesses: Tensor
    """The generator's logits of the gaps, ``(gaps, vocab)``."""
    filled: Corrupted
    logits: Tensor
    """``(batch, tokens)``, over 0 where the model calls a token replaced."""


# --- The models ---


def share(generator: nn.Module, model: nn.Module) -> None:
    """Let a generator have the tables of a model.

    Raises:
        UserError: they differ in them, or a model has none of ours.
    """
    for one in (generator, model):
        if not isinstance(getattr(one, "embedding", None), TextEmbedding):
            raise UserError(
                f"a {type(one).__name__} has no embedding to share: give model.share_embeddings=false."
            )
    try:
        share_tables(generator, model.embedding)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(
            f"model.generator cannot share the model's embedding: {error} Give both the same (embedding_dim, "
            "max_tokens, token_types), or model.share_embeddings=false."
        ) from None


def tells_replaced(model: nn.Module) -> bool:
    """Whether a model, if it says what heads it has, answers with the one for replaced tokens."""
    if not hasattr(model, "replaced_head"):
        return True
    return model.replaced_head is not None and getattr(model, "masked_head", None) is None


def check_reads(model: nn.Module, data: Any) -> None:
    """Refuse a model that cannot read windows of packed texts.

    Raises:
        UserError: they are too long, or it would let texts see each other.
    """
    check_room(model, data, "context")
    if getattr(data, "several", bool)():
        check_documents(model, "data of several texts are packed, which")


# --- What is shown ---


def of_means(means: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
    """From the means of a split, see :data:`LOGGED`, those that are no means.

    Args:
        weight: of the discriminator's loss.
    """
    called, right = means["called_replaced"], means["rightly_called"]
    precision = right / called.clamp(min=1e-12)
    recall = right / means["replaced"].clamp(min=1e-12)
    return {
        "loss": means["generator_loss"] + weight * means["discriminator_loss"],
        "perplexity": means["generator_loss"].exp(),
        "constant_accuracy": 1 - means["replaced"],
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall).clamp(min=1e-12),
    }


def shown_replaced(
    tokenizer: Any, batch: Mapping[str, Any], filled: Corrupted, called: Tensor
) -> list[str]:
    """The first rows as text, in brackets what stood where a token was replaced, what was put there, and
    whether it was found; and the tokens that were taken for replaced ones."""
    if tokenizer is None:
        return []
    texts = []
    rows = zip(batch["labels"], *filled, called, strict=True)
    for labels, ids, replaced, said in islice(rows, SHOWN):
        parts, run = [], list[int]()
        columns = (x.tolist() for x in (labels, ids, replaced, said))
        for label, token, other, found in zip(*columns, strict=True):
            end = token in tokenizer.special_ids and not other
            if not end and (other or found):
                drawn = tokenizer.decode([token]).strip()
                true = tokenizer.decode([label]).strip() if other else ""
                how = f"{true} -> {drawn}, {'found' if found else 'missed'}"
                parts += [
                    tokenizer.decode(run).strip(),
                    f"[{how if other else f'{drawn}, taken for one'}]",
                ]
                run = []
            elif end:  # of a text
                parts.append(tokenizer.decode(run).strip())
                run = []
            else:
                run.append(token)
        texts.append(" ".join(filter(None, [*parts, tokenizer.decode(run).strip()])))
    return texts
