"""Tagging: a text in, a tag for each of its words out; named entities, parts of speech."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from family.inference.spans import mark_spans, spans_of
from family.losses.language_model import IGNORE
from tasks.errors import UserError
from tasks.runs.gathering import gather
from tasks.training.by_class import WORST, confusion_table, counted, unlike
from tasks.training.reading import check_room
from tasks.training.span_scores import SpanCounts
from tasks.training.weighting import WeightedTask

SHOWN = 8
"""Texts among the samples."""


class Tagged(NamedTuple):
    """A word that was tagged: the number of its text, its own there, itself, the ids of the true tag and
    the one that was made, how likely both are, and where the word stands."""

    text: tuple[int, int]
    word: int
    said: str
    true: int
    made: int
    true_probability: float
    score: float
    place: dict[str, Any]


class Tagging(WeightedTask):
    """Cross-entropy of the tags of words; F1, precision and recall of the spans that they mark, as
    conlleval counts them, in all (``val/f1``) and by type (``val/f1_TYPE``); and the share of words whose tag
    is right. Where tags mark no spans (parts of speech), each word counts as one.

    A batch has ``input_ids (batch, tokens)`` and ``labels (batch, tokens)``, int64, -100 where no word
    begins; and ``mask (batch, tokens)``, True = a token, where texts are padded. Where a text is in
    several rows also ``sentence``, the number of each row's text, and ``word``, that of the row's first
    labelled word in it; to be shown also ``words``, and where they stand, ``file`` and ``line``: see
    :class:`~tasks.data.tagging.TaggingData`.

    Args:
        model: the model, or what builds it from the number of tags: ``(batch, tokens, tags)``.
        options: of :class:`~tasks.training.weighting.WeightedTask`, whose classes are the tags.
    """

    fields = ("input_ids", "labels", "mask")
    ignored = IGNORE
    monitor = ("val/f1", "max")

    def __init__(self, model: Callable[[int], nn.Module] | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.found: list[Tagged] = []
        """The words of the split that is evaluated, of this process."""
        self.seen = 0
        """Rows of it that had no number."""
        self.tags = 0
        """What the model tells apart, once it was asked."""
        self.tables: dict[str, list[dict[str, Any]]] = {}
        """What a test found, by type and by tag, and the worst errors."""

    def configure_model(self) -> None:
        super().configure_model()
        check_room(self.model, self.data)

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """``(batch, tokens, tags)`` in float32.

        Raises:
            UserError: the model tells no tags of tokens.
        """
        logits = self.model(batch["input_ids"], batch.get("mask")).float()
        if logits.dim() != 3 or logits.shape[:2] != batch["input_ids"].shape:
            raise UserError(
                f"the model gives logits {tuple(logits.shape)} of input_ids "
                f"{tuple(batch['input_ids'].shape)}, but tags are of each token: (batch, tokens, tags); "
                "of an encoder of ours, set pooling=tokens and pooler=null."
            )
        return logits

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        logits, labels = self.logits(batch).flatten(0, 1), batch["labels"].flatten()
        weights, smoothing = self.loss_weights(logits), self.label_smoothing
        how: dict[str, Any] = {"label_smoothing": smoothing, "reduction": "sum"}
        loss, count = F.cross_entropy(logits, labels, weights, **how), self.count(batch)
        assert count is not None
        return {"loss": loss / (count + (count == 0))}  # windows without a word teach nothing

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> list[list[Tagged]]:
        """Log loss and accuracy over words, and keep what was made of them; of each row its words."""
        logits, labels = self.logits(batch), batch["labels"]
        own, self.tags = labels != IGNORE, logits.shape[-1]
        count = int(own.sum())
        self.count_classes(
            *(ids[own].bincount(minlength=self.tags) for ids in (logits.argmax(-1), labels))
        )
        right = (logits.argmax(-1) == labels) & own
        loss = F.cross_entropy(logits[own], labels[own], reduction="sum")
        metrics = {f"{split}/loss": loss, f"{split}/accuracy": right.sum().float()}
        self.log_mean({name: value / max(1, count) for name, value in metrics.items()}, count)
        rows = self._read(batch, logits, own)
        self.found += [word for row in rows for word in row]
        return rows

    def _read(self, batch: dict[str, Any], logits: Tensor, own: Tensor) -> list[list[Tagged]]:
        """The labelled words of each row."""
        chances = logits.softmax(-1)
        scores, made = chances.max(-1)
        right = chances.gather(-1, batch["labels"].clamp(min=0)[..., None])[..., 0]
        rows = []
        for i, mine in enumerate(own):
            true, guess, chance, score = (
                x[i][mine].tolist() for x in (batch["labels"], made, right, scores)
            )
            if "sentence" in batch:
                text, first = (0, batch["sentence"][i]), batch["word"][i]
            else:  # a row is a text
                text, first, self.seen = (1 + self.global_rank, self.seen), 0, self.seen + 1
            words = []
            for n in range(len(true)):
                said = batch["words"][i][n] if "words" in batch else ""
                place = {"sentence": text[1], "word": first + n}
                if "file" in batch:
                    place = {"file": batch["file"][i], "line": batch["line"][i][n], **place}
                judged = true[n], guess[n], chance[n], score[n]
                words.append(Tagged(text, first + n, said, *judged, place))
            rows.append(words)
        return rows

    def on_validation_epoch_start(self) -> None:
        self.found, self.seen = [], 0

    def on_test_epoch_start(self) -> None:
        self.found, self.seen = [], 0

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "test")

    def on_validation_epoch_end(self) -> None:
        texts, names = self._texts(), self._names()
        self._score("val", texts, names)
        spread = texts[:: max(1, len(texts) // SHOWN)][:SHOWN]
        self.samples = [sample(text, names) for text in spread if any(word.said for word in text)]

    def on_test_epoch_end(self) -> None:
        """Also as tables: spans by type, words by true and made tag, and the errors that were surest."""
        texts, names = self._texts(), self._names()
        spans = self._score("test", texts, names)
        words = [word for text in texts for word in text]
        if not words:
            return
        counts = counted([w.true for w in words], [w.made for w in words], len(names))
        wrong = sorted(
            (word for word in words if word.true != word.made), key=lambda w: w.true_probability
        )
        self.tables = {
            "classes": spans.table(),
            "confusion": confusion_table(counts, names),
            "worst": [described(word, names) for word in wrong[:WORST]],
        }

    def _texts(self) -> list[list[Tagged]]:
        """The words of all processes by their texts, in their order: a text may have been read in
        windows, and these in different processes."""
        found, self.found = gather(self.found), []
        texts: dict[tuple[int, int], list[Tagged]] = {}
        for word in sorted(found, key=lambda word: (word.text, word.word)):
            texts.setdefault(word.text, []).append(word)
        return list(texts.values())

    def _names(self) -> list[str]:
        return self.label_names(self.num_classes or self.tags)

    def _score(self, split: str, texts: list[list[Tagged]], names: list[str]) -> SpanCounts:
        """Log what the spans are worth; the same in all processes."""
        pairs = (
            ([names[word.true] for word in text], [names[word.made] for word in text])
            for text in texts
        )
        spans = SpanCounts(pairs, mark_spans(names))
        for name, value in spans.scores().items():
            self.log(f"{split}/{name}", value, prog_bar=name == "f1")
        return spans

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each word where it stands, itself, its tag and how likely that is; each in one window."""
        logits = self.logits(batch)
        names = unlike(self.label_names(logits.shape[-1]))
        rows = self._read(batch, logits, batch["labels"] != IGNORE)
        return [
            {**w.place, "text": w.said, "label": names[w.made], "score": round(w.score, 6)}
            for row in rows
            for w in row
        ]


def described(word: Tagged, names: list[str]) -> dict[str, Any]:
    """A word as a row of a table."""
    sure = {"score": round(word.score, 6), "true_probability": round(word.true_probability, 6)}
    said = {"text": word.said, "true": names[word.true], "made": names[word.made]}
    return {**word.place, **said, **sure}


def sample(text: list[Tagged], names: list[str]) -> str:
    """A text with the spans that were made and the true ones."""
    marked, words = mark_spans(names), [word.said for word in text]
    lines = [" ".join(words)]
    for title in ("made", "true"):
        tags = [names[getattr(word, title)] for word in text]
        spans = [f"{' '.join(words[a:b])} [{kind}]" for kind, a, b in spans_of(tags, marked)]
        lines.append(f"    {title}: {', '.join(spans)}")
    return "\n".join(lines)
