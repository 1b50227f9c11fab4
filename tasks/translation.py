"""Translation: a sentence in, a sentence out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from family.inference.translation import most_new_tokens
from family.models.languages import LanguageTokens
from family.models.member import longest_text
from tasks.errors import UserError, at_least
from tasks.runs.gathering import gather
from tasks.training.text_scores import text_scores
from tasks.training.token_task import TokenTask

SHOWN = 5
"""Sentences among the samples, at least."""


class Said(NamedTuple):
    """Of a sentence that was decoded: its direction, the code of the language it is in, and the loss of its
    ``tokens`` together."""

    direction: str
    language: str
    loss: float
    tokens: int


class Translation(TokenTask):
    """Label-smoothed cross-entropy; sacreBLEU and chrF of decoded sentences.

    Of several languages each direction has its own (``val/en-de/bleu``), and ``val/bleu`` is their mean, in
    which each counts as much. Chinese, Japanese and Korean are cut by sacreBLEU's own rules for them.

    A batch has ``source``, ``target`` (what the decoder is fed) and ``labels`` (what it is to answer,
    -100 where nothing), ``(batch, tokens)`` int64, and ``source_mask``, True = a token; to be scored and
    shown also ``source_text``, ``target_text`` and ``line``, lists; between several languages
    ``target_language`` and ``direction``, see :class:`~tasks.data.translation.TranslationData`. Without a
    tokenizer there are no sentences, and the loss is all.

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
        self.said: list[Said] = []
        """Of several languages what each that was decoded is; in the same order."""

    def logits(self, batch: dict[str, Any], **asked: Any) -> Tensor:
        return self.model(batch["source"], batch["target"], batch.get("source_mask"), **asked)

    @property
    def language_tokens(self) -> LanguageTokens | None:
        """By the data, or else by the model."""
        of_data = getattr(self.data, "language_tokens", None)
        return of_data or getattr(self.model, "language_tokens", None)

    def translate(self, batch: dict[str, Any], beams: int) -> list[str]:
        """The sentences that the model makes of ``source`` and ``source_mask``.

        Raises:
            UserError: nobody has a tokenizer to write them with.
        """
        tokenizer = self.tokenizer("target")
        if tokenizer is None:
            raise UserError("neither data nor model has a tokenizer: set model.tokenizer to one.")
        source, mask = batch["source"], batch.get("source_mask")
        languages, codes = self.language_tokens, batch.get("target_language")
        if languages is None or codes is None:
            return [tokenizer.decode(row) for row in self._generated(source, mask, beams)]
        # Each as long as it may be alone, so that others of its batch change nothing: a greedy text is cut
        # there, in a search those of one length are together.
        counts = (
            mask.sum(1) if mask is not None else source.new_full((len(source),), source.shape[1])
        )
        lengths = counts.unique() if beams > 1 else counts.max()[None]
        found: dict[int, str] = {}
        for longest in lengths.tolist():
            rows = torch.arange(len(source), device=source.device)
            rows = rows[counts == longest] if beams > 1 else rows
            begin = languages.begin([codes[row] for row in rows.tolist()], source.device)
            some = source[rows, :longest], None if mask is None else mask[rows, :longest]
            made = self._generated(*some, beams, **begin)
            for row, tokens in zip(rows.tolist(), made, strict=True):
                found[row] = tokenizer.decode(tokens[: self.most_new_tokens(int(counts[row]))])
        return [found[row] for row in range(len(source))]

    def most_new_tokens(self, source_tokens: int) -> int:
        """How long a translation may become."""
        longest = getattr(self.model, "longest_target", longest_text(self.model))
        return most_new_tokens(source_tokens, longest, self.max_ratio)

    def _generated(
        self, source: Tensor, mask: Tensor | None, beams: int, **begin: Any
    ) -> list[list[int]]:
        tokenizer = self.tokenizer("target")
        tokens = self.model.generate(
            source,
            mask,
            max_new_tokens=self.most_new_tokens(source.shape[1]),
            beams=beams,
            length_penalty=self.length_penalty,
            stop_ids=(tokenizer.eos_id,),
            pad_id=tokenizer.pad_id,
            **begin,
        )
        return tokens.tolist()

    def _evaluate(self, batch: dict[str, Any], split: str, beams: int) -> list[str]:
        found = self.evaluate(batch, split)
        if "target_text" not in batch or self.tokenizer("target") is None:
            return []
        hypotheses = self.translate(batch, beams)
        self.decoded += zip(batch["source_text"], batch["target_text"], hypotheses, strict=True)
        if "direction" in batch:
            of_each = batch["direction"], batch["target_language"], found["loss"], found["tokens"]
            self.said += map(Said, *of_each)
        return hypotheses

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self._evaluate(batch, "val", beams=1)

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By example: its line, the sentence, the translation that was made, and the true one."""
        made = self._evaluate(batch, "test", self.beams)
        if not made:
            return {}
        names = ("line", "direction", "target_language")
        rows = {"target_language": [self._target()] * len(made)}
        rows |= {name: batch[name] for name in names if name in batch}
        return {**rows, "source": batch["source_text"], "made": made, "true": batch["target_text"]}

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        made = self.translate(batch, self.beams)
        if "source_text" not in batch:
            return [{"translation": translation} for translation in made]
        names = {"line": "line", "direction": "direction", "source": "source_text"}
        fields = {ours: batch[name] for ours, name in names.items() if name in batch}
        rows = zip(*fields.values(), made, strict=True)
        return [dict(zip((*fields, "translation"), row, strict=True)) for row in rows]

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, split: str) -> None:
        decoded, self.decoded = gather(self.decoded), []
        said, self.said = gather(self.said), []
        if not decoded:
            return
        if not said:
            self._log_scores(f"{split}/", decoded, self._target())
            self.samples = shown(decoded, SHOWN)
            return
        directions = list(dict.fromkeys(one.direction for one in sorted(said)))
        self.samples, means = [], dict[str, list[float]]()
        for direction in directions:
            mine = [i for i, one in enumerate(said) if one.direction == direction]
            some = [decoded[i] for i in mine]
            scores = self._log_scores(f"{split}/{direction}/", some, said[mine[0]].language)
            loss = sum(said[i].loss for i in mine) / max(1, sum(said[i].tokens for i in mine))
            self.log(f"{split}/{direction}/loss", loss)
            for name, score in scores.items():
                means.setdefault(name, []).append(score)
            texts = shown(some, -(-SHOWN // len(directions)))
            self.samples += [f"{direction}: {text}" for text in texts]
        for name, each in means.items():
            self.log(f"{split}/{name}", sum(each) / len(each), prog_bar=name == "bleu")

    def _target(self) -> str:
        """What is translated into, where there is one language."""
        found = getattr(self.data, "target", "")
        return found if isinstance(found, str) else ""

    def _log_scores(
        self, prefix: str, decoded: Sequence[tuple[str, str, str]], language: str
    ) -> dict[str, float]:
        """Log what translations into a language are worth, and how it was computed."""
        made, true = [made for _, _, made in decoded], [true for _, true, _ in decoded]
        scores = {}
        for name, (score, signature) in text_scores(made, true, language).items():
            self.log(f"{prefix}{name}", score, prog_bar=name == "bleu" and prefix.count("/") == 1)
            self.signatures[f"{prefix}{name}"] = signature
            scores[name] = score
        return scores


def shown(decoded: Sequence[tuple[str, str, str]], count: int) -> list[str]:
    """Some of the translations, spread over the set: batches are sorted by length."""
    spread = decoded[:: max(1, len(decoded) // count)][:count]
    return [f"{source}\n    made: {made}\n    true: {true}" for source, true, made in spread]
