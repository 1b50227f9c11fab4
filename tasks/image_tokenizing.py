"""Image tokens: a picture in, the same picture out, through a discrete codebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from family.inference.loaded import load
from family.inputs.codebook import summed
from family.losses.perceptual import Perceptual
from tasks.errors import UserError, at_least, user_errors
from tasks.training.pictures import sheet, to_picture
from tasks.training.task import Task

SHOWN = 16
"""Pictures of the sheet."""
WINDOW = 11
"""Pixels of the side of what SSIM compares: it says nothing of smaller pictures."""


class ImageTokenizing(Task):
    """The distance of pictures from their reconstruction, and of vectors from their codes.

    PSNR (in decibels) and SSIM of each picture, on the scale 0..1, are averaged over a split. In training
    and in evaluation ``codes_used`` is the share of all codes that occur in a whole epoch, and
    ``perplexity`` how many the codes of that epoch are worth were all equally frequent; of training they
    are logged as an epoch ends, and a resumed run counts on. Of several processes all count.

    A batch has ``pixel_values (batch, 3, height, width)`` in -1..1.

    Args:
        model: the model, or what builds it from the size of pictures: ``reconstruct(pixel_values)``,
            ``losses(pixel_values, made)``, see :class:`family.ImageTokenizer`.
        perceptual: a run of image classification, or anything else that :func:`family.load` takes, by
            whose features reconstructions are compared too, see
            :class:`~family.losses.perceptual.Perceptual`.
        perceptual_weight: of that loss.
        options: of :class:`~tasks.training.task.Task`.

    Raises:
        UserError: a model for ``perceptual`` that tells no pictures apart; training in half precision
            throughout.
    """

    monitor = ("val/psnr", "max")
    fields = ("pixel_values",)

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        perceptual: str | None = None,
        perceptual_weight: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        at_least(0, of="model.", perceptual_weight=perceptual_weight)
        self.perceptual_source, self.perceptual_weight = perceptual, perceptual_weight
        self.perceptual: Perceptual | None = None
        self.counts: dict[str, Tensor] = {}
        """How often each code occurred, by split: in training by all processes, in this epoch."""
        self.counted_epoch = 0
        self.before: tuple[int, Tensor | None] = (-1, None)
        """The step that is made, and what its first batch found counted."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.perceptual_source is not None and self.perceptual is None:
            self.perceptual = perceptual_of(self.perceptual_source)

    def configure_model(self) -> None:
        super().configure_model()
        precision = str(self.trainer.precision)
        if precision.endswith("16-true"):
            raise UserError(
                f"trainer.precision={precision}: the moving means of a codebook stand still in so few "
                "digits: set bf16-mixed."
            )

    def compiled_parts(self) -> list[nn.Module]:
        # Training never calls the model as a whole.
        parts = [getattr(self.model, name, None) for name in ("encoder", "decoder")]
        return [part for part in parts if isinstance(part, nn.Module)]

    # --- Losses ------------------------------------------------------------------------------

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self.judged(batch["pixel_values"])[0]

    def judged(self, pixel_values: Tensor) -> tuple[dict[str, Tensor], Any]:
        """The losses, and the reconstruction that they are of."""
        made = self.model.reconstruct(pixel_values)
        terms = self.model.losses(pixel_values, made)
        if self.perceptual is not None:
            distance = self.perceptual(made.pixel_values, pixel_values)
            terms["perceptual"] = distance
            terms["loss"] = terms["loss"] + self.perceptual_weight * distance
        return terms, made

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        terms, made = self.judged(batch["pixel_values"])
        progress = getattr(self.data, "progress", None)
        epoch = self.current_epoch if progress is None else progress.epoch
        if epoch != self.counted_epoch:  # a run was resumed at the end of one
            self.counts.pop("train", None)
        self.counted_epoch = epoch
        if self.before[0] != self.global_step:
            self.before = self.global_step, self.counts.get("train")
        self._count("train", summed(occurrences(made.ids, self.model.vocab_size)))
        self.log_training(terms)
        return self.weighed(terms["loss"], batch)

    # --- How well it does --------------------------------------------------------------------

    def _evaluate(self, batch: dict[str, Any], split: str) -> Any:
        pixel_values = batch["pixel_values"]
        terms, made = self.judged(pixel_values)
        found = {**terms, **likeness(made.pixel_values, pixel_values)}
        means = {f"{split}/{name}": value.mean() for name, value in found.items()}
        self.log_mean(means, len(pixel_values), prog_bar=False)
        self._count(split, occurrences(made.ids, self.model.vocab_size))
        return made

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        made = self._evaluate(batch, "val")
        if index == 0:
            true = self.restored(batch["pixel_values"][:SHOWN])
            shown = compared(true, self.restored(made.pixel_values[:SHOWN]))
            self.pictures = {"reconstructions": shown}

    def test_step(self, batch: dict[str, Any], index: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each picture its ``file``, where known, its ``ids``, row by row, and the
        ``reconstruction``."""
        made = self.model.reconstruct(batch["pixel_values"])
        pictures = map(to_picture, self.restored(made.pixel_values))
        files = (
            [{"file": file} for file in batch["file"]] if "file" in batch else [{}] * len(made.ids)
        )
        return [
            {**file, "ids": ids, "reconstruction": picture}
            for file, ids, picture in zip(files, made.ids.tolist(), pictures, strict=True)
        ]

    # --- The use of the codebook -------------------------------------------------------------

    def _count(self, split: str, counts: Tensor) -> None:
        before = self.counts.get(split)
        self.counts[split] = counts if before is None else before.to(counts.device) + counts

    def _log_use(self, split: str) -> None:
        counts = self.counts.get(split)
        if counts is None:
            return
        if split != "train":  # those are of all processes
            counts = summed(counts.clone())
        for name, value in use(counts).items():
            self.log(f"{split}/{name}", value)

    def on_train_epoch_end(self) -> None:
        self._log_use("train")

    def on_validation_epoch_start(self) -> None:
        self.counts.pop("val", None)

    def on_validation_epoch_end(self) -> None:
        self._log_use("val")

    def on_test_epoch_start(self) -> None:
        self.counts.pop("test", None)

    def on_test_epoch_end(self) -> None:
        self._log_use("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        step, counts = self.before
        if step != self.global_step:  # else its batches will be seen again
            counts = self.counts.get("train")
        if counts is not None:
            checkpoint["codes"] = {"epoch": self.counted_epoch, "counts": counts.tolist()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if "codes" in checkpoint:
            self.counted_epoch = checkpoint["codes"]["epoch"]
            self.counts["train"] = torch.tensor(checkpoint["codes"]["counts"])


@user_errors()
def perceptual_of(source: str) -> Perceptual:
    """The loss by a network that tells pictures apart.

    Raises:
        UserError: the source has none, or does not say how its pictures are prepared.
    """
    loaded = load(source, dtype=torch.float32)
    if loaded.task != "ImageClassification" or loaded.preprocess is None:
        raise UserError(
            f"model.perceptual={source} is for {loaded.task or 'no task that is known'}: a run of image "
            "classification is wanted."
        )
    prepared = loaded.preprocess
    return Perceptual(loaded.model, prepared.mean, prepared.std, prepared.size)


def occurrences(ids: Tensor, codes: int) -> Tensor:
    """How often each code occurs: ``(codes)`` int64."""
    return torch.bincount(ids.flatten(), minlength=codes)


def use(counts: Tensor) -> dict[str, Tensor]:
    """The share of codes that occur, and the perplexity, ``exp(entropy)``, of how often."""
    shares = counts.double() / counts.sum()
    entropy = -torch.xlogy(shares, shares).sum()
    return {"codes_used": (counts > 0).float().mean(), "perplexity": entropy.exp().float()}


def likeness(made: Tensor, true: Tensor) -> dict[str, Tensor]:
    """PSNR and SSIM of each of some pictures in -1..1, ``(batch)``."""
    one, other = ((x.float() / 2 + 0.5).clamp(0, 1) for x in (made, true))
    found: dict[str, Any] = {
        "psnr": peak_signal_noise_ratio(
            one, other, data_range=1.0, reduction="none", dim=(1, 2, 3)
        ).clamp(max=100)  # of equal pictures it is without end
    }
    if min(true.shape[-2:]) >= WINDOW:
        found["ssim"] = structural_similarity_index_measure(
            one, other, data_range=1.0, reduction="none"
        )
    return found


def compared(true: Tensor, made: Tensor, columns: int = 8) -> Image.Image:
    """Originals, each above its reconstruction; ``(pictures, 3, height, width)`` uint8 both."""
    pictures, captions = [], []
    for first in range(0, len(true), columns):
        for name, rows in (("original", true), ("made", made)):
            some = rows[first : first + columns]
            pictures += [to_picture(one) for one in some]
            captions += [name] * len(some)
            # The last row may be short.
            lack = min(columns, len(true)) - len(some)
            pictures += [Image.new("RGB", (8, 8), (255, 255, 255))] * lack
            captions += [""] * lack
    return sheet(pictures, captions, columns=columns, side=96)
