"""Batches of pictures and sentences."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from family.inputs.encode import encode_captions as encode_texts
from family.inputs.pictures import WHITE, Colour
from family.inputs.preprocess import Preprocess
from tasks.data import shapes
from tasks.data.captions import Caption
from tasks.data.images import OnBad, read_image, read_picks
from tasks.data.sampling import Pick, seeded
from tasks.data.tokenizers import Tokenizer

Batch = dict[str, Any]


class Pairs:
    """Pictures and sentences from files."""

    labels: Sequence[int] | None = None

    def __init__(self, rows: list[Caption]) -> None:
        self.rows = rows
        self.texts = [row.text for row in rows]
        self.files = [row.name() for row in rows]
        # By their place: two shards may have a picture of the same name.
        self.picture_ids = numbered([(row.path, row.span) for row in rows])
        self.caption_ids = numbered(self.texts)

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """The place of a sentence, for messages."""
        return self.rows[index].where

    def only(self, chosen: Sequence[int]) -> Pairs:
        """Some of the rows."""
        return Pairs([self.rows[i] for i in chosen])

    def image(self, index: int, background: Colour = WHITE) -> Image.Image:
        row = self.rows[index]
        name = str(row.path) if row.span is None else f"{row.path}/{row.file}"
        return read_image(row.source(), name, background)


class ShapePairs:
    """The built-in world; as in translation, no sentence belongs to two splits.

    Args:
        held_out: colours with shapes, "purple star": in test every scene has one, elsewhere none.
    """

    def __init__(
        self, count: int, image_size: int, seed: int, split: str, held_out: Collection[str] = ()
    ) -> None:
        self.image_size = image_size
        scenes: list[shapes.Scene] = []
        index = 0
        while len(scenes) < count:
            scene = shapes.sample(index, seed, split)
            mine = zlib.crc32(shapes.caption(scene).encode()) % 10 in shapes.SPLITS[split]
            has = any(f"{thing.colour} {thing.shape}" in held_out for thing in scene.objects)
            if mine and has == bool(held_out and split == "test"):
                scenes.append(scene)
            index += 1
        self._fill(scenes, [f"shapes-{split}-{i}" for i in range(count)])

    def _fill(self, scenes: list[shapes.Scene], files: list[str]) -> None:
        self.scenes, self.files = scenes, files
        self.texts = [shapes.caption(scene) for scene in scenes]
        self.labels = [shapes.label(scene) for scene in scenes]
        self.picture_ids, self.caption_ids = list(range(len(scenes))), numbered(self.texts)

    def __len__(self) -> int:
        return len(self.scenes)

    def where(self, index: int) -> str:
        """The place of a sentence, for messages."""
        return self.files[index]

    def only(self, chosen: Sequence[int]) -> ShapePairs:
        """Some of the scenes."""
        made = copy.copy(self)
        made._fill([self.scenes[i] for i in chosen], [self.files[i] for i in chosen])
        return made

    def image(self, index: int, background: Colour = WHITE) -> Image.Image:
        return shapes.draw(self.scenes[index], self.image_size)


def numbered(values: Iterable[Hashable]) -> list[int]:
    """A number for each value, from 0 in the order in which they first come."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


def augmentation(size: tuple[int, int], crop: float, flip: bool, colour: float) -> v2.Transform:
    """What happens to a picture in training; the result has the size that the model wants."""
    steps: list[Any] = []
    if crop < 1:
        steps.append(v2.RandomResizedCrop(size, scale=(crop, 1), ratio=(0.9, 1.1)))
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if colour:
        steps.append(v2.ColorJitter(colour, colour, colour))
    return v2.Compose(steps or [v2.Identity()])


class PairBatches(Dataset[Batch]):
    """Whole batches: pictures read, changed and made into tensors, sentences into ids."""

    def __init__(
        self,
        pairs: Pairs | ShapePairs,
        tokenizer: Tokenizer,
        max_tokens: int,
        preprocess: Preprocess,
        augment: v2.Transform | None,
        on_bad: OnBad,
        seed: int,
    ) -> None:
        self.pairs, self.tokenizer, self.max_tokens = pairs, tokenizer, max_tokens
        self.preprocess, self.augment = preprocess, augment
        self.on_bad, self.seed = on_bad, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def example(self, pick: Pick) -> tuple[Tensor, int]:
        """``(3, height, width)``, and which pair it is."""
        image = self.pairs.image(pick.index, self.preprocess.background)
        if self.augment is not None:
            with seeded(self.seed, pick):
                image = self.augment(image)
        return self.preprocess(image), pick.index

    def __getitems__(self, picks: list[Pick]) -> Batch:
        training = self.augment is not None
        examples = read_picks(self.example, picks, len(self), self.on_bad, training)
        pictures, chosen = zip(*examples, strict=True)
        return self.batch(pictures, chosen)

    def batch(self, pictures: Sequence[Tensor], chosen: Sequence[int]) -> Batch:
        """A batch of pictures and the pairs that they are of."""
        pairs = self.pairs
        texts = [pairs.texts[i] for i in chosen]
        input_ids, mask = encode_texts(self.tokenizer, texts, self.max_tokens)
        batch: Batch = {
            "pixel_values": torch.stack([*pictures]),
            "input_ids": input_ids,
            "mask": mask,
            "picture_ids": torch.tensor([pairs.picture_ids[i] for i in chosen]),
            "caption_ids": torch.tensor([pairs.caption_ids[i] for i in chosen]),
            "caption": texts,
            "file": [pairs.files[i] for i in chosen],
        }
        if pairs.labels is not None:
            batch["labels"] = torch.tensor([pairs.labels[i] for i in chosen])
        return batch
