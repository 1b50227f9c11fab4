"""Tagged texts: CoNLL columns, JSON lines, windows, batches, and each mistake in one sentence."""

from __future__ import annotations

import json

import pytest
import torch

from family.losses.language_model import IGNORE
from tasks.data.tagged_texts import read_tagged, tagged_shapes
from tasks.data.tagging import TaggingData
from tasks.errors import UserError

TEXTS = [
    (["the", "red", "star", "of", "Ann"], ["O", "B-thing", "I-thing", "O", "B-name"]),
    (["Ann", "#", "1"], ["B-name", "O", "O"]),
    (["no", "thing"], ["O", "O"]),
]


def columns(texts=TEXTS, between="\t", more=()):
    """A file of CoNLL, further columns between word and tag."""
    lines = [
        "".join(f"{between.join([word, *more, tag])}\n" for word, tag in zip(*text, strict=True))
        for text in texts
    ]
    return "\n".join(lines)


def json_lines(texts=TEXTS, names=("tokens", "tags")):
    return "\n".join(json.dumps(dict(zip(names, text, strict=True))) for text in texts)


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def data(root, **options):
    options = {"vocab_size": 300, "batch_size": 2} | options
    return TaggingData(None if root is None else str(root), **options)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("train.conll", columns(), {}),
        ("train.txt", "-DOCSTART- -X- O O\n\n" + columns(between=" ", more=("NN", "I-NP")), {}),
        ("train.iob2", columns(more=("NN",)).replace("\n", "\r\n"), {"tag_column": 2}),
        ("train.tsv", "\n\n \t\n" + columns() + "\n\n\n", {"word_column": 0, "tag_column": -1}),
        ("train.jsonl", json_lines(), {}),
        ("train.jsonl", json_lines(names=("words", "pos")), {"tag_column": "pos"}),
        ("train.bio", "\ufeff" + columns(), {}),
    ],
)
def test_files(tmp_path, name, content, options):
    (tmp_path / name).write_bytes(content.encode())
    write(tmp_path, dev_conll=columns())
    made = data(tmp_path, **options)
    if options.get("tag_column") in ("pos", 2):
        assert read_tagged(tmp_path / name, None, options["tag_column"])
    else:
        made.setup("fit")
        assert made.classes == ["O", "B-name", "B-thing", "I-thing"]
        assert made.labels("val") == [[0, 2, 3, 0, 1], [1, 0, 0], [0, 0]]
    assert [(list(t.words), list(t.tags)) for t in made.texts("train")] == TEXTS


def test_lines_are_those_of_the_file(tmp_path):
    write(tmp_path, a_conll="-DOCSTART-\tO\n\n" + columns(), a_jsonl=json_lines())
    texts = read_tagged(tmp_path / "a.conll")
    assert texts[0].lines == (3, 4, 5, 6, 7) and texts[1].lines == (9, 10, 11)
    assert texts[1].where(2) == f"{tmp_path}/a.conll line 11"
    assert read_tagged(tmp_path / "a.jsonl")[1].lines == (2, 2, 2)


def test_batch(tmp_path):
    write(tmp_path, train_conll=columns(), val_conll=columns())
    made = data(tmp_path, batch_size=3)
    batch = next(iter(made.val_dataloader()))
    order = batch["sentence"]
    assert sorted(order) == [0, 1, 2] and batch["word"] == [0, 0, 0]
    for i, ids, mask, labels in zip(
        order, batch["input_ids"], batch["mask"], batch["labels"], strict=True
    ):
        words, tags = TEXTS[i]
        count = int(mask.sum())
        assert ids[0] == made.tokenizer.bos_id and ids[count - 1] == made.tokenizer.eos_id
        assert made.tokenizer.decode(ids.tolist()).split() == words
        assert (labels[~mask] == IGNORE).all() and labels[0] == labels[count - 1] == IGNORE
        assert [made.classes[label] for label in labels[labels != IGNORE]] == tags
        # The first piece of each word has the label: there the space before it stands.
        starts = made.tokenizer.decode(ids[labels != IGNORE].tolist())
        assert all(
            made.tokenizer.decode([t]).startswith(" ") for t in ids[labels != IGNORE].tolist()
        )
        assert starts
    assert [batch["words"][order.index(i)] for i in range(3)] == [text[0] for text in TEXTS]
    assert batch["line"][order.index(1)] == [7, 8, 9]
    assert made.model_arguments == {"vocab_size": made.tokenizer.vocab_size, "num_classes": 4}
    assert made.class_counts() == [6, 2, 1, 1]


