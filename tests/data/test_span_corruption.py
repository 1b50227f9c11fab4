"""What is left out of texts, and how long what becomes of them is, against the original's algorithm."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

import tasks
from family.losses.language_model import IGNORE
from tasks.data.sampling import ExampleBatches, Pick, batch_loader
from tasks.data.span_corruption import SENTINELS, SpanCorruptionData, sentinels
from tasks.data.spans import corrupted, fitting, hidden_spans, lengths, segments
from tasks.data.tokenizers import SPECIALS, train_tokenizer
from tasks.errors import UserError

TEXTS = ["a red circle", "two blue squares, far away", "the star: it's small", "one hexagon"] * 30


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data_of(folder, texts=TEXTS, **options):
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text("".join(f"{text}\n" for text in texts))
    options = {"tokenizer": "char", "context": 16, "batch_size": 4, "separator": "\n", **options}
    data = SpanCorruptionData(str(folder), **options)
    data.setup("fit")
    return data


# --- The original's algorithm, as the paper's code has it ---


def original_lengths(inputs_length, density, mean):
    """``random_spans_helper``."""

    def of(tokens):
        noise = round(tokens * density)
        spans = round(noise / mean)
        return tokens - noise + spans + 1, noise + spans + 1

    tokens = inputs_length
    while of(tokens + 1)[0] <= inputs_length:
        tokens += 1
    inputs, targets = of(tokens)
    if density == 0.5 and targets > inputs:
        tokens, targets = tokens - 1, targets - 1
    return tokens, inputs, targets


def original_mask(length, density, mean, shuffled):
    """``random_spans_noise_mask``, with its sums over segments."""
    noise = min(max(round(length * density), 1), length - 1)
    spans = max(round(noise / mean), 1)

    def segmentation(items, parts):
        flags = (np.arange(items - 1) < parts - 1)[shuffled(items - 1)]
        number = np.cumsum(np.concatenate([[0], flags]))
        return np.bincount(number)

    noise_lengths, kept = segmentation(noise, spans), segmentation(length - noise, spans)
    starts = np.cumsum(np.stack([kept, noise_lengths], 1).reshape(-1))[:-1]
    indicator = np.zeros(length, int)
    indicator[starts] = 1
    return np.cumsum(indicator) % 2 == 1


def original_ids(ids, mask, first_sentinel):
    """``noise_span_to_unique_sentinel``: sentinels go down from the first."""
    before = np.concatenate([[False], mask[:-1]])
    starts, inside = mask & ~before, mask & before
    marked = np.where(starts, first_sentinel + 1 - np.cumsum(starts), ids)
    return marked[~inside]


@pytest.mark.parametrize("density", [0.1, 0.15, 0.3, 0.5])
@pytest.mark.parametrize("mean", [1.5, 2.0, 3.0, 3.3, 5.0, 10.0])
def test_lengths_are_those_of_the_formula(density, mean):
    seen = 0
    for context in (*range(20, 90), 114, 128, 256, 512, 1024):
        found = fitting(context, density, mean)
        tokens, source, target = original_lengths(context, density, mean)
        if source > context:
            continue  # theirs would not fit
        seen += 1
        assert found.tokens == tokens
        if density != 0.5:
            assert (found.source, found.target) == (source, target) == (context, found.target)
        assert max(found.source, found.target * (density == 0.5)) <= context
    assert seen > 40


def test_the_published_lengths():
    assert fitting(512, 0.15, 3.0) == (568, 85, 28, 512, 114)
    # Of spans of one token nothing gets shorter: the end alone takes a token.
    assert fitting(100, 0.15, 1.0).tokens == 99 and fitting(100, 0.15, 1.0).source == 100


@pytest.mark.parametrize(("length", "density", "mean"), [(568, 0.15, 3), (37, 0.5, 2), (2, 0.1, 3)])
def test_what_is_left_out_is_as_the_original_has_it(length, density, mean):
    class Order:
        """Random numbers that the original's shuffle gives again."""

        def __init__(self):
            self.random, self.drawn = np.random.default_rng(0), {}

        def permutation(self, count):
            self.drawn[count] = self.random.permutation(count)
            return self.drawn[count]

    for _ in range(5):
        order = Order()
        hidden = hidden_spans(length, density, mean, order)
        # They shuffle flags: place i gets flag ``order[i]``, where ours puts a border at ``order[flag]``.
        expected = original_mask(length, density, mean, lambda n, o=order: np.argsort(o.drawn[n]))
        assert np.array_equal(hidden, expected)
        assert not hidden[0] and hidden[-1]
        ids = np.random.default_rng(1).integers(5, 50, length)
        marks = 1000 - np.arange(100)
        source, target = corrupted(ids, hidden, marks)
        assert np.array_equal(source, original_ids(ids, hidden, 1000))
        # Theirs marks what is kept, from the begin on, and so our spans by their own numbers.
        assert np.array_equal(target, original_ids(ids, ~hidden, 1000))


