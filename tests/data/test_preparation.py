"""One process prepares what all take over; checkpoints win; every process has its share."""

from __future__ import annotations

import inspect
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tasks
from family.losses.language_model import IGNORE
from tasks.data.base import FamilyData
from tasks.data.batching import LoaderProgress, TokenBatches
from tasks.data.language_modeling import RandomWindows
from tasks.data.sampling import ExampleBatches
from tasks.errors import UserError

SMALL = {
    "CaptioningData": {
        "examples": 20,
        "image_size": (16, 16),
        "vocab_size": 300,
        "max_tokens": 200,
    },
    "ChatTuningData": {"examples": 40, "vocab_size": 300, "batch_size": 3},
    "DetectionData": {"examples": 20, "image_size": (32, 32)},
    "ImageClassificationData": {"examples": 20, "image_size": 16},
    "ImageRegressionData": {"examples": 20, "image_size": 16},
    "ImageTextData": {"examples": 20, "image_size": (16, 16), "vocab_size": 300},
    "ImageTokenizingData": {"examples": 20, "image_size": 16},
    "LanguageModelingData": {"context": 8, "batch_size": 3},
    "MaskedLanguageModelingData": {"context": 8, "batch_size": 3, "tokenizer": "char"},
    "PreferenceData": {"examples": 20, "vocab_size": 300},
    "PromptData": {"examples": 20, "vocab_size": 300},
    "QuestionAnsweringData": {"examples": 20, "vocab_size": 300},
    "SegmentationData": {"examples": 20, "image_size": 16, "batch_size": 2},
    "SentencePairsData": {"examples": 20, "vocab_size": 300},
    "SeriesData": {"examples": 100, "batch_size": 9},
    "SpanCorruptionData": {"context": 16, "batch_size": 3, "tokenizer": "char"},
    "TaggingData": {"examples": 20, "vocab_size": 300},
    "TextClassificationData": {"examples": 200, "vocab_size": 300},
    "TextRegressionData": {"examples": 200, "vocab_size": 300},
    "TextToImageData": {
        "examples": 20,
        "image_size": (16, 16),
        "vocab_size": 300,
        "max_tokens": 200,
    },
    "TextToTextData": {"examples": 20, "vocab_size": 300},
    "TranslationData": {"examples": 20, "vocab_size": 300},
    "UnifiedData": {"examples": 60, "image_size": (16, 16), "slots": 4},
    "VisionChatData": {
        "examples": 600,
        "image_size": (16, 16),
        "slots": 4,
        "vocab_size": 300,
        "context": 400,
        "batch_size": 3,
    },
    "VideoClassificationData": {"examples": 20, "image_size": 16, "frames": 2},
    "VisualQuestionsData": {
        "examples": 300,
        "image_size": (16, 16),
        "vocab_size": 300,
        "max_tokens": 99,
        "unknown_answers": "wrong",
    },
}
READ = {
    "CaptioningData": "pairs",
    "ChatTuningData": "rows",
    "ImageTextData": "pairs",
    "LanguageModelingData": "texts",
    "MaskedLanguageModelingData": "texts",
    "PreferenceData": "rows",
    "PromptData": "rows",
    "QuestionAnsweringData": "rows",
    "SentencePairsData": "rows",
    "SpanCorruptionData": "texts",
    "TaggingData": "texts",
    "TextClassificationData": "rows",
    "TextRegressionData": "rows",
    "TextToImageData": "pairs",
    "TextToTextData": "rows",
    "TranslationData": "pairs",
    "VisionChatData": "rows",
    "VisualQuestionsData": "rows",
}
"""What reads the texts of a split."""


def made(name, text="train, val: a red circle\n", **options):
    """Data of a kind, small; ``text`` is what a language model learns."""
    data = getattr(tasks, name)(**{**SMALL[name], **options})
    if isinstance(data, tasks.LanguageModelingData):
        data.texts = lambda split: iter([text * 9 if split == "train" else f"{split}: red\n" * 9])
    return data


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the tokens go to a folder here