@pytest.mark.parametrize("split", ["train", "val"])
def test_no_label_of_a_long_text_is_cut_off_or_counted_twice(tmp_path, split):
    long = [f"word{i}" for i in range(60)], ["B-x" if i % 3 else "O" for i in range(60)]
    content = columns([long, *TEXTS])
    write(tmp_path, train_conll=content, val_conll=content)
    made = data(tmp_path, max_tokens=16, batch_size=4)
    found: dict[tuple[int, int], str] = {}
    for batch in made.loader(split):
        assert batch["input_ids"].shape[1] <= 16
        for i, first, words, labels in zip(
            batch["sentence"], batch["word"], batch["words"], batch["labels"], strict=True
        ):
            tags = [made.classes[label] for label in labels[labels != IGNORE]]
            for n, (word, tag) in enumerate(zip(words, tags, strict=True)):
                assert (i, first + n) not in found
                found[i, first + n] = f"{word} {tag}"
    whole = [f"{word} {tag}" for text in (long, *TEXTS) for word, tag in zip(*text, strict=True)]
    assert [found[key] for key in sorted(found)] == whole
    narrow = len(data(tmp_path, max_tokens=16, stride=2).pieces(split))
    assert narrow > len(made.pieces(split)) > 10


def test_one_file_is_divided_and_val_comes_from_train(tmp_path):
    texts = [([f"text{i // 2}", "x"], ["O", "B-x"]) for i in range(60)]
    write(tmp_path, all_conll=columns(texts))
    made = data(tmp_path / "all.conll", val_fraction=0.2)
    parts = [{text.words for text in made.texts(split)} for split in ("train", "val", "test")]
    assert [len(made.texts(split)) for split in ("train", "val", "test")] == [42, 12, 6]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert data(tmp_path, val_fraction=0.2).texts("test") == made.texts("test")  # the only one
    write(tmp_path, train_conll=columns(texts), test_conll=columns(texts))
    made = data(tmp_path)
    assert [len(made.texts(split)) for split in ("train", "val", "test")] == [54, 6, 60]


def test_a_file_may_be_called_otherwise(tmp_path):
    (tmp_path / "eng.train").write_text(columns())
    (tmp_path / "eng.testa").write_text(columns(TEXTS[:1]))
    made = data(tmp_path, train="eng.train", val="eng.testa")
    made.setup("fit")
    assert len(made.texts("train")) == 3 and len(made.texts("val")) == 1


def test_assets_make_the_same_batches(tmp_path):
    write(tmp_path, train_conll=columns(), val_conll=columns(), test_conll=columns())
    made = data(tmp_path, max_tokens=8)
    assets = json.loads(json.dumps(made.assets()))
    assert assets["labels"][0] == "O" and assets["max_tokens"] == 8
    again = data(tmp_path, tokenizer="char")
    (tmp_path / "train.conll").unlink()
    again.use_assets(assets)
    ours, theirs = next(iter(made.test_dataloader())), next(iter(again.test_dataloader()))
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["labels"], theirs["labels"])


def test_shapes_are_no_table_of_words():
    texts = tagged_shapes(600, 0, "train")
    tags: dict[str, set[str]] = {}
    for text in texts:
        for word, tag in zip(text.words, text.tags, strict=True):
            tags.setdefault(word, set()).add(tag)
    assert tags["left"] == {"O", "B-place", "I-place"} and tags["red"] == {"O", "B-colour"}
    assert tags["stars"] == {"B-shape"} and tags["two"] == {"B-number"} and tags["the"] == {"O"}
    pair = next(text for text in texts if "below" in text.words)
    named = [tag for tag in pair.tags if tag == "B-shape"]
    place = [i for i, tag in enumerate(pair.tags) if tag == "B-shape"]
    assert len(named) == 1 and place[0] > pair.words.index("below")
    others = {text.words for text in tagged_shapes(100, 0, "val")}
    assert not others & {text.words for text in texts}


