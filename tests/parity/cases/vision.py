"""Models that see pictures: classes, boxes, masks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import originals
import timm
import torch
import transformers
from harness import Batch, Case
from torch import Tensor, nn

SIZE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
PICTURE = {"image_size": 32, "patch_size": 8}
QUERIES, CLASSES = 9, 6
ROUNDED: dict[str, Any] = {
    "float32": 5e-5,
    "note": "float32 gradients of the reference differ from its own float64 ones by 1e-5",
}
"""Behind a network drawn at random the cells of a map are alike, and gradients of who looks where small."""


def pictures(height: int = 32, width: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return {"pixel_values": torch.randn(3, 3, height, width, generator=generator)}


def scenes() -> Batch:
    """Two pictures of unequal size, the smaller one padded."""
    pixels = torch.randn(2, 3, 96, 130, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 96, 130, dtype=torch.bool)
    mask[1, 70:] = mask[1, :, 100:] = False
    return {"pixel_values": pixels * mask[:, None], "mask": mask}


def logits(model: Any, batch: Batch) -> Tensor:
    output = model(batch["pixel_values"])
    return output if isinstance(output, Tensor) else output.logits


def tokens(model: Any, batch: Batch) -> Tensor:
    """All tokens after the norm, and what is pooled from them."""
    features = model.forward_features(batch["pixel_values"])
    return torch.cat([features, model.forward_head(features)[:, None]], dim=1)


def hidden(model: Any, batch: Batch) -> Tensor:
    output = model(batch["pixel_values"])
    return torch.cat([output.last_hidden_state, output.pooler_output[:, None]], dim=1)


def objects(model: Any, batch: Batch) -> Tensor:
    output = model(batch["pixel_values"], batch["mask"])
    if isinstance(output, tuple):
        return torch.cat(output, dim=-1)
    return torch.cat([output["logits"], output["boxes"]], dim=-1)


def their_objects(model: Any, batch: Batch) -> Tensor:
    output = model(batch["pixel_values"], batch["mask"].long())
    return torch.cat([output.logits, output.pred_boxes], dim=-1)


def made(kind: str, model: str, **options: Any) -> nn.Module:
    """A small model of transformers."""
    options = {**SIZE, **PICTURE, **options}
    if "Dinov2" not in kind:
        options = {"intermediate_size": 96, **options}
    return getattr(transformers, model)(getattr(transformers, f"{kind}Config")(**options))


def transformers_case(member: str, format: str, kind: str, model: str, **options: Any) -> Case:
    classes = "Classification" in model
    run = (logits, logits) if classes else (tokens, hidden)
    more = {"num_labels": CLASSES} if classes else {}
    return Case(member, format, partial(made, kind, model, **more, **options), pictures, *run)


def timm_case(member: str, name: str, **options: Any) -> Case:
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    build = partial(timm.create_model, name, num_classes=CLASSES, **{**size, **options})
    return Case(f"{member} (timm)", "timm", build, pictures, logits, logits, reload=local_timm)


def local_timm(folder: Path) -> nn.Module:
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def randomise_norms(model: nn.Module) -> nn.Module:
    """Frozen norms are buffers: draw them away from 0 and 1 as well."""
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith(("weight", "bias", "running_mean", "running_var")):
            noise = torch.rand(buffer.shape, generator=generator)
            buffer.copy_(noise + 0.5 if name.endswith(("weight", "var")) else noise - 0.5)
    return model


def detr(**backbone: Any) -> nn.Module:
    config = transformers.DetrConfig(
        num_labels=CLASSES, num_queries=QUERIES, d_model=32, encoder_layers=2, decoder_layers=3,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
        decoder_ffn_dim=48, **backbone,
    )  # fmt: skip
    return randomise_norms(transformers.DetrForObjectDetection(config))


def hub_resnet() -> nn.Module:
    resnet = transformers.ResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512],
        out_features=["stage4"],
    )  # fmt: skip
    model: Any = detr(use_timm_backbone=False, backbone_config=resnet)
    model.model.unfreeze_backbone()  # it would freeze all stages, by looking for names of old
    return model


def detr_case(member: str, build: Any) -> Case:
    return Case(member, "detr", build, scenes, objects, their_objects, **ROUNDED)


def original_detr(pre: bool) -> nn.Module:
    model = originals.OriginalDETR(CLASSES, 64, 48, QUERIES, pre)
    return randomise_norms(model)


def segmenter(**options: Any) -> nn.Module:
    return originals.OriginalSegmenter(CLASSES, 32, 8, **options)


def original(folder: Path, build: Any) -> nn.Module:
    """As the authors' code loads what it wrote."""
    model = build()
    model.load_state_dict(torch.load(folder / "checkpoint.pth")["model"], strict=True)
    return model


