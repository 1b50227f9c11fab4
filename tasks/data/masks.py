"""Masks that hold the class of every pixel: found beside their pictures, checked before training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.data.images import OnBad, check_images, list_images, read_mask, size_of
from tasks.data.splits import SPLITS
from tasks.errors import UserError

log = logging.getLogger(__name__)
MASKS = ("masks", "annotations", "labels")
"""What the folder of masks may be called."""
IGNORE_MASK = 255
"""The label of pixels that do not count, the ``ignore_index`` of the loss."""
VALUES = 1 << 16
"""How many values a mask may hold."""
CHECKED = 5000
"""At most so many masks of a split are read before training; the others as they come."""


class Masks:
    """The values of mask files as labels: class k is the k-th value that is not ignored, unless a map
    says otherwise.

    Args:
        classes: their number.
        ignore: values that become ``IGNORE_MASK``.
        values: of each value its class.
    """

    def __init__(
        self, classes: int, ignore: Sequence[int], values: Mapping[int, int] | None = None
    ) -> None:
        self.classes, self.ignore, self.values = classes, list(ignore), values
        if classes > IGNORE_MASK:
            raise UserError(f"{classes} classes are too many: masks may have {IGNORE_MASK}.")
        self.table = np.full(VALUES, -1, np.int64)
        if values is None:
            kept = np.setdiff1d(np.arange(VALUES), self.ignore)[:classes]
            values = dict(zip(kept.tolist(), range(classes), strict=True))
        self.ids: list[int] = [
            min(value for value, kind in values.items() if kind == label)
            for label in range(classes)
        ]
        """Of each label the value in mask files; where several have it, the least."""
        self.table[[*values]] = [*values.values()]
        self.table[self.ignore] = IGNORE_MASK

    def labels(self, values: np.ndarray, path: Path) -> np.ndarray:
        """The labels of a mask.

        Raises:
            UserError: a value that is no class; ``path`` is named.
        """
        labels = self.table[values.clip(0, VALUES - 1)]
        wrong = values[(labels < 0) | (values < 0) | (values >= VALUES)]
        if wrong.size:
            value = int(wrong.max())
            hint = "" if self.ignore else f" data.ignore={value} if it does not count,"
            if self.values is None:
                known = f"there are {self.classes} classes ({self.ids[0]} to {self.ids[-1]})"
                hint += f" data.values if it is one of them: {example(np.unique(values))}"
            else:
                known = f"data.values has only {', '.join(map(str, sorted(self.values)))}"
                hint += " data.values to give it a class"
            raise UserError(f"{path} has the value {value}, but {known};{hint}.")
        return labels


@dataclass(frozen=True)
class Pair:
    """A picture and its mask, as files or (of the built-in world) in memory.

    Args:
        kinds: where the mask numbers segments, of each number its class.
    """

    image: Path | Image.Image
    mask: Path | np.ndarray
    kinds: Sequence[int] | None = None


def split_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """Where the pictures and the masks of a split are; None where there is none. That of "train" may be
    the folder of all.

    Raises:
        UserError: no such root.
    """
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise UserError(f"data.root {root} {what}.")
    for name in SPLITS[split]:
        found = both_folders(root / name, "") or both_folders(root, name)
        if found is not None:
            return found
    if split == "train" and not any(split_folders(root, other) for other in ("val", "test")):
        return both_folders(root, "")
    return None


def both_folders(root: Path, below: str) -> tuple[Path, Path] | None:
    """The folders ``images`` and ``masks`` of a root, and what is below each of them."""
    images, masks = root / "images" / below, (root / name / below for name in MASKS)
    found = next((folder for folder in masks if folder.is_dir()), None)
    return (images, found) if images.is_dir() and found is not None else None


def find_pairs(images: Path, masks: Path) -> list[Pair]:
    """Pictures and masks of the same name but for the ending.

    Raises:
        UserError: none at all, one without a partner, two of one name.
    """
    found: list[dict[str, Path]] = []
    for folder in (images, masks):
        by_name: dict[str, Path] = {}
        for path in list_images(folder):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in by_name:
                raise UserError(f"{path} and {by_name[name]} have one name: which one is meant?")
            by_name[name] = path
        found.append(by_name)
    if not found[0]:
        raise UserError(f"{images} has no pictures.")
    counts = f"{images} has {len(found[0])} pictures and {masks} {len(found[1])} masks"
    for ours, theirs, folder, what in (
        (found[0], found[1], masks, "mask"),
        (found[1], found[0], images, "picture"),
    ):
        for name in ours:
            if name not in theirs:
                raise UserError(f"{counts}: {ours[name].name} has no {what} in {folder}.")
    return [Pair(found[0][name], found[1][name]) for name in found[0]]


def check_pairs(
    pairs: Sequence[Pair], masks: Masks | None, on_bad: OnBad
) -> tuple[list[Pair], Counter[int], list[Pair]]:
    """Read masks before training: that sizes agree, and that every value is a class.

    Args:
        masks: None where the classes are to be found from the values.

    Returns:
        The pairs whose pictures can be read; how many pixels have each value; and the pairs whose
        masks were not read, where a sample of a very large set will do.

    Raises:
        UserError: names the file; see :class:`Masks`.
    """
    paths = [pair.image for pair in pairs if isinstance(pair.image, Path)]
    pairs = [pairs[i] for i in check_images(paths, on_bad)]
    # Where classes are not known, the largest value may be anywhere.
    step = 1 if masks is None else -(-len(pairs) // CHECKED)
    unread = [pair for i, pair in enumerate(pairs) if i % step]
    return pairs, count_values(pairs[::step], masks), unread


def count_values(pairs: Sequence[Pair], masks: Masks | None) -> Counter[int]:
    """How many pixels of mask files have each value, which is checked to be of a class."""

    def count(pair: Pair) -> dict[int, int]:
        mask = read_pair_mask(pair)
        if masks is not None:
            masks.labels(mask, pair.mask)  # type: ignore[arg-type]
        values, counts = np.unique(mask, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))

    total: Counter[int] = Counter()
    with ThreadPoolExecutor(8) as pool:
        for counts in pool.map(count, pairs):
            total.update(counts)
    return total


def read_pair_mask(pair: Pair) -> np.ndarray:
    """The values of a mask file.

    Raises:
        UserError: it is not as large as its picture.
    """
    assert isinstance(pair.image, Path) and isinstance(pair.mask, Path)
    mask, size = read_mask(pair.mask), size_of(pair.image)
    if mask.shape != size:
        raise UserError(
            f"{pair.mask} is {mask.shape[1]} x {mask.shape[0]}, but its picture "
            f"{pair.image.name} is {size[1]} x {size[0]} (width x height)."
        )
    return mask


def example(values: np.ndarray) -> str:
    """How ``data.values`` would be given for masks of such values, each a class."""
    pairs = [f"{value}: {label}" for label, value in enumerate(values[:4].tolist())]
    return f"data.values='{{{', '.join(pairs)}{', ...' * (len(values) > 4)}}}'"


def check_values(values: Mapping[int, int], ignore: Sequence[int]) -> None:
    """Refuse a map that leaves the class of a value, or the number of classes, open.

    Raises:
        UserError: no value, one beyond those of masks, one that is ignored too, or classes that are
            not numbered from 0 on.
    """
    for value in values:
        if not 0 <= value < VALUES:
            raise UserError(f"data.values has {value}: values of masks are 0 to {VALUES - 1}.")
        if value in ignore:
            raise UserError(f"data.values and data.ignore both have {value}: one can be meant.")
    kinds = sorted(set(values.values()))
    if not kinds or kinds != list(range(len(kinds))):
        raise UserError(
            f"data.values has the classes {', '.join(map(str, kinds)) or 'of nothing'}: they are "
            "numbered from 0, and each needs a value."
        )


def names_of_values(values: Mapping[int, int]) -> list[str]:
    """Of each class the values that are of it, such as "1+2"."""
    return [
        "+".join(str(value) for value in sorted(values) if values[value] == label)
        for label in range(len(set(values.values())))
    ]


def numbers(values: np.ndarray, ignore: Sequence[int]) -> list[str]:
    """Names of classes that are known by their values alone.

    Raises:
        UserError: 255 occurs, which means "does not count" where the values below it are unused, or
            is the one class of masks of black and white.
    """
    kept = np.setdiff1d(values, ignore)
    if 255 in kept and 254 not in kept:
        raise UserError(
            "the masks hold the value 255, but not 254: give data.ignore=255 if it does not "
            f"count, or data.values, the class of each value, if it is one: {example(kept)}."
        )
    if not len(kept) or kept[0] < 0 or kept[-1] >= VALUES:
        raise UserError(f"the masks hold no class ids from 0 to {VALUES - 1}, but {values[:5]}.")
    if len(kept) <= kept[-1] // 2:
        log.warning(
            "the masks hold %d values up to %d, and all below it are taken for classes: data.values "
            "would say which class each is of.",
            len(kept),
            kept[-1],
        )
    return [str(v) for v in np.setdiff1d(np.arange(kept[-1] + 1), ignore)]
