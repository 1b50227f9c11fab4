"""Masked language modelling: guess the hidden tokens of a text from both sides."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from family.heads.masked import logits_at
from family.losses.language_model import IGNORE, language_model_loss
from family.models.member import longest_text
from tasks.errors import UserError
from tasks.training.token_task import TokenTask

SHOWN = 8
"""Texts among the samples."""


class MaskedLanguageModeling(TokenTask):
    """Cross-entropy over the hidden tokens alone (Devlin et al. 2019, section 3.1); perplexity, and how
    many of them the model makes likeliest; texts with what stood in each gap and what was made of it.

    A batch has ``input_ids`` and ``labels`` ``(batch, tokens)``, int64: the tokens, some of them hidden, and
    what stood there, or -100 where nothing is to be guessed; ``mask``, of the same shape, True = a token,
    where texts are padded; and ``documents``, where texts that are packed into a row are not to see each
    other. The model is one of the contract ``model(input_ids, mask) -> logits``; of one with ``encode`` and
    ``masked_logits`` the head is computed at the hidden tokens alone.
    """

    fields = ("input_ids", "labels", "mask")

    def configure_model(self) -> None:
        super().configure_model()
        name = type(self.model).__name__
        if getattr(self.model, "masked_head", self.model) is None:
            raise UserError(f"this {name} has no head for masked tokens: give masked_head=true.")
        context, longest = getattr(self.data, "context", 0), longest_text(self.model)
        if context > longest:
            raise UserError(
                f"data.context={context} is more than the model's max_tokens={longest}: "
                "make one smaller, or the other larger."
            )
        takes = inspect.signature(type(self.model).forward).parameters
        several = getattr(self.data, "several", bool)
        if several() and "documents" not in takes:
            raise UserError(
                "data of several texts are packed, which needs a model that takes documents: "
                f"{name} does not."
            )

    def compiled_parts(self) -> list[nn.Module]:
        """The stack, where the model's head is called by itself."""
        inner = getattr(self.model, "transformer", None)
        return [self.model if inner is None else inner]

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """``(hidden tokens, vocab)``."""
        packed = {name: batch[name] for name in ("documents",) if name in batch}
        hidden = batch["labels"] != IGNORE
        return logits_at(self.model, hidden, batch["input_ids"], batch.get("mask"), **packed)

    def cross_entropy(self, batch: dict[str, Any]) -> Tensor:
        labels = batch["labels"][batch["labels"] != IGNORE]
        total = language_model_loss(
            self.logits(batch)[None], labels[None], self.label_smoothing, "sum"
        )
        return total / max(1, len(labels))  # a batch of a stranger may hide nothing

    def evaluate(self, batch: dict[str, Any], split: str) -> dict[str, list[Any]]:
        """Log loss and accuracy, means over the hidden tokens.

        Returns:
            Of each row the ``loss``, summed over its hidden ``tokens``, their number, and how many are
            ``right``.
        """
        hidden = batch["labels"] != IGNORE
        labels, logits = batch["labels"][hidden], self.logits(batch)
        made = logits.argmax(-1)
        each = language_model_loss(logits[None], labels[None], reduction="none")
        table = each.new_zeros(3, *hidden.shape)
        table[:, hidden] = table.new_ones(3, len(labels))
        table[0, hidden], table[2, hidden] = each, (made == labels).to(each.dtype)
        sums, counts, right = table.sum(-1)
        count = len(labels)
        means = {"loss": sums.sum() / max(1, count), "accuracy": right.sum() / max(1, count)}
        self.log_mean({f"{split}/{name}": value for name, value in means.items()}, count)
        if split == "val" and not self.samples:
            self.samples = self.shown(batch, made)
        return {
            "loss": [round(x, 4) for x in sums.tolist()],
            "tokens": [int(x) for x in counts.tolist()],
            "right": [int(x) for x in right.tolist()],
        }

    def on_validation_epoch_start(self) -> None:
        self.samples = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        return self.evaluate(batch, "test")

    def predict_step(self, batch: dict[str, Any], index: int) -> None:
        raise UserError("a masked language model fills gaps in texts: use family fill.")

    def on_validation_epoch_end(self) -> None:
        self._derived("val")

    def on_test_epoch_end(self) -> None:
        self._derived("test")

    def _derived(self, split: str) -> None:
        loss = self.trainer.callback_metrics.get(f"{split}/loss")
        if loss is not None:
            # Of a mean over all processes already: a mean of it is the same.
            self.log(f"{split}/perplexity", loss.exp(), sync_dist=True)

    def shown(self, batch: dict[str, Any], made: Tensor) -> list[str]:
        """The first rows as text, in brackets what stood in the gaps, and what was made of it where that
        is another."""
        tokenizer = self.tokenizer()
        if tokenizer is None:
            return []
        guesses = iter(made.tolist())
        texts = []
        for ids, labels in zip(batch["input_ids"][:SHOWN], batch["labels"][:SHOWN], strict=True):
            run: list[int] = []
            parts = []
            for token, label in zip(ids.tolist(), labels.tolist(), strict=True):
                if label == IGNORE:
                    run.append(token)
                    continue
                true, guess = tokenizer.decode([label]), tokenizer.decode([next(guesses)])
                said = true.strip() if true == guess else f"{true.strip()} -> {guess.strip()}"
                parts += [tokenizer.decode(run).strip(), f"[{said}]"]
                run = []
            texts.append(" ".join(filter(None, [*parts, tokenizer.decode(run).strip()])))
        return texts
