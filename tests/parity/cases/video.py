"""Models that see clips."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from cases.vision import CLASSES, logits, made
from harness import Batch, Case
from torch import Tensor

CLIP: dict[str, Any] = {
    "image_size": [24, 32], "patch_size": [8, 16], "num_frames": 6, "tubelet_size": 2,
}  # fmt: skip


def clips() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return {"pixel_values": torch.randn(3, 6, 3, 24, 32, generator=generator)}


def tokens(model: Any, batch: Batch) -> Tensor:
    return model.forward_features(batch["pixel_values"])


def hidden(model: Any, batch: Batch) -> Tensor:
    return model(batch["pixel_values"]).last_hidden_state


def case(member: str, model: str, **options: Any) -> Case:
    classes = "Classification" in model
    run = (logits, logits) if classes else (tokens, hidden)
    more = {"num_labels": CLASSES} if classes else {}
    build = partial(made, "VideoMAE", model, **CLIP, **more, **options)
    return Case(member, "videomae", build, clips, *run)


CASES = [
    case("VideoMAE", "VideoMAEForVideoClassification"),
    case(
        "VideoMAE, first token, without biases", "VideoMAEForVideoClassification", qv_bias=False,
        use_mean_pooling=False,
    ),
    case("VideoMAE's encoder", "VideoMAEModel"),
    case("VideoMAE's encoder, with a norm", "VideoMAEModel", use_mean_pooling=False),
]  # fmt: skip
