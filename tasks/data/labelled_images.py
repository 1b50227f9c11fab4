"""Pictures and their classes from folders, tars, torchvision's layouts and the world of shapes."""

from __future__ import annotations

import logging
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets

from family.inputs.pictures import Colour
from family.inputs.preprocess import Preprocess
from tasks.data import shapes
from tasks.data.augment import as_tensor
from tasks.data.images import (
    IMAGE_ENDINGS,
    OnBad,
    check_images,
    list_images,
    read_image,
    readable,
)
from tasks.data.tars import TAR_ERRORS, members, tar_reason
from tasks.errors import UserError, in_short

log = logging.getLogger(__name__)

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
READERS = {
    "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
    "cifar100": (datasets.CIFAR100, "cifar-100-python"),
    "fashion_mnist": (datasets.FashionMNIST, "FashionMNIST"),
    "imagenet": (datasets.ImageNet, "meta.bin"),
}
"""torchvision's reader of each layout, and what its root holds."""


@dataclass(frozen=True)
class Labelled:
    """Pictures, or clips, and their classes.

    Args:
        classes: their names, in the order of the labels.
        labels: ``(pictures,)`` int64; of several labels a picture ``(pictures, classes)`` float32, 1 for each
            that it has; of numbers ``(pictures,)`` float32.
        names: of each picture, for messages and the choice of those held out.
        read: gives picture i as RGB, of a clip a list of them, and shows a colour through what is
            transparent of it.
    """

    classes: list[str]
    labels: np.ndarray
    names: list[str]
    read: Callable[[int, Colour], Any]

    def part(self, indices: Sequence[int]) -> Labelled:
        """Some of the pictures."""
        names = [self.names[i] for i in indices]
        labels = self.labels[np.asarray(indices, int)]
        return Labelled(self.classes, labels, names, partial(read_chosen, self.read, indices))


def read_chosen(
    read: Callable[[int, Colour], Any],
    indices: Sequence[int],
    index: int,
    background: Colour,
) -> Any:
    return read(indices[index], background)


def read_path(paths: Sequence[Path], index: int, background: Colour) -> Image.Image:
    return read_image(paths[index], background=background)


class Kind(NamedTuple):
    """What lies in the folders of classes.

    Args:
        of: what messages call it.
        find: what there is below a folder.
        check: the indices of what can be read, see :func:`~tasks.data.images.check_images`.
        read: gives one of the paths, see :class:`Labelled`.
    """

    of: str
    find: Callable[[Path], list[Path]]
    check: Callable[[list[Path], OnBad], list[int]]
    read: Callable[[Sequence[Path], int, Colour], Any]


PICTURES = Kind("pictures", list_images, check_images, read_path)


def labelled_folder(folder: Path, on_bad: OnBad, kind: Kind = PICTURES) -> Labelled:
    """A folder of folders of pictures, one a class; those may have folders of their own.

    Raises:
        UserError: no folders of classes, a file that is no picture, or, unless ``on_bad`` is "skip",
            an empty class.
    """
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if not classes:
        raise UserError(f"{folder} has no folders of {kind.of}: it needs one for each class.")
    paths = [path for name in classes for path in kind.find(folder / name)]
    filled = {path.relative_to(folder).parts[0] for path in paths}
    if len(classes) == 1 and paths and all(len(p.relative_to(folder).parts) > 2 for p in paths):
        raise UserError(
            f"{folder} has one folder, {classes[0]}, with folders in it: are these the classes? Give data.root "
            "so that each class is a folder of it or of its splits."
        )
    empty = [str(folder / name) for name in classes if name not in filled]
    refuse_empty(empty, len(classes), str(folder), on_bad, kind.of)
    paths = [paths[i] for i in kind.check(paths, on_bad)]
    inside = [path.relative_to(folder).parts[0] for path in paths]
    # One that had nothing but pictures that cannot be read is as empty.
    spoiled = [str(folder / name) for name in sorted(filled - {*inside})]
    refuse_empty(spoiled, len(filled), str(folder), on_bad, kind.of)
    classes = sorted({*inside})
    labels = np.array([classes.index(name) for name in inside])
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Labelled(classes, labels, names, partial(kind.read, paths))


def refuse_empty(
    empty: Sequence[str], classes: int, where: str, on_bad: OnBad, of: str = "pictures"
) -> None:
    """Refuse class folders without pictures; with "skip" a warning says that they are no classes.

    Raises:
        UserError: "stop" and such a folder, or none with pictures.
    """
    if not empty:
        return
    if on_bad == "stop":
        raise UserError(
            f"the class folder {empty[0]} is empty: it has no {of}; data.on_bad=skip would leave "
            "the class out."
        )
    if len(empty) == classes:
        raise UserError(f"none of the {classes} class folders in {where} has {of} to read.")
    log.warning("left out as classes, for want of %s: %s", of, ", ".join(empty))


