"""Span corruption: its metrics, what it trains, and in which numbers."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

import family
import tasks
from family.core.config import TransformerConfig
from family.losses.language_model import IGNORE
from tasks.cli import main
from tasks.compare.metrics import METRICS
from tasks.data.span_corruption import SENTINELS
from tasks.data.tokenizers import SPECIALS, train_tokenizer
from tasks.errors import UserError
from tasks.training.finetuning import load_source

LINES = ["a red circle", "two blue squares", "the star is small", "one hexagon"] * 20
STACK = {"dim": 16, "depth": 2, "heads": 2, "max_tokens": 64}
RELATIVE = {
    **STACK,
    "norm": "rmsnorm",
    "bias": False,
    "position": "relative",
    "attention_scale": 1.0,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data_of(folder, **options):
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in LINES))
    given = {"tokenizer": "char", "context": 32, "batch_size": 8, "separator": "\n", **options}
    return tasks.SpanCorruptionData(str(folder), **given)


def t5(vocab_size, **arguments):
    return family.T5(vocab_size, TransformerConfig(**RELATIVE), **arguments)


def others():
    return {
        "seq2seq": lambda vocab_size, **more: family.Seq2Seq(
            vocab_size, TransformerConfig(**STACK), **more
        ),
        "lstm": lambda vocab_size, **more: family.LSTMSeq2Seq(vocab_size, dim=16, depth=1, **more),
    }


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def test_it_learns_and_shows_what_it_made(folder):
    pl.seed_everything(0)
    task = tasks.SpanCorruption(t5, lr=1e-2, warmup_steps=5)
    runner = trainer(max_epochs=15, check_val_every_n_epoch=15, num_sanity_val_steps=0)
    data = data_of(folder, batch_size=20)
    runner.fit(task, data)
    assert runner.callback_metrics["val/accuracy"] > 0.5
    assert len(task.samples) == 8
    for text in task.samples:
        source, made, true = text.split("\n")
        assert "<extra_id_0>" in source and "<pad>" not in text and "<eos>" not in text
        assert made.startswith("    made: ") and true.startswith("    true: <extra_id_0> ")
    # By hand, over all tokens of the targets together.
    right = count = total = 0
    for batch in data.val_dataloader():
        given = {n: batch[n] for n in ("source", "target", "source_mask")}
        with torch.no_grad():
            logits, labels = task.model.eval()(**given), batch["labels"]
        asked = labels != IGNORE
        total += float(F.cross_entropy(logits[asked], labels[asked], reduction="sum"))
        right += int((logits[asked].argmax(-1) == labels[asked]).sum())
        count += int(asked.sum())
    found = trainer().validate(task, data, verbose=False)[0]
    assert found["val/loss"] == pytest.approx(total / count, rel=1e-5)
    assert found["val/accuracy"] == pytest.approx(right / count, rel=1e-6)


@pytest.mark.parametrize("kind", ["seq2seq", "lstm"])
def test_any_encoder_decoder_learns_and_begins_where_it_was_trained_to(folder, kind):
    task = tasks.SpanCorruption(others()[kind], lr=1e-2)
    runner = trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1)
    runner.fit(task, data_of(folder))
    assert torch.isfinite(runner.callback_metrics["val/loss"])
    batch = next(iter(task.data.val_dataloader()))
    assert task.model.bos_id == int(batch["target"][0, 0]) == task.data.tokenizer.pad_id


class Keep(pl.Callback):
    def __init__(self):
        self.rows = []

    def on_test_batch_end(self, trainer, task, outputs, batch, index):
        self.rows += [
            dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)
        ]


def test_a_table_of_rows_gives_the_metrics_again(folder):
    keep = Keep()
    task = tasks.SpanCorruption(t5)
    found = trainer(callbacks=[keep]).test(task, data_of(folder), verbose=False)[0]
    every = torch.ones(1, len(keep.rows)).double().numpy()
    for name in ("loss", "accuracy"):
        assert METRICS[name](keep.rows)(every)[0] == pytest.approx(
            found[f"test/{name}"], rel=1e-4, abs=1e-7
        )


def source_of(folder, sentinels=SENTINELS):
    """A T5 in the published layout, with a tokenizer that is like the published."""
    tokenizer = train_tokenizer("unigram", LINES, 160, specials=(*SPECIALS, *sentinels))
    torch.manual_seed(0)
    model = family.t5_small(tokenizer.vocab_size, dim=16, depth=2, heads=2, head_dim=8, ffn_dim=24)
    model.tokenizer = tokenizer
    family.save_pretrained(model, folder / "source", format="t5")
    return tokenizer


def test_a_published_model_is_trained_on(folder):
    tokenizer = source_of(folder)
    task, data = tasks.SpanCorruption(pretrained="source"), data_of(folder)
    load_source(task, data, "source", training=True)
    trainer(max_steps=2).fit(task, data)
    assert data.tokenizer.specials == tokenizer.specials and data.assets()["start_id"] == 0
    source_of(folder / "few", SENTINELS[:1])
    with pytest.raises(UserError, match="of the checkpoint has 1 sentinels, but data.context=64 "):
        load_source(task, data_of(folder, context=64), "few/source", training=True)
    model = family.gpt_nano(160, dim=16, depth=1, heads=2)
    model.tokenizer = tokenizer
    family.save_pretrained(model, folder / "gpt")
    with pytest.raises(UserError, match="is a GPT, made for LanguageModeling, but this needs Span"):
        load_source(task, data_of(folder), "gpt", training=True)


# --- In which numbers ---


def finite(precision, folder):
    pl.seed_everything(0)
    task = tasks.SpanCorruption(t5, lr=1e-3, warmup_steps=0, schedule="constant")
    losses = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, task, outputs, batch, index):
            losses.append(float(outputs["loss"]))

    trainer(max_steps=6, precision=precision, callbacks=[Watch()], limit_val_batches=0).fit(
        task, data_of(folder)
    )
    return torch.tensor(losses)


def test_bfloat16_trains_as_float32_does(folder):
    exact = finite("32-true", folder)
    for precision in ("bf16-mixed", "bf16-true"):
        losses = finite(precision, folder)
        assert losses.isfinite().all() and (losses - exact).abs().max() < 0.03 * exact.max()


def test_float16_is_refused_before_training(folder, capsys, monkeypatch):
    said = "trainer.precision=16-true: what a T5 computes is beyond the range of float16: set bf16-mixed"
    with pytest.raises(UserError, match=said):
        finite("16-true", folder)
    mixed = tasks.SpanCorruption(t5)
    mixed.trainer = trainer(max_steps=1)
    monkeypatch.setattr(type(mixed.trainer), "precision", "16-mixed")  # which no processor has
    mixed.model = t5(40)
    with pytest.raises(UserError, match="trainer.precision=16-mixed: what a T5 computes"):
        mixed.configure_model()
    mixed.model = family.Seq2Seq(40, TransformerConfig(**STACK))
    mixed.configure_model()
    # In use as in training.
    source_of(folder)
    with pytest.raises(ValueError, match="source is in float16, beyond .* dtype=torch.bfloat16"):
        family.load(folder / "source", dtype=torch.float16)
    assert family.load(folder / "source", dtype=torch.bfloat16).predict(["a red"], beams=1)
    with pytest.raises(SystemExit):
        main(["translate", "source", "a red circle", "--precision=16"])
    assert "--precision 16: what a T5 computes is beyond the range of" in capsys.readouterr().err


# --- What is refused before training ---


def test_models_that_cannot(folder):
    def refused(model, said, **options):
        with pytest.raises(UserError, match=said):
            trainer(max_steps=1).fit(tasks.SpanCorruption(model), data_of(folder, **options))

    learned = {**STACK, "position": "learned"}
    refused(
        lambda vocab_size, **more: family.Seq2Seq(vocab_size, TransformerConfig(**learned), **more),
        "data.context=80 makes texts of 80 tokens, more than the model's max_tokens=64",
        context=80,
    )


def test_prediction_is_a_matter_of_training_on(folder):
    with pytest.raises(UserError, match="train with tasks.TextToText"):
        tasks.SpanCorruption(t5).predict_step({}, 0)
    with pytest.raises(UserError, match="use family generate"):
        data_of(folder).predict_dataloader()