def test_all_ways_to_divide_are_equally_likely():
    random, seen = np.random.default_rng(0), {}
    for _ in range(6000):
        parts = tuple(segments(6, 3, random).tolist())
        seen[parts] = seen.get(parts, 0) + 1
    assert len(seen) == 10 and all(sum(parts) == 6 and min(parts) > 0 for parts in seen)
    assert all(500 < count < 700 for count in seen.values())


def test_in_short_texts_every_token_is_left_out_as_often():
    random, counts = np.random.default_rng(0), np.zeros(12)
    for _ in range(2000):
        hidden = hidden_spans(12, 0.15, 3.0, random, anywhere=True)
        assert hidden.sum() == 2 and np.diff(np.flatnonzero(hidden)) == 1
        counts += hidden
    # A span of two has eleven places, of which the first token is in one.
    assert counts[[0, -1]] == pytest.approx(2000 / 11, rel=0.2)
    assert counts[1:-1] == pytest.approx(4000 / 11, rel=0.2)
    for tokens, density, mean in ((2, 0.15, 3.0), (30, 0.5, 2.0), (9, 0.9, 1.0)):
        wanted = hidden_spans(tokens, density, mean, random)
        hidden = hidden_spans(tokens, density, mean, random, anywhere=True)
        runs = (np.diff(x.astype(int), prepend=0).clip(min=0).sum() for x in (wanted, hidden))
        assert wanted.sum() == hidden.sum() and len({*runs}) == 1


@pytest.mark.parametrize(("density", "mean"), [(0.15, 3.0), (0.5, 4.0), (0.3, 1.0)])
def test_the_share_and_the_spans_of_a_chunk(density, mean):
    random = np.random.default_rng(0)
    for tokens in (40, 333):
        wanted = lengths(tokens, density, mean)
        hidden = hidden_spans(tokens, density, mean, random)
        starts = np.flatnonzero(hidden & ~np.concatenate([[False], hidden[:-1]]))
        assert (hidden.sum(), len(starts)) == (wanted.noise, wanted.spans)


# --- Batches ---


def restored(tokenizer, source, labels):
    """The chunk that a source and its labels are made of."""
    marks, spans = sentinels(tokenizer), {}
    for token in labels:
        if token in marks:
            spans[token] = now = []
        elif token not in (tokenizer.eos_id, IGNORE):
            now.append(token)
    ends = (tokenizer.eos_id, tokenizer.pad_id)
    parts = [spans.pop(t) if t in spans else [t] for t in source if t not in ends]
    assert not spans
    return [token for part in parts for token in part]


def rows(batches):
    for batch in batches:
        yield from zip(*(batch[n].tolist() for n in batch), strict=True)


@pytest.mark.parametrize("split", ["train", "val"])
def test_source_and_target_are_the_texts_again(folder, split):
    data = data_of(folder, context=32)
    tokenizer, found = data.tokenizer, []
    for source, mask, target, labels in rows(data.loader(split)):
        assert [t != tokenizer.pad_id for t in source] == mask
        asked = [t for t in labels if t != IGNORE]
        assert asked[-1] == tokenizer.eos_id == [t for t in source if t != tokenizer.pad_id][-1]
        assert target[: len(asked)] == [tokenizer.pad_id, *asked[:-1]]
        assert set(target[len(asked) :]) <= {tokenizer.pad_id}
        order = [t for t in asked if t in sentinels(tokenizer)]
        assert order == sentinels(tokenizer)[: len(order)] and asked[0] == order[0]
        found.append(tokenizer.decode(restored(tokenizer, source, labels)))
    assert sorted(found) == sorted(TEXTS)  # each fits in a chunk


@pytest.mark.parametrize(
    ("context", "noise"), [(24, (0.15, 3.0)), (40, (0.5, 3.0)), (33, (0.3, 2.0))]
)
def test_a_chunk_of_a_long_text_fills_source_and_target(folder, context, noise):
    data = data_of(
        folder, separator=None, context=context, noise_density=noise[0],
        mean_noise_span_length=noise[1],
    )  # fmt: skip
    tokens, source, target = original_lengths(context, *noise)
    *full, last = rows(data.loader("val"))
    assert len(full) > 20 and tokens == data.lengths.tokens
    for row in full:
        assert (sum(row[1]), sum(t != IGNORE for t in row[3])) == (source, target)
    pieces = [restored(data.tokenizer, row[0], row[3]) for row in (*full, last)]
    assert {len(piece) for piece in pieces[:-1]} == {tokens}
    assert data.tokenizer.decode(list(itertools.chain(*pieces))) == "".join(f"{t}\n" for t in TEXTS)


def test_texts_of_one_token_leave_nothing_to_write(folder):
    data = data_of(folder, ["a", "ab", "b", "abc"] * 4)
    found = [restored(data.tokenizer, row[0], row[3]) for row in rows(data.loader("val"))]
    assert sorted(map(len, found)) == [2] * 4 + [3] * 4
    with pytest.raises(UserError, match="the val split of .* has no text of two tokens"):
        data_of(folder, ["a", "b"] * 20).loader("val")


