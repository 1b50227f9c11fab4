"""The built-in world: small scenes of coloured shapes, with everything about them known.

From one seed come the picture, its boxes, its mask, its class, a caption in English, French and German,
and questions with answers. French agrees in gender and number, puts colours after the noun and contracts
``de le`` to ``du``, German has cases: a word-by-word table gets it wrong.
"""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from tasks.data import shapes_german

SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "heart", "hexagon")
CLASSES = SHAPES
"""Class ids of labels and boxes; in masks, 0 is the background and class k is k + 1."""
COLOURS = {
    "red": (214, 48, 49),
    "green": (39, 150, 75),
    "blue": (47, 90, 200),
    "yellow": (245, 205, 50),
    "purple": (142, 68, 173),
    "orange": (240, 130, 30),
    "white": (250, 250, 250),
    "black": (25, 25, 25),
}
BACKGROUNDS = {"grey": (150, 150, 150), "beige": (215, 200, 170), "teal": (90, 135, 140)}
SIZES = {"small": 0.55, "large": 0.92}
"""Side of an object as a share of its cell; the picture is a grid of 3 x 3 cells."""
SPLITS = {"train": range(8), "val": range(8, 9), "test": range(9, 10)}
"""Which tenth of all sentences belongs to which split."""
LANGUAGES = ("en", "fr", "de")
"""Of the sentences."""

# French: (singular, plural, feminine?)
NOUNS_FR = {
    "circle": ("cercle", "cercles", False),
    "square": ("carré", "carrés", False),
    "triangle": ("triangle", "triangles", False),
    "star": ("étoile", "étoiles", True),
    "diamond": ("losange", "losanges", False),
    "cross": ("croix", "croix", True),
    "heart": ("cœur", "cœurs", False),
    "hexagon": ("hexagone", "hexagones", False),
}
PLURALS_EN = {"cross": "crosses"}
# French adjectives: masculine, feminine, masculine plural, feminine plural.
ADJECTIVES_FR = {
    "red": ("rouge", "rouge", "rouges", "rouges"),
    "green": ("vert", "verte", "verts", "vertes"),
    "blue": ("bleu", "bleue", "bleus", "bleues"),
    "yellow": ("jaune", "jaune", "jaunes", "jaunes"),
    "purple": ("violet", "violette", "violets", "violettes"),
    "orange": ("orange", "orange", "orange", "orange"),
    "white": ("blanc", "blanche", "blancs", "blanches"),
    "black": ("noir", "noire", "noirs", "noires"),
    "small": ("petit", "petite", "petits", "petites"),
    "large": ("grand", "grande", "grands", "grandes"),
}
NUMBERS = {1: ("a", "un"), 2: ("two", "deux"), 3: ("three", "trois"), 4: ("four", "quatre")}
PLACES = {
    (0, 0): ("in the top left corner", "dans le coin supérieur gauche"),
    (0, 1): ("at the top", "en haut"),
    (0, 2): ("in the top right corner", "dans le coin supérieur droit"),
    (1, 0): ("on the left", "à gauche"),
    (1, 1): ("in the middle", "au milieu"),
    (1, 2): ("on the right", "à droite"),
    (2, 0): ("in the bottom left corner", "dans le coin inférieur gauche"),
    (2, 1): ("at the bottom", "en bas"),
    (2, 2): ("in the bottom right corner", "dans le coin inférieur droit"),
}
RELATIONS = {
    "left": ("to the left of", "à gauche de"),
    "right": ("to the right of", "à droite de"),
    "above": ("above", "au-dessus de"),
    "below": ("below", "au-dessous de"),
}


@dataclass(frozen=True)
class ShapeObject:
    """One shape in a cell of the grid; ``row`` and ``column`` are 0 to 2 from the top left."""

    shape: str
    colour: str
    size: str
    row: int
    column: int


@dataclass(frozen=True)
class Scene:
    """One to four groups of like objects, at most nine objects; ``groups`` index ``objects``."""

    objects: tuple[ShapeObject, ...]
    background: str
    template: int


@dataclass(frozen=True)
class Question:
    """A question about a scene and its right answer, in English."""

    text: str
    answer: str


