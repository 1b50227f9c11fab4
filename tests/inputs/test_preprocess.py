"""``model.preprocess`` takes what the commands take, with the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from family.inputs.pictures import as_picture
from family.inputs.preprocess import Preprocess

OURS = Preprocess((8, 8), background=(10, 200, 30))
MODES = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "I",
    "F",
    "La",
    "RGBa",
)


def picture(mode):
    values = np.random.default_rng(0).integers(0, 256, (12, 20, 4), dtype=np.uint8)
    whole = Image.fromarray(values)
    if mode in ("La", "RGBa"):
        return whole.convert("LA" if mode == "La" else "RGBA").convert(mode)
    if mode in ("I", "F"):
        return whole.convert("L").convert(mode)
    return (
        whole.convert("RGB").convert(mode)
        if mode not in ("RGBA", "LA", "PA")
        else whole.convert(mode)
    )


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode):
    image = picture(mode)
    expected = OURS.normalise(OURS.resize(as_picture(image, OURS.background)))
    assert expected.shape == (3, 8, 8)
    assert torch.equal(OURS(image), expected)


def save(image, file, **options):
    image.save(file, **options)
    return file


def test_files_opened_and_by_their_paths(tmp_path):
    """Transparent, 16 bits, of a palette with a transparent colour, and turned by EXIF."""
    grey = np.random.default_rng(0).integers(0, 65536, (12, 20), dtype=np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        save(picture("RGBA"), tmp_path / "clear.png"),
        save(Image.fromarray(grey), tmp_path / "grey.png"),
        save(picture("P"), tmp_path / "palette.png", transparency=0),
        save(picture("RGB"), tmp_path / "turned.jpg", exif=turned),
    ]
    for file in files:
        # What the commands show to a model.
        expected = OURS.normalise(OURS.resize(as_picture(file, OURS.background)))
        for given in (file, str(file), Image.open(file)):
            assert torch.equal(OURS(given), expected), file


def test_tensors_and_what_is_no_picture(tmp_path):
    image = picture("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert OURS(pixels).shape == (3, 8, 8)
    with pytest.raises(ValueError, match="a list is no picture"):
        OURS([1])
    with pytest.raises(ValueError, match="does not exist"):
        OURS(tmp_path / "none.png")
    file = save(image, tmp_path / "cut.png")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="cut short"):
        OURS(Image.open(file))
