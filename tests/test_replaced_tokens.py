"""ELECTRA's pre-training: losses against transformers, what is drawn, shared, kept and refused."""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint

import family
import tasks
from family.core.config import TransformerConfig
from family.losses.language_model import IGNORE
from family.losses.replaced_tokens import Corrupted, corrupt, replaced_loss
from tasks.cli import main
from tasks.errors import UserError
from tasks.training.finetuning import load_source
from tasks.training.replaced_tokens import shown_replaced

sys.path.insert(0, str(Path(__file__).parent / "parity"))

STACK = {
    "depth": 1, "max_tokens": 32, "position": "learned", "norm_order": "post", "norm_eps": 1e-12
}  # fmt: skip
LINES = ["a red circle", "two blue squares", "the star is small", "one hexagon"] * 20
CORRUPTED = {"masked": 0.85, "random": 0.0}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data_of(folder, **options):
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in LINES))
    given = {"tokenizer": "char", "context": 32, "batch_size": 8, "separator": "\n", **CORRUPTED}
    return tasks.MaskedLanguageModelingData(str(folder), **{**given, **options})


def built(vocab_size, dim, **options):
    config = TransformerConfig(dim=dim, heads=2, **{**STACK, **options.pop("config", {})})
    return family.BERT(vocab_size, config, pooler=None, embedding_dim=12, **options)


def discriminator(vocab_size=40, **options):
    return built(vocab_size, 16, **{"masked_head": False, "replaced_head": True, **options})


def generator(vocab_size=40, **options):
    return built(vocab_size, 8, **options)


def task_of(model=discriminator, other=generator, **options):
    torch.manual_seed(0)
    task = tasks.MaskedLanguageModeling(model, generator=other, **options)
    task.decided = {"vocab_size": 40}
    return task


def adapted(*given, **options):
    task = task_of(*given, **options)
    task.adapt_model()
    return task


