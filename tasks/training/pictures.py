"""Predictions as pictures to look at: sheets with captions, boxes, masks."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

GOOD, BAD, PLAIN = (20, 130, 60), (190, 40, 40), (40, 40, 40)
PAPER = (255, 255, 255)


def palette(count: int) -> list[tuple[int, int, int]]:
    """Colours that are easy to tell apart, the same for the same class everywhere."""
    colours = []
    for i in range(count):
        hue, value = (i * 0.618034) % 1, 0.95 if i % 2 else 0.75
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colours


def to_picture(pixels: Tensor) -> Image.Image:
    """``(3, height, width)`` uint8 as a picture."""
    return to_pil_image(pixels.cpu())


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Pillow's own font knows no accents."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def sheet(
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    colours: Sequence[tuple[int, int, int]] | None = None,
    columns: int = 4,
    side: int = 160,
) -> Image.Image:
    """Pictures in rows, each fitted into a cell of ``side`` pixels, with its caption below."""
    columns = max(1, min(columns, len(pictures)))
    letters = max(11, min(16, side // 12))
    captions = [wrap(caption, side, letters) for caption in captions]
    room = max((caption.count("\n") + 1 for caption in captions), default=1) * (letters + 3) + 6
    fitted = [fit(picture, side) for picture in pictures]
    tall = max((picture.height for picture in fitted), default=0)
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (side + 8) + 8, rows * (tall + room + 8) + 8), PAPER)
    drawing = ImageDraw.Draw(page)
    for i, (picture, caption) in enumerate(zip(fitted, captions, strict=True)):
        left, top = 8 + i % columns * (side + 8), 8 + i // columns * (tall + room + 8)
        page.paste(picture, (left, top))
        colour = PLAIN if colours is None else colours[i]
        for line, text in enumerate(caption.split("\n")):
            place = left, top + tall + 2 + line * (letters + 3)
            drawing.text(place, text, colour, font(letters))
    return page


def fit(picture: Image.Image, side: int) -> Image.Image:
    """Resized so that the longer side is ``side`` pixels."""
    ratio = side / max(picture.size)
    size = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
    # Small pictures grow by whole pixels, so that one sees what the model saw.
    return picture.resize(
        size, Image.Resampling.NEAREST if ratio >= 2 else Image.Resampling.BICUBIC
    )


def wrap(text: str, width: int, letters: int, most: int = 3) -> str:
    """Break each line between words to fit into ``width`` pixels: at most ``most`` lines of each."""
    measure, made = font(letters).getlength, []
    for line in text.split("\n"):
        rows = [""]
        for word in line.split():
            longer = f"{rows[-1]} {word}".strip()
            if rows[-1] and measure(longer) > width and len(rows) < most:
                rows.append(word)
            else:
                rows[-1] = longer
        made += [shorten(row, width, letters) for row in rows]
    return "\n".join(made)


def shorten(text: str, width: int, letters: int) -> str:
    """The beginning of a line that fits into ``width`` pixels."""
    measure = font(letters).getlength
    while text and measure(text) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text


def enlarged(picture: Image.Image, side: int = 384) -> tuple[Image.Image, int]:
    """A small picture grown by a whole factor, so that what is drawn on it can be read; the factor."""
    factor = max(1, side // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), 0), factor


def draw_boxes(
    picture: Image.Image,
    boxes: Tensor,
    classes: Sequence[int],
    names: Sequence[str],
    scores: Sequence[float] | None = None,
) -> Image.Image:
    """A copy with boxes ``(n, 4)`` x0, y0, x1, y1 in pixels, labels and scores."""
    picture = picture.convert("RGB")
    drawing = ImageDraw.Draw(picture)
    colours, letters = palette(len(names)), max(10, min(picture.size) // 32)
    for i, (box, kind) in enumerate(zip(boxes.tolist(), classes, strict=True)):
        x0, y0 = min(box[0], box[2]), min(box[1], box[3])
        colour = colours[kind]
        drawing.rectangle((x0, y0, max(box[0], box[2]), max(box[1], box[3])), None, colour, 2)
        text = names[kind] if scores is None else f"{names[kind]} {scores[i]:.2f}"
        place = x0, max(0, y0 - letters - 3)
        drawing.rectangle(drawing.textbbox(place, text, font(letters)), colour)
        drawing.text(place, text, PAPER, font(letters))
    return picture


def overlay(picture: Image.Image, classes: Tensor | np.ndarray, count: int) -> Image.Image:
    """A copy tinted by the class ``(height, width)`` of each pixel; others than 0..count-1 stay."""
    ids = np.asarray(classes)
    tints = np.asarray(palette(count), np.uint8)
    known = (ids >= 0) & (ids < count)
    pixels = np.asarray(picture.convert("RGB").resize((ids.shape[1], ids.shape[0])))
    tinted = (0.4 * pixels + 0.6 * tints[np.where(known, ids, 0)]).astype(np.uint8)
    return Image.fromarray(np.where(known[..., None], tinted, pixels))


def mask_picture(classes: np.ndarray, ids: Sequence[int]) -> Image.Image:
    """A mask file of the class ``(height, width)`` of each pixel: its values are the classes' ids in the
    data; coloured by class where they are below 256, else of 16 bits."""
    outside = np.asarray(ids)[classes]
    if max(ids) > 255:
        return Image.fromarray(outside.astype(np.uint16))
    mask = Image.fromarray(outside.astype(np.uint8), "P")
    colours = np.zeros((256, 3), np.uint8)
    colours[list(ids)] = palette(len(ids))
    mask.putpalette(colours.flatten().tolist())
    return mask


def legend(names: Sequence[str], width: int = 640) -> Image.Image:
    """The colour of each class."""
    letters, columns = 13, max(1, width // 130)
    rows = -(-len(names) // columns)
    strip = Image.new("RGB", (width, rows * (letters + 8) + 6), PAPER)
    drawing = ImageDraw.Draw(strip)
    for i, (name, colour) in enumerate(zip(names, palette(len(names)), strict=True)):
        x, y = i % columns * 130 + 6, i // columns * (letters + 8) + 4
        drawing.rectangle((x, y, x + letters, y + letters), colour)
        drawing.text((x + letters + 5, y - 2), shorten(name, 105, letters), PLAIN, font(letters))
    return strip


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """One below the other."""
    page = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER
    )
    top = 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height
    return page


def class_map(logits: Tensor) -> Tensor:
    """``(..., classes, height, width)`` to the likeliest class of each pixel, on the CPU."""
    kind = torch.uint8 if logits.shape[-3] <= 256 else torch.int32
    return logits.argmax(-3).to(kind).cpu()
