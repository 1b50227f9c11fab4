"""Masked language modelling: its loss against transformers, its metrics, and what is refused."""

from __future__ import annotations

import json
import logging
import math
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

import family
import tasks
from family.core.config import TransformerConfig
from family.inputs.encode import with_ends
from family.losses.language_model import IGNORE
from tasks.cli import main
from tasks.compare.metrics import METRICS
from tasks.data.tokenizers import MASK, SPECIALS, train_tokenizer
from tasks.errors import UserError
from tasks.training.finetuning import load_source

sys.path.insert(0, str(Path(__file__).parent / "parity"))

STACK = {"dim": 16, "depth": 2, "heads": 2, "max_tokens": 32, "position": "learned"}
LINES = ["a red circle", "two blue squares", "the star is small", "one hexagon"] * 20


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data_of(folder, **options):
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in LINES))
    given = {"tokenizer": "char", "context": 32, "batch_size": 8, "separator": "\n", **options}
    return tasks.MaskedLanguageModelingData(str(folder), **given)


def bert(vocab_size=40, **options):
    torch.manual_seed(0)
    config = TransformerConfig(**{**STACK, **options.pop("config", {})})
    return family.BERT(vocab_size, config, **{"token_types": 0, "pooler": None, **options})


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


def drawn(vocab_size, lengths=(11, 7, 4), seed=0):
    """Rows of unequal length, of which some tokens are hidden."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(vocab_size, mask.shape, generator=generator)
    hidden = mask & (torch.rand(mask.shape, generator=generator) < 0.3)
    hidden[0, 1] = True
    labels = torch.where(hidden, torch.randint(vocab_size, mask.shape, generator=generator), IGNORE)
    return {"input_ids": ids, "labels": labels, "mask": mask}


# --- Against transformers ---


@pytest.mark.parametrize("kind", ["Bert", "ModernBert", "DistilBert"])
def test_loss_and_gradients_are_those_of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    import peers

    sizes = {"vocab_size": 53, "hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 5}
    if kind == "DistilBert":
        sizes = {"vocab_size": 53, "dim": 20, "n_layers": 3, "n_heads": 5, "hidden_dim": 28}
    elif kind == "Bert":
        sizes |= {"intermediate_size": 28, "max_position_embeddings": 16}
    else:
        sizes |= {"intermediate_size": 28, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(**sizes, attn_implementation="eager")
    theirs = getattr(transformers, f"{kind}ForMaskedLM")(config).double()
    peers.randomise(theirs)
    theirs.eval()
    task = tasks.MaskedLanguageModeling(family.from_pretrained(theirs))
    task.adapt_model()
    batch = drawn(53)
    loss = task.loss(batch)["loss"]
    loss.backward()
    given = {"input_ids": batch["input_ids"], "attention_mask": batch["mask"].long()}
    found = theirs(**given, labels=batch["labels"])
    expected = found.loss
    if expected.dtype != loss.dtype:  # some of theirs round their logits first
        expected = F.cross_entropy(found.logits.flatten(0, 1), batch["labels"].flatten())
    expected.backward()
    # Their rotary tables are of float32.
    exact = {"rtol": 1e-8, "atol": 1e-8} if kind == "ModernBert" else {"rtol": 1e-10, "atol": 1e-11}
    torch.testing.assert_close(loss, expected, **exact)
    published, ours = peers.gradients(theirs), dict(task.model.named_parameters())
    assert len(ours) > 20
    for name, parameter in ours.items():
        torch.testing.assert_close(
            parameter.grad, published[name], **exact, msg=lambda m, n=name: f"{n}: {m}"
        )


# --- Packed texts, and the head ---


@pytest.mark.parametrize("position", ["learned", "rotary", "relative"])
def test_the_loss_of_packed_texts_is_that_of_each_alone(position):
    model = bert(config={"position": position}).double().eval()
    task = tasks.MaskedLanguageModeling(model)
    task.adapt_model()
    alone = [drawn(40, lengths=(n,), seed=n) for n in (9, 5, 7)]
    packed = {name: torch.cat([b[name] for b in alone], 1) for name in alone[0]}
    numbers = [torch.full_like(b["input_ids"], i) for i, b in enumerate(alone)]
    padding = {"input_ids": 3, "labels": IGNORE, "mask": False, "documents": -1}
    packed["documents"] = torch.cat(numbers, 1)
    packed = {n: F.pad(v, (0, 3), value=padding[n]) for n, v in packed.items()}
    counts = [int((b["labels"] != IGNORE).sum()) for b in alone]
    sums = sum(float(task.loss(b)["loss"]) * n for b, n in zip(alone, counts, strict=True))
    assert float(task.loss(packed)["loss"]) == pytest.approx(sums / sum(counts), rel=1e-9)
    crossing = {n: v for n, v in packed.items() if n != "documents"}
    assert float(task.loss(crossing)["loss"]) != pytest.approx(sums / sum(counts), rel=1e-7)


def test_the_head_is_computed_at_hidden_tokens_alone(monkeypatch):
    model = bert()
    rows = []
    monkeypatch.setattr(
        model.masked_head.dense, "forward", lambda x: rows.append(x.shape) or x @ torch.eye(16)
    )
    task = tasks.MaskedLanguageModeling(model)
    task.adapt_model()
    batch = drawn(40)
    task.loss(batch)
    assert rows == [(int((batch["labels"] != IGNORE).sum()), 16)]


def test_a_batch_that_hides_nothing_teaches_nothing():
    task = tasks.MaskedLanguageModeling(bert())
    task.adapt_model()
    batch = drawn(40)
    loss = task.loss({**batch, "labels": torch.full_like(batch["labels"], IGNORE)})["loss"]
    loss.backward()
    assert float(loss) == 0
    assert all(p.grad is None or not p.grad.any() for p in task.parameters())


# --- Training and metrics ---


class Mean(nn.Module):
    """Somebody else's model of the contract: knows nothing of documents, and reads one text a row."""

    def __init__(self, vocab_size):
        super().__init__()
        self.table, self.head = nn.Embedding(vocab_size, 16), nn.Linear(16, vocab_size)

    def forward(self, input_ids, mask):
        x = self.table(input_ids) * mask[..., None]
        return self.head(x + x.mean(1, keepdim=True))


