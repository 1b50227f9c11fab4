"""Fields in quotes: read as such by option, in every reader of tab-separated tables."""

from __future__ import annotations

import pytest
from PIL import Image

from tasks.data.image_text import ImageTextData
from tasks.data.text_classification import TextClassificationData
from tasks.data.translation import TranslationData
from tasks.errors import UserError

NAMES = ("train", "val")
FIELD, SAID = '"a ""fine""\tfilm,\nthe end"', 'a "fine"\tfilm,\nthe end'


def read_translation(root, field, **options):
    for name in NAMES:
        (root / f"{name}.tsv").write_text(f"fr\ten\nbon\t{field}\n")
    return TranslationData(str(root), **options).pairs("train")[0][1]


def read_bare_translation(root, field, **options):
    for name in NAMES:
        (root / f"{name}.tsv").write_text(f"bon\t{field}\n")
    return TranslationData(str(root), **options).pairs("train")[0][1]


def read_captioned(root, field, **options):
    Image.new("RGB", (8, 8)).save(root / "a.png")
    for name in NAMES:
        (root / f"{name}.tsv").write_text(f"file\tcaption\na.png\t{field}\n")
    return ImageTextData(str(root), **options).pairs("train").texts[0]


def read_labelled(root, field, **options):
    for name in NAMES:
        (root / f"{name}.tsv").write_text(f"text\tlabel\n{field}\tgood\n")
    return TextClassificationData(str(root), **options).rows("train")[0].text


def read_bare_labelled(root, field, **options):
    for name in NAMES:
        (root / f"{name}.tsv").write_text(f"{field}\tgood\n")
    return TextClassificationData(str(root), **options).rows("train")[0].text


READERS = [
    read_translation,
    read_bare_translation,
    read_captioned,
    read_labelled,
    read_bare_labelled,
]


@pytest.mark.parametrize("read", READERS)
def test_quotes_are_read_as_such_by_option_alone(tmp_path, read):
    assert read(tmp_path, FIELD, quotes=True) == SAID
    assert read(tmp_path, "fine", quotes=True) == read(tmp_path, "fine") == "fine"
    # A quote in the middle of a field is one in either case; so is one at its begin by default.
    assert read(tmp_path, 'of 5" or', quotes=True) == read(tmp_path, 'of 5" or') == 'of 5" or'
    for field in ('"fine', '"fine" film', '"fine"'):
        assert read(tmp_path, field) == field


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("field", ['"fine', '"fine" film'])
def test_quotes_that_do_not_end_are_named(tmp_path, read, field):
    with pytest.raises(UserError, match=r"train.tsv line \d cannot be read: .*\.$"):
        read(tmp_path, field, quotes=True)


def test_names_of_columns_may_stand_in_quotes(tmp_path):
    for name in NAMES:
        (tmp_path / f"{name}.tsv").write_text('"en"\t"fr"\nred\trouge\n')
    assert TranslationData(str(tmp_path), quotes=True).pairs("train") == [("rouge", "red")]
    (tmp_path / "train.tsv").write_text('"label"\t"text"\ngood\tfine\n')
    (row,) = TextClassificationData(str(tmp_path), quotes=True).rows("train")
    assert row[:2] == ("fine", "good")
