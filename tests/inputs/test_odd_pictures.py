"""Pictures that are rare or broken: a tensor, or one sentence that names the file, in bounded memory."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "properties"))
from answers import answered, within
from odd_pictures import JPEG, ODD_PICTURES, cut

from family.inputs.pictures import as_picture, as_rgb, read_image, size_of
from family.inputs.preprocess import Preprocess

WAYS = [
    Preprocess((16, 16)),
    Preprocess((16, 16), "crop"),
    Preprocess((16, 16), "crop", resized=20),
    Preprocess((16, 24), "longest"),
    Preprocess((16, 32), "edges"),
    Preprocess((16, 32), "edges", multiple=4),
]


LARGE = ("large and there", "huge but allowed", "very thin")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in ODD_PICTURES]
)
def test_a_picture_becomes_a_tensor_or_a_sentence(name, tmp_path):
    path = tmp_path / "odd.png"
    path.write_bytes(ODD_PICTURES[name]())
    for way in WAYS[:1] if name in LARGE else WAYS:
        with answered(ValueError) as said:
            assert torch.isfinite(way(path)).all()
            assert min(way(path).shape) >= 1
        assert all("odd.png" in text for text in said)
    with answered(ValueError) as said:
        height, width = size_of(path)
        picture = read_image(path)
        assert (picture.height, picture.width) == (height, width)
    assert all("odd.png" in text for text in said)


def test_a_thread_is_cut_before_it_is_enlarged():
    way, thread = Preprocess((16, 16), "crop"), Image.new("RGB", (5000000, 1), (255, 0, 0))
    with within(memory=300 << 20):
        assert way(thread).shape == (3, 16, 16)


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000)])
def test_no_side_is_without_a_pixel(size):
    assert min(Preprocess((800, 1333), "edges").resize(Image.new("L", size)).size) == 1


def test_headers_that_nobody_understands(tmp_path):
    (tmp_path / "a.jpg").write_bytes(ODD_PICTURES["turned by noise"]())
    (tmp_path / "b.jpg").write_bytes(ODD_PICTURES["turned by 99"]())
    with answered(ValueError) as said:
        size_of(tmp_path / "a.jpg")
    assert all("a.jpg" in text for text in said)
    assert size_of(tmp_path / "b.jpg") == (7, 9)  # as where nobody says that it is turned


def test_a_palette_without_colours(tmp_path):
    (tmp_path / "a.png").write_bytes(ODD_PICTURES["palette without colours"]())
    with pytest.raises(ValueError, match="a.png cannot be shown in red, green and blue"):
        read_image(tmp_path / "a.png")


def test_numbers_without_end_are_the_greatest():
    values = np.array([[np.nan, np.inf], [-np.inf, 300]], np.float32)
    assert np.asarray(as_rgb(Image.fromarray(values)))[..., 0].tolist() == [[0, 255], [255, 255]]


def test_what_is_opened_and_broken():
    content = cut(JPEG, 0.95)
    with pytest.raises(ValueError, match="the picture is"):
        as_picture(Image.open(io.BytesIO(content)))