def test_it_learns_and_shows_what_it_made(folder):
    pl.seed_everything(0)
    task = tasks.MaskedLanguageModeling(bert, lr=1e-2, warmup_steps=5)
    runner = trainer(max_steps=150)
    data = data_of(folder)
    runner.fit(task, data)
    metrics = runner.callback_metrics
    assert metrics["val/accuracy"] > 0.6
    assert metrics["val/perplexity"] == pytest.approx(math.exp(metrics["val/loss"]), rel=1e-5)
    assert len(task.samples) == 8
    assert all(text.count("[") == text.count("]") >= 1 for text in task.samples)
    # By hand, over all gaps of the split together.
    right = count = total = 0
    for batch in data.val_dataloader():
        hidden = batch["labels"] != IGNORE
        given = {n: batch[n] for n in ("input_ids", "mask", "documents")}
        logits, labels = task.model.eval()(**given)[hidden], batch["labels"][hidden]
        total += float(F.cross_entropy(logits, labels, reduction="sum"))
        right, count = right + int((logits.argmax(-1) == labels).sum()), count + len(labels)
    found = trainer().validate(task, data, verbose=False)[0]
    assert found["val/loss"] == pytest.approx(total / count, rel=1e-5)
    assert found["val/accuracy"] == pytest.approx(right / count, rel=1e-6)
    assert found == trainer().validate(task, data, verbose=False)[0]  # the same gaps


def test_a_table_of_rows_gives_the_metrics_again(folder):
    data = data_of(folder)
    task = tasks.MaskedLanguageModeling(bert)
    rows: list[dict[str, float]] = []

    class Keep(pl.Callback):
        def on_test_batch_end(self, trainer, task, outputs, batch, index):
            rows.extend(
                dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)
            )

    found = trainer(callbacks=[Keep()]).test(task, data, verbose=False)[0]
    every = torch.ones(1, len(rows)).double().numpy()
    for name in ("loss", "perplexity", "accuracy"):
        assert METRICS[name](rows)(every)[0] == pytest.approx(found[f"test/{name}"], rel=1e-4)


def test_any_model_of_the_contract_learns(folder):
    data = data_of(folder, separator=None)
    task = tasks.MaskedLanguageModeling(Mean, lr=0.02, warmup_steps=5)
    runner = trainer(max_steps=20)
    runner.fit(task, data)
    assert torch.isfinite(runner.callback_metrics["val/loss"])


