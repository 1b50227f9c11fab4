"""Data divided into splits: shares of each class, groups whole, the same everywhere."""

from __future__ import annotations

from collections import Counter

import pytest

from tasks.data.splits import divide, divide_by_name
from tasks.data.text_classification import TextClassificationData
from tasks.data.translation import TranslationData
from tasks.errors import UserError

SHARES = {"val": 0.1, "test": 0.2}


def rows(count):
    """Nine of ten are of one class."""
    return ["rare" if i % 10 == 0 else "usual" for i in range(count)]


def test_every_class_gives_its_share_and_every_row_is_in_one_split():
    labels = rows(500)
    parts = divide(labels, [str(i) for i in range(500)], SHARES, 0)
    assert sorted(i for part in parts.values() for i in part) == list(range(500))
    assert Counter(labels[i] for i in parts["val"]) == {"usual": 45, "rare": 5}
    assert Counter(labels[i] for i in parts["test"]) == {"usual": 90, "rare": 10}


def test_the_seed_alone_chooses_not_the_order_of_the_rows():
    names = [f"row {i}" for i in range(200)]
    labels = rows(200)
    one = {names[i] for i in divide(labels, names, SHARES, 3)["val"]}
    back = {names[::-1][i] for i in divide(labels[::-1], names[::-1], SHARES, 3)["val"]}
    other = {names[i] for i in divide(labels, names, SHARES, 4)["val"]}
    assert one == back and one != other