def labelled_tar(path: Path, on_bad: OnBad = "stop") -> Labelled:
    """A tar with one folder a class, as :func:`labelled_folder` reads it from a disk: pictures of a plain
    tar are read where they lie.

    Those of a compressed tar are kept in memory, encoded as they are. Folders around all of those of the
    classes (``train/``) are no class.

    Raises:
        UserError: no tar, no pictures, pictures beside the folders of classes, or, unless ``on_bad`` is
            "skip", an empty class.
    """
    try:
        try:
            with tarfile.open(path, "r:") as tar:
                inside_it = latest(members(tar, path))
            content: list[Any] | None = None
        except tarfile.ReadError:
            with tarfile.open(path) as tar:
                inside_it = latest(members(tar, path, whole=False))
                content = [tar.extractfile(m).read() for m in inside_it if is_picture(m)]  # type: ignore[union-attr]
    except TAR_ERRORS as error:
        raise UserError(f"{path} is not a tar that can be read: {tar_reason(error)}.") from None
    pictures = [member for member in inside_it if is_picture(member)]
    files = [parts_of(member) for member in pictures]
    around = around_classes(path, files)
    inside = [file[len(around) :] for file in files]
    classes = sorted({file[0] for file in inside})
    folders = {parts_of(m) for m in inside_it if m.isdir() and not is_hidden(m)}
    below = {parts[len(around)] for parts in folders if parts[: len(around)] == around != parts}
    empty = [f"{'/'.join((*around, name))} in {path}" for name in sorted(below - {*classes})]
    refuse_empty(empty, len(below | {*classes}), str(path), on_bad)
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of[file[0]] for file in inside])
    names = ["/".join(file) for file in inside]
    places = [(member.offset_data, member.size) for member in pictures]
    order = sorted(range(len(names)), key=inside.__getitem__)
    read = partial(read_member, path, names, places if content is None else content)
    return Labelled(classes, labels, names, read).part(order)


def latest(found: Iterable[tarfile.TarInfo]) -> list[tarfile.TarInfo]:
    """The members of a tar; of two of one name the later, which unpacking would leave."""
    return list({parts_of(member): member for member in found}.values())


def parts_of(member: tarfile.TarInfo) -> tuple[str, ...]:
    """The folders of a member, and its name; where they begin at the root, unpacking leaves that out."""
    return tuple(part for part in Path(member.name).parts if part.strip("/"))