class Process:
    """As much of a trainer as data modules ask for; what rank 0 says the others hear."""

    world_size, current_epoch = 2, 0

    def __init__(self, rank, said, stage="validate"):
        self.global_rank, self.is_global_zero, self.said = rank, rank == 0, said
        self.state, self.strategy = SimpleNamespace(fn=stage), self

    def broadcast(self, value):
        if self.is_global_zero:
            self.said.append(pickle.dumps(value))
            return value
        return pickle.loads(self.said.pop(0))


def two(name, stage="validate"):
    """Two processes' data, after what Lightning calls of each."""
    first, second = made(name), made(name)
    said = []
    first.trainer, second.trainer = Process(0, said, stage), Process(1, said, stage)
    first.prepare_data()
    first.setup(stage)
    return first, second


@pytest.mark.parametrize("name", SMALL)
def test_the_first_process_prepares_and_the_others_take_over(name):
    first, second = two(name)
    if name in READ:
        reader = getattr(second, READ[name])

        def no_training(split):
            assert split != "train"
            return reader(split)

        setattr(second, READ[name], no_training)
    second.setup("validate")
    assert second.assets() == first.assets()
    assert second.model_arguments == first.model_arguments
    assert not second.trainer.said


def test_the_files_of_tokens_are_written_once():
    first, second = two("LanguageModelingData", "fit")
    second.texts = None  # not even read again
    second.setup("fit")
    assert np.array_equal(second.tokens("train"), first.tokens("train"))
    assert second.bytes_per_token("val") == first.bytes_per_token("val") == 1
    assert len(list(first.cache.glob("*.bin"))) == 2


@pytest.mark.parametrize("name", SMALL)
def test_preparing_again_does_nothing_and_nothing_is_needed_before(name):
    asked, prepared = made(name), made(name)
    arguments = asked.model_arguments
    prepared.prepare_data()
    before = {key: id(value) for key, value in vars(prepared).items() if "tokenizer" in key}
    prepared.prepare_data()
    prepared.setup()
    assert prepared.model_arguments == arguments
    assert {key: id(value) for key, value in vars(prepared).items() if key in before} == before


@pytest.mark.parametrize("name", READ)
def test_what_a_checkpoint_brings_wins(name):
    given = made(name, "train, val: a red zebra\n a circle", seed=1, tokenizer="char").assets()
    assert made(name).assets()["tokenizers"] != given["tokenizers"]
    data = made(name)
    data.use_assets(given)
    data.prepare_data()
    data.setup("fit")
    assert data.assets()["tokenizers"] == given["tokenizers"]


def test_all_processes_say_a_mistake(tmp_path):
    alone = tasks.TranslationData(str(tmp_path))
    with pytest.raises(UserError, match=r"train.fr does not exist"):
        alone.prepare_data()
    said = []
    for rank in (0, 1):
        data = tasks.TranslationData(str(tmp_path))
        data.trainer = Process(rank, said, "fit")
        if rank == 0:
            data.prepare_data()  # the other waits
        with pytest.raises(UserError, match=r"train.fr does not exist"):
            data.setup("fit")


# --- Shares of processes ---


class At(LoaderProgress):
    """A process of several, in the first epoch."""

    epoch, process = 0, (0, 1)

    def __init__(self, *process):
        super().__init__()
        self.process = process


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [4, 5, 7, 9, 20, 101])
@pytest.mark.parametrize("size", [1, 3, 200])
def test_evaluation_shares_examples_equally(world, count, size):
    for make in (
        lambda progress: ExampleBatches(count, size, False, progress=progress),
        lambda progress: TokenBatches(range(1, count + 1), size * 9, False, progress=progress),
    ):
        shares = [list(make(At(rank, world))) for rank in range(world)]
        assert len({len(share) for share in shares}) == 1
        picks = [pick for share in shares for batch in share for pick in batch]
        found = [pick if isinstance(pick, int) else pick.index for pick in picks]
        assert sorted(found) == list(range(count))
        assert all(batch for share in shares for batch in share)
        assert len(make(At(0, world))) == len(shares[0])
    if size > 1:
        shares = ExampleBatches(count, size, False, progress=At(0, world))
        assert all(len(batch) <= size for batch in shares)


