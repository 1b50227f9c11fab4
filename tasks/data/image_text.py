"""Pictures and sentences that belong together."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from family.inputs.preprocess import Preprocess
from tasks.data import shapes
from tasks.data.base import FamilyData
from tasks.data.captions import TABLES, Caption, Columns, find_common, find_sources, read_captions
from tasks.data.images import OnBad, check_images, kept, picture_size
from tasks.data.kept import as_files
from tasks.data.pairs import PairBatches, Pairs, ShapePairs, augmentation, encode_texts
from tasks.data.sampling import ExampleBatches, batch_loader
from tasks.data.splits import SPLITS, called, encoded, pattern
from tasks.data.stored import Stored
from tasks.data.tokenizers import Tokenizer, make_tokenizer
from tasks.errors import UserError, at_least, between, user_errors


class ImageTextData(FamilyData):
    """Pictures and sentences, in pairs.

    A batch:

    - ``pixel_values (batch, 3, height, width)`` float32: normalised;
    - ``input_ids (batch, tokens)`` int64: <bos> sentence <eos>, padded at the right;
    - ``mask (batch, tokens)`` bool: True = a token;
    - ``picture_ids (batch,)`` int64: equal over the whole split where the picture is the same;
    - ``caption_ids (batch,)`` int64: equal over the whole split where the sentence is the same;
    - ``caption``: list of the sentences; ``file``: list of the pictures' names;
    - with the built-in world ``labels (batch,)`` int64: their classes, for zero-shot classification.

    Args:
        root: a folder with a table of pictures and sentences (``SPLIT.tsv``, ``.csv``, ``.jsonl``;
            ``captions.tsv`` where there are no splits), COCO's captions
            (``annotations/captions_SPLIT.json``) or webdataset's ``*.tar``; or one such file. None
            is the built-in world of shapes.
        train, val, test: the splits' names, or files in ``root``: "part-{0000..0099}.tar"; "val" is
            also found as valid, validation or dev.
        image_column, caption_column: of a table; without them columns with usual names are found. Of several
            columns of captions each has a sentence about the picture.
        quotes: fields of a ``.tsv`` may stand in quotes, as spreadsheets write them (and as they may in
            a ``.csv``); without it a quote is a character like any other.
        split_column: where ``val`` has no file of its own, rows equal in this column are held out
            together; without it, rows of the same picture.
        split_ignore: a regular expression; what it matches does not count in that comparison.
        val_fraction: the share held out, chosen by a hash; also "test" where that has no file.
        images: the folder of the pictures relative to ``root``, where it is none of the usual.
        tokenizer: "bpe", "unigram" or "char", trained on the training sentences; or one that exists, by
            the path of a ``tokenizer.json``, a folder, a run or a published source.
        max_tokens: longer sentences lose their end; <bos> and <eos> count.
        crop: training sees a part of each picture, at least this share of its area; 1 is all.
        flip: mirror half the pictures; wrong where sentences say left and right.
        colour: how strongly brightness, contrast and saturation change: 0 to 1.
        background: what shows through transparent pictures, red, green and blue of 0 to 255; the model
            keeps it, so that commands fill them alike.
        on_bad: "stop" at a picture that cannot be read or an empty sentence, or "skip" it with a
            warning.
        examples: pairs of the built-in world.
        columns: what the columns are called, by our names: {image: photo, caption: said}. ``root`` may
            then be any table; a data set of ``datasets`` on disk and parquet files are read as they are.
    """

    task = "ImageText"
    batches = PairBatches
    decided = ("image_size", "background", "tokenizer", "vocab_size", "lowercase", "max_tokens")

    def __init__(
        self,
        root: str | None = None,
        train: str = "train",
        val: str = "val",
        test: str = "test",
        image_column: str | None = None,
        caption_column: str | list[str] | None = None,
        quotes: bool = False,
        split_column: str | None = None,
        split_ignore: str | None = None,
        val_fraction: float = 0.1,
        images: str | None = None,
        image_size: tuple[int, int] = (64, 64),
        tokenizer: str = "bpe",
        vocab_size: int = 4000,
        lowercase: bool = True,
        max_tokens: int = 32,
        crop: float = 0.8,
        flip: bool = False,
        colour: float = 0.0,
        background: tuple[int, int, int] = (255, 255, 255),
        batch_size: int = 128,
        on_bad: OnBad = "stop",
        examples: int = 10_000,
        seed: int = 0,
        num_workers: int = 0,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        if caption_column == []:
            raise UserError("data.caption_column=[] names no column of captions.")
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction must be between 0 and 1, not {val_fraction}.")
        if not 0 < crop <= 1:
            raise UserError(f"data.crop must be above 0 and at most 1, not {crop}.")
        at_least(1, batch_size=batch_size, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        between(0, 1, colour=colour)
        if max_tokens < 3:
            raise UserError(f"data.max_tokens={max_tokens} leaves no room for a sentence: 3 do.")
        self.ignore = pattern("split_ignore", split_ignore)
        self.root = as_files(root, columns, quotes=quotes, images=images)
        # Of data that were read into files, paths are whole.
        self.images = images if root is None or self.root == Path(root) else None
        self.splits = {"train": train, "val": val, "test": test}
        caption = tuple(caption_column) if isinstance(caption_column, list) else caption_column
        self.columns = Columns(image_column, caption, split_column, quotes)
        self.val_fraction = val_fraction
        with user_errors():
            size, colour_below = picture_size(image_size), tuple(background)
            self.preprocess = Preprocess(size, background=colour_below)  # type: ignore[arg-type]
        self.kind, self.vocab_size, self.lowercase = tokenizer, vocab_size, lowercase
        self.max_tokens = max_tokens
        self.crop, self.flip, self.colour = crop, flip, colour
        self.batch_size, self.on_bad, self.examples = batch_size, on_bad, examples
        self.seed, self.num_workers = seed, num_workers
        self.tokenizer: Tokenizer | None = None
        self._pairs: dict[str, Pairs | ShapePairs] = {}

    # --- The pairs of a split ---

    def pairs(self, split: str) -> Pairs | ShapePairs:
        """The checked pictures and sentences of "train", "val" or "test".

        Raises:
            UserError: see :mod:`tasks.data.captions`; pictures that are missing; a split that is
                empty.
        """
        if split not in self._pairs:
            if self.root is None:
                count = self.examples if split == "train" else max(100, self.examples // 20)
                size = min(self.preprocess.size)
                self._pairs[split] = self.shape_pairs(count, size, split)
            else:
                rows = self._rows(split)
                if not rows:
                    raise UserError(
                        f"data.val_fraction={self.val_fraction} leaves nothing for {split}; "
                        "the pictures or data.split_column have too few different values."
                    )
                self._pairs[split] = Pairs(self._checked(rows))
        return self._pairs[split]

    def shape_pairs(self, count: int, size: int, split: str) -> ShapePairs:
        """So many pictures of the built-in world."""
        return ShapePairs(count, size, self.seed, split)

    def _rows(self, split: str) -> list[Caption]:
        """All rows of a split: of its own files, or its part of the common ones."""
        assert self.root is not None
        root, files = self.root, []
        if not root.is_dir():
            if not root.name.endswith((*TABLES, ".json", ".tar")):
                raise UserError(f"data.root {root} is neither a folder nor a table or tar file.")
            root, files = root.parent, find_sources(root.parent, root.name)
        names = {s: called(name, partial(find_sources, root)) for s, name in self.splits.items()}
        own = {} if files else {s: find_sources(root, name) for s, name in names.items()}
        for name, found in own.items():
            if not found and self.splits[name] not in SPLITS:
                raise UserError(f"{root} has no files of data.{name}={self.splits[name]!r}.")
        if split == "test" and own.get("train") and own["val"] and not own["test"]:
            raise UserError(f"{root} has no files of the split data.test={self.splits[split]!r}.")
        images = None if self.images is None else root / self.images
        if images is not None and not images.is_dir():
            raise UserError(f"data.images={self.images!r}: {images} is not a folder.")
        if own.get(split) and (split != "train" or own["val"]):
            return read_captions(own[split], self.columns, images, names[split])
        common = own.get("train") or files or find_common(root)
        rows = read_captions(common, self.columns, images, names["train"])
        return [row for row in rows if self._held_out(row) != (split == "train")]

    def _held_out(self, row: Caption) -> bool:
        key = row.key if self.ignore is None else self.ignore.sub("", row.key)
        number = int.from_bytes(hashlib.sha256(encoded(key)).digest()[:4], "big")
        return number < self.val_fraction * 2**32

    def _checked(self, rows: list[Caption]) -> list[Caption]:
        """The rows whose sentence is not empty and whose picture is there."""
        rows = [
            rows[i]
            for i in kept(
                [None if row.text else f"{row.where} has an empty caption" for row in rows],
                self.on_bad,
            )
        ]
        # Those inside a tar are there.
        paths = list(dict.fromkeys(row.path for row in rows if row.span is None))
        there = {paths[i] for i in check_images(paths, self.on_bad)}
        return [row for row in rows if row.span is not None or row.path in there]

    # --- What a model and a checkpoint need ---

    def _tokenizer(self) -> Tokenizer:
        """A checkpoint's, that of the first process, or trained now."""
        if self.tokenizer is None:
            texts = dict.fromkeys(self.pairs("train").texts)
            self.tokenizer = make_tokenizer(self.kind, texts, self.vocab_size, self.lowercase)
        return self.tokenizer

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self._tokenizer()
        if stage in (None, "fit"):
            # Read now, so that a mistake in the files ends the run before it began.
            self.pairs("train")
            self.pairs("val")

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size`` and ``image_size``."""
        return {"vocab_size": self._tokenizer().vocab_size, "image_size": self.preprocess.size}

    def assets(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "tokenizers": {"text": self._tokenizer().to_json()},
            "preprocess": dataclasses.asdict(self.preprocess),
            "max_tokens": self.max_tokens,
        }
        if self.root is None:
            made["labels"] = list(shapes.CLASSES)
        return made

    def use_assets(self, assets: dict[str, Any]) -> None:
        self.tokenizer = Tokenizer.from_json(assets["tokenizers"]["text"])
        # Checkpoints of before have no background: theirs is in their config.
        ours = {"background": self.preprocess.background}
        self.preprocess = Preprocess.from_dict({**ours, **assets["preprocess"]})
        self.max_tokens = assets["max_tokens"]

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids ``(texts, tokens)`` and their mask, as in a batch."""
        return encode_texts(self._tokenizer(), texts, self.max_tokens)

    def stored(self, split: str) -> Stored:
        pairs, tokenizer = self.pairs(split), self._tokenizer()
        return Stored(
            len(pairs),
            lambda i: [pairs.image(i), pairs.texts[i]],
            lambda i: [pairs.texts[i]],
            tokenizer.encode_batch,
            self.max_tokens,
        )

    # --- Loaders ---

    def loader(self, split: str) -> DataLoader[Any]:
        pairs, training = self.pairs(split), split == "train"
        augment = None
        if training:
            augment = augmentation(self.preprocess.size, self.crop, self.flip, self.colour)
        dataset = self.batches(
            pairs,
            self._tokenizer(),
            self.max_tokens,
            self.preprocess,
            augment,
            self.on_bad,
            self.order_seed,
        )
        # A smaller last batch would have fewer pictures to tell apart.
        batches = ExampleBatches(
            len(pairs),
            self.batch_size,
            training,
            self.order_seed,
            self.progress,
            drop_last=training,
        )
        return batch_loader(dataset, batches, self.num_workers)
