"""``family fill``: the likeliest tokens for gaps, as transformers' fill-mask gives them."""

from __future__ import annotations

import json

import pytest
import torch

import family
from family.core.config import TransformerConfig
from family.inference.masked import fill_masks
from family.inputs.encode import with_ends
from tasks.cli import main
from tasks.data.tokenizers import MASK, SPECIALS, train_tokenizer

TEXTS = ["a red circle", "two blue squares", "the star is small"] * 5


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tokenizer_of():
    return with_ends(train_tokenizer("bpe", TEXTS, 300, specials=(*SPECIALS, MASK)))


def bert(**options):
    torch.manual_seed(0)
    tokenizer = tokenizer_of()
    config = TransformerConfig(
        dim=32, depth=2, heads=4, position="learned", norm_order="post", max_tokens=16
    )
    model = family.BERT(tokenizer.vocab_size, config, pooler=None, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.tokenizer = tokenizer
    return model


@pytest.fixture
def source(folder):
    family.save_pretrained(bert(), folder / "bert", format="bert")
    return folder / "bert"


def test_equal_to_transformers(source):
    transformers = pytest.importorskip("transformers")
    pipe = transformers.pipeline(
        "fill-mask",
        model=transformers.BertForMaskedLM.from_pretrained(source).eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(source),
        device="cpu",
        top_k=4,
    )
    texts = ["a <mask> circle", "<mask> blue squares are <mask> and small", "the star <mask>"]
    # Together and padded, as one by one.
    ours = family.load(source).predict(texts, top=4)
    for text, gaps in zip(texts, ours, strict=True):
        theirs = pipe(text)
        theirs = theirs if isinstance(theirs[0], list) else [theirs]
        assert len(gaps) == len(theirs) == text.count("<mask>")
        for gap, expected in zip(gaps, theirs, strict=True):
            assert [t["id"] for t in gap] == [t["token"] for t in expected]
            assert [t["score"] for t in gap] == pytest.approx([t["score"] for t in expected], 1e-4)


def test_a_published_source_by_the_command(source, capsys):
    texts = ["a [MASK] circle", "<mask> blue <mask>"]
    main(["fill", str(source), *texts, "--top=3", "--format=jsonl"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["text"], row["gap"]) for row in rows] == [
        (texts[0], 1), (texts[1], 1), (texts[1], 2)
    ]  # fmt: skip
    expected = family.load(source).predict(texts, top=3)
    found = [row["tokens"] for row in rows]
    for row, tokens in zip(found, [*expected[0], *expected[1]], strict=True):
        assert [t["id"] for t in row] == [t["id"] for t in tokens]
        assert [t["score"] for t in row] == pytest.approx([t["score"] for t in tokens], abs=1e-5)
    main(["fill", str(source), texts[0], "--top=2"])
    text, _, shown = capsys.readouterr().out.strip("\n").partition("\t")
    assert text == texts[0] and len(shown.split(", ")) == 2
    (source.parent / "texts.txt").write_text("a [MASK] star\n\nthe [MASK]\n")
    main(["fill", str(source), "texts.txt", "--format=csv"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("file,line,text,gap,tokens.0.token,tokens.0.id,tokens.0.score")
    assert [line.split(",")[1] for line in lines] == ["1", "3"]
    main(["fill", str(source), "a [MASK]", "texts.txt", "--format=csv"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("file,line,text,gap")
    assert [line.split(",")[:2] for line in lines] == [["", ""], *[["texts.txt", n] for n in "13"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no gap", "the text 'no gap' has no gap: write <mask> where something is missing"),
        ("a [MASK]" + " red" * 20, "tokens, more than the 16 that the model reads"),
    ],
)
def test_texts_that_cannot_be_filled(source, capsys, text, said):
    with pytest.raises(SystemExit):
        main(["fill", str(source), text])
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_models_that_cannot_fill(folder, capsys):
    plain = bert()
    plain.tokenizer = with_ends(train_tokenizer("bpe", TEXTS, 300))
    with pytest.raises(ValueError, match="tokenizer has no mask token"):
        fill_masks(plain, ["a [MASK]"])
    family.save_pretrained(bert(masked_head=False, num_classes=2), folder / "classes")
    with pytest.raises(SystemExit):
        main(["fill", "classes", "a [MASK]"])
    error = capsys.readouterr().err
    assert "made for TextClassification, but this needs MaskedLanguageModeling" in error


def test_a_masked_model_still_has_no_classes(source, capsys):
    assert family.load(source).task == "MaskedLanguageModeling"
    with pytest.raises(SystemExit):
        main(["classify", str(source), "a red circle"])
    assert "has no classes of its own yet: train it first" in capsys.readouterr().err
