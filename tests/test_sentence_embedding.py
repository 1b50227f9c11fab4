"""Sentence embedding: what it learns and reports, where its encoder comes from, and what is made of it."""

from __future__ import annotations

import csv
import json

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import family
from tasks.cli import main
from tasks.data.sentence_pairs import SentencePairsData
from tasks.errors import UserError
from tasks.sentence_embedding import SentenceEmbedding
from tasks.training.correlation import correlations

SMALL = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.examples=100",
    "--data.batch_size=8",
]
SOURCE = ["--model.model=null", "--model.lr=1e-3"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Bag(nn.Module):
    """Somebody else's model: the sum of its tokens."""

    def __init__(self, vocab_size):
        super().__init__()
        self.table = nn.EmbeddingBag(vocab_size, 16, mode="sum", padding_idx=0)

    def forward(self, input_ids, mask=None):
        return self.table(input_ids)


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


WORDS = ["ape", "bee", "cow", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "kiwi", "lynx"]


def write(folder, numbers):
    """Words and a letter for each, or by a number how many letters they have in common."""
    rows = [(f"a {one}", chr(65 + i) * 3) for i, one in enumerate(WORDS)]
    if numbers:
        rows = [
            (f"a {one}", f"the {other}", str(len({*one} & {*other})))
            for one in WORDS
            for other in WORDS[::2]
        ]
    for split in ("train", "val", "test"):
        with (folder / f"{split}.csv").open("w", newline="") as opened:
            csv.writer(opened).writerows(rows)
    return SentencePairsData(str(folder), tokenizer="char", batch_size=8, max_tokens=32)


@pytest.mark.parametrize("loss", ["ranking", "cosine", "cosent"])
def test_any_model_of_the_contract_learns(folder, loss):
    data = write(folder, loss != "ranking")
    pl.seed_everything(0)
    task = SentenceEmbedding(Bag, loss=loss, lr=0.05, warmup_steps=2, symmetric=loss == "ranking")
    runner = trainer(max_epochs=15 if loss == "ranking" else 8)
    name = task.monitor[0]
    before = runner.validate(task, data, verbose=False)[0][name]
    runner.fit(task, data)
    assert runner.callback_metrics[name] > max(0.8, before)
    assert len(task.samples) == 8 and "made: " in task.samples[0]
    made = [row for batch in runner.predict(task, data) for row in batch]
    rows = {(row["text"], row["pair"]): row for row in made}
    assert rows.keys() == {(row.text, row.pair) for row in data.rows("test")}
    assert all(row["file"].endswith("test.csv") and row["line"] for row in made)


def test_scores_are_of_the_whole_split(folder):
    data = write(folder, True)
    task = SentenceEmbedding(Bag, loss="cosent")
    torch.manual_seed(0)
    found = trainer().test(task, data, verbose=False)[0]
    rows, model = data.rows("test"), task.model
    sides = (
        model(*data.tokenizer.batch([getattr(row, side) for row in rows]))
        for side in ("text", "pair")
    )
    cosine = F.cosine_similarity(*sides).tolist()
    true = [row.label for row in rows]
    expected = {f"test/{name}": value for name, value in correlations(true, cosine).items()}
    assert found == pytest.approx(expected, abs=1e-6)
    off = [row["off"] for row in task.tables["worst"]]
    assert len(off) == 50 and off == sorted(off, reverse=True)


class Spelled(nn.Module):
    """Texts are ids of one token, and these rows of a table."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, input_ids, mask=None):
        return self.table[input_ids[:, 0]]


def test_partners_among_those_of_the_split():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 4, generator=generator)
    # Two have a text and its partner in common with others; 3 is itself among the partners.
    pairs = torch.tensor(
        [(0, 20), (0, 21), (1, 21), (2, 3), (3, 22), *((i, 19 + i) for i in range(4, 20))]
    )
    batches = [
        {"input_ids": part[:, :1], "pair_ids": part[:, 1:], "text_ids": part}
        for part in pairs.split(6)
    ]
    found = trainer().validate(
        SentenceEmbedding(Spelled(table)), DataLoader(batches, batch_size=None), verbose=False
    )[0]
    rows = F.normalize(table, dim=1)
    partners = {int(a): {int(b) for one, b in pairs if one == a} for a, _ in pairs}
    places = []
    for a, _ in pairs.tolist():
        wrong = {int(b) for _, b in pairs} - partners[a] - {a}
        best = max(float(rows[a] @ rows[b]) for b in partners[a])
        places.append(sum(float(rows[a] @ rows[b]) >= best for b in wrong))
    assert found["val/recall@1"] == pytest.approx(sum(p < 1 for p in places) / len(places))
    assert found["val/recall@10"] == pytest.approx(sum(p < 10 for p in places) / len(places))
    assert found["val/mrr"] == pytest.approx(sum(1 / (1 + p) for p in places) / len(places))
    assert 0 < found["val/recall@1"] < 1
    assert found["val/chance@1"] == pytest.approx(1 / len({int(b) for _, b in pairs}))


def test_mistakes_end_in_one_sentence(folder):
    numbers = write(folder, True)
    for options, said in (
        ({}, "model.loss=ranking takes every pair for one that belongs together"),
        ({"loss": "cosin"}, "model.loss='cosin' is unknown"),
        ({"loss": "cosine", "symmetric": True}, "model.symmetric=true is for model.loss=ranking"),
        ({"scale": 0.0}, "model.scale must be above 0"),
    ):
        with pytest.raises(UserError, match=said):
            trainer(max_steps=1).fit(SentenceEmbedding(Bag, **options), numbers)
    plain = write(folder, False)
    with pytest.raises(UserError, match="model.loss=cosent needs pairs with a number"):
        trainer(max_steps=1).fit(SentenceEmbedding(Bag, loss="cosent"), plain)
    plain.batch_size = 1
    with pytest.raises(UserError, match="data.batch_size=1: .* there are none"):
        trainer(max_steps=1).fit(SentenceEmbedding(Bag), plain)
    config = family.TransformerConfig(dim=8, depth=1, heads=1, position="learned", max_tokens=16)
    plain = write(folder, False)
    whole = family.SentenceEncoder(99, config)
    with pytest.raises(
        UserError, match="data.max_tokens=32 is more than the model's max_tokens=16"
    ):
        trainer(max_steps=1).fit(SentenceEmbedding(whole), plain)
    task, ids = SentenceEmbedding(family.bert_tiny(9, dim=8, heads=1)), torch.ones(2, 3).long()
    task.adapt_model()
    with pytest.raises(UserError, match=r"gives \(2, 3, 9\) .* an embedding is \(batch, dim\)"):
        task.loss({"input_ids": ids, "pair_ids": ids})


# --- From configs to commands ----------------------------------------------------------------


def fit(folder, *more):
    main(["fit", "--config=sentence_embedding/shapes", "--run_folder=run", *SMALL, *more])
    return json.loads((folder / "run/metrics-fit.json").read_text())


TINY = [
    f"--model.model.init_args.config.{option}"
    for option in (
        "dim=16",
        "depth=1",
        "heads=2",
        "ffn_dim=32",
        "norm_order=post",
        "norm_eps=1e-12",
    )
]


def test_from_fit_to_embed_and_search(folder, capsys):
    metrics = fit(folder, *TINY, "--data.max_tokens=12")["metrics"]
    assert "val/recall@1" in metrics
    main(["test", "run", "--run_folder=tested"])
    assert (folder / "tested/test-worst.csv").is_file()
    loaded = family.load("run")
    assert loaded.task == "SentenceEmbedding" and loaded.tokenizer.max_tokens == 12
    long = "a small red star and " * 5
    cut = loaded.embed([long])
    ids, mask = loaded.tokenizer.batch([long.strip()], 12)
    assert ids.shape[1] == 12 and torch.equal(cut, loaded.model.encode_text(ids, mask))
    # The same in sentence-transformers' layout, whose readers know no other limit.
    family.save_pretrained(loaded.model, folder / "saved", format="sentence-transformers")
    again = family.load("saved")
    assert again.model.max_tokens == 12
    torch.testing.assert_close(again.embed([long, "a star"]), loaded.embed([long, "a star"]))

    (folder / "texts.txt").write_text(f"two blue hearts\n\n  a small red star\n{long}\n")
    capsys.readouterr()
    main(["search", "run", "a small red star", "texts.txt", "-k2", "--format=jsonl"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2]
    assert rows[0]["text"] == "a small red star" and rows[0]["line"] == 3
    assert rows[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert rows[1]["similarity"] <= rows[0]["similarity"]


def test_an_encoder_of_a_masked_model():
    torch.manual_seed(0)
    masked = family.bert_tiny(20, dim=16, heads=2, pooler="tanh").eval()
    masked.tokenizer = object()
    made = SentenceEmbedding().made_of(masked)
    assert type(made) is family.SentenceEncoder and made.tokenizer is masked.tokenizer
    assert made.encoder.pooler is None and made.encoder.masked_head is None
    ids, mask = torch.randint(20, (3, 6)), torch.arange(6) < torch.tensor([[6], [2], [4]])
    tokens, seen = masked.encode(ids, mask), mask[..., None]
    expected = F.normalize((tokens * seen).sum(1) / seen.sum(1), dim=1)
    torch.testing.assert_close(made(ids, mask), expected)
    assert SentenceEmbedding().made_of(made) is made


@pytest.mark.slow
def test_a_masked_model_becomes_an_encoder(folder):
    """A run of pre-training by a line of a config; the weights are those of its encoder."""
    main(["fit", "--config=masked_language_modeling/shapes", "--run_folder=masked", *SMALL[:5],
          *TINY, "--data.vocab_size=300"])  # fmt: skip
    fit(folder, *SOURCE[:1], "--model.pretrained=masked", "--model.lr=0", "--model.weight_decay=0")
    masked, tuned = family.from_pretrained("masked"), family.from_pretrained("run")
    assert type(tuned) is family.SentenceEncoder and tuned.pooling == "mean"
    before = masked.state_dict()
    for name, value in tuned.encoder.state_dict().items():
        assert torch.equal(before[name], value)
    assert tuned.tokenizer.encode("a red star") == masked.tokenizer.encode("a red star")


def test_other_sources_are_refused(folder, capsys):
    model = family.gpt2(300, dim=16, depth=1, heads=2)
    family.save_pretrained(model, folder / "gpt")
    with pytest.raises(SystemExit):
        fit(folder, *SOURCE[:1], "--model.pretrained=gpt")
    assert "gpt is a GPT" in capsys.readouterr().err


@pytest.mark.slow
def test_what_was_trained_is_read_by_sentence_transformers(folder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    fit(folder, *TINY)
    loaded = family.load("run")
    family.save_pretrained(loaded.model, folder / "saved", format="sentence-transformers")
    theirs = sentence_transformers.SentenceTransformer(str(folder / "saved"), device="cpu")
    texts = ["a small red star", "two blue hearts", "", "a star and " * 40]
    found = torch.as_tensor(theirs.encode(texts))
    torch.testing.assert_close(loaded.embed(texts), found, rtol=1e-5, atol=1e-5)
