"""Recall of pictures and sentences: who is right for whom, whatever they are called."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tasks.errors import UserError
from tasks.image_text import ImageText


class Given(nn.Module):
    """Embeddings stand for themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, pixel_values):
        return pixel_values.flatten(1)

    def encode_text(self, input_ids, mask=None):
        return input_ids


def scored(monkeypatch, images, texts, pictures=None, captions=None, **more):
    """What is logged of embeddings ``(rows, 12)``."""
    task, logged = ImageText(model=Given()), {}
    task.adapt_model()
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: float(value)}))
    batch = {"pixel_values": images.view(-1, 3, 2, 2), "input_ids": texts, **more}
    if pictures is not None:
        batch["picture_ids"] = torch.tensor(pictures)
    if captions is not None:
        batch["caption_ids"] = torch.tensor(captions)
    task.validation_step(batch, 0)
    task.on_validation_epoch_end()
    return logged


RING = [(i, text) for i in range(20) for text in (i, 20 + i, 20 + (i + 1) % 20)]
"""Of each of 20 pictures a sentence of its own, and one that it shares with either neighbour."""


def test_a_shared_sentence_makes_nothing_else_right(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 12, generator=generator)
    texts = torch.randn(40, 12, generator=generator)
    pictures, captions = map(list, zip(*RING, strict=True))
    found = scored(monkeypatch, images[pictures], texts[captions], pictures, captions)
    similarity = nn.functional.normalize(images, dim=1) @ nn.functional.normalize(texts, dim=1).T
    to_text = [(i, int(similarity[i].argmax())) in RING for i in range(20)]
    to_image = [(int(similarity[:, c].argmax()), c) in RING for c in captions]
    assert found["val/recall@1_image_to_text"] == pytest.approx(sum(to_text) / 20)
    assert found["val/recall@1_text_to_image"] == pytest.approx(sum(to_image) / 60)
    assert found["val/recall@1"] < 0.3
    assert found["val/chance@1"] == pytest.approx(5 / 60)


def test_pictures_of_one_name_are_two(monkeypatch):
    rows = torch.eye(12)[:4]
    names = ["0000.png", "0001.png"] * 2
    found = scored(monkeypatch, rows, rows, [0, 1, 2, 3], [0, 1, 2, 3], file=names)
    assert found["val/recall@1"] == 1 and found["val/chance@1"] == 0.25
    assert scored(monkeypatch, rows, rows, file=names)["val/recall@1"] == 1  # without ids too


def test_groups_are_refused():
    task = ImageText(model=Given())
    task.adapt_model()
    batch = {"pixel_values": torch.eye(4), "input_ids": torch.eye(4), "groups": torch.arange(4)}
    with pytest.raises(UserError, match="give picture_ids and caption_ids"):
        task.loss(batch)