def trainer(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    given = {"accelerator": "cpu", "enable_checkpointing": False, **quiet, **options}
    return pl.Trainer(use_distributed_sampler=False, **given)


def drawn(vocab_size=40, lengths=(11, 7, 4), seed=0):
    """Rows of unequal length, of which some tokens are hidden."""
    random = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(vocab_size, mask.shape, generator=random)
    hidden = mask & (torch.rand(mask.shape, generator=random) < 0.4)
    hidden[0, 1] = True
    labels = torch.where(hidden, torch.randint(vocab_size, mask.shape, generator=random), IGNORE)
    return {"input_ids": ids, "labels": labels, "mask": mask}


# --- Against transformers ---


def test_losses_and_gradients_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    import peers

    sizes = {"vocab_size": 53, "embedding_size": 12, "num_hidden_layers": 2, "type_vocab_size": 2}
    theirs = []
    for kind, width in (("PreTraining", 20), ("MaskedLM", 10)):
        config = transformers.ElectraConfig(
            **sizes, hidden_size=width, num_attention_heads=5, intermediate_size=28,
            max_position_embeddings=16, attn_implementation="eager",
        )  # fmt: skip
        theirs.append(getattr(transformers, f"ElectraFor{kind}")(config).double())
        peers.randomise(theirs[-1])
        theirs[-1].eval()
    ours = [family.from_pretrained(one) for one in theirs]
    task = tasks.MaskedLanguageModeling(ours[0], generator=ours[1], share_embeddings=False)
    task.adapt_model()
    batch = drawn(53)
    terms = task.loss(batch)
    terms["loss"].backward()
    filled = task.detect(batch).filled
    assert filled.replaced.any() and not (filled.replaced & (batch["labels"] == IGNORE)).any()
    mask = {"attention_mask": batch["mask"].long()}
    # Their losses round to float32, of their logits these are the same.
    logits = theirs[1](batch["input_ids"], **mask).logits
    guessed = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    logits = theirs[0](filled.input_ids, **mask).logits[batch["mask"]]
    told = F.binary_cross_entropy_with_logits(logits, filled.replaced[batch["mask"]].double())
    given = {**mask, "labels": filled.replaced.long()}
    rounded = theirs[0](filled.input_ids, **given).loss
    torch.testing.assert_close(rounded.double(), told, rtol=1e-6, atol=1e-7)
    (guessed + 50 * told).backward()
    exact = {"rtol": 1e-10, "atol": 1e-11}
    torch.testing.assert_close(terms["generator_loss"], guessed.detach(), **exact)
    torch.testing.assert_close(terms["discriminator_loss"], told.detach(), **exact)
    for published, model in zip(theirs, ours, strict=True):
        expected = peers.gradients(published)
        named = dict(model.named_parameters())
        assert len(named) > 20
        for name, parameter in named.items():
            torch.testing.assert_close(
                parameter.grad, expected[name], **exact, msg=lambda m, n=name: f"{n}: {m}"
            )


# --- What is drawn ---


def test_gaps_are_filled_by_what_the_generator_says():
    torch.manual_seed(0)
    labels = torch.full((40, 50), IGNORE)
    labels[:, ::2] = 1
    ids = torch.randint(5, 9, labels.shape)
    chances = torch.tensor([0.5, 0.2, 0.3, 0.0])
    logits = chances.log().expand(1000, 4).clone().requires_grad_()
    filled = corrupt(ids, labels, logits)
    assert torch.equal(filled.input_ids[:, 1::2], ids[:, 1::2])
    counts = filled.input_ids[:, ::2].flatten().bincount(minlength=4) / 1000
    assert counts.tolist() == pytest.approx(chances.tolist(), abs=0.05) and counts[3] == 0
    # What stood there is not replaced, though it was drawn.
    assert torch.equal(filled.replaced[:, ::2], filled.input_ids[:, ::2] != 1)
    assert not filled.replaced[:, 1::2].any()
    assert all(map(torch.equal, filled, corrupt(ids, labels, logits)))
    # A row is filled the same whatever others there are, and otherwise where it says something else.
    few = corrupt(ids[7:9], labels[7:9], logits[7 * 25 : 9 * 25])
    assert torch.equal(few.input_ids, filled.input_ids[7:9])
    turned = corrupt(ids.flip(1), labels.flip(1), logits)
    assert not torch.equal(filled.input_ids[:, ::2], turned.input_ids.flip(1)[:, ::2])
    drawn = filled.input_ids[:, ::2].double()
    among = drawn.T.corrcoef() - torch.eye(25)  # gaps of a row
    assert among.abs().max() < 0.6 and abs(among.sum() / (25 * 24)) < 0.05


def test_padding_does_not_count():
    torch.manual_seed(0)
    logits, replaced = torch.randn(2, 5), torch.rand(2, 5) < 0.5
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    expected = F.binary_cross_entropy_with_logits(logits[mask], replaced[mask].float())
    torch.testing.assert_close(replaced_loss(logits, replaced, mask), expected)
    nothing = torch.zeros_like(mask)
    assert replaced_loss(logits, replaced, nothing) == 0


def test_no_gradient_goes_through_what_was_drawn():
    task = adapted(share_embeddings=False)
    terms = task.loss(drawn())
    terms["discriminator_loss"].backward()
    assert all(p.grad is None for p in task.generator.parameters())
    assert all(p.grad is not None for p in task.model.parameters())


def test_a_batch_that_hides_nothing():
    task, batch = adapted(), drawn()
    terms = task.loss({**batch, "labels": torch.full_like(batch["labels"], IGNORE)})
    terms["loss"].backward()
    assert terms["generator_loss"] == 0 and terms["discriminator_loss"] > 0


def test_the_loss_of_packed_texts_is_that_of_each_alone():
    """Of the model, whose tokens are all real."""
    task = adapted()
    task.eval()
    rows = [drawn(lengths=(n,), seed=n) for n in (9, 5)]
    batch = {name: torch.cat([row[name] for row in rows], 1) for name in rows[0]}
    batch["documents"] = torch.tensor([[0] * 9 + [1] * 5])
    filled = task.detect(batch).filled
    logits = task.detect(batch).logits
    alone = [task.model(ids) for ids in filled.input_ids.split([9, 5], 1)]
    torch.testing.assert_close(logits, torch.cat(alone, 1))


# --- Shared tables ---


def test_both_have_one_embedding_and_each_its_own_projection():
    task = adapted()
    ours, theirs = task.model.embedding, task.generator.embedding
    for name in ("tokens", "position", "token_types", "norm"):
        assert getattr(ours, name).weight is getattr(theirs, name).weight
    assert task.generator.masked_head.output.weight is ours.tokens.weight
    assert ours.projection.weight.shape == (16, 12) and theirs.projection.weight.shape == (8, 12)
    named = [n for n, p in task.named_parameters() if p is ours.tokens.weight]
    assert named == ["model.embedding.tokens.weight"]  # trained once
    optimizer = [p for g in task_optimizer(task).param_groups for p in g["params"]]
    assert {map(id, optimizer)} and len(optimizer) == len({*map(id, optimizer)})
    assert {*map(id, optimizer)} == {id(p) for p in task.parameters()}
    apart = adapted(share_embeddings=False)
    assert apart.generator.embedding.tokens.weight is not apart.model.embedding.tokens.weight


def task_optimizer(task):
    task._trainer = trainer(max_steps=1)
    return task.configure_optimizers()["optimizer"]


def test_embeddings_that_cannot_be_shared():
    longer = partial(generator, config={"max_tokens": 64})
    said = r"embedding.position.weight is \(64, 12\) here and \(32, 12\) there"
    with pytest.raises(UserError, match=said):
        adapted(other=longer)
    with pytest.raises(UserError, match="embedding.token_types.weight is none here"):
        adapted(other=partial(generator, token_types=0))
    adapted(other=longer, share_embeddings=False)


# --- Training ---


def test_it_learns_and_its_metrics_are_those_by_hand(folder):
    pl.seed_everything(0)
    task = tasks.MaskedLanguageModeling(discriminator, generator=generator, lr=1e-2, warmup_steps=5)
    data = data_of(folder)
    trainer(max_steps=80, limit_val_batches=0).fit(task, data)
    found = trainer().validate(task, data, verbose=False)[0]
    assert found == trainer().validate(task, data, verbose=False)[0]  # the same tokens are drawn
    hidden = called = replaced = both = right = tokens = guessed = 0
    losses = torch.zeros(2, dtype=torch.float64)
    task.eval()
    for batch in data.val_dataloader():
        labels, mask = batch["labels"], batch["mask"]
        gap, ids = labels != IGNORE, batch["input_ids"]
        with torch.no_grad():
            logits = task.generator(ids, mask, documents=batch["documents"])[gap]
            filled = corrupt(ids, labels, logits)
            says = task.model(filled.input_ids, mask, documents=batch["documents"])[mask]
        true = filled.replaced[mask]
        losses[0] += F.cross_entropy(logits, labels[gap], reduction="sum")
        losses[1] += F.binary_cross_entropy_with_logits(says, true.float(), reduction="sum")
        guessed += int((logits.argmax(-1) == labels[gap]).sum())
        hidden, tokens = hidden + int(gap.sum()), tokens + len(true)
        called, replaced = called + int((says > 0).sum()), replaced + int(true.sum())
        both += int(((says > 0) & true).sum())
        right += int(((says > 0) == true).sum())
    expected = {
        "generator_loss": losses[0] / hidden,
        "generator_accuracy": guessed / hidden,
        "discriminator_loss": losses[1] / tokens,
        "loss": losses[0] / hidden + 50 * losses[1] / tokens,
        "perplexity": math.exp(losses[0] / hidden),
        "accuracy": right / tokens,
        "constant_accuracy": 1 - replaced / tokens,
        "precision": both / called,
        "recall": both / replaced,
        "f1": 2 * both / (called + replaced),
    }
    for name, value in expected.items():
        assert found[f"val/{name}"] == pytest.approx(float(value), rel=1e-4), name
    assert found["val/accuracy"] > found["val/constant_accuracy"]
    assert len(task.samples) == 8 and any(" -> " in text for text in task.samples)
    tested = trainer().test(task, data, verbose=False)[0]
    assert tested["test/accuracy"] == pytest.approx(found["val/accuracy"])  # the same texts


def test_a_resumed_run_is_equal_to_the_bit(folder):
    def run(checkpoint=None):
        pl.seed_everything(0)
        task = tasks.MaskedLanguageModeling(discriminator, generator=generator, schedule="constant")
        kept = ModelCheckpoint(folder / "kept", "{step}", every_n_train_steps=1, save_top_k=-1)
        runner = trainer(
            max_steps=16, num_sanity_val_steps=0, limit_val_batches=1,
            enable_checkpointing=not checkpoint, callbacks=[] if checkpoint else [kept],
        )  # fmt: skip
        runner.fit(task, data_of(folder), ckpt_path=checkpoint)
        return task

    whole, rest = run(), run(folder / "kept" / "step=7.ckpt")
    states = zip(whole.state_dict().values(), rest.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
    assert rest.generator.embedding.tokens.weight is rest.model.embedding.tokens.weight


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_in_half_precision(folder, optimizer):
    task = task_of(optimizer=optimizer)
    runner = trainer(max_steps=2, precision="bf16-mixed", limit_val_batches=1, val_check_interval=2)
    runner.fit(task, data_of(folder))
    assert torch.isfinite(runner.callback_metrics["val/loss"])
    assert all(torch.isfinite(p).all() for p in task.parameters())


def test_parts_of_a_batch_add_up(folder):
    """Gradients of two batches together are means over the hidden tokens of both."""

    class Keep(tasks.MaskedLanguageModeling):
        def on_before_optimizer_step(self, optimizer):
            super().on_before_optimizer_step(optimizer)
            self.found = [p.grad.clone() for p in self.generator.parameters()]

    def gradients(size, parts):
        torch.manual_seed(0)
        task = Keep(discriminator, generator=generator, discriminator_weight=0.0)
        data = data_of(folder, batch_size=size)
        trainer(max_steps=1, accumulate_grad_batches=parts).fit(task, data)
        return task.found

    for whole, added in zip(gradients(8, 1), gradients(4, 2), strict=True):
        torch.testing.assert_close(whole, added, rtol=1e-4, atol=1e-6)


# --- What a run is for others ---


PART = {"depth": 1, "heads": 2, "max_tokens": 64, "position": "learned", "norm_order": "post"}
MODEL = {"embedding_dim": 12, "pooler": None, "token_types": 2}
BOTH = {
    "model": {"masked_head": False, "replaced_head": True, "config": {"dim": 16, **PART}, **MODEL},
    "generator": {"config": {"dim": 8, **PART}, **MODEL},
}
CONFIG = {
    "model": {
        "class_path": "tasks.MaskedLanguageModeling",
        "init_args": {
            name: {"class_path": "family.BERT", "init_args": given} for name, given in BOTH.items()
        },
    },
    "data": {
        "class_path": "tasks.MaskedLanguageModelingData",
        "init_args": {
            "separator": "\n",
            "tokenizer": "char",
            "context": 32,
            "root": ".",
            **CORRUPTED,
        },
    },
}
RUN = [
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.limit_val_batches=1",
]


@pytest.mark.slow
def test_a_run_gives_its_discriminator(folder, capsys):
    data_of(folder)
    (folder / "config.yaml").write_text(json.dumps(CONFIG))
    main(["fit", "--config=config.yaml", "--run_folder=run", "--trainer.max_steps=2", *RUN])
    # To fill gaps it is not for.
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["fill", "run", "a red [MASK]"])
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "tells which tokens were replaced, and cannot fill gaps" in said[0]
    # To others it is a model for replaced tokens.
    model = family.load("run").model
    assert model.replaced_head is not None and model.masked_head is None
    ids = torch.tensor([model.tokenizer.encode("a red circle", special_tokens=True)])
    assert model(ids).shape == ids.shape
    family.save_pretrained(model, folder / "published", format="electra")
    saved = json.loads((folder / "published" / "config.json").read_text())
    assert saved["architectures"] == ["ElectraForPreTraining"]
    assert torch.equal(family.from_pretrained(folder / "published")(ids), model(ids))
    # Classes begin from it.
    after, data = (
        tasks.TextClassification(pretrained="run"),
        tasks.TextClassificationData(examples=40),
    )
    load_source(after, data, "run", training=True)
    after.adapt_model()
    assert after.model.replaced_head is None and after.model.num_classes == len(data.classes)
    assert torch.equal(after.model.eval().encode(ids), model.encode(ids))
    # And whoever wants the generator has it.
    task = tasks.MaskedLanguageModeling.load_from_checkpoint("run")
    assert task.generator.config.dim == 8 and not task.generator.training
    assert task.generator.embedding.tokens.weight is task.model.embedding.tokens.weight
    assert torch.equal(task.model(ids), model(ids))
    (answers,) = family.inference.masked.fill_masks(task.generator, ["a red [MASK]"], top=2)
    assert len(answers[0]) == 2
    # A run that goes on has the same generator, or is refused.
    other = json.loads(json.dumps(CONFIG))
    other["model"]["init_args"]["generator"]["init_args"]["config"]["heads"] = 1
    (folder / "other.yaml").write_text(json.dumps(other))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["fit", "--config=other.yaml", "--ckpt_path=run", "--trainer.max_steps=3", *RUN])
    assert (
        "holds a model with generator.init_args.config.head_dim=4, but the config says 8"
        in capsys.readouterr().err
    )


