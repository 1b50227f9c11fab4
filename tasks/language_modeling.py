"""Language modelling: predict the next token of a text."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from family import Sampling
from family.models.member import longest_text
from family.pretrained.generation import generation_of
from tasks.errors import UserError
from tasks.training.reading import check_documents, check_room, packed
from tasks.training.token_task import TokenTask


class LanguageModeling(TokenTask):
    """Loss, perplexity and bits per byte; a sample of text at each validation.

    A batch has ``input_ids`` and ``labels`` ``(batch, tokens)``, int64: the tokens, and after each the
    next one, or -100 where none is to be predicted; and ``documents``, of the same shape, where texts
    that are packed into a row are not to see each other. Without a tokenizer there are no samples, and
    without data of ours no bits per byte.
    """

    fields: tuple[str, ...] = ("input_ids", "labels")
    packing = "data.isolate=true"
    """What asks for texts in one row that do not see each other."""

    def configure_model(self) -> None:
        super().configure_model()
        check_room(self.model, self.data, "context")
        if getattr(self.data, "isolate", False):
            check_documents(self.model, self.packing)

    def logits(self, batch: dict[str, Any], **asked: Any) -> Tensor:
        return self.model(batch["input_ids"], **packed(batch), **asked)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By window: the summed loss, its tokens, and with data of ours the bytes of as many."""
        found = self.evaluate(batch, "test")
        if not hasattr(self.data, "bytes_per_token"):
            return found
        size = self.data.bytes_per_token("test")
        return {**found, "bytes": [count * size for count in found["tokens"]]}

    def predict_step(self, batch: dict[str, Any], index: int) -> None:
        raise UserError("a language model continues prompts: use family generate.")

    def on_validation_epoch_end(self) -> None:
        self._derived("val")
        tokenizer = self.tokenizer()
        if self.trainer.sanity_checking or not hasattr(self.model, "generate") or not tokenizer:
            return
        loss = self.trainer.callback_metrics.get("val/loss")
        if loss is None or not loss.isfinite():
            return  # such weights write nothing; the loss says why
        first = [0]
        with suppress(ValueError):  # no text that it learnt has a line's end
            first = tokenizer.encode("\n") or first
        start = torch.tensor([first], device=self.device)
        longest = longest_text(self.model, 256)
        count = min(200, longest - start.shape[1])
        sampling = Sampling(temperature=0.8, top_k=50)
        if getattr(self.model, "generation", None) is None:  # as inference will have it
            self.model.generation = generation_of(self.assets().get("generation"))
        new = self.model.generate(start, max_new_tokens=count, sampling=sampling)
        self.samples = [tokenizer.decode(new[0].tolist())]

    def on_test_epoch_end(self) -> None:
        self._derived("test")

    def _derived(self, split: str) -> None:
        loss = self.trainer.callback_metrics.get(f"{split}/loss")
        if loss is None:
            return
        # Of a mean over all processes already: a mean of it is the same, and Lightning asks for one.
        self.log(f"{split}/perplexity", loss.exp(), sync_dist=True)
        if hasattr(self.data, "bytes_per_token"):
            bits = loss / math.log(2) / self.data.bytes_per_token(split)
            self.log(f"{split}/bits_per_byte", bits, sync_dist=True)
