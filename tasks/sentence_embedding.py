"""Sentence embedding: a text in, a vector out that is near those of texts that mean the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor, nn

from family.losses.processes import over_processes
from family.losses.sentence_pairs import cosent_loss, cosine_loss, ranking_loss
from family.models.sentence import as_sentence_encoder
from tasks.data.sentence_pairs import SIDES
from tasks.errors import UserError
from tasks.runs.gathering import gather
from tasks.training.class_task import GIVEN, given_of, places_of
from tasks.training.correlation import correlations
from tasks.training.reading import check_room
from tasks.training.retrieval import normalised, partner_ranks
from tasks.training.task import Task

Loss = Literal["ranking", "cosine", "cosent"]
SHOWN = 8
"""Pairs among the samples."""
WORST = 50
"""Pairs of a test that are listed, those that were ranked worst."""


class SentenceEmbedding(Task):
    """Train on pairs of texts: on those that belong together against all others of the batch, or on how
    near each two are by a number.

    Of pairs with numbers it reports how well cosines agree with them: Spearman's and Pearson's correlation
    (``val/spearman``, as the STS benchmark counts, and ``val/pearson``). Of pairs without, whether a text
    finds its partner among those of the whole split: ``val/recall@1``, ``@10``, and the mean of one over its
    place, ``val/mrr``.

    A batch has ``input_ids (batch, tokens)`` and ``pair_ids (batch, tokens)``, row by row the two of a pair,
    with ``mask`` and ``pair_mask``, True = a token, where they are padded; ``labels (batch)``, how near
    they are, from 0 to 1; or none, and maybe ``negative_ids`` and ``negative_mask``, a text that is near and
    does not belong to the first; ``text_ids (batch, 2)``, or 3, equal over the whole set where a text is
    the same (without them each is like no other); to be shown ``text`` and ``pair``, and where the pair
    stands, ``file`` and ``line``.

    Args:
        model: the model, or what builds it from the vocabulary size; called with ids and a mask, it gives
            ``(batch, dim)``.
        loss: of pairs without numbers "ranking", cross-entropy over the partners of all processes; of
            pairs with numbers "cosine", the squared difference of cosine and number, or "cosent", the
            order of cosines, see :mod:`family.losses.sentence_pairs`.
        scale: of "ranking" and "cosent", the factor on cosines.
        symmetric: of "ranking", tell the first of each pair from all others too.
        options: of :class:`~tasks.training.task.Task`. ``pretrained`` may also be a BERT, published or of
            a run: the mean of its tokens is the embedding.
    """

    monitor = ("val/spearman", "max")
    fields = ("input_ids", "mask", "pair_ids", "pair_mask", "labels")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        loss: Loss = "ranking",
        scale: float = 20.0,
        symmetric: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if loss not in get_args(Loss):
            known = ", ".join(get_args(Loss))
            raise UserError(f"model.loss={loss!r} is unknown; choose one of: {known}.")
        if not scale > 0:
            raise UserError(f"model.scale must be above 0, not {scale}.")
        if symmetric and loss != "ranking":
            raise UserError(f"model.symmetric=true is for model.loss=ranking, not for {loss}.")
        self.loss_name, self.scale, self.symmetric = loss, scale, symmetric
        if loss == "ranking":
            self.monitor = ("val/recall@1", "max")
        self.seen: list[dict[str, Any]] = []
        """Of each batch that was evaluated what scores and samples are made of."""
        self.tables: dict[str, list[dict[str, Any]]] = {}
        """Of a test, the pairs that were ranked worst."""

    # --- Model and data ---

    def made_of(self, source: nn.Module) -> nn.Module:
        return as_sentence_encoder(source)

    def configure_model(self) -> None:
        super().configure_model()
        check_room(self.model, self.data)
        if self.trainer.training and hasattr(self.data, "has_numbers"):
            self._check_kind(self.data.has_numbers("train"))
        rows = getattr(self.data, "batch_size", 2) * self.trainer.world_size
        if self.trainer.training and self.loss_name == "ranking" and rows < 2:
            raise UserError(
                "data.batch_size=1: model.loss=ranking tells a text's partner from those of the others "
                "of its batch, and there are none."
            )

    def _check_kind(self, numbers: bool) -> None:
        """Refuse a loss that is for other pairs: of each it would take for true what nobody said."""
        if numbers and self.loss_name == "ranking":
            raise UserError(
                "model.loss=ranking takes every pair for one that belongs together, but the data say by a "
                "number how near each is: choose model.loss=cosent or cosine."
            )
        if not numbers and self.loss_name != "ranking":
            raise UserError(
                f"model.loss={self.loss_name} needs pairs with a number, and the data have none: choose "
                "model.loss=ranking, or name their column by data.label_column."
            )

    # --- Training ---

    def embed(self, batch: dict[str, Any]) -> list[Tensor]:
        """The vectors ``(batch, dim)`` of the two sides, and of the negatives where there are any.

        Raises:
            UserError: the model gives something else.
        """
        found = [self.model(batch[ids], batch.get(mask)) for ids, mask in SIDES if ids in batch]
        for embeddings in found:
            if embeddings.dim() != 2:
                raise UserError(
                    f"the model gives {tuple(embeddings.shape)} of input_ids "
                    f"{tuple(batch['input_ids'].shape)}, but an embedding is (batch, dim)."
                )
        return found

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        self._check_kind("labels" in batch)
        first, second, *negatives = self.embed(batch)
        if self.loss_name == "cosine":
            return {"loss": cosine_loss(first, second, batch["labels"])}
        if self.loss_name == "cosent":
            return {"loss": cosent_loss(first, second, batch["labels"], self.scale)}
        negative = negatives[0] if negatives else None
        ids = batch.get("text_ids")
        return {"loss": ranking_loss(first, second, negative, self.scale, self.symmetric, ids)}

    def count(self, batch: dict[str, Any]) -> Tensor:
        # The loss is that of the rows of all processes.
        return over_processes(torch.tensor(len(batch["input_ids"]), device=self.device))

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Keep what was made of each pair; returns it."""
        self._check_kind("labels" in batch)
        first, second = self.embed(batch)[:2]
        vectors = normalised(first), normalised(second)
        cosine = (vectors[0].double() * vectors[1].double()).sum(1)
        found: dict[str, Any] = {name: list(batch[name]) for name in GIVEN if name in batch}
        found["similarity"] = cosine.tolist()
        if "labels" in batch:
            found["label"] = batch["labels"].tolist()
        else:
            ids = batch.get("text_ids", torch.empty(0)).cpu()
            found |= {"first": vectors[0], "second": vectors[1], "ids": ids}
        self.seen.append(found)
        return found

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch)

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By example: how near the two are made, and by their number."""
        found = self.evaluate(batch)
        true = {"true_number": found["label"]} if "label" in found else {}
        return {**places_of(batch), "made_number": found["similarity"], **true}

    def on_validation_epoch_start(self) -> None:
        self.seen = []

    def on_test_epoch_start(self) -> None:
        self.seen = []

    def on_validation_epoch_end(self) -> None:
        rows = self._score("val")
        spread = rows[:: max(1, len(rows) // SHOWN)][:SHOWN]
        self.samples = [sample(row) for row in spread if "text" in row]

    def on_test_epoch_end(self) -> None:
        rows = self._score("test")
        self.tables = {"worst": sorted(rows, key=lambda row: -row["off"])[:WORST]}

    def _score(self, split: str) -> list[dict[str, Any]]:
        """Log how good it is, the same in all processes; of each pair a row."""
        seen, self.seen = gather(self.seen), []
        if not seen:
            return []
        names = [name for name in (*GIVEN, "similarity", "label") if name in seen[0]]
        columns = {name: [value for one in seen for value in one[name]] for name in names}
        if "label" in columns:
            made, true = columns["similarity"], columns["label"]
            for name, value in correlations(true, made).items():
                self.log(f"{split}/{name}", value, prog_bar=True)
            off = abs(rankdata(made) - rankdata(true)).tolist()
        else:
            first, second = (torch.cat([one[name] for one in seen]) for name in ("first", "second"))
            ids = torch.arange(2 * len(first)).view(-1, 2)
            if len(seen[0]["ids"]):
                ids = torch.cat([one["ids"][:, :2] for one in seen])
            places = partner_ranks(first, second, ids[:, 0], ids[:, 1])
            for k in (1, 10):
                recall = (places < k).double().mean()
                self.log(f"{split}/recall@{k}", recall.float(), prog_bar=k == 1)
            self.log(f"{split}/mrr", (1 / (1 + places.double())).mean().float())
            self.log(f"{split}/chance@1", 1 / len(ids[:, 1].unique()))
            off = places.tolist()
        columns["off"] = off
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each pair its file, line and texts, where known, and the cosine of the two."""
        first, second = self.embed(batch)[:2]
        cosine = F.cosine_similarity(first.float(), second.float()).tolist()
        return [
            {**given_of(batch, i), "similarity": round(value, 6)} for i, value in enumerate(cosine)
        ]


def sample(row: dict[str, Any]) -> str:
    """A pair with what was made of it and what is true."""
    said = f"{row['text']}\n{row['pair']}\n    made: {row['similarity']:.3f}"
    if "label" in row:
        return f"{said}\n    true: {row['label']:.3f}"
    return f"{said}\n    its partner is found at {row['off'] + 1}"