def test_groups_stay_together_while_classes_keep_their_shares():
    labels = rows(1200)
    groups = [str(i // 7) for i in range(1200)]  # each of seven rows
    parts = divide(labels, groups, SHARES, 1)
    homes = {split: {groups[i] for i in part} for split, part in parts.items()}
    assert not homes["train"] & homes["val"] and not homes["test"] & homes["val"]
    assert not homes["train"] & homes["test"]
    for split, share in SHARES.items():
        count = Counter(labels[i] for i in parts[split])
        assert abs(count["usual"] - share * 1080) <= 7 and abs(count["rare"] - share * 120) <= 2


def test_classes_too_small_for_a_share_count_as_one():
    labels = [f"class {i % 4}" for i in range(20)]
    parts = divide(labels, [str(i) for i in range(20)], SHARES, 0)
    assert (len(parts["val"]), len(parts["test"])) == (2, 4) and len(parts["train"]) == 14
    assert len({labels[i] for i in parts["test"]}) == 4  # which are large enough for this one


def test_by_name_nothing_moves_when_rows_are_added():
    names = [f"row {i}" for i in range(2000)]
    few, many = divide_by_name(names[:1000], SHARES), divide_by_name(names, SHARES)
    assert all({*few[split]} <= {*many[split]} for split in few)
    assert sorted(i for part in many.values() for i in part) == list(range(2000))
    assert 150 < len(many["val"]) < 250 and 300 < len(many["test"]) < 500
    with pytest.raises(UserError, match="data.val_fraction=0 of 3 examples|leaves none for val"):
        divide_by_name(["a", "b", "c"], {"val": 1e-9})


def test_a_split_without_rows_is_refused():
    with pytest.raises(UserError, match="data.val_fraction=0.1 of 4 examples leaves none for val"):
        divide(["a", "b", "a", "b"], list("1234"), {"val": 0.1}, 0)
    with pytest.raises(UserError, match="0.5 of 9 examples leaves none for val"):
        divide(["a"] * 9, ["all"] * 9, {"val": 0.5}, 0)
    assert divide(["a", "a"], list("12"), {"val": 0.5, "test": 0}, 0)["test"] == []


def test_one_file_of_translations_is_divided(tmp_path):
    pairs = [(f"phrase {i // 2}", f"sentence {i}") for i in range(200)]
    table = "".join(f"{left}\t{right}\n" for left, right in pairs)
    (tmp_path / "all.tsv").write_text("fr\ten\n" + table)
    made = TranslationData(str(tmp_path / "all.tsv"), test_fraction=0.2)
    parts = {split: made.pairs(split) for split in ("train", "val", "test")}
    assert sorted(pair for part in parts.values() for pair in part) == sorted(pairs)
    assert [len(part) for part in parts.values()] == [140, 20, 40]
    sources = [{left for left, _ in part} for part in parts.values()]
    assert not sources[0] & sources[1] and not sources[0] & sources[2]
    assert not sources[1] & sources[2]

    # Two files, line by line, of training alone.
    for side, ending in enumerate(("fr", "en")):
        lines = "".join(pair[side] + "\n" for pair in pairs)
        (tmp_path / f"train.{ending}").write_text(lines)
    made = TranslationData(str(tmp_path))
    assert [len(made.pairs(split)) for split in ("train", "val")] == [180, 20]
    with pytest.raises(UserError, match="no files of the split data.test='test'"):
        made.pairs("test")


def table(root, name, rows=40, labels="ab"):
    lines = [f"text {i}\t{labels[i % len(labels)]}\n" for i in range(rows)]
    (root / name).write_text("text\tlabel\n" + "".join(lines))
    return lines


def texts(root, **options):
    return TextClassificationData(str(root), tokenizer="char", **options)


@pytest.mark.parametrize("name", ["test", "val", "valid"])
def test_a_table_that_is_called_as_a_split_is_that_split(tmp_path, name):
    table(tmp_path, f"{name}.tsv")
    assert len(texts(tmp_path).rows("test" if name == "test" else "val")) == 40
    with pytest.raises(UserError, match="has no train.tsv"):
        texts(tmp_path).rows("train")


def test_a_part_says_which_rows_of_the_table_it_has(tmp_path):
    lines = table(tmp_path, "all.tsv")
    pairs = [f"phrase {i}\tsentence {i}" for i in range(40)]
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs/all.tsv").write_text("\n".join(pairs))
    for made, rows, name in (
        (texts(tmp_path), [line.split("\t")[0] for line in lines], "text"),
        (
            TranslationData(str(tmp_path / "pairs/all.tsv"), tokenizer="char"),
            [pair.split("\t")[0] for pair in pairs],
            "source_text",
        ),
    ):
        seen = []
        for split in ("val", "test"):
            for batch in made.loader(split):
                assert [rows[line] for line in batch["line"]] == batch[name]
                seen += batch["line"]
        assert len(set(seen)) == len(seen) == 8


def test_every_class_of_a_divided_table_is_one(tmp_path):
    # All of the one rare class are of one author, who is held out.
    rows = [f"text {i}\tusual\tauthor {i}\n" for i in range(30)]
    rows += [f"odd {i}\todd\tstranger\n" for i in range(3)]
    (tmp_path / "all.tsv").write_text("text\tlabel\tauthor\n" + "".join(rows))
    made = texts(tmp_path, group_column="author", val_fraction=0.6)
    made.setup("fit")
    assert made.classes == ["odd", "usual"] and made.class_counts() == [0, 9]
    assert {row.label for row in made.rows("val")} == {"odd", "usual"}


def test_a_split_without_a_share_says_so(tmp_path):
    table(tmp_path, "all.tsv")
    (tmp_path / "pairs.tsv").write_text("".join(f"phrase {i}\tsay {i}\n" for i in range(40)))
    for make in (
        lambda **options: texts(tmp_path / "all.tsv", **options),
        lambda **options: TranslationData(str(tmp_path / "pairs.tsv"), tokenizer="char", **options),
    ):
        made = make(val_fraction=0, test_fraction=0)
        made.setup("fit")
        assert len(next(iter(made.train_dataloader()))["line"]) > 0
        for split in ("val", "test"):
            with pytest.raises(UserError, match=f"data.{split}_fraction=0 holds nothing out"):
                made.loader(split)


def test_a_table_without_labels_is_predicted_whole(tmp_path):
    table(tmp_path, "all.tsv")
    known = texts(tmp_path / "all.tsv")
    (tmp_path / "new").mkdir()
    (tmp_path / "new/new.csv").write_text("text\n" + "".join(f"text {i}\n" for i in range(30)))
    for root in (tmp_path / "new/new.csv", tmp_path / "new"):
        made = texts(root)
        made.use_assets(known.assets())
        made.setup("predict")
        lines = [line for batch in made.predict_dataloader() for line in batch["line"]]
        assert sorted(lines) == list(range(30))


def test_of_two_files_of_one_stem_the_named_one_is_read(tmp_path):
    (tmp_path / "all.tsv").write_text("".join(f"table {i}\ttable {i}\n" for i in range(30)))
    for ending in ("fr", "en"):
        (tmp_path / f"all.{ending}").write_text("".join(f"{ending} {i}\n" for i in range(20)))
    made = TranslationData(str(tmp_path / "all.en"))
    parts = [made.pairs(split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [16, 2, 2]
    assert all(left.startswith("fr") for part in parts for left, _ in part)
    with pytest.raises(UserError, match="of no kind that holds translations: .tsv, .po, .mo, or"):
        (tmp_path / "all.txt").write_text("x")
        TranslationData(str(tmp_path / "all.txt")).pairs("train")
    with pytest.raises(UserError, match="not a folder"):  # not a part of the file unasked
        TranslationData(str(tmp_path / "all.tsv"), val="mine").pairs("val")