def sample(index: int, seed: int = 0, split: str = "train") -> Scene:
    """Scene ``index`` of a split: the same on every machine, reached without drawing the others."""
    draw_from = random.Random(f"{split}-{seed}-{index}")
    kinds: list[tuple[str, str, str]] = []
    for _ in range(draw_from.choice((1, 2, 2, 3))):
        kind = (
            draw_from.choice(SHAPES),
            draw_from.choice(list(COLOURS)),
            draw_from.choice(list(SIZES)),
        )
        if kind not in kinds:
            kinds.append(kind)
    cells = [(row, column) for row in range(3) for column in range(3)]
    draw_from.shuffle(cells)
    objects = []
    for kind in kinds:
        for _ in range(draw_from.choice((1, 1, 1, 2, 3))):
            objects.append(ShapeObject(*kind, *cells.pop()))
    background = draw_from.choice(list(BACKGROUNDS))
    return Scene(tuple(objects), background, draw_from.randrange(1 << 16))


# --- The picture -----------------------------------------------------------------------------


def outline(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """The corners of a shape around a centre, in pixels."""
    if shape == "square":
        corners = [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    elif shape == "diamond":
        corners = [(0, -1), (0.7, 0), (0, 1), (-0.7, 0)]
    elif shape == "triangle":
        corners = [(0, -0.95), (0.95, 0.8), (-0.95, 0.8)]
    elif shape == "cross":
        a, b = 0.32, 0.95
        corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        corners += [(a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    elif shape == "heart":
        turns = np.linspace(0, 2 * math.pi, 60, endpoint=False)
        xs = 16 * np.sin(turns) ** 3
        ys = 13 * np.cos(turns) - 5 * np.cos(2 * turns) - 2 * np.cos(3 * turns) - np.cos(4 * turns)
        corners = list(zip((xs / 17).tolist(), (-ys / 17).tolist(), strict=True))
    else:
        count = {"star": 10, "hexagon": 6, "circle": 72}[shape]
        corners = []
        for i in range(count):
            reach = 0.42 if shape == "star" and i % 2 else 1.0
            angle = 2 * math.pi * i / count - math.pi / 2
            corners.append((reach * math.cos(angle), reach * math.sin(angle)))
    return [(x + radius * dx, y + radius * dy) for dx, dy in corners]


def _mask(thing: ShapeObject, side: int) -> Image.Image:
    """The object's cover of the picture, 0 to 255, antialiased."""
    return _cover(thing.shape, SIZES[thing.size], thing.row, thing.column, side)


@lru_cache(maxsize=1024)  # there are 144 in pictures of one size
def _cover(shape: str, reach: float, row: int, column: int, side: int) -> Image.Image:
    canvas = Image.new("L", (4 * side, 4 * side))
    cell = 4 * side / 3
    centre = (column + 0.5) * cell, (row + 0.5) * cell
    ImageDraw.Draw(canvas).polygon(outline(shape, *centre, reach * cell / 2), fill=255)
    return canvas.resize((side, side), Image.Resampling.BOX)


def draw(scene: Scene, image_size: int = 96) -> Image.Image:
    """The picture, RGB, ``image_size`` pixels square."""
    image = Image.new("RGB", (image_size, image_size), BACKGROUNDS[scene.background])
    for thing in scene.objects:
        image.paste(COLOURS[thing.colour], mask=_mask(thing, image_size))
    return image


def instances(scene: Scene, image_size: int = 96) -> np.ndarray:
    """``(image_size, image_size)`` uint8: 0 background, k + 1 where object k covers half."""
    mask = np.zeros((image_size, image_size), np.uint8)
    for number, thing in enumerate(scene.objects, 1):
        mask[np.asarray(_mask(thing, image_size)) >= 128] = number
    return mask


def kinds(scene: Scene) -> list[int]:
    """Of each value of :func:`instances` that of :func:`segmentation`."""
    return [0, *(SHAPES.index(thing.shape) + 1 for thing in scene.objects)]


def segmentation(scene: Scene, image_size: int = 96) -> np.ndarray:
    """``(image_size, image_size)`` uint8: 0 background, class + 1 where an object covers half."""
    return np.array(kinds(scene), np.uint8)[instances(scene, image_size)]


def boxes(scene: Scene, image_size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Boxes ``(objects, 4)`` as x0, y0, x1, y1 in pixels around the mask, and classes ``(objects)``."""
    found = []
    for thing in scene.objects:
        rows, columns = np.nonzero(np.asarray(_mask(thing, image_size)) >= 128)
        found.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    classes = np.array([SHAPES.index(thing.shape) for thing in scene.objects])
    return np.array(found, np.float32), classes


def label(scene: Scene) -> int:
    """The class of the picture: the shape that covers the largest area, the first among equals."""
    areas = dict.fromkeys(SHAPES, 0.0)
    for thing in scene.objects:
        areas[thing.shape] += SIZES[thing.size] ** 2
    return SHAPES.index(max(areas, key=lambda shape: areas[shape]))


# --- The words -------------------------------------------------------------------------------


def groups(scene: Scene) -> list[list[ShapeObject]]:
    """Objects alike in shape, colour and size, in the order of their first."""
    found: dict[tuple[str, str, str], list[ShapeObject]] = {}
    for thing in scene.objects:
        found.setdefault((thing.shape, thing.colour, thing.size), []).append(thing)
    return list(found.values())


def english(thing: ShapeObject, count: int, article: str | None = None) -> str:
    """ "two small red stars"; ``article`` in place of the number."""
    noun = PLURALS_EN.get(thing.shape, f"{thing.shape}s") if count > 1 else thing.shape
    return f"{article or NUMBERS[count][0]} {thing.size} {thing.colour} {noun}"


def french(thing: ShapeObject, count: int, definite: bool = False) -> str:
    """ "deux petites étoiles rouges": size before, colour after, both agreeing."""
    singular, plural, feminine = NOUNS_FR[thing.shape]
    form = int(feminine) + 2 * (count > 1)
    size, colour = ADJECTIVES_FR[thing.size][form], ADJECTIVES_FR[thing.colour][form]
    article = NUMBERS[count][1] + ("e" if feminine and count == 1 else "")
    if definite:
        article = "les" if count > 1 else "la" if feminine else "le"
    return f"{article} {size} {plural if count > 1 else singular} {colour}"


def french_of(phrase: str) -> str:
    """``de`` before a phrase, contracted: du, des."""
    for article, contracted in (("le ", "du "), ("les ", "des ")):
        if phrase.startswith(article):
            return contracted + phrase.removeprefix(article)
    return f"de {phrase}"


def relation(one: ShapeObject, other: ShapeObject) -> str:
    """How ``one`` stands to ``other``: the larger of the two distances decides."""
    down, right = one.row - other.row, one.column - other.column
    if abs(right) >= abs(down):
        return "right" if right > 0 else "left"
    return "below" if down > 0 else "above"


def caption(scene: Scene, language: str = "en") -> str:
    """One sentence about the scene; all languages say the same."""
    return sentences(scene)[language]


def captions(scene: Scene) -> tuple[str, str]:
    """The sentence in English and in French."""
    said = sentences(scene)
    return said["en"], said["fr"]


def sentences(scene: Scene) -> dict[str, str]:
    """The sentence in each language; ``scene.template`` chooses among those that are true."""
    parts = groups(scene)
    first, count = parts[0][0], len(parts[0])
    singles = [group[0] for group in parts if len(group) == 1]
    kinds = ["both", "there are both", "background"] if len(parts) > 1 else []
    kinds += ["beside", "is beside"] if len(singles) > 1 else []
    kinds += ["there is", "is placed"] if count == 1 else []
    kinds.append("picture")
    kind = kinds[scene.template % len(kinds)]
    said = english(first, count), french(first, count), german_of(first, count)
    if kind in ("both", "there are both"):
        en, fr = ([phrase(g[0], len(g)) for g in parts] for phrase in (english, french))
        case = "nominative" if kind == "both" else "accusative"
        de = [german_of(g[0], len(g), case) for g in parts]
        made = (
            f"{', '.join(en[:-1])} and {en[-1]}",
            f"{', '.join(fr[:-1])} et {fr[-1]}",
            shapes_german.listed(de),
        )
        if kind == "there are both":
            is_are = "is" if count == 1 else "are"
            made = f"there {is_are} {made[0]}", f"il y a {made[1]}", f"es gibt {made[2]}"
    elif kind == "background":
        painted = "peint" + "e" * NOUNS_FR[first.shape][2] + "s" * (count > 1)
        background = {"grey": "gris", "beige": "beige", "teal": "bleu canard"}[scene.background]
        made = (
            f"{said[0]} painted on a {scene.background} background",
            f"{said[1]} {painted} sur un fond {background}",
            f"{said[2]} vor {shapes_german.BACKGROUNDS[scene.background]} Hintergrund",
        )
    elif kind in ("beside", "is beside"):
        one, other = singles[:2]
        how = relation(one, other)
        words = RELATIONS[how]
        far_fr = f"{words[1].removesuffix(' de')} {french_of(french(other, 1, definite=True))}"
        far_de = shapes_german.beside(how, other.shape, other.colour, other.size)
        made = (
            f"{english(one, 1)} {words[0]} {english(other, 1, 'the')}",
            f"{french(one, 1)} {far_fr}",
            f"{german_of(one, 1)} {far_de}",
        )
        if kind == "is beside":
            made = (
                f"{english(one, 1, 'the')} is {words[0]} {english(other, 1, 'the')}",
                f"{french(one, 1, definite=True)} est {far_fr}",
                f"{german_of(one, 1, definite=True)} ist {far_de}",
            )
    elif kind in ("there is", "is placed"):
        place = *PLACES[first.row, first.column], shapes_german.PLACES[first.row, first.column]
        made = (
            f"there is {said[0]} {place[0]}",
            f"il y a {said[1]} {place[1]}",
            f"es gibt {german_of(first, 1, 'accusative')} {place[2]}",
        )
        if kind == "is placed":
            placed = "placée" if NOUNS_FR[first.shape][2] else "placé"
            made = (
                f"{english(first, 1, 'the')} is placed {place[0]}",
                f"{french(first, 1, definite=True)} est {placed} {place[1]}",
                f"{german_of(first, 1, definite=True)} liegt {place[2]}",
            )
    else:
        made = (
            f"a picture of {said[0]}",
            f"une image {french_elided(said[1])}",
            f"ein Bild von {german_of(first, count, 'dative')}",
        )
    return dict(zip(LANGUAGES, made, strict=True))


def german_of(
    thing: ShapeObject, count: int, case: str = "nominative", definite: bool = False
) -> str:
    """See :func:`~tasks.data.shapes_german.german`."""
    return shapes_german.german(thing.shape, thing.colour, thing.size, count, case, definite)


def french_elided(phrase: str) -> str:
    """``de`` before an indefinite phrase: d'un, d'une, de deux."""
    return f"d'{phrase}" if phrase.startswith("un") else f"de {phrase}"


def translation_pairs(count: int, seed: int = 0, split: str = "train") -> list[tuple[str, str]]:
    """``count`` pairs of a French sentence and its English translation."""
    found = parallel(count, seed, split)
    return list(zip(found["fr"], found["en"], strict=True))


def parallel(count: int, seed: int = 0, split: str = "train") -> dict[str, list[str]]:
    """``count`` sentences in each language, line by line.

    Each English sentence belongs to one split alone, by its hash: none of val or test was trained on.
    """
    found: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    index = 0
    while len(found["en"]) < count:
        said = sentences(sample(index, seed, split))
        if zlib.crc32(said["en"].encode()) % 10 in SPLITS[split]:
            for language, texts in found.items():
                texts.append(said[language])
        index += 1
    return found


def questions(scene: Scene) -> list[Question]:
    """Questions of several kinds: number, colour, existence, place."""
    asked = []
    for colour in sorted({thing.colour for thing in scene.objects}):
        number = sum(thing.colour == colour for thing in scene.objects)
        asked.append(Question(f"how many {colour} shapes are there?", str(number)))
    names = [thing.shape for thing in scene.objects]
    for thing in scene.objects:
        if names.count(thing.shape) == 1:
            asked.append(Question(f"what colour is the {thing.shape}?", thing.colour))
            asked.append(Question(f"is the {thing.shape} small or large?", thing.size))
            place = PLACES[thing.row, thing.column][0]
            asked.append(Question(f"where is the {thing.shape}?", place))
    for shape in SHAPES:
        asked.append(Question(f"is there a {shape}?", "yes" if shape in names else "no"))
    return asked
