"""Whatever lies on the disk, a data module gives its batches or says in one sentence why not: soon, in bounded
memory. Every data module is here, by its example in ``tests/inference``; a new one comes by itself."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
from answers import LONG, SHORT, answered, search
from damage import Damage, contents, damages, write
from layouts import LAYOUTS, Layout, first_of_each

from tasks.data.language_modeling import LanguageModelingData
from tasks.data.stored import look


def read(root: Path, layout: Layout) -> None:
    """As ``family fit`` and ``family check`` read a folder."""
    where = {}
    if issubclass(layout.kind, LanguageModelingData):
        where = {"cache": str(root.parent / "cache"), "context": 16}
    data = layout.kind(str(root), **where, **layout.options)
    data.prepare_data()
    data.setup("fit")
    data.assets(), data.model_arguments
    for split in ("train", "val"):
        next(iter(data.loader(split)))
        stored = data.stored(split)
        if stored is not None:
            look(stored)
        data.degenerate(split)


def holds(layout: Layout, tmp_path: Path) -> Callable[[list[Damage]], None]:
    """What is asked of each damage to what a layout writes."""
    layout.write(tmp_path / "right")
    files = contents(tmp_path / "right")

    def one(chosen: list[Damage]) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as name:
            root = Path(name) / "data"
            root.mkdir()
            write(root, files, chosen)
            with answered(root=root):
                read(root, layout)

    one([])
    return one


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_right_is_read(name, tmp_path):
    LAYOUTS[name].write(tmp_path / "data")
    read(tmp_path / "data", LAYOUTS[name])


@pytest.mark.parametrize("name", first_of_each())
def test_a_few_damages_end_in_an_answer(name, tmp_path):
    search(holds(LAYOUTS[name], tmp_path), damages(), SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_many_damages_end_in_an_answer(name, tmp_path):
    """Fewer where the same files are read with other options."""
    some = LONG if name in first_of_each() else settings(LONG, max_examples=40)
    search(holds(LAYOUTS[name], tmp_path), damages(), some)
