"""Translation between several languages: what it reports of each direction, and who uses its languages."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import sacrebleu
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

import family
from family import TransformerConfig
from tasks.cli import main
from tasks.compare.metrics import METRICS
from tasks.data.translation import TranslationData
from tasks.training.text_scores import bleu_of, text_scores
from tasks.translation import Translation

STACK = TransformerConfig(dim=16, depth=1, heads=2, position="sinusoidal", max_tokens=64)
LANGUAGES = ["en", "fr", "de"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Lively(Translation):
    """One whose random weights say something, and not the same of every sentence."""

    def __init__(self, **options):
        super().__init__(partial(family.Seq2Seq, config=STACK), **options)

    def configure_model(self):
        fresh = self.model is None
        super().configure_model()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters() if fresh else ():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.6, generator=generator)


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing="callbacks" in options,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


def data(**options):
    return TranslationData(
        **{"languages": LANGUAGES, "examples": 12, "vocab_size": 280, "tokens_per_batch": 400}
        | options
    )


def table(folder, *languages):
    rows = [f"{i} {'x' * (i % 4)} {one}" for i in range(20) for one in languages]
    lines = ["\t".join(rows[i : i + len(languages)]) for i in range(0, len(rows), len(languages))]
    (folder / "all.tsv").write_text("\n".join(["\t".join(languages), *lines]), encoding="utf-8")
    return str(folder / "all.tsv")


def test_each_direction_is_scored_by_itself(folder):
    given = data()
    task, runner = Lively(lr=1e-3), trainer(max_steps=2, limit_val_batches=2)
    runner.fit(task, given)
    found = runner.validate(task, given, verbose=False)[0]
    directions = [f"{a}-{b}" for a in LANGUAGES for b in LANGUAGES if a != b]
    seen = [one for one in directions if f"val/{one}/bleu" in found]
    assert len(seen) > 2
    for name in ("bleu", "bleu_lowercase", "chrf"):
        each = [found[f"val/{one}/{name}"] for one in seen]
        assert found[f"val/{name}"] == pytest.approx(sum(each) / len(each))
        assert all(f"val/{one}/{name}" in task.signatures for one in seen)
    losses = [found[f"val/{one}/loss"] for one in seen]
    assert min(losses) < found["val/loss"] < max(losses)
    assert {sample.partition(":")[0] for sample in task.samples} == set(seen)


def test_what_is_made_depends_on_no_batch_and_is_what_a_loaded_model_makes(folder):
    root = table(folder, *LANGUAGES)
    given = data(root=root, tokenizer="char")
    task = Lively(beams=3)
    runner = trainer(max_steps=1, limit_val_batches=0)
    runner.fit(task, given)
    runner.save_checkpoint("run.ckpt")
    loaded = family.load("run.ckpt")
    for beams in (1, 3):
        task.beams = beams
        rows = {}
        for tokens in (30, 5000):
            batches = data(root=root, tokenizer="char", tokens_per_batch=tokens)
            batches.use_assets(given.assets())
            made = [row for batch in runner.predict(task, batches) for row in batch]
            rows[tokens] = {(row["line"], row["direction"]): row["translation"] for row in made}
        assert rows[30] == rows[5000]
        assert len(rows[30]) == 12 and len(set(rows[30].values())) > 4
        for row in made[::3]:
            source, target = row["direction"].split("-")
            again = loaded.predict([row["source"]], source=source, target=target, beams=beams)
            assert again == [row["translation"]]
    # Another language makes another text, and a folder of ours knows that too.
    family.save_pretrained(loaded.model, "saved")
    text = made[0]["source"]
    said = [loaded.predict([text], target=one)[0] for one in LANGUAGES]
    assert len(set(said)) > 1
    assert [family.load("saved").predict([text], target=one)[0] for one in LANGUAGES] == said


def test_the_command_asks_for_a_language(folder, capsys, caplog):
    given, task, runner = (
        data(directions=["en-de", "en-fr", "fr-en"]),
        Lively(),
        trainer(max_steps=1),
    )
    runner.fit(task, given)
    runner.save_checkpoint("run.ckpt")
    capsys.readouterr()

    def refused(*options):
        with pytest.raises(SystemExit):
            main(["translate", "run.ckpt", "a star", "--beams=1", *options])
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        return said

    assert "translates into de, en, fr: say which (target=, or --to)" in refused()
    assert "'dee' is none of the model's (en, de, fr). Did you mean 'de'?" in refused("--to=dee")
    assert "'xx' is none of the model's" in refused("--from=xx", "--to=de")
    caplog.clear()
    main(["translate", "run.ckpt", "a star", "a circle", "--batch_size=1", "--beams=1", "--to=de"])
    assert len(capsys.readouterr().out.split("\n")) == 3 and not caplog.records
    # From French there is one way; from German there is none.
    main(["translate", "run.ckpt", "un", "--beams=1", "--from=fr"])
    assert not caplog.records
    options = ["--from=de", "--to=en", "--beams=1", "--batch_size=1"]
    main(["translate", "run.ckpt", "ein Stern", "ein Kreis", *options])
    (warned,) = [record.getMessage() for record in caplog.records]
    assert warned.startswith("the model was never trained to translate from de into en")


def test_one_target_needs_no_name(folder):
    given, task, runner = (
        data(directions=["de-en", "fr-en"]),
        Lively(),
        trainer(max_steps=1),
    )
    runner.fit(task, given)
    runner.save_checkpoint("run.ckpt")
    loaded = family.load("run.ckpt")
    english = given.language_tokens.ids["en"]
    assert loaded.model.generation.rules.forced == {0: english}
    assert loaded.predict(["ein Stern"]) == loaded.predict(["ein Stern"], target="en")
    ids = torch.tensor([loaded.tokenizer.encode("ein Stern")])
    assert loaded.model.generate(ids, max_new_tokens=4)[0, 0] == english


def test_chinese_is_cut_by_characters(folder):
    root = table(folder, "en", "zh", "ja")
    task = Lively()
    trainer().validate(
        task, data(root=root, languages=["en", "zh", "ja"], tokenizer="char"), verbose=False
    )
    assert "tok:zh" in task.signatures["val/en-zh/bleu"]
    assert "tok:13a" in task.signatures["val/zh-en/bleu"]
    assert "tok:13a" not in task.signatures["val/en-ja/bleu"]
    one = Lively()
    trainer().validate(one, TranslationData(root, "en", "zh", tokenizer="char"), verbose=False)
    assert "tok:zh" in one.signatures["val/bleu"]
    made, true = ["我爱北京天安门"], ["我爱北京的天安门"]
    wanted = sacrebleu.BLEU(tokenize="zh").corpus_score(made, [true]).score
    for code in ("zh", "zh_CN", "zho_Hans"):
        assert text_scores(made, true, code)["bleu"][0] == wanted > 30
    assert text_scores(made, true)["bleu"][0] == 0


def test_a_comparison_takes_the_mean_over_directions():
    rows = [
        {"direction": f"en-{one}", "target_language": one, "made": made, "true": true}
        for one, made, true in (
            ("de", "ein roter Kreis und ein Stern", "ein roter Kreis und ein Herz"),
            ("zh", "我爱北京天安门", "我爱北京的天安门"),
            ("zh", "一颗红色的星星", "一颗红色的心"),
        )
    ]
    score = METRICS["bleu"](rows)(np.ones((1, 3)))[0]
    each = [
        bleu_of(one).corpus_score([r["made"] for r in mine], [[r["true"] for r in mine]]).score
        for one, mine in (("de", rows[:1]), ("zh", rows[1:]))
    ]
    assert score == pytest.approx(sum(each) / 2) and each[0] != each[1]


def test_a_run_that_was_cut_within_an_epoch_ends_as_one_without_a_break(folder):
    for split, count in (("train", 60), ("val", 4)):
        for a, b, share in (("en", "de", 1), ("en", "fr", 4)):
            for one in (a, b):
                lines = [f"{i} {'w' * (i % 5)} {one}" for i in range(count // share)]
                (folder / f"{split}.{a}-{b}.{one}").write_text("\n".join(lines))

    def fit(checkpoint=None):
        pl.seed_everything(0)
        given = data(root=str(folder), tokenizer="char", temperature=4, tokens_per_batch=60)
        task = Lively(lr=1e-2, warmup_steps=2)
        kept = ModelCheckpoint(".", every_n_train_steps=5, save_top_k=-1, filename="{step}")
        runner = trainer(max_steps=12, limit_val_batches=0, callbacks=[kept])
        runner.fit(task, given, ckpt_path=checkpoint)
        assert runner.num_training_batches > 12
        return task.model.state_dict()

    whole = fit()
    rest = fit("step=5.ckpt")
    assert all(torch.equal(rest[name], value) for name, value in whole.items())
