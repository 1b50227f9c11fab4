"""Trees of plain values, such as a config's, with something in them that nobody expects."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Path = tuple[Any, ...]
ODD: list[Any] = [
    *(None, True, False, -1, 0, 1, 3, 10**4, 10**9, 10**12, 10**30, -(10**9)),
    *(0.5, 2.5, -1.5, 1e-300, 1e300, math.inf, -math.inf, math.nan),
    *(
        "",
        "x",
        "yes",
        "1e-3",
        "0o17",
        "../x",
        "a\nb",
        "-",
        "--help",
        "é",
        "\ud800",
        "a" * 300,
        "1" * 1000,
    ),
    *("family.GPT", "os.system", "tasks.errors.UserError", "no.such.Class", "null", "[1", "{}"),
    *([], [1], [None], [[]], ["x"], [-1, 0], [10**9, 10**9], [1e300], {}, {"a": 1}, {"": None}),
    *(
        {"class_path": "os.system"},
        {"class_path": "family.BERT", "init_args": {}},
        {"init_args": 3},
    ),
]
"""Values that a field is not made for, or hardly."""
HERE = object()


def places(tree: Any, path: Path = ()) -> list[Path]:
    """The paths of all that stands in a tree, groups too."""
    items: Any = ()
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list | tuple):
        items = enumerate(tree)
    found = [path] if path else []
    return found + [one for name, value in items for one in places(value, (*path, name))]


def owner(tree: Any, path: Path) -> Any:
    """What holds the place; None where an earlier change took it away."""
    for name in path[:-1]:
        try:
            tree = tree[name]
        except (LookupError, TypeError):
            return None
    return tree if isinstance(tree, dict | list) else None


@st.composite
def changed(draw: Any, tree: Any, odd: list[Any] = ODD, most: int = 3, depth: int = 1) -> Any:
    """A tree with one to ``most`` places another value, removed, misspelt, doubled or put elsewhere."""
    tree, all_places = copy.deepcopy(tree), places(tree)
    tops = [path for path in all_places if len(path) <= depth]
    for _ in range(draw(st.sampled_from([1, 1, *range(1, most + 1)]))):
        top = draw(st.sampled_from(tops))  # those with much inside count no more than others
        path = draw(st.sampled_from([one for one in all_places if one[: len(top)] == top]))
        what = draw(st.sampled_from(["set"] * 6 + ["number", "remove", "rename", "other", "add"]))
        inside, name = owner(tree, path), path[-1]
        if inside is None or name not in (
            inside if isinstance(inside, dict) else range(len(inside))
        ):
            continue
        if what == "set":
            inside[name] = copy.deepcopy(draw(st.sampled_from(odd)))
        elif what == "number":
            inside[name] = draw(st.integers(-5, 100) | st.floats(-2, 2))
        elif what == "remove":
            inside.pop(name)
        elif what == "rename" and isinstance(inside, dict):
            inside[draw(st.sampled_from([f"{name}s", str(name)[1:], str(name).upper()]))] = (
                inside.pop(name)
            )
        elif what == "other":
            there = draw(st.sampled_from(all_places))
            held = owner(tree, there)
            with contextlib.suppress(LookupError, TypeError):
                inside[name] = copy.deepcopy(held[there[-1]])
        elif what == "add" and isinstance(inside, dict):
            inside[draw(st.sampled_from(["", "x", "dim", "class_path", "model", "self"]))] = 1
    return tree


def texts(text: str) -> SearchStrategy[bytes]:
    """A file's text as bytes, broken as files are: cut, flipped, doubled, in another encoding."""
    whole = text.encode()
    places = st.integers(0, max(0, len(whole) - 1))
    some = st.sampled_from(
        [b"\t", b"\x00", b"\xff", b"\n", b"{", b"}", b"[", b":", b"*a", b"&a ", b"!!python/object:os.system ",
         b"- ", b"'", b'"', b"%", b"@", b"---\n", b"\r", "\u2028".encode(), b"\xef\xbb\xbf", b"!!binary x"]
    )  # fmt: skip
    return st.one_of(
        places.map(lambda n: whole[:n]),
        st.tuples(places, some).map(lambda one: whole[: one[0]] + one[1] + whole[one[0] :]),
        st.tuples(places, some).map(lambda one: whole[: one[0]] + one[1] + whole[one[0] + 1 :]),
        st.tuples(places, places).map(lambda one: whole[: one[0]] + whole[one[1] :]),
        st.sampled_from(["utf-16", "utf-32", "utf-8-sig"]).map(lambda name: text.encode(name)),
        st.sampled_from(
            [
                b"",
                b"\x00" * 100,
                b"[" * 100_000,
                b"{" * 100_000,
                b"- " * 50_000,
                b"null",
                b"3",
                b"[]",
            ]
        ),
        st.just(whole + b"\n" + whole),
        st.just(BOMB.encode() + whole),
        st.binary(max_size=200),
    )


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
"""Lists of lists, which are two to the sixtieth where each is written out."""