# --- What is refused before training ---


@pytest.mark.parametrize(
    ("model", "other", "said"),
    [
        (
            partial(discriminator, replaced_head=False),
            generator,
            "masked_head=false and replaced_head",
        ),
        (
            partial(discriminator, masked_head=True),
            generator,
            "masked_head=false and replaced_head",
        ),
        (discriminator, partial(generator, masked_head=False), "has no head for masked tokens"),
        (discriminator, lambda vocab_size: 3, "a int has no embedding to share"),
    ],
)
def test_models_that_cannot(folder, model, other, said):
    with pytest.raises(UserError, match=said):
        trainer(max_steps=1).fit(task_of(model, other), data_of(folder))


def test_options_that_cannot(folder):
    with pytest.raises(UserError, match="discriminator_weight must be"):
        task_of(discriminator_weight=-1.0)
    with pytest.raises(UserError, match="data.masked=0.8 and data.random=0.3 are shares"):
        data_of(folder, masked=0.8, random=0.3)


def test_hidden_tokens_as_the_authors_hide_them(folder):
    data = data_of(folder, **CORRUPTED)
    data.setup("fit")
    counts = torch.zeros(3)
    for _ in range(4):
        data.run_seed += 1
        for batch in data.loader("train"):
            hidden = batch["labels"] != IGNORE
            seen, true = batch["input_ids"][hidden], batch["labels"][hidden]
            gap, same = seen == data.tokenizer.mask_id, seen == true
            counts += torch.stack([gap.sum(), same.sum(), (~gap & ~same).sum()])
    assert (counts / counts.sum()).tolist() == pytest.approx([0.85, 0.15, 0.0], abs=0.04)


def test_samples_show_what_was_replaced_and_who_found_it(folder):
    data = data_of(folder)
    data.setup("fit")
    ids = torch.tensor([data.tokenizer.encode("a red", special_tokens=True)])
    labels = torch.full_like(ids, IGNORE)
    labels[0, 1], labels[0, 3] = ids[0, 3], ids[0, 4]  # "r" and "e" stood there
    filled = Corrupted(ids, torch.tensor([[False, True, False, True, False, False, False]]))
    called = torch.tensor([[True, True, False, False, False, True, False]])
    said = shown_replaced(data.tokenizer, {"labels": labels}, filled, called)
    assert said == ["[r -> a, found] [e -> r, missed] e [d, taken for one]"]
