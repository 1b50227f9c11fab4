"""Masked language modelling: guess the hidden tokens of a text from both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from family.heads.masked import logits_at
from family.losses.language_model import IGNORE, language_model_loss
from family.losses.replaced_tokens import corrupt, replaced_loss
from family.losses.token_loss import TokenLoss
from family.pretrained.runs import equip
from tasks.errors import UserError, at_least
from tasks.runs.checkpoints import build_model
from tasks.training.building import Given, build_for
from tasks.training.reading import packed
from tasks.training.record import model_record
from tasks.training.replaced_tokens import (
    LOGGED,
    Detected,
    check_reads,
    of_means,
    share,
    shown_replaced,
    tells_replaced,
)
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

    With a ``generator`` this is ELECTRA (Clark et al. 2020): the generator, a small masked language model,
    fills the gaps with tokens drawn from what it says, and the model learns to tell for each token whether
    it was replaced, ``model(input_ids, mask) -> logits (batch, tokens)``. Their losses are added, that of
    the model ``discriminator_weight`` times; no gradient goes through what was drawn. Logged are both
    losses, the generator's accuracy over hidden tokens, and of the model, over all tokens, accuracy
    (beside that of "nothing was replaced"), precision, recall and F1 of the tokens that it calls replaced.
    The model is what a run gives to others (:func:`family.load`, ``model.pretrained``); its checkpoints
    keep the generator to go on with, and ``load_from_checkpoint(RUN).generator`` is that.

    Args:
        generator: a masked language model, or what builds it from the vocabulary size.
        share_embeddings: the generator has the model's tables of tokens, positions and token types
            (section 3.2), so that ``embedding_dim`` must be the same in both.
        discriminator_weight: of the model's loss, where there is a generator.
        model, options: of :class:`~tasks.training.token_task.TokenTask`.
    """

    fields = ("input_ids", "labels", "mask")
    beside = ("generator",)

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        generator: Callable[[int], nn.Module] | None = None,
        share_embeddings: bool = True,
        discriminator_weight: float = 50.0,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        at_least(0, of="model.", discriminator_weight=discriminator_weight)
        self.share_embeddings = share_embeddings
        self.discriminator_weight = discriminator_weight
        self.build_generator: Any = (
            Given(generator) if isinstance(generator, nn.Module) else generator
        )
        self.generator_spec: dict[str, Any] = {}
        """As ``model_spec``."""
        self.generator: Any = None

    # --- The models ---

    @property
    def learner(self) -> nn.Module:
        if self.generator is None:
            return self.model
        return nn.ModuleDict({"model": self.model, "generator": self.generator})

    def adapt_model(self) -> None:
        super().adapt_model()
        if self.build_generator is None or self.generator is not None:
            return
        try:
            arguments = self.model_arguments
            self.generator = build_for(self.build_generator, arguments, self.generator_spec)
        except (TypeError, ValueError) as error:
            raise UserError(f"model.generator: {error}") from error
        if self.share_embeddings:
            share(self.generator, self.model)

    def renew(self, arguments: dict[str, Any]) -> None:
        if not isinstance(self.build, Given):
            self.generator = None  # built anew for the new model
        super().renew(arguments)

    def configure_model(self) -> None:
        super().configure_model()
        guesses = self.model if self.generator is None else self.generator
        if self.generator is not None and not tells_replaced(self.model):
            raise UserError(
                f"beside model.generator the model tells replaced tokens: this {type(self.model).__name__} "
                "needs masked_head=false and replaced_head=true."
            )
        if getattr(guesses, "masked_head", guesses) is None:
            name = type(guesses).__name__
            raise UserError(f"this {name} has no head for masked tokens: give masked_head=true.")
        for model in {id(one): one for one in (self.model, guesses)}.values():
            check_reads(model, self.data)

    def compiled_parts(self) -> list[nn.Module]:
        """The stack, where the model's head is called by itself."""
        models = [self.model] if self.generator is None else [self.model, self.generator]
        return [getattr(model, "transformer", None) or model for model in models]

    # --- Losses ---

    @property
    def chance(self) -> float | None:
        return super().chance if self.generator is None else None  # the loss is that of two models

    def logits(self, batch: dict[str, Any], **asked: Any) -> Tensor:
        """Of what fills the gaps, ``(hidden tokens, vocab)``; or the ``loss`` asked for."""
        model = self.model if self.generator is None else self.generator
        hidden, mask = batch["labels"] != IGNORE, batch.get("mask")
        return logits_at(
            model, hidden, batch["input_ids"], mask, asked.get("loss"), **packed(batch)
        )

    def cross_entropy(self, batch: dict[str, Any], logits: Tensor | None = None) -> Tensor:
        labels = batch["labels"][batch["labels"] != IGNORE]
        loss = TokenLoss(labels, self.label_smoothing, self.z_loss)
        return self.logits(batch, loss=loss) if logits is None else loss.of(logits)

    def detect(self, batch: dict[str, Any]) -> Detected:
        """Fill the gaps of a batch, and ask the model which tokens were replaced."""
        guesses = self.logits(batch)
        filled = corrupt(batch["input_ids"], batch["labels"], guesses)
        logits = self.model(filled.input_ids, batch.get("mask"), **packed(batch))
        return Detected(guesses, filled, logits)

    def term_counts(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Where there is a generator, its tokens and the model's."""
        if self.generator is None:
            return {}
        real = batch.get("mask", torch.ones_like(batch["input_ids"]))
        return {"hidden": (batch["labels"] != IGNORE).sum(), "tokens": real.sum()}

    def terms(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        if self.generator is None:
            return super().terms(batch)
        found = self.detect(batch)
        generator = self.cross_entropy(batch, found.guesses)
        own = replaced_loss(found.logits, found.filled.replaced, batch.get("mask"))
        counts = self.term_counts(batch)
        whole = batch.get("whole", counts)
        generator_part, own_part = (counts[n] / (whole[n] + (whole[n] == 0)) for n in counts)
        total = generator_part * generator + self.discriminator_weight * own_part * own
        return {"loss": total, "generator_loss": generator, "discriminator_loss": own}

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> dict[str, list[Any]]:
        """Log loss and accuracy, means over the hidden tokens.

        Returns:
            Of each row the ``loss``, summed over its hidden ``tokens``, their number, and how many are
            ``right``.
        """
        if self.generator is not None:
            return self.evaluate_replaced(batch, split)
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

    def evaluate_replaced(self, batch: dict[str, Any], split: str) -> dict[str, list[Any]]:
        """Log, of hidden tokens, the generator's loss and accuracy, and of all tokens the model's.

        Returns:
            Of each row how many of its ``tokens`` the model is ``right`` about, and their number.
        """
        found = self.detect(batch)
        labels = batch["labels"][batch["labels"] != IGNORE]
        each = language_model_loss(found.guesses[None], labels[None], reduction="none")
        right = found.guesses.argmax(-1) == labels
        gaps = max(1, len(labels))
        hidden = {"generator_loss": each.sum() / gaps, "generator_accuracy": right.sum() / gaps}
        self.log_mean({f"{split}/{name}": value for name, value in hidden.items()}, len(labels))
        replaced, called = found.filled.replaced, found.logits > 0
        real = batch.get("mask", torch.ones_like(replaced))
        losses = replaced_loss(found.logits, replaced, real, "none")
        right, tokens = ((called == replaced) & real).sum(1), real.sum(1)
        shares = {
            "discriminator_loss": losses.sum(),
            "accuracy": right.sum(),
            "replaced": replaced.sum(),
            "called_replaced": (called & real).sum(),
            "rightly_called": (called & replaced).sum(),
        }
        count = int(tokens.sum())
        means = {f"{split}/{name}": value / max(1, count) for name, value in shares.items()}
        self.log_mean(means, count, prog_bar=False)
        if split == "val" and not self.samples:
            self.samples = shown_replaced(self.tokenizer(), batch, found.filled, called)
        return {"right": right.tolist(), "tokens": tokens.tolist()}

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
        """Log what follows from means over all processes: a mean of it is the same."""
        means = self.trainer.callback_metrics
        if f"{split}/generator_loss" in means:
            found = {name: means[f"{split}/{name}"] for name in LOGGED}
            derived = of_means(found, self.discriminator_weight)
        elif f"{split}/loss" in means:
            derived = {"perplexity": means[f"{split}/loss"].exp()}
        else:
            return
        self.log_dict({f"{split}/{name}": x for name, x in derived.items()}, sync_dist=True)

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

    # --- Checkpoints ---

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.generator is not None:
            decided = dict(self.model_arguments)
            given = self.generator, self.build_generator, self.generator_spec, decided
            record = dict(zip(("model", "arguments"), model_record(*given), strict=True))
            checkpoint["family"]["generator"] = record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        record = checkpoint["family"].get("generator")
        if record is not None and self.build_generator is None:
            self.generator_spec = record["model"]
            self.build_generator = Given(build_model(record["model"], record["arguments"]))

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, **options: Any
    ) -> Self:
        """As every task; the ``generator`` has the model's tokenizer too."""
        task = super().load_from_checkpoint(checkpoint_path, map_location, **options)
        if task.generator is not None:
            equip(task.generator, task.assets())
        return task