def test_files_of_a_folder_stay_texts_of_their_own_with_a_checkpoint(folder):
    (folder / "texts").mkdir()
    for i in range(20):
        (folder / "texts" / f"{i}.txt").write_text(TEXTS[i] * 3)
    for kind in (SpanCorruptionData, tasks.MaskedLanguageModelingData):
        data = kind("texts", tokenizer="char", context=16)
        again = kind("texts", tokenizer="char", context=16)
        again.use_assets(data.assets())
        assert data.several() and again.several()
        assert np.array_equal(again.tokens("val"), data.tokens("val"))


# --- When it is drawn ---


def test_drawn_anew_each_epoch_in_any_worker_and_the_same_in_validation(folder):
    data = data_of(folder)
    chunks = data.loader("train").dataset
    first, again, later = (
        chunks.__getitems__([Pick(i, epoch) for i in range(8)]) for epoch in (0, 0, 1)
    )
    assert torch.equal(first["source"], again["source"])
    assert not torch.equal(first["source"], later["source"])
    alone = chunks.__getitems__([Pick(3, 1)])["labels"][0]
    assert torch.equal(alone, later["labels"][3, : len(alone)])
    batches = ExampleBatches(len(chunks), 8, True)
    for workers, found in zip(
        batch_loader(chunks, batches, 2), batch_loader(chunks, batches, 0), strict=True
    ):
        assert all(torch.equal(workers[name], found[name]) for name in found)
    val = [next(iter(data.loader("val")))["source"] for _ in range(2)]
    assert torch.equal(*val)


def test_runs_of_other_seeds_validate_on_the_same_spans(folder, monkeypatch):
    found = []
    for seed in ("0", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        data = data_of(folder)
        found.append([next(iter(data.loader(split)))["source"] for split in ("train", "val")])
    assert torch.equal(found[0][1], found[1][1]) and not torch.equal(found[0][0], found[1][0])


class Guess(torch.nn.Module):
    """Somebody else's model, which knows no more than the contract."""

    def __init__(self, vocab_size):
        super().__init__()
        self.table = torch.nn.Embedding(vocab_size, 8)
        self.head = torch.nn.Linear(8, vocab_size)

    def forward(self, source, target, source_mask=None):
        return self.head(self.table(target) + self.table(source).mean(1, keepdim=True))


class Recorder(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, task, batch, index):
        self.seen.append(batch["source"].clone())


def test_a_resumed_run_is_equal_to_the_bit(folder):
    def run(checkpoint=None):
        pl.seed_everything(0)
        task = tasks.SpanCorruption(Guess, lr=1e-2, warmup_steps=2, schedule="constant")
        recorder = Recorder()
        every = ModelCheckpoint(folder / "kept", "{step}", every_n_train_steps=17, save_top_k=-1)
        trainer = pl.Trainer(
            max_steps=40, accelerator="cpu", logger=False, use_distributed_sampler=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            callbacks=[recorder] if checkpoint else [recorder, every],
            enable_checkpointing=not checkpoint,
        )  # fmt: skip
        trainer.fit(task, data_of(folder), ckpt_path=checkpoint)
        return task, recorder.seen

    whole, seen = run()
    assert whole.trainer.current_epoch > 0
    rest, more = run(folder / "kept" / "step=17.ckpt")
    assert len(more) == 23 and all(map(torch.equal, more, seen[17:]))
    weights = zip(whole.state_dict().values(), rest.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


# --- What is refused ---


def test_a_tokenizer_with_too_few_sentinels(folder):
    few = train_tokenizer("bpe", TEXTS, 300, specials=(*SPECIALS, *SENTINELS[:3]))
    few.inner.save(str(folder / "tokenizer.json"))
    data = data_of(folder, tokenizer="tokenizer.json", context=60)
    assert len(sentinels(data.tokenizer)) == data.lengths.spans == 3
    said = (
        "tokenizer data.tokenizer='tokenizer.json' has 3 sentinels, but data.context=512 leaves 28 "
    )
    with pytest.raises(UserError, match=f"{said}spans out: it needs <extra_id_0> to <extra_id_27>"):
        data_of(folder, tokenizer="tokenizer.json", context=512)
    with pytest.raises(UserError, match="of the checkpoint has 3 sentinels, but data.context=128"):
        SpanCorruptionData(context=128).use_assets({"tokenizers": {"text": few.to_json()}})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context": 8}, "data.context=8 with .* leaves no span out: make context larger"),
        ({"noise_density": 1.0}, "data.noise_density must be between 0 and 1, not 1.0"),
        ({"mean_noise_span_length": 0.5}, "data.mean_noise_span_length must be at least 1"),
        (
            {"noise_density": 0.9, "mean_noise_span_length": 2.0},
            "leaves nothing between the spans: make one of them smaller",
        ),
    ],
)
def test_lengths_that_make_no_sense(options, said):
    with pytest.raises(UserError, match=said):
        SpanCorruptionData(**options)
