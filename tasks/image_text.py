"""Image-text matching: pictures and sentences in one space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from family.losses.contrastive import clip_loss, siglip_loss
from tasks.runs.gathering import gather
from tasks.training.pictures import BAD, GOOD, PAPER, PLAIN, sheet, stack, to_picture
from tasks.training.task import Task

SHOWN = 4
"""Sentences of the best and of the worst retrievals."""
FOUND = 5
"""Pictures shown for a sentence."""
THUMBNAILS = 2000
"""Pictures kept for showing; more would fill the memory of a long validation."""


class ImageText(Task):
    """Contrastive loss; recall both ways over the whole split, zero-shot accuracy where classes are known.

    A picture and a sentence of one group (the data's ``groups``: equal captions, variants of one
    picture) count as a match, in training as in recall.

    A batch has ``pixel_values (batch, channels, height, width)``, ``input_ids`` and ``mask (batch,
    tokens)``, row by row what belongs together; ``groups (batch)``, ids over the whole set, where others
    match too; ``labels``, ``file`` and ``caption`` to be judged and shown by.

    Args:
        model: the model, or what builds it from the vocabulary size.
        loss: "softmax" (Radford et al. 2021) or "sigmoid" (SigLIP, Zhai et al. 2023).
        templates: sentences for zero-shot classes, ``{}`` in the place of the class; their
            embeddings are averaged.
        options: of :class:`~tasks.training.task.Task`.
    """

    monitor = ("val/recall@1", "max")
    fields = ("pixel_values", "input_ids", "mask", "groups")

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
        images = self.model.encode_image(batch["pixel_values"])
        return images, self.model.encode_text(batch["input_ids"], batch.get("mask"))

    def contrast(self, images: Tensor, texts: Tensor, groups: Tensor | None = None) -> Tensor:
        """The loss of embeddings ``(batch, embed_dim)``."""
        if self.loss_name == "softmax":
            return clip_loss(images, texts, self.model.logit_scale, groups=groups)
        bias = self.model.logit_bias
        return siglip_loss(images, texts, self.model.logit_scale, bias, groups=groups)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        loss = self.contrast(*self.embed(batch), batch.get("groups"))
        return {"loss": loss, "temperature": (-self.model.logit_scale.detach()).exp()}

    def on_train_batch_end(self, *_: Any) -> None:
        if hasattr(self.model, "clamp_temperature"):
            self.model.clamp_temperature()

    def _evaluate(self, batch: dict[str, Any]) -> None:
        images, texts = self.embed(batch)
        pixels = self.restored(batch["pixel_values"])
        room = THUMBNAILS - len(self.seen)
        first = self.counted
        self.counted += len(images)
        world = self.trainer.world_size
        for i, (image, text) in enumerate(zip(normalised(images), normalised(texts), strict=True)):
            self.seen.append(
                {
                    "image": image,
                    "text": text,
                    # Rows without a group of their own each are one, of every process.
                    "group": int(batch["groups"][i])
                    if "groups" in batch
                    else -1 - (first + i) * world - self.global_rank,
                    "caption": batch["caption"][i] if "caption" in batch else "",
                    "file": batch["file"][i]
                    if "file" in batch
                    else f"{self.global_rank}/{first + i}",
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
        # A picture with several sentences stands once among the candidates.
        first = list({s["file"]: i for i, s in reversed(list(enumerate(seen)))}.values())[::-1]
        shown = [seen[i] for i in first]
        images = torch.stack([s["image"] for s in shown])
        texts = torch.stack([s["text"] for s in seen])
        groups = torch.tensor([s["group"] for s in seen])
        same = groups[first][:, None] == groups[None]
        similarity = images @ texts.T
        to_text, to_image = ranks(similarity, same), ranks(similarity.T, same.T)
        for k in (1, 5, 10):
            either = (to_text < k).float().mean(), (to_image < k).float().mean()
            self.log(f"{split}/recall@{k}_image_to_text", either[0])
            self.log(f"{split}/recall@{k}_text_to_image", either[1])
            self.log(f"{split}/recall@{k}", sum(either) / 2, prog_bar=k == 1)
        # Of guessing at random: the share of pairs that are right.
        self.log(f"{split}/chance@1", same.float().mean())
        if shown[0]["label"] is not None and hasattr(self.data, "encode"):
            classes = self.class_embeddings(self.assets()["labels"])
            labels = torch.tensor([s["label"] for s in shown])
            accuracy = ((images @ classes.T).argmax(1) == labels).float().mean()
            self.log(f"{split}/zero_shot_accuracy", accuracy, prog_bar=True)
        self.pictures = {"retrieval": retrievals(seen, shown, similarity.T, to_image)}

    @torch.no_grad()
    def class_embeddings(self, names: list[str]) -> Tensor:
        """``(classes, embed_dim)``: the mean over the templates, normalised (Radford et al. 2021, 3.1.4)."""
        rows = []
        for name in names:
            ids, mask = self.data.encode([template.format(name) for template in self.templates])
            texts = self.model.encode_text(ids.to(self.device), mask.to(self.device))
            rows.append(normalised(texts).mean(0))
        return normalised(torch.stack(rows))


def normalised(embeddings: Tensor) -> Tensor:
    """To length 1, in float32 on the CPU."""
    return F.normalize(embeddings.detach().float().cpu(), dim=-1)


def ranks(similarity: Tensor, same: Tensor) -> Tensor:
    """For each row the place (from 0) of the first column that is right: ``(rows)``.

    Args:
        similarity: ``(rows, columns)``; same: True where a column is right, one of each row at least.
    """
    # Ties and NaN count against: a model that gives all pictures one vector finds nothing.
    best = similarity.masked_fill(~same, -torch.inf).amax(1, keepdim=True)
    return (~(similarity < best) & ~same).sum(1)


def retrievals(
    asked: list[dict[str, Any]], found: list[dict[str, Any]], similarity: Tensor, rank: Tensor
) -> Image.Image:
    """For the sentences that are found best and worst: the pictures nearest to each.

    Args:
        similarity: ``(asked, found)``; rank: ``(asked)``, the place of the right picture.
    """
    order = rank.argsort(stable=True).tolist()
    rows = []
    for i in dict.fromkeys(order[:SHOWN] + order[-SHOWN:]):
        near = [found[j] for j in similarity[i].argsort(descending=True)[:FOUND].tolist()]
        right = [other["group"] == asked[i]["group"] for other in near]
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
