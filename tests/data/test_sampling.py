"""The order of examples and the numbers that augmentation draws depend on seed and epoch alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from tasks.data.batching import LoaderProgress
from tasks.data.detection import DetectionData
from tasks.data.image_classification import ImageClassificationData
from tasks.data.image_text import ImageTextData
from tasks.data.language_modeling import LanguageModelingData
from tasks.data.masked_language_modeling import MaskedLanguageModelingData
from tasks.data.sampling import ExampleBatches, Pick, batch_loader, seeded
from tasks.data.segmentation import SegmentationData
from tasks.data.text_classification import TextClassificationData
from tasks.data.translation import TranslationData


class At(LoaderProgress):
    """Progress that no trainer decides."""

    epoch, process = 0, (0, 1)

    def __init__(self, epoch, process=(0, 1)):
        super().__init__()
        self.epoch, self.process = epoch, process


def seen(batches):
    return [pick.index for batch in batches for pick in batch]


def test_epochs_differ_and_repeat():
    first = list(ExampleBatches(10, 4, True, seed=3, progress=At(0)))
    assert sorted(seen(first)) == list(range(10))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert first == list(ExampleBatches(10, 4, True, seed=3, progress=At(0)))
    second = list(ExampleBatches(10, 4, True, seed=3, progress=At(1)))
    assert seen(second) != seen(first)
    assert {pick.epoch for batch in second for pick in batch} == {1}
    assert seen(ExampleBatches(10, 4, True, seed=4, progress=At(0))) != seen(first)


def test_resume_goes_on_with_the_next_batch():
    progress = At(2)
    sampler = ExampleBatches(20, 4, True, progress=progress)
    whole = list(sampler)
    progress.load_state_dict({"epoch": 2, "batches": 3})
    assert list(sampler) == whole[3:]
    assert len(sampler) == 5
    progress.epoch = 3
    assert len(list(sampler)) == 5
    # Evaluation always begins at its first example.
    progress.epoch = 2
    assert len(list(ExampleBatches(20, 4, False, progress=progress))) == 5


def test_drop_last_keeps_an_only_batch():
    assert [len(b) for b in ExampleBatches(10, 4, True, drop_last=True)] == [4, 4]
    assert [len(b) for b in ExampleBatches(3, 4, True, drop_last=True)] == [3]


def test_processes_share():
    progress = At(1, (0, 3))
    progress.load_state_dict({"epoch": 1, "batches": 2})
    for count in (101, 9):
        parts = [list(ExampleBatches(count, 4, True, progress=At(1, (r, 3)))) for r in range(3)]
        assert len({len(part) for part in parts}) == 1
        found = [index for part in parts for index in seen(part)]
        assert len(found) == len(set(found)) > count * 0.85
        parts = [list(ExampleBatches(count, 4, False, progress=At(1, (r, 3)))) for r in range(3)]
        assert sorted(index for part in parts for index in seen(part)) == list(range(count))
        for rank, part in enumerate(parts):
            assert len(ExampleBatches(count, 4, False, progress=At(1, (rank, 3)))) == len(part)
    whole = list(ExampleBatches(101, 4, True, progress=At(1, (0, 3))))
    assert list(ExampleBatches(101, 4, True, progress=progress)) == whole[2:]


def numbers():
    return torch.rand(2).tolist(), random.random(), np.random.rand()


def test_seeded_repeats_and_leaves_training_alone():
    draws = []
    for pick in (Pick(1, 0), Pick(1, 0), Pick(1, 1), Pick(2, 0)):
        with seeded(5, pick):
            draws.append(numbers())
    assert draws[0] == draws[1]
    for one, other in ((0, 2), (0, 3), (2, 3)):
        assert all(x != y for x, y in zip(draws[one], draws[other], strict=True))

    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(0)
    plain = numbers()
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(0)
    with seeded(5, Pick(0, 0)):
        numbers()
    assert numbers() == plain


class Draws(Dataset):
    def __getitems__(self, picks):
        with seeded(0, picks[0]):
            return [(pick, torch.rand(1).item()) for pick in picks]


def test_workers_draw_the_same():
    found = []
    for workers in (0, 2):
        progress = At(0)
        loader = batch_loader(Draws(), ExampleBatches(12, 3, True, progress=progress), workers)
        epochs = []
        for progress.epoch in (0, 1):
            epochs.append(list(loader))
        assert epochs[0] != epochs[1]
        found.append(epochs)
    assert found[0] == found[1]


KINDS = [
    DetectionData,
    ImageClassificationData,
    ImageTextData,
    LanguageModelingData,
    MaskedLanguageModelingData,
    SegmentationData,
    TextClassificationData,
    TranslationData,
]


def first_batch(data):
    data.setup("fit")
    batch = next(iter(data.loader("train")))
    name = next(name for name in ("source", "input_ids", "pixel_values") if name in batch)
    return batch[name]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.slow
def test_runs_of_other_seeds_see_another_order(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)

    def made(seed):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        return kind(**({} if issubclass(kind, LanguageModelingData) else {"examples": 200}))

    first, other = made(0), made(1)
    found = first_batch(first)
    assert not torch.equal(first_batch(other), found)
    assert torch.equal(first_batch(made(0)), found)
    # A place in the data is one in an order, so that a resumed run keeps its own.
    other.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    first.trainer = other.trainer
    other.load_state_dict(first.state_dict())
    assert torch.equal(first_batch(other), found)
