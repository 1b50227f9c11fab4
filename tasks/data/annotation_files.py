"""Where the annotations of each split are: files of COCO's or of VOC's, or one of everything."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from tasks.data.annotations import Annotations
from tasks.data.coco import find_coco, read_coco
from tasks.data.images import OnBad
from tasks.data.splits import called
from tasks.data.voc import is_voc, read_voc, voc_files, voc_split
from tasks.errors import UserError


class AnnotationFiles:
    """The annotations that ``data.root`` holds; see :class:`~tasks.data.detection.DetectionData`.

    Args:
        root: a folder, or an annotation file of COCO's with all pictures.
        splits: of "train", "val" and "test" the name that the options give it.
        images: ``data.images``.

    Raises:
        UserError: there is no such root.
    """

    def __init__(self, root: Path, splits: Mapping[str, str], images: str | None) -> None:
        self.given = root if root.suffix == ".json" and root.is_file() else None
        self.root = root.parent if self.given else root
        if not self.root.is_dir():
            raise UserError(f"data.root {root} is not a folder.")
        self.splits, self.images = dict(splits), images
        self.voc = self.given is None and is_voc(root)

    def absent(self, split: str) -> bool:
        """Whether a split of the usual name has no file, so that it may be a part of another's."""
        return self.splits[split] == split and self.place(split) is None

    def place(self, split: str) -> Path | None:
        """What holds a split: its file, or that of everything, which is the training split's."""
        if self.splits[split] == split and (self.given or self.everything):
            return self.given or self.everything if split == "train" else None
        return self._own(called(self.splits[split], self._own))

    def _own(self, name: str) -> Path | None:
        """The file of a split of this name."""
        if not self.voc:
            return find_coco(self.root, name)
        file = voc_split(self.root, name)
        return file if file.is_file() else None

    @cached_property
    def everything(self) -> Path | None:
        """What holds all pictures where no split has a file: the one annotation file of a folder, or the
        folder of VOC's."""
        names = self.splits.items()
        if any(split != name or self._own(called(name, self._own)) for split, name in names):
            return None
        if self.voc:
            return self.root / "Annotations" if voc_files(self.root) else None
        return self._files[0] if len(self._files) == 1 else None

    @cached_property
    def _files(self) -> list[Path]:
        folders = self.root, self.root / "annotations"
        return sorted(path for folder in folders for path in folder.glob("*.json"))

    def read(self, split: str, categories: Mapping[int, str] | None, on_bad: OnBad) -> Annotations:
        """What the files hold of a split.

        Args:
            categories: ids and names of the classes, where they are known.

        Raises:
            UserError: there are none; see :mod:`tasks.data.coco` and :mod:`tasks.data.voc`.
        """
        place, name = self.place(split), called(self.splits[split], self._own)
        if self.voc:
            names = None if categories is None else list(categories.values())
            whole = place is not None and place == self.everything
            return read_voc(self.root, None if whole else name, names, on_bad)
        if place is None:
            raise UserError(
                f"{self.root} has no annotations of data.{split}={name!r}: {self._lack(name)}"
            )
        return read_coco(place, name, self._images(name), on_bad, categories or ())

    def _lack(self, name: str) -> str:
        """What would be annotations of a split of this name."""
        coco = f"neither COCO's annotations/instances_{name}.json or {name}.json"
        listed = ", ".join(path.name for path in self._files[:5])
        hint = f" There are {listed}: data.root may name one, of all pictures." if listed else ""
        return f"{coco}, nor VOC's JPEGImages.{hint}"

    def _images(self, name: str) -> Path | None:
        """Where ``data.images`` says that the pictures of a split are."""
        if self.images is None:
            return None
        folder = self.root / self.images.replace("{split}", name)
        if not folder.is_dir():
            raise UserError(f"data.images={self.images!r}: {folder} is not a folder.")
        return folder