# --- Mistakes ---


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has no train.conll, .* or .jsonl for data.train='train', but no file of tags at all"),
        ({"train_conll": ""}, "train.conll is empty"),
        ({"train_conll": "-DOCSTART- O\n\n"}, "train.conll holds no text"),
        (
            {"train_conll": b"a\tO\nb\xff\tO\n"},
            "train.conll is not UTF-8: see the byte at offset 5",
        ),
        (
            {"train_conll": "a\tO\n\nb\tx\tO\n"},
            "train.conll line 3 has 3 columns, but line 1 has 2: .* blank line",
        ),
        ({"train_conll": "a b O\nb\n"}, "train.conll line 2 has 1 column, but line 1 has 3"),
        ({"train_conll": "a\nb\n"}, "train.conll line 1 has 1 column, but a word needs a tag"),
        ({"train_conll": "a\tO\n\tO\n"}, "train.conll line 2 has an empty word"),
        ({"train_conll": "a\tO\nb\t\n"}, "train.conll line 2 has an empty tag"),
        ({"train_conll": "a\tO\nb\tO\n"}, "every word has the tag 'O' .* two tags at least"),
        (
            {"train_conll": "a\tO\nb\tperson\n"},
            r"train.conll line 2 has the tag 'person', which is no IOB tag \(B-TYPE, .* data.spans=false",
        ),
        ({"train_conll": "a\tO\nb\tB-\n"}, "line 2 has the tag 'B-', which is no IOB tag"),
        (
            {"train_conll": "a\tO\nb\tB-person\n", "val_conll": "a\tO\n\nb\tB-persn\n"},
            r"val.conll line 3 has the tag 'B-persn', .* 2 tags of the training split \(O, B-person\). "
            "Did you mean 'B-person'",
        ),
        (
            {"train_jsonl": '{"tokens": ["a", "b"], "tags": ["O"]}'},
            "train.jsonl line 1 has 2 words but 1 tags",
        ),
        ({"train_jsonl": '{"tokens": ["a"]}'}, "line 1 has no field 'tags', only: tokens"),
        ({"train_jsonl": '{"tokens": ["a"], "tags": [3]}'}, "'tags' must be a list of texts"),
        ({"train_jsonl": '{"tokens": "a", "tags": ["O"]}'}, "'tokens' must be a list of texts"),
        ({"train_jsonl": '{"tokens": ["a"]\n'}, "train.jsonl line 1 is not JSON"),
        ({"train_jsonl": "[]"}, "train.jsonl line 1 is no JSON object"),
    ],
)
def test_bad_files_are_named_in_one_sentence(tmp_path, files, words):
    write(tmp_path, **files)
    with pytest.raises(UserError, match=words) as caught:
        data(tmp_path).setup("fit")
    assert "\n" not in str(caught.value)


def test_tags_that_mark_no_spans_are_taken_as_they_are(tmp_path):
    write(tmp_path, train_conll="a\tDET\nstar\tNOUN\n", val_conll="a\tDET\n")
    made = data(tmp_path, spans=False)
    made.setup("fit")
    assert made.classes == ["DET", "NOUN"]


def test_bad_places_and_options(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        data(tmp_path / "nowhere").setup()
    write(tmp_path, a_xml="x", train_conll=columns())
    with pytest.raises(UserError, match="a.xml is neither a folder nor a file of tags [(].conll"):
        data(tmp_path / "a.xml").setup()
    with pytest.raises(UserError, match="data.tag_column=2: .* line 1 has 2 columns"):
        data(tmp_path, tag_column=2).setup()
    with pytest.raises(UserError, match="data.tag_column='tag': columns of CoNLL have numbers"):
        data(tmp_path, tag_column="tag").setup()
    for name, value in {"batch_size": 0, "max_tokens": 2, "stride": 0, "val_fraction": 2}.items():
        with pytest.raises(UserError, match=rf"data\.{name}\b"):
            data(None, **{name: value})