def around_classes(path: Path, files: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders that hold all folders of classes, by the parts of the pictures' names.

    Raises:
        UserError: no pictures, or some beside the folders of classes.
    """
    folders = [file[:-1] for file in files]
    if not folders or () in folders:
        raise UserError(f"{path} needs a folder of pictures for each class.")
    shared = 0
    while len({folder[: shared + 1] for folder in folders}) == 1 and shared < len(folders[0]):
        shared += 1
    around = folders[0][:shared]
    if around not in folders:
        return around
    # Pictures lie here: this is the only class, unless others lie in several folders below.
    if len({folder[shared] for folder in folders if len(folder) > shared}) > 1:
        stray = next("/".join(file) for file in files if file[:-1] == around)
        raise UserError(f"{stray} in {path} lies beside the folders of classes: put it into one.")
    return around[:-1]


def is_picture(member: tarfile.TarInfo) -> bool:
    ours = Path(member.name).suffix.lower() in IMAGE_ENDINGS
    return ours and member.isfile() and not is_hidden(member)


def is_hidden(member: tarfile.TarInfo) -> bool:
    """As on a disk, where the file or a folder above it is."""
    return any(part.startswith(".") for part in Path(member.name).parts)


def read_member(
    path: Path, names: Sequence[str], sources: Sequence[Any], index: int, background: Colour
) -> Image.Image:
    """Of bytes, or of a place ``(offset, size)`` in a file."""
    source = sources[index]
    if not isinstance(source, bytes):
        with path.open("rb") as file:
            file.seek(source[0])
            source = file.read(source[1])
    return read_image(source, f"{names[index]} in {path}", background)


def labelled_torchvision(layout: str, root: Path, split: str, on_bad: OnBad = "stop") -> Labelled:
    """CIFAR, Fashion-MNIST or ImageNet as torchvision keeps them on disk; nothing is downloaded.

    Raises:
        UserError: files are missing, or, unless ``on_bad`` is "skip", a class of ImageNet's is empty.
    """
    reader, inside = READERS[layout]
    try:
        if layout == "imagenet":
            dataset = reader(str(root), split, allow_empty=True)
        else:
            dataset = reader(str(root), train=split == "train", download=False)
    except (RuntimeError, OSError) as error:
        reason = str(error).split(". ")[0].strip().rstrip(".")
        raise UserError(
            f"{root} does not hold {layout} as torchvision stores it ({inside} ...): {reason}."
        ) from None
    labels = np.array(dataset.targets)
    if layout == "imagenet":
        paths = [Path(path) for path, _ in dataset.samples]
        filled = np.unique(labels).tolist()
        folders = [f"{dataset.split_folder}/{wnid}" for wnid in dataset.wnids]
        empty = [folder for i, folder in enumerate(folders) if i not in filled]
        refuse_empty(empty, len(folders), dataset.split_folder, on_bad)
        classes = [", ".join(dataset.classes[i]) for i in filled]
        labels = np.searchsorted(filled, labels)
        return Labelled(classes, labels, [path.name for path in paths], partial(read_path, paths))
    pixels = np.asarray(dataset.data)
    names = [str(i) for i in range(len(pixels))]
    return Labelled(list(dataset.classes), labels, names, partial(read_array, pixels))


def read_array(pixels: np.ndarray, index: int, _: Colour) -> Image.Image:
    return Image.fromarray(pixels[index]).convert("RGB")


def labelled_shapes(
    count: int, size: tuple[int, int], seed: int, split: str, several: bool = False
) -> Labelled:
    """Scenes of the built-in world, squashed to ``size``; the class is the shape that covers most, and
    ``several`` are all shapes that are there."""
    scenes = [shapes.sample(i, seed, split) for i in range(count)]
    if several:
        there = [{thing.shape for thing in scene.objects} for scene in scenes]
        labels = np.array([[k in one for k in shapes.CLASSES] for one in there], np.float32)
    else:
        labels = np.array([shapes.label(scene) for scene in scenes])
    names = [str(i) for i in range(count)]
    return Labelled(list(shapes.CLASSES), labels, names, partial(draw, size, seed, split))


def counted_shapes(count: int, size: tuple[int, int], seed: int, split: str) -> Labelled:
    """As :func:`labelled_shapes`, and how many things there are."""
    found = [len(shapes.sample(i, seed, split).objects) for i in range(count)]
    names = [str(i) for i in range(count)]
    return Labelled([], np.array(found, np.float32), names, partial(draw, size, seed, split))


def draw(size: tuple[int, int], seed: int, split: str, index: int, _: Colour) -> Image.Image:
    image = shapes.draw(shapes.sample(index, seed, split), max(size))
    return image if size[0] == size[1] else image.resize((size[1], size[0]))


def refuse_other_classes(labels: Sequence[str], ours: Sequence[str], where: str) -> None:
    """Refuse data whose list of classes is not the checkpoint's.

    Raises:
        UserError: names the first difference.
    """
    for i, (theirs, name) in enumerate(zip(labels, ours, strict=False)):
        if theirs != name:
            raise UserError(f"class {i} of the checkpoint is {theirs!r}, but {name!r} in {where}.")
    if len(labels) != len(ours):
        raise UserError(f"the checkpoint has {len(labels)} classes, but {where} has {len(ours)}.")


def refuse_other_set(labels: Sequence[str], ours: Sequence[str], where: str) -> None:
    """As :func:`refuse_other_classes`, of classes in any order.

    Raises:
        UserError: names those that one of the two has alone.
    """
    theirs, mine = Counter(labels), Counter(ours)
    if theirs == mine:
        return
    odd = [
        f"{', '.join(map(in_short, [*more][:5]))} of {of} alone"
        for more, of in ((theirs - mine, "the checkpoint"), (mine - theirs, where))
        if more
    ]
    raise UserError(f"the classes are not those of the checkpoint: {' and '.join(odd)}.")


def decode(pictures: Labelled, preprocess: Preprocess, on_bad: OnBad) -> tuple[Labelled, Tensor]:
    """All pictures as one uint8 tensor ``(pictures, 3, height, width)``, and those kept.

    Raises:
        UserError: one cannot be read, and ``on_bad`` is "stop".
    """

    def one(index: int) -> Tensor:
        return as_tensor(preprocess.resize(pictures.read(index, preprocess.background)))

    return stored(pictures, one, (3, *preprocess.size), on_bad)


def stored(
    labelled: Labelled,
    one: Callable[[int], Tensor],
    shape: tuple[int, ...],
    on_bad: OnBad,
    of: str = "pictures",
) -> tuple[Labelled, Tensor]:
    """What ``one`` makes of each, of this shape, as one uint8 tensor, and those kept."""
    # Lightning evaluates in inference mode, in which the threads of reading are not.
    with torch.inference_mode(False):
        store = torch.empty((len(labelled.names), *shape), dtype=torch.uint8)

    def put(index: int) -> None:
        store[index] = one(index)

    keep = readable(range(len(store)), put, on_bad, of)
    return (labelled, store) if len(keep) == len(store) else (labelled.part(keep), store[keep])
