"""Questions: a question and a text in, the span of the text that answers it out, or that none does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.inference.answers import LONGEST, Span, answered, best_spans, joined
from tasks.errors import UserError, at_least
from tasks.runs.gathering import gather
from tasks.training.answer_scores import Judged, answer_scores, best_threshold, mean_scores
from tasks.training.by_class import WORST
from tasks.training.reading import check_room, read
from tasks.training.task import Task

SHOWN = 8
"""Questions among the samples."""


class Found(NamedTuple):
    """What was made of a question: its place in its file, what it is, its true answers, and what is
    answered, see :func:`~family.inference.answers.answered`; and how that is judged."""

    line: int
    id: str
    asked: str
    true: list[str]
    made: dict[str, Any]
    judged: Judged


class QuestionAnswering(Task):
    """Cross-entropy of where an answer begins and of where it ends, the mean of the two; exact match
    (``val/exact_match``) and F1 of words (``val/f1``) as the scripts of SQuAD compute them, each question
    once, however many windows its text has.

    Where questions may have no answer, also both of those that have one (``val/f1_answerable``), the share
    of the others that is left without (``val/accuracy_unanswerable``), and what the best threshold would
    give: ``val/best_f1`` at ``val/best_f1_threshold``, and the same of exact match.

    A batch has ``input_ids (batch, tokens)``, and ``starts`` and ``ends (batch,)``: the first token and the
    last of the answer, 0 where there is none; one beyond the row teaches nothing. ``mask (batch, tokens)``,
    True = a token, where rows are padded, and ``token_types``, for models that tell them apart. To be judged
    by its words also ``places``, ``context`` and ``answers``, see
    :class:`~tasks.data.question_answering.QuestionAnsweringData`, and ``question``, its number, where one
    has several rows, all of which are in one batch; else each row is a question whose words are its tokens.

    Args:
        model: the model, or what builds it from the number of classes, 2: ``(batch, tokens, 2)``.
        max_answer_tokens: of an answer.
        no_answer_threshold: a question has no answer, if the score of none (begin and end are at the
            first token) is by more than this above that of the best span; None is 0, where training
            questions may have none, and else answers each.
        options: of :class:`~tasks.training.task.Task`.
    """

    fields = ("input_ids", "starts", "ends", "mask", "token_types")
    monitor = ("val/f1", "max")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        max_answer_tokens: int = LONGEST,
        no_answer_threshold: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        at_least(1, of="model.", max_answer_tokens=max_answer_tokens)
        self.longest, self.no_answer_threshold = max_answer_tokens, no_answer_threshold
        self.found: list[Found] = []
        """The questions of the split that is evaluated, of this process."""
        self.tables: dict[str, list[dict[str, Any]]] = {}
        """What a test found: all answers, and the worst."""

    def configure_model(self) -> None:
        super().configure_model()
        check_room(self.model, self.data)

    @property
    def impossible(self) -> bool:
        """Whether questions may have no answer."""
        kept = self.kept or {}
        return bool(getattr(self.data, "impossible", kept.get("impossible", False)))

    @property
    def threshold(self) -> float | None:
        """``no_answer_threshold``, or what its None is."""
        if self.no_answer_threshold is None and self.impossible:
            return 0.0
        return self.no_answer_threshold

    def assets(self) -> dict[str, Any]:
        """With what an answer is read by: ``longest``, and ``threshold``, where there is one."""
        known = {} if self.threshold is None else {"threshold": self.threshold}
        return {**super().assets(), "longest": self.longest, **known}

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """``(batch, tokens, 2)``: of the begin and of the end, in float32 at least; -inf at padding.

        Raises:
            UserError: the model gives something else.
        """
        logits = read(self.model, batch)
        if logits.shape != (*batch["input_ids"].shape, 2):
            raise UserError(
                f"the model gives logits {tuple(logits.shape)} of input_ids "
                f"{tuple(batch['input_ids'].shape)}, but an answer needs two of each token, for its begin "
                "and its end: (batch, tokens, 2); of an encoder of ours, set pooling=spans and pooler=null."
            )
        mask = batch.get("mask")
        # A softmax over padding too would make the loss of a row depend on its neighbours.
        return logits if mask is None else logits.masked_fill(~mask[..., None], -torch.inf)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": span_loss(self.logits(batch), batch["starts"], batch["ends"])}

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> list[Found]:
        """Log the loss over rows, and judge the answers of the batch's questions."""
        logits = self.logits(batch)
        loss = span_loss(logits, batch["starts"], batch["ends"])
        self.log_mean({f"{split}/loss": loss}, len(logits))
        found = self._read(batch, logits)
        self.found += found
        return found

    def _read(self, batch: dict[str, Any], logits: Tensor) -> list[Found]:
        """The questions of a batch, in their order; without texts, words are tokens."""
        places = batch["places"] if "places" in batch else token_places(logits)
        spans: dict[int, list[Span]] = {}
        firsts: dict[int, int] = {}
        for i, span in enumerate(best_spans(logits, places, self.longest)):
            number = batch["question"][i] if "question" in batch else i
            spans.setdefault(number, []).append(span)
            firsts.setdefault(number, i)
        threshold, start = self.threshold, len(self.found)
        found: list[Found] = []
        for number, windows in spans.items():
            span, i = joined(windows), firsts[number]
            if "context" in batch:
                context, true = batch["context"][i], list(batch["answers"][i])
            else:
                context = " ".join(map(str, range(logits.shape[1])))
                first, last = int(batch["starts"][i]), int(batch["ends"][i])
                true = [" ".join(map(str, range(first, last + 1)))] if first else []
            text = context[span.start : span.end]
            judged = Judged(span.margin, *answer_scores(text, true, self.impossible), bool(true))
            place = batch["line"][i] if "line" in batch else start + len(found)
            name = batch["id"][i] if "id" in batch else str(place)
            asked = batch["asked"][i] if "asked" in batch else ""
            made = answered(span, context, threshold)
            found.append(Found(place, name, asked, true, made, judged))
        return found

    def on_validation_epoch_start(self) -> None:
        self.found = []

    def on_test_epoch_start(self) -> None:
        self.found = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, list[Any]]:
        """Of each question its place, exact match and F1, what is answered and the true answers."""
        found = self.evaluate(batch, "test")
        scores = [one.judged.at(self.threshold) for one in found]
        return {
            "line": [one.line for one in found],
            "exact_match": [exact for exact, _ in scores],
            "f1": [f1 for _, f1 in scores],
            "made": [one.made["answer"] for one in found],
            "true": [" | ".join(one.true) for one in found],
        }

    def on_validation_epoch_end(self) -> None:
        found = self._score("val")
        spread = found[:: max(1, len(found) // SHOWN)][:SHOWN]
        self.samples = [sample(one) for one in spread if one.asked]

    def on_test_epoch_end(self) -> None:
        """Also as tables: all answers, and those that are wrong, the surest first."""
        found = self._score("test")
        rows = [self.described(one) for one in found]
        worst = sorted((row for row in rows if row["f1"] < 1), key=lambda r: (r["f1"], -r["score"]))
        self.tables = {"answers": rows, "worst": worst[:WORST]}

    def _score(self, split: str) -> list[Found]:
        """Log what the answers are worth, the same in all processes; the questions of all."""
        found, self.found = sorted(gather(self.found), key=lambda one: one.line), []
        judged = [one.judged for one in found]
        scores = mean_scores(judged, self.threshold)
        if not all(one.answerable for one in judged):
            for name, which in (("f1", "f1"), ("exact_match", "exact")):
                best, threshold = best_threshold(judged, which)
                scores |= {f"best_{name}": best, f"best_{name}_threshold": threshold}
        for name, value in scores.items():
            self.log(f"{split}/{name}", value, prog_bar=name in ("f1", "exact_match"))
        return found

    def described(self, one: Found) -> dict[str, Any]:
        """A question as a row of a table."""
        exact, f1 = one.judged.at(self.threshold)
        said = {"question": one.asked, "true": " | ".join(one.true), "made": one.made["answer"]}
        scores = {"score": one.made["score"], "no_answer": one.made["no_answer"]}
        return {"id": one.id, **said, **scores, "exact_match": exact, "f1": round(f1, 6)}

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each question what is answered, see :func:`~family.inference.answers.answer_questions`."""
        found = self._read(batch, self.logits(batch))
        return [{"line": o.line, "id": o.id, "question": o.asked, **o.made} for o in found]


def span_loss(logits: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """The mean of two cross-entropies, of the begin and of the end; a place beyond the row is left out
    of its own.

    Args:
        logits: ``(batch, tokens, 2)``.
        starts, ends: ``(batch,)``.
    """
    tokens = logits.shape[1]
    terms = [
        F.cross_entropy(part, place.clamp(max=tokens), ignore_index=tokens)
        for part, place in zip(logits.unbind(-1), (starts, ends), strict=True)
    ]
    return torch.stack(terms).mean()


def token_places(logits: Tensor) -> Tensor:
    """Where each token stands in a text that lists their numbers, ``(batch, tokens, 2)``; the first and
    padding nowhere."""
    ends = torch.tensor([len(str(i)) + 1 for i in range(logits.shape[1])]).cumsum(0) - 1
    starts = F.pad(ends[:-1] + 1, (1, 0))
    places = torch.stack([starts, ends], -1).expand(len(logits), -1, -1).clone().to(logits.device)
    places[:, 0] = -1
    return places.masked_fill(logits.isinf().all(-1)[..., None], -1)


def sample(one: Found) -> str:
    """A question with what is answered and the true answers."""
    made = f"{one.made['answer'] or '(none)'} ({one.made['score']:.3f})"
    return f"{one.asked}\n    made: {made}\n    true: {' | '.join(one.true) or '(none)'}"