# --- From pre-training to classes ---


CONFIG = {"dim": 16, "depth": 2, "heads": 2, "max_tokens": 64, "position": "learned"}
RUN = [
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.limit_val_batches=1",
]
PRETRAIN = [
    "fit",
    "--model=tasks.MaskedLanguageModeling",
    "--model.model=family.BERT",
    f"--model.model.config={json.dumps(CONFIG)}",
    "--model.model.token_types=0",
    "--data=tasks.MaskedLanguageModelingData",
    "--data.separator=\n",
    "--data.vocab_size=300",
    "--data.context=32",
    "--trainer.max_steps=3",
    *RUN,
]


@pytest.mark.slow
def test_fine_tuning_from_a_run_by_one_line(folder, caplog, capsys):
    main([*PRETRAIN, "--run_folder=before"])
    main(["fill", "before", "a picture of a red [MASK]", "--top=2"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("a picture of a red [MASK]\t")
    with caplog.at_level(logging.WARNING):
        main([
            "fit", "--model=tasks.TextClassification", "--data=tasks.TextClassificationData",
            "--model.pretrained=before", "--model.lr=0", "--data.examples=40", "--trainer.max_steps=1",
            "--run_folder=after", *RUN,
        ])  # fmt: skip
    count = len(tasks.TextClassificationData(examples=40).classes)
    said = f"best.ckpt: the head for {count} classes starts afresh, masked_head left out."
    assert [said in message for message in caplog.messages].count(True) == 1
    before, after = (family.from_pretrained(run) for run in ("before", "after"))
    assert after.masked_head is None and after.num_classes == count
    assert after.tokenizer.to_json() != "" and after.tokenizer.specials == before.tokenizer.specials
    kept = before.state_dict()
    assert {n for n in after.state_dict() if n not in kept} == {
        "class_head.weight", "class_head.bias"
    }  # fmt: skip
    for name, value in after.state_dict().items():
        assert name not in kept or torch.equal(value, kept[name])
    assert {n.partition(".")[0] for n in kept if n not in after.state_dict()} == {"masked_head"}


def test_a_published_model_is_trained_on(folder):
    tokenizer = with_ends(train_tokenizer("bpe", LINES, 300, specials=(*SPECIALS, MASK)))
    model = bert(tokenizer.vocab_size, config={"norm_order": "post"}, token_types=2)
    model.tokenizer = tokenizer
    family.save_pretrained(model, folder / "source", format="bert")
    task, data = tasks.MaskedLanguageModeling(pretrained="source"), data_of(folder)
    load_source(task, data, "source", training=True)
    trainer(max_steps=2).fit(task, data)
    assert data.tokenizer.specials == tokenizer.specials
    # And a model of the other kind is none for it.
    classes = bert(tokenizer.vocab_size, masked_head=False, num_classes=2)
    classes.tokenizer = tokenizer
    family.save_pretrained(classes, folder / "classes")
    with pytest.raises(UserError, match="for TextClassification, but this needs MaskedLanguage"):
        load_source(task, data_of(folder), "classes", training=True)


def test_a_source_without_a_mask_token(folder):
    model = bert(300)
    model.tokenizer = train_tokenizer("bpe", LINES, 300)
    family.save_pretrained(model, folder / "source")
    with pytest.raises(UserError, match="has no mask token"):
        load_source(
            tasks.MaskedLanguageModeling(pretrained="source"), data_of(folder), "source", True
        )


# --- What is refused before training ---


def test_models_that_cannot(folder):
    def refused(model, said, **options):
        with pytest.raises(UserError, match=said):
            task = tasks.MaskedLanguageModeling(model)
            trainer(max_steps=1).fit(task, data_of(folder, **options))

    refused(Mean, "packed, which needs a model that takes documents: Mean does not")
    refused(
        lambda vocab_size: bert(vocab_size, masked_head=False),
        "this BERT has no head for masked tokens: give masked_head=true",
    )
    refused(bert, "data.context=40 is more than the model's max_tokens=32", context=40)


def test_prediction_is_a_matter_of_filling(folder):
    with pytest.raises(UserError, match="use family fill"):
        tasks.MaskedLanguageModeling(bert).predict_step({}, 0)
    with pytest.raises(UserError, match="use family fill"):
        data_of(folder).predict_dataloader()
