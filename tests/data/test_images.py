"""Pictures and masks of every kind, and one clear sentence for each that cannot be read."""

from __future__ import annotations

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tasks.data.images import (
    check_images,
    list_images,
    read_image,
    read_mask,
    read_or_next,
    read_those,
    size_of,
)
from tasks.errors import UserError


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_16_bits_are_scaled_not_clipped(dtype):
    image = Image.fromarray((RAMP.astype(np.uint32) * 257).astype(dtype))
    found = pixels(read_image(encoded(image, "TIFF")))
    assert (found == RAMP[:, :, None]).all()


def test_floats_by_their_range():
    for high in (1.0, 255.0, 1000.0):
        image = Image.fromarray((RAMP / 255 * high).astype(np.float32))
        assert np.abs(pixels(read_image(encoded(image, "TIFF"))) - RAMP[:, :, None]).max() <= 1


def test_grey_palette_bilevel_and_cmyk():
    grey = Image.fromarray(RAMP)
    assert (pixels(read_image(encoded(grey))) == RAMP[:, :, None]).all()
    colours = Image.new("RGB", (4, 4), (200, 30, 40))
    assert (pixels(read_image(encoded(colours.quantize(4)))) == [200, 30, 40]).all()
    assert (pixels(read_image(encoded(Image.new("1", (4, 4), 1)))) == 255).all()
    cmyk = encoded(colours.convert("CMYK"), "JPEG", quality=95)
    assert np.abs(pixels(read_image(cmyk)) - [200, 30, 40]).max() < 8


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_the_background(mode):
    image = Image.new("RGBA", (2, 1), (90, 90, 90, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    if mode == "P":
        palette = Image.new("P", (2, 1), 1)
        palette.putpalette([0, 0, 0, 90, 90, 90])
        palette.putpixel((0, 0), 0)
        content = encoded(palette, transparency=0)
    else:
        content = encoded(image.convert(mode))
    assert pixels(read_image(content))[0].tolist() == [[255] * 3, [90] * 3]
    assert pixels(read_image(content, background=(1, 2, 3)))[0, 0].tolist() == [1, 2, 3]


def test_half_transparent_is_half_background():
    content = encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128)))
    assert abs(pixels(read_image(content))[0, 0, 0] - 127) <= 1


def test_orientation(tmp_path):
    image = Image.new("RGB", (20, 10))
    image.paste((255, 255, 255), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    image.save(tmp_path / "a.png", exif=exif)
    found = read_image(tmp_path / "a.png")
    assert found.size == (10, 20)
    assert size_of(tmp_path / "a.png") == (20, 10)
    assert pixels(found)[0, 0, 0] == 255
    assert pixels(found)[-1, 0, 0] == 0


def test_reads_paths_bytes_and_files(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(RAMP)))
    with path.open("rb") as file:
        assert read_image(path) == read_image(path.read_bytes()) == read_image(file)


def broken(folder):
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)))
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "good.png").write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut.png", r"cut.png is cut short or damaged"),
        ("text.jpg", r"text.jpg is not a picture that can be read\.$"),
        ("empty.jpg", r"empty.jpg is empty\.$"),
        ("missing.jpg", r"missing.jpg does not exist\.$"),
    ],
)
def test_unreadable_pictures_are_named(tmp_path, name, words):
    broken(tmp_path)
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=words):
            read(tmp_path / name)


def test_bytes_are_named_by_the_caller():
    with pytest.raises(UserError, match="^a/b.jpg in x.tar is not a picture"):
        read_image(b"abc", "a/b.jpg in x.tar")


def test_check_stops_or_skips(tmp_path, caplog):
    broken(tmp_path)
    paths = list_images(tmp_path)
    assert [path.name for path in paths] == ["cut.png", "empty.jpg", "good.png", "text.jpg"]
    with pytest.raises(UserError, match=r"empty.jpg is empty .2 pictures .*data.on_bad=skip"):
        check_images(paths, "stop")
    with caplog.at_level(logging.WARNING):
        # The header of the one cut short is whole.
        assert check_images(paths, "skip") == [0, 2]
    assert len(caplog.records) == 1
    assert "2 of 4 pictures are left out" in caplog.text
    assert "empty.jpg" in caplog.text and "text.jpg" in caplog.text
    with pytest.raises(UserError, match="none of 2 pictures"):
        check_images([paths[1], paths[3]], "skip")


def test_another_picture_stands_in_and_each_is_named_once(tmp_path, caplog):
    broken(tmp_path)
    paths = list_images(tmp_path)

    def read(index):
        read_image(paths[index])
        return index

    with caplog.at_level(logging.WARNING):
        assert [read_or_next(read, i, 4, "skip") for i in (0, 1, 2, 3)] == [2, 2, 2, 2]
        assert [read_or_next(read, i, 4, "skip") for i in (0, 1)] == [2, 2]
    assert len(caplog.records) == 3
    assert read_those(read, [0, 1, 2], 4, "skip") == [2]
    assert read_those(read, [0], 4, "skip") == [2]
    for helper in (
        lambda: read_or_next(read, 1, 4, "stop"),
        lambda: read_those(read, [1], 4, "stop"),
    ):
        with pytest.raises(UserError, match="empty.jpg is empty"):
            helper()


def test_list_leaves_out_hidden_and_other_files(tmp_path):
    for name in ("b/2.JPG", "a/1.png", ".hidden/3.png", "a/._1.png", "a/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a/1.png", "b/2.JPG"]
    with pytest.raises(UserError, match="nothing does not exist"):
        list_images(tmp_path / "nothing")


def test_masks_of_each_kind(tmp_path):
    values = np.array([[0, 3], [11, 255]], np.uint8)
    kinds = {
        "L": Image.fromarray(values),
        "P": Image.fromarray(values, "L").copy(),
        "I;16": Image.fromarray(values.astype(np.uint16) * 100),
    }
    # A palette whose colours have nothing to do with the ids.
    kinds["P"].putpalette([7] * 768)
    assert kinds["P"].mode == "P"
    for mode, image in kinds.items():
        image.save(tmp_path / "mask.png")
        found = read_mask(tmp_path / "mask.png")
        assert found.dtype == np.int64
        assert found.tolist() == (values.astype(int) * (100 if mode == "I;16" else 1)).tolist()
    Image.fromarray(values > 5).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("bits", [2, 4])
def test_masks_of_few_bits_keep_their_ids(tmp_path, bits):
    """PNG optimisers pack grey ids into fewer bits; readers for pictures stretch them."""

    def chunk(kind, content):
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    row = bytes([0, 0b00011011]) if bits == 2 else bytes([0, 0x03, 0xBF])
    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    (tmp_path / "a.png").write_bytes(
        content + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    )
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 2, 3] if bits == 2 else [0, 3, 11, 15]]


def test_coloured_mask(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a.png has 3 channels \(RGB\): a mask has one"):
        read_mask(tmp_path / "a.png")
