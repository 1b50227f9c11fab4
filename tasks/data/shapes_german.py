"""German for the built-in world: three genders, and cases that articles, adjectives and nouns show."""

from __future__ import annotations

# Gender, singular, plural.
NOUNS = {
    "circle": ("m", "Kreis", "Kreise"),
    "square": ("n", "Quadrat", "Quadrate"),
    "triangle": ("n", "Dreieck", "Dreiecke"),
    "star": ("m", "Stern", "Sterne"),
    "diamond": ("f", "Raute", "Rauten"),
    "cross": ("n", "Kreuz", "Kreuze"),
    "heart": ("n", "Herz", "Herzen"),
    "hexagon": ("n", "Sechseck", "Sechsecke"),
}
ADJECTIVES = {
    "red": "rot",
    "green": "grün",
    "blue": "blau",
    "yellow": "gelb",
    "purple": "lila",
    "orange": "orange",
    "white": "weiß",
    "black": "schwarz",
    "small": "klein",
    "large": "groß",
}
STIFF = ("lila", "orange")
"""Adjectives that take no endings."""
NUMBERS = {2: "zwei", 3: "drei", 4: "vier"}
ARTICLES = {
    ("nominative", False): {"m": "ein", "n": "ein", "f": "eine"},
    ("accusative", False): {"m": "einen", "n": "ein", "f": "eine"},
    ("dative", False): {"m": "einem", "n": "einem", "f": "einer"},
    ("nominative", True): {"m": "der", "n": "das", "f": "die"},
    ("dative", True): {"m": "dem", "n": "dem", "f": "der"},
}
ENDINGS = {
    ("nominative", False): {"m": "er", "n": "es", "f": "e"},
    ("accusative", False): {"m": "en", "n": "es", "f": "e"},
    ("nominative", True): {"m": "e", "n": "e", "f": "e"},
}
"""Of adjectives; in the dative all are "en"."""
BACKGROUNDS = {"grey": "grauem", "beige": "beigem", "teal": "blaugrünem"}
PLACES = {
    (0, 0): "in der linken oberen Ecke",
    (0, 1): "oben",
    (0, 2): "in der rechten oberen Ecke",
    (1, 0): "links",
    (1, 1): "in der Mitte",
    (1, 2): "rechts",
    (2, 0): "in der linken unteren Ecke",
    (2, 1): "unten",
    (2, 2): "in der rechten unteren Ecke",
}
RELATIONS = {"left": "links von", "right": "rechts von", "above": "über", "below": "unter"}
"""All with the dative; ``von dem`` contracts."""


def german(
    shape: str, colour: str, size: str, count: int, case: str = "nominative", definite: bool = False
) -> str:
    """ "zwei kleine rote Sterne", "einem kleinen roten Stern", "der kleine rote Stern".

    Args:
        case: "nominative", "accusative" (no definite one) or "dative".
        definite: of one alone.
    """
    gender, noun, plural = NOUNS[shape]
    article, ending = NUMBERS.get(count, ""), "en" if case == "dative" else "e"
    if count == 1:
        article = ARTICLES[case, definite][gender]
        ending = "en" if case == "dative" else ENDINGS[case, definite][gender]
    else:
        noun = plural + "n" * (case == "dative" and not plural.endswith("n"))
    words = [
        word if word in STIFF else word + ending for word in (ADJECTIVES[size], ADJECTIVES[colour])
    ]
    return " ".join([article, *words, noun])


def beside(how: str, shape: str, colour: str, size: str) -> str:
    """ "links vom großen weißen Quadrat"."""
    there = german(shape, colour, size, 1, "dative", definite=True)
    return f"{RELATIONS[how]} {there}".replace("von dem ", "vom ")


def listed(parts: list[str]) -> str:
    """ "a, b und c"."""
    return f"{', '.join(parts[:-1])} und {parts[-1]}"
