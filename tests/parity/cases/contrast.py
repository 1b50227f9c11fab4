"""Models that bring pictures and texts together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
import transformers
from harness import Batch, Case
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

VOCAB, TOKENS, EOS, PAD = 97, 12, 96, 1
IMAGE: dict[str, Any] = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": TOKENS, "pad_token_id": PAD,
    "bos_token_id": 95,
}  # fmt: skip


def batch() -> Batch:
    """Texts of unequal length, each with its end, padded at the right."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(4, 3, 32, 32, generator=generator)
    ids = torch.randint(2, 95, (4, TOKENS), generator=generator)
    mask = torch.ones(4, TOKENS, dtype=torch.bool)
    for row, length in enumerate((TOKENS, 7, 3, 9)):
        ids[row, length - 1], ids[row, length:] = EOS, PAD
        mask[row, length:] = False
    return {"pixel_values": pixels, "input_ids": ids, "mask": mask}


def ours(model: Any, batch: Batch) -> Tensor:
    return model(batch["pixel_values"], batch["input_ids"], batch["mask"])


def theirs(model: Any, batch: Batch) -> Tensor:
    return model(
        pixel_values=batch["pixel_values"],
        input_ids=batch["input_ids"],
        attention_mask=batch["mask"].long(),
    ).logits_per_image


def unmasked(model: Any, batch: Batch) -> Tensor:
    """As SigLIP is used: texts filled up, nothing masked."""
    return model(pixel_values=batch["pixel_values"], input_ids=batch["input_ids"]).logits_per_image


def their_logits(model: Any, batch: Batch) -> Tensor:
    return model.get_logits(batch["pixel_values"], batch["input_ids"])[0]


def clip(**text: Any) -> nn.Module:
    config = transformers.CLIPConfig(
        vision_config=IMAGE, text_config={**TEXT, **text}, projection_dim=24
    )
    return transformers.CLIPModel(config)


def legacy_clip() -> nn.Module:
    """As OpenAI's own on the hub: 2 says that texts end in the highest number."""
    return clip(eos_token_id=2)


def siglip(**text: Any) -> nn.Module:
    config = transformers.SiglipConfig(
        vision_config=IMAGE, text_config={**TEXT, "projection_size": 48, **text}
    )
    return transformers.SiglipModel(config)


def library_clip(**options: Any) -> nn.Module:
    image = CLIPVisionCfg(layers=3, width=128, patch_size=8, image_size=32)
    text = CLIPTextCfg(context_length=TOKENS, vocab_size=VOCAB, width=64, heads=1, layers=2)
    return open_clip.model.CLIP(24, image, text, **options)


def sigmoid_clip() -> nn.Module:
    return library_clip(init_logit_bias=-10.0)


def quick_clip() -> nn.Module:
    return library_clip(quick_gelu=True)


def local_clip(folder: Path) -> nn.Module:
    return open_clip.create_model(f"local-dir:{folder}")


def state(model: nn.Module) -> dict[str, Tensor]:
    return model.state_dict()


def from_state(folder: Path) -> nn.Module:
    model = quick_clip()
    model.load_state_dict(torch.load(folder / "model.pt"), strict=True)
    return model


CASES = [
    Case("CLIP", "clip", lambda: clip(eos_token_id=EOS), batch, ours, theirs),
    Case("CLIP, first configs", "clip", legacy_clip, batch, ours, theirs),
    Case("SigLIP", "siglip", siglip, batch, ours, unmasked),
    Case(
        "CLIP with a bias (open_clip)", "open_clip", sigmoid_clip, batch, ours, their_logits,
        reload=local_clip,
    ),
    Case(
        "CLIP (OpenAI's state)", "openai_clip", quick_clip, batch, ours, their_logits,
        reload=from_state, source=state,
    ),
]  # fmt: skip
