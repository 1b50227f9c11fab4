"""Translation: a sentence in, a sentence out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sacrebleu
from torch import Tensor, nn

from family.inference.translation import most_new_tokens
from family.models.member import longest_text
from tasks.errors import UserError, at_least
from tasks.runs.gathering import gather
from tasks.training.token_task import TokenTask


class Translation(TokenTask):
    """Label-smoothed cross-entropy; sacreBLEU and chrF of decoded sentences.

    A batch has ``source``, ``target`` (what the decoder is fed) and ``labels`` (what it is to answer,
    -100 where nothing), ``(batch, tokens)`` int64, and ``source_mask``, True = a token; to be scored and
    shown also ``source_text``, ``target_text`` and ``line``, lists. Without a tokenizer there are no
    sentences, and the loss is all.

    Args:
        model: the model, or what builds it from the sizes of the vocabularies.
        beams: of the test's beam search; validation decodes greedily, which is faster.
        length_penalty: exponent of the length that a hypothesis' score is divided by.
        max_ratio: a translation has at most ``max_ratio`` times the source's tokens, and 10 more.
        options: of :class:`~tasks.training.token_task.TokenTask` and :class:`~tasks.training.task.Task`.
    """

    monitor = ("val/bleu", "max")
    fields = ("source", "target", "labels", "source_mask")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        beams: int = 4,
        length_penalty: float = 1.0,
        max_ratio: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        at_least(1, of="model.", beams=beams)
        at_least(0, of="model.", max_ratio=max_ratio)
        self.beams, self.length_penalty, self.max_ratio = beams, length_penalty, max_ratio
        self.decoded: list[tuple[str, str, str]] = []

    def logits(self, batch: dict[str, Any]) -> Tensor:
        return self.model(batch["source"], batch["target"], batch.get("source_mask"))

    def translate(self, batch: dict[str, Any], beams: int) -> list[str]:
        """The sentences that the model makes of ``source`` and ``source_mask``.

        Raises:
            UserError: nobody has a tokenizer to write them with.
        """
        tokenizer = self.tokenizer("target")
        if tokenizer is None:
            raise UserError("neither data nor model has a tokenizer: set model.tokenizer to one.")
        tokens = self.model.generate(
            batch["source"],
            batch.get("source_mask"),
            max_new_tokens=most_new_tokens(
                batch["source"].shape[1],
                getattr(self.model, "longest_target", longest_text(self.model)),
                self.max_ratio,
            ),
            beams=beams,
            length_penalty=self.length_penalty,
            stop_ids=(tokenizer.eos_id,),
            pad_id=tokenizer.pad_id,
        )
        return [tokenizer.decode(row) for row in tokens.tolist()]

    def _evaluate(self, batch: dict[str, Any], split: str, beams: int) -> list[str]:
        self.evaluate(batch, split)
        if "target_text" not in batch or self.tokenizer("target") is None:
            return []
        hypotheses = self.translate(batch, beams)
        self.decoded += zip(batch["source_text"], batch["target_text"], hypotheses, strict=True)
        return hypotheses

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self._evaluate(batch, "val", beams=1)

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By example: its line, the sentence, the translation that was made, and the true one."""
        made = self._evaluate(batch, "test", self.beams)
        if not made:
            return {}
        source, true = batch["source_text"], batch["target_text"]
        return {"line": batch["line"], "source": source, "made": made, "true": true}

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        made = self.translate(batch, self.beams)
        if "source_text" not in batch:
            return [{"translation": translation} for translation in made]
        rows = zip(batch["line"], batch["source_text"], made, strict=True)
        return [{"line": line, "source": source, "translation": t} for line, source, t in rows]

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, split: str) -> None:
        decoded, self.decoded = gather(self.decoded), []
        if not decoded:
            return
        hypotheses = [hypothesis for _, _, hypothesis in decoded]
        references = [[reference for _, reference, _ in decoded]]
        for name, metric in (
            ("bleu", sacrebleu.BLEU()),
            ("bleu_lowercase", sacrebleu.BLEU(lowercase=True)),
            ("chrf", sacrebleu.CHRF()),
        ):
            score = metric.corpus_score(hypotheses, references).score
            self.log(f"{split}/{name}", score, prog_bar=name == "bleu")
            self.signatures[f"{split}/{name}"] = str(metric.get_signature())
        # Spread over the set: batches are sorted by length.
        spread = decoded[:: max(1, len(decoded) // 5)][:5]
        self.samples = [
            f"{source}\n    made: {made}\n    true: {true}" for source, true, made in spread
        ]