def test_too_few_for_all_processes_is_said():
    def examples(count, training):
        return ExampleBatches(count, 10, training, progress=At(1, 3))

    def tokens(count, training):
        return TokenBatches([5] * count, 100, training, progress=At(1, 3))

    for make in (examples, tokens):
        with pytest.raises(UserError, match="make 1 batch, too few for 3 processes"):
            len(make(10, True))
        with pytest.raises(UserError, match="has 2 examples, too few for 3 processes"):
            len(make(2, False))


def test_processes_share_the_windows_of_a_text():
    def windows(batches, *process):
        return list(RandomWindows(1000, 4, batches, 0, At(*process)))

    whole = windows(9, 0, 1)
    shares = [windows(9, rank, 3) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert sorted(batch for share in shares for batch in share) == sorted(whole)
    # Of too short a text every process has a batch all the same.
    assert [len(windows(1, rank, 3)) for rank in range(3)] == [1, 1, 1]


def test_every_token_is_validated_by_one_process():
    first, second = two("LanguageModelingData")
    second.setup("validate")
    found = [[batch["labels"] for batch in data.val_dataloader()] for data in (first, second)]
    assert len(found[0]) == len(found[1]) > 1
    labels = torch.cat([rows.flatten() for share in found for rows in share])
    expected = np.sort(first.tokens("val")[1:])
    assert labels[labels != IGNORE].sort().values.tolist() == expected.tolist()


# --- What a user sees of all of them ---


def test_all_kinds_are_here():
    public = {name for name in dir(tasks) if name.endswith("Data")} - {"FamilyData", "OwnData"}
    assert public == {*SMALL}


@pytest.mark.parametrize("name", SMALL)
def test_root_comes_first_and_the_fields_of_a_batch_are_described(name):
    kind = getattr(tasks, name)
    assert issubclass(kind, FamilyData)
    assert next(iter(inspect.signature(kind).parameters)) == "root"
    described = kind.__doc__.partition("Args:")[0]
    kinds = {torch.int64: "int64", torch.float32: "float32", torch.bool: "bool"}
    for split in ("train", "val"):
        batch = next(iter(made(name).loader(split)))
        for field, value in batch.items():
            entry = re.search(rf"``{field}\b.*", described)
            assert entry is not None, field
            if isinstance(value, torch.Tensor):
                shape = re.search(rf"``{field} \(([^)]*)\)`` (\w+)", described)
                sides = [side for side in shape[1].split(",") if side.strip()]
                assert len(sides) == value.ndim and shape[2] == kinds[value.dtype]


def test_how_far_a_run_is_keeps_its_names():
    """Checkpoints of before hold these."""
    data = made("TranslationData")
    progress = SimpleNamespace(current=SimpleNamespace(processed=3, ready=3), is_last_batch=False)
    epochs = SimpleNamespace(current=SimpleNamespace(started=3, completed=2))
    steps = SimpleNamespace(batch_progress=progress)
    loop = SimpleNamespace(epoch_loop=steps, epoch_progress=epochs)
    process = {"global_rank": 0, "world_size": 1}
    counts = {"accumulate_grad_batches": 1, "num_training_batches": 9}
    data.trainer = SimpleNamespace(current_epoch=2, fit_loop=loop, **process, **counts)
    state = data.state_dict()
    assert {n: state[n] for n in ("epoch", "batches", "run_seed")} == {
        "epoch": 2,
        "batches": 3,
        "run_seed": 0,
    }
    again = made("TranslationData")
    again.trainer = data.trainer
    again.load_state_dict({"epoch": 2, "batches": 3})
    assert (again.progress.done(10), again.run_seed) == (30, 0)