def original_case(member: str, format: str, build: Any, batch: Any, run: Any, **more: Any) -> Case:
    reload = partial(original, build=build)
    # Classes that were alike would differ by rounding alone, which their norm makes large.
    more = {"reload": reload, "source": state, "keep": ("cls_emb",), **more}
    return Case(f"{member} (original)", format, build, batch, run, run, **more)


def state(model: nn.Module) -> dict[str, Tensor]:
    return model.state_dict()


CASES = [
    transformers_case("ViT", "vit", "ViT", "ViTForImageClassification", qkv_bias=False),
    transformers_case("ViT with pooler", "vit", "ViT", "ViTModel"),
    transformers_case("DeiT", "deit", "DeiT", "DeiTForImageClassification"),
    transformers_case(
        "DeiT, distilled", "deit", "DeiT", "DeiTForImageClassificationWithTeacher"
    ),
    transformers_case("DINOv2", "dinov2", "Dinov2", "Dinov2Model"),
    transformers_case(
        "DINOv2, gated, classes", "dinov2", "Dinov2", "Dinov2ForImageClassification",
        use_swiglu_ffn=True,
    ),
    transformers_case(
        "DINOv2 with registers", "dinov2_with_registers", "Dinov2WithRegisters",
        "Dinov2WithRegistersForImageClassification",
    ),
    replace(
        transformers_case(
            "DINOv3", "dinov3_vit", "DINOv3ViT", "DINOv3ViTModel", num_register_tokens=3,
        ),
        batch=partial(pictures, 40, 24),
    ),
    transformers_case(
        "DINOv3, gated, without biases", "dinov3_vit", "DINOv3ViT", "DINOv3ViTModel",
        use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False,
        proj_bias=False, patch_size=[8, 16],
    ),
    transformers_case(
        "DINOv3, biases of keys", "dinov3_vit", "DINOv3ViT", "DINOv3ViTModel", key_bias=True,
        mlp_bias=False,
    ),
    timm_case("ViT", "vit_tiny_patch16_224"),
    timm_case("ViT, mean", "vit_base_patch16_gap_224", qkv_bias=False, fc_norm=True),
    timm_case("ViT, norms of queries", "vit_tiny_patch16_224", qk_norm=True),
    timm_case(
        "ViT, RMS norms of queries", "vit_tiny_patch16_224", qk_norm=True, norm_layer="rmsnorm"
    ),
    timm_case("DeiT, distilled", "deit_tiny_distilled_patch16_224"),
    timm_case("DeiT III", "deit3_small_patch16_224"),
    timm_case("DINOv2 with registers, gated", "vit_giant_patch14_reg4_dinov2"),
    timm_case("CLIP's tower", "vit_base_patch16_clip_quickgelu_224"),
    timm_case("SigLIP's tower", "vit_base_patch16_siglip_224"),
    detr_case("DETR", partial(detr, backbone="test_resnet")),
    detr_case("DETR, transformers' ResNet", hub_resnet),
    original_case(
        "DETR", "detr_original", partial(original_detr, False), scenes, objects, **ROUNDED
    ),
    original_case(
        "DETR, norm first", "detr_original", partial(original_detr, True), scenes, objects,
        **ROUNDED,
    ),
    original_case(
        "Segmenter", "segmenter", partial(segmenter, masks=True, distilled=False),
        partial(pictures, 30, 27), logits,
    ),
    original_case(
        "Segmenter, linear", "segmenter", partial(segmenter, masks=False, distilled=True),
        pictures, logits,
    ),
]  # fmt: skip
