"""BLEU-4 and CIDEr-D: the figures of the published script (pycocoevalcap 1.2 with Stanford's tokenizer), which were
worked out once on these sentences."""

import pytest

from tasks.training.caption_scores import caption_scores, cider, n_grams, words

MADE = [
    "A man riding a wave on top of a surfboard.",
    "A cat is sitting on the sofa.",
    "Two dogs playing with a ball in the park",
    "a bowl of soup and a spoon",
]
TRUE = [
    ["A man rides a big wave on his surfboard.", "A surfer's riding a wave!", "man on a surfboard"],
    ["A cat sleeps on a sofa (grey).", "The cat isn't sitting on the sofa."],
    ["Two dogs play with a ball in the park, at 10:30."],
    ["Soup in a bowl beside a spoon.", "A bowl of soup & a silver spoon."],
]

CIDER, BLEU = 3.4678131981850346, 44.541152191128695
EACH = [1.620468646620226, 3.2717651755567827, 5.552133625415227, 3.426885345147903]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("It's a T-shirt, isn't it?", "it 's a t-shirt is n't it"),
        ("(yes) 3.5 and 2,500 at 11:27...", "-lrb- yes -rrb- 3.5 and 2,500 at 11:27"),
        (
            "St. Patrick’s “day”, the '90s in the U.S. army",
            "st. patrick 's day the '90s in the u.s. army",
        ),
        ("Texas A&amp;M; red &amp; blue", "texas a&m red & blue"),
        ("", ""),
    ],
)
def test_words_are_cut_as_the_published_script_cuts_them(text, cut):
    assert words(text) == cut


def test_the_published_figures():
    found = caption_scores(MADE, TRUE)
    assert found["cider"][0] == pytest.approx(CIDER, abs=1e-9)
    assert found["bleu"][0] == pytest.approx(BLEU, abs=1e-6)
    each = cider([words(one) for one in MADE], [[words(t) for t in some] for some in TRUE])
    assert each == pytest.approx(EACH, abs=1e-9)


def test_a_sentence_that_is_its_only_reference_has_ten():
    true = ["two red circles and a star here", "a blue cross below the heart"]
    assert cider(true, [[one] for one in true]) == pytest.approx([10, 10])
    assert cider(true[::-1], [[one] for one in true]) == pytest.approx([0, 0])
    assert [len(counts) for counts in n_grams("a b c")] == [3, 2, 1, 0]


def test_a_picture_without_reference_is_refused():
    with pytest.raises(ValueError, match="picture 1 has no reference"):
        cider(["a", "b"], [["a"], []])
