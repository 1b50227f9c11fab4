"""Image-text matching: pictures and sentences in one space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from family.losses.contrastive import clip_loss, matches, siglip_loss
from family.losses.processes import over_processes
from tasks.data.pairs import numbered
from tasks.errors import UserError
from tasks.runs.gathering import gather
from tasks.training.pictures import BAD, GOOD, PAPER, PLAIN, sheet, stack, to_picture
from tasks.training.retrieval import normalised, ranks
from tasks.training.task import Task

IDS = ("picture_ids", "caption_ids")
"""Of a batch: what is the same wherever it stands."""
SHOWN = 4
"""Sentences of the best and of the worst retrievals."""
FOUND = 5
"""Pictures shown for a sentence."""
THUMBNAILS = 2000
"""Pictures kept for showing; more would fill the memory of a long validation."""


class ImageText(Task):
    """Contrastive loss; recall both ways over the whole split, zero-shot accuracy where classes are known.

    A picture and a sentence match, in training as in recall, if some row has just these two: a picture
    may have several sentences, and a sentence stand with several pictures, but their other sentences
    match no more for that.

    A batch has ``pixel_values (batch, channels, height, width)``, ``input_ids`` and ``mask (batch,
    tokens)``, row by row what belongs together; ``picture_ids`` and ``caption_ids (batch)``, equal over the
    whole set where the picture or the sentence is the same (without them each row has its own);
    ``labels``, ``file`` and ``caption`` to be judged and shown by.

    Args:
        model: the model, or what builds it from the vocabulary size.
        loss: "softmax" (Radford et al. 2021) or "sigmoid" (SigLIP, Zhai et al. 2023).
        templates: sentences for zero-shot classes, ``{}`` in the place of the class; their
            embeddings are averaged.
        options: of :class:`~tasks.training.task.Task`.
    """

    monitor = ("val/recall@1", "max")
    fields = ("pixel_values", "input_ids", "mask", "picture_ids", "caption_ids")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        loss: Literal["softmax", "sigmoid"] = "softmax",
        templates: tuple[str, ...] = ("a picture of a {}", "a {}"),
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.loss_name, self.templates = loss, templates
        self.seen: list[dict[str, Any]] = []
        self.counted = 0

    def compiled_parts(self) -> list[nn.Module]:
        # Training never calls the model as a whole, whose pairs of one process are not all.
        towers = [getattr(self.model, name, None) for name in ("image", "text")]
        return [tower for tower in towers if isinstance(tower, nn.Module)]

    def embed(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """``(batch, embed_dim)`` of pictures and of sentences, not normalised."""
        if "groups" in batch:
            raise UserError(
                "the batch has groups, which are read no more: give picture_ids and caption_ids."
            )
        images = self.model.encode_image(batch["pixel_values"])
        return images, self.model.encode_text(batch["input_ids"], batch.get("mask"))

    def contrast(
        self,
        images: Tensor,
        texts: Tensor,
        picture_ids: Tensor | None = None,
        caption_ids: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings ``(batch, embed_dim)``."""
        scale, ids = self.model.logit_scale, (picture_ids, caption_ids)
        if self.loss_name == "softmax":
            return clip_loss(images, texts, scale, *ids)
        return siglip_loss(images, texts, scale, self.model.logit_bias, *ids)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        ids = batch.get("picture_ids"), batch.get("caption_ids")
        loss = self.contrast(*self.embed(batch), *ids)
        return {"loss": loss, "temperature": (-self.model.logit_scale.detach()).exp()}

    def count(self, batch: dict[str, Any]) -> Tensor:
        # The loss is that of the rows of all processes.
        return over_processes(torch.tensor(len(batch["input_ids"]), device=self.device))

    def on_train_batch_end(self, *_: Any) -> None:
        if hasattr(self.model, "clamp_temperature"):
            self.model.clamp_temperature()

    def _evaluate(self, batch: dict[str, Any]) -> None:
        images, texts = self.embed(batch)
        pixels = self.restored(batch["pixel_values"])
        room = THUMBNAILS - len(self.seen)
        first = self.counted
        self.counted += len(images)
        ids = {name: batch[name].tolist() for name in IDS if name in batch}
        for i, (image, text) in enumerate(zip(normalised(images), normalised(texts), strict=True)):
            alone = f"{self.global_rank}/{first + i}"  # a row without ids is like no other
            self.seen.append(
                {
                    "image": image,
                    "text": text,
                    **{name: ids[name][i] if name in ids else alone for name in IDS},
                    "caption": batch["caption"][i] if "caption" in batch else "",
                    "label": int(batch["labels"][i]) if "labels" in batch else None,
                    "picture": to_picture(pixels[i]) if i < room else None,
                }
            )

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: dict[str, Any], index: int) -> None:
        self._evaluate(batch)

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        images, texts = self.embed(batch)
        cosine = F.cosine_similarity(images.float(), texts.float())
        if "file" not in batch:
            return [{"similarity": round(s, 6)} for s in cosine.tolist()]
        rows = zip(batch["file"], batch["caption"], cosine.tolist(), strict=True)
        return [{"file": f, "caption": c, "similarity": round(s, 6)} for f, c, s in rows]

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, split: str) -> None:
        seen, self.seen, self.counted = gather(self.seen), [], 0
        pictures, captions = (torch.tensor(numbered(s[name] for s in seen)) for name in IDS)
        # A picture with several sentences stands once among the candidates.
        shown: dict[Any, dict[str, Any]] = {}
        for s in seen:
            shown.setdefault(s["picture_ids"], s)
        found = list(shown.values())  # in the order of the pictures' numbers
        images = torch.stack([s["image"] for s in found])
        texts = torch.stack([s["text"] for s in seen])
        same = matches(pictures, captions)[:, captions]
        similarity = images @ texts.T
        to_text, to_image = ranks(similarity, same), ranks(similarity.T, same.T)
        for k in (1, 5, 10):
            either = (to_text < k).float().mean(), (to_image < k).float().mean()
            self.log(f"{split}/recall@{k}_image_to_text", either[0])
            self.log(f"{split}/recall@{k}_text_to_image", either[1])
            self.log(f"{split}/recall@{k}", sum(either) / 2, prog_bar=k == 1)
        # Of guessing at random: the share of pairs that are right.
        self.log(f"{split}/chance@1", same.float().mean())
        if found[0]["label"] is not None and hasattr(self.data, "encode"):
            classes = self.class_embeddings(self.assets()["labels"])
            labels = torch.tensor([s["label"] for s in found])
            accuracy = ((images @ classes.T).argmax(1) == labels).float().mean()
            self.log(f"{split}/zero_shot_accuracy", accuracy, prog_bar=True)
        self.pictures = {"retrieval": retrievals(seen, found, similarity.T, same.T, to_image)}

    @torch.no_grad()
    def class_embeddings(self, names: list[str]) -> Tensor:
        """``(classes, embed_dim)``: the mean over the templates, normalised (Radford et al. 2021, 3.1.4)."""
        rows = []
        for name in names:
            ids, mask = self.data.encode([template.format(name) for template in self.templates])
            texts = self.model.encode_text(ids.to(self.device), mask.to(self.device))
            rows.append(normalised(texts).mean(0))
        return normalised(torch.stack(rows))


def retrievals(
    asked: list[dict[str, Any]],
    found: list[dict[str, Any]],
    similarity: Tensor,
    same: Tensor,
    rank: Tensor,
) -> Image.Image:
    """For the sentences that are found best and worst: the pictures nearest to each.

    Args:
        similarity, same: ``(asked, found)``, and True where one is right; rank: ``(asked)``, the place of the right picture.
    """
    order = rank.argsort(stable=True).tolist()
    rows = []
    for i in dict.fromkeys(order[:SHOWN] + order[-SHOWN:]):
        places = similarity[i].argsort(descending=True)[:FOUND]
        near, right = [found[j] for j in places.tolist()], same[i, places].tolist()
        truth = f"asked (right one at {int(rank[i]) + 1})\n{asked[i]['caption']}"
        blank = Image.new("RGB", (8, 8), PAPER)
        rows.append(
            sheet(
                [asked[i]["picture"] or blank, *(other["picture"] or blank for other in near)],
                [truth, *(f"{n}.\n{other['caption']}" for n, other in enumerate(near, 1))],
                [PLAIN, *(GOOD if r else BAD for r in right)],
                columns=FOUND + 1,
                side=128,
            )
        )
    return stack(rows)
