"""What the parser of configs refuses is said in one sentence with the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
from jsonargparse import ActionConfigFile, ArgumentError
from pytorch_lightning.cli import LightningArgumentParser

from tasks.cli import main
from tasks.cli.building import build_task
from tasks.cli.configs import find_config
from tasks.cli.messages import mistake, sentence
from tasks.data.images import picture_size
from tasks.errors import UserError


@pytest.fixture(scope="module")
def parser():
    made = LightningArgumentParser(exit_on_error=False, allow_abbrev=False)
    made.add_argument("--config", action=ActionConfigFile)
    made.add_lightning_class_args(pl.Trainer, "trainer")
    made.add_lightning_class_args(pl.LightningModule, "model", subclass_mode=True)
    made.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True)
    return made


GIVEN = [
    "--model=tasks.Translation",
    "--model.model=family.Seq2Seq",
    "--data=tasks.TranslationData",
]
SAID = {
    "--trainer.precision=bf17": "Did you mean 'bf16'?",
    "--trainer.max_steps=many": "trainer.max_steps must be a whole number, not many.",
    "--trainer.gradient_clip_val=x": "trainer.gradient_clip_val must be a number, not x.",
    "--model.lr=fast": "model.lr must be a number, not fast.",
    "--model.betas=[0.9]": "model.betas must be a list of 2 in [...], not [0.9].",
    "--model.compile=x": "model.compile must be true or false, not x.",
    "--model.model.init_args.config.heads=x": "config.heads must be a whole number, not x.",
    "--model.learning_rate=3": "Did you mean 'lr'?",
    "--trainer.epochs=3": "unknown option 'epochs' of trainer. Did you mean 'max_epochs'?",
    "--data.bs=3": "Did you mean 'tokens_per_batch'?",
    "--data.tokeniser=bpe": "unknown option 'tokeniser' of data. Did you mean 'tokenizer'?",
    "--data.on_bad=skip": "unknown option 'on_bad' of data. There are: root, source,",
    "--model.model.init_args.config.n_heads=3": "Did you mean 'heads'?",
    "--model.num_layers=3": "Did you mean 'model.model.config.depth'?",
    "--model.max_steps=3": "Did you mean 'trainer.max_steps'?",
    "--trainer.batch_size=3": "Did you mean 'data.tokens_per_batch'?",
    "--model=tasks.Translatoin": "there is no tasks.Translatoin. Did you mean 'Translation'?",
    "--model=torch.nn.Linear": "model='torch.nn.Linear' is no LightningModule.",
    "--data=shapes": "data='shapes' is no class: give its dotted path.",
    "--trainer.callbacks=x": "trainer.callbacks='x' is no class: give its dotted path.",
    "--max_steps=3": "Did you mean 'trainer.max_steps'?",
    "--lr=3": "Did you mean 'model.lr'?",
    "--trainer.max_step=3": "unknown option 'max_step' of trainer. Did you mean 'max_steps'?",
    "--model.model.config=3": "model.model.config must be a TransformerConfig, not 3.",
    "--model.model=family.Seq2Sec": "there is no family.Seq2Sec. Did you mean 'Seq2Seq'?",
}


@pytest.mark.parametrize("argument", SAID)
def test_the_parser_speaks_in_one_sentence(parser, argument):
    with pytest.raises(ArgumentError) as caught:
        parser.parse_args([*GIVEN, argument])
    said = sentence(caught.value, [*GIVEN, argument])
    assert SAID[argument] in said
    assert "\n" not in said


def test_a_choice_says_what_there_is(parser):
    arguments = [*GIVEN[:2], "--data=tasks.ImageTextData", "--data.on_bad=skp"]
    with pytest.raises(ArgumentError) as caught:
        parser.parse_args(arguments)
    said = sentence(caught.value, arguments)
    assert "data.on_bad='skp' is unknown; choose one of: stop, skip. Did you mean 'skip'?" in said


IN_FILES = {
    "{trainer: {max_stepz: 3}}": "unknown option 'max_stepz' of trainer. Did you mean 'max_steps'?",
    "{data: {init_args: {tokeniser: bpe}}}": "unknown option 'tokeniser' of data. Did you mean",
    "{model: {init_args: {model: {init_args: {config: {n_layer: 3}}}}}}": "unknown option 'n_layer' "
    "of model.model.config. Did you mean 'depth'?",
    "{model: {init_args: {betas: [0.9, x]}}}": "model.betas must be a list of 2 in [...], not",
    "{model: {class_path: tasks.Translate}}": "there is no tasks.Translate. Did you mean",
    "{modle: {lr: 3}}": "unknown option 'modle'. Did you mean 'model'?",
    "{trainer: {callbacks: [{class_path: tasks.compare.measure.Measur}]}}": "trainer.callbacks: "
    "module 'tasks.compare.measure' has no attribute 'Measur'",
    "trainer: [3": "more.yaml is not YAML: while parsing a flow sequence",
    "just text": "more.yaml needs options such as model, data and trainer",
}


@pytest.mark.parametrize("content", IN_FILES)
def test_a_file_is_searched_for_what_is_wrong(parser, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("more.yaml").write_text(content)
    arguments = [*GIVEN, "--config", "more.yaml"]
    with pytest.raises(ArgumentError) as caught:
        parser.parse_args(arguments)
    try:
        said = sentence(caught.value, arguments)
    except UserError as error:
        said = str(error)
    assert IN_FILES[content] in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "arguments", [["fit"], ["fit", "--config"], ["fit", "--trainer.max_steps=3"]]
)
def test_without_a_config(capsys, arguments):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "give --config TASK/NAME" in capsys.readouterr().err


def test_what_is_built_says_it_in_its_own_words(parser):
    config = parser.parse_args([*GIVEN, "--data.tokens_per_batch=0"])
    with pytest.raises(ValueError) as caught:
        parser.instantiate(config)
    assert sentence(caught.value) == "data.tokens_per_batch must be at least 1, not 0."
    assert sentence(ValueError("something\nnew")) == "something new"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model.class_path", 0.003, "model=0.003 is no class: give its dotted path."),
        ("model.class_path", ["a"], "model=['a'] is no class: give its dotted path."),
    ],
)
def test_a_class_path_that_is_no_text(path, value, said):
    assert mistake(path, value, {"model": pl.LightningModule}) == said


def test_a_class_where_none_belongs_is_not_blamed_on_a_class_of_another_kind():
    assert mistake("trainer.class_path", "family.BERT", {"trainer": int}) is None


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            "data: {class_path: tasks.LanguageModelingData, init_args: {vocab_size: null}}",
            "data.vocab_size must be a whole number, not null.",
        ),
        (
            "trainer: {val_check_interval: 1.5, check_val_every_n_epoch: null, accelerator: cpu}",
            "val_check_interval",
        ),
    ],
)
def test_what_the_parser_lets_pass(tmp_path, part, said):
    file = tmp_path / "over.yaml"
    file.write_text(part)
    with pytest.raises(UserError, match=said):
        build_task(find_config("language_modeling/sums"), [f"--config={file}"])


def test_pictures_larger_than_memory():
    with pytest.raises(UserError, match="data.image_size must be at most 16384, not 1000000000"):
        picture_size(10**9)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError, 2, "family: there is not enough memory for sizes such as these.\n"),
        (KeyboardInterrupt, 130, ""),  # Ctrl-C
    ],
)
def test_what_ends_a_command_is_no_stack_trace(monkeypatch, capsys, error, code, said):
    def fails(arguments):
        raise error

    monkeypatch.setattr("tasks.cli.entry.dispatch", fails)
    with pytest.raises(SystemExit) as stopped:
        main(["list"])
    assert stopped.value.code == code and capsys.readouterr().err == said
