"""Vision models against their peers: a training step of ViT, CLIP and DETR, and what matching costs.

    python benchmarks/vision.py --out results.json --only detr

Two threads, float32, and bfloat16 where a row says so; random weights, the same in ours and in the first peer, which
must compute the same. Peers that are not installed are left out; on a GPU all runs there.
"""

from __future__ import annotations

import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timing import medians, report, run, same, train_step
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import family
from family.accelerate import accelerate
from family.losses.contrastive import clip_loss
from family.losses.set_matching import SetLoss

Models = dict[str, tuple[nn.Module, Callable[[], Tensor]]]
"""Name -> a model and its loss on the one batch that all of them get."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLASSES, BATCH = 1000, 16
VOCAB, TOKENS, PAIRS = 8192, 77, 32
KINDS, QUERIES, OBJECTS, PICTURES = 91, 100, 7, 2
TRAINED = ("layer2", "layer3", "layer4")
"""What the published DETR trains of its ResNet."""


def peer(name: str) -> Any:
    """A module that may be missing: then None, and a line that says so."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"\n{name} is not installed: left out.")
        return None


def compare(
    title: str, models: Models, rounds: int, halved: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Time a training step of each, and count what it trains: equal terms are equal counts.

    Args:
        halved: those that are timed in bfloat16, too.
    """
    steps = {name: train_step(model.train(), loss_of) for name, (model, loss_of) in models.items()}
    for name in halved:
        if name in models:
            steps[f"{name}, bf16"] = train_step(*models[name], half=True)
    rows = report(title, medians(steps, rounds))
    for name, (model, _) in models.items():
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        rows[name]["trained_parameters"] = count
        print(f"  {name:28} {count / 1e6:9.2f} M parameters trained")
    return rows


def vit(rounds: int) -> dict[str, Any]:
    """ViT-tiny/16 at 224 pixels, 1,000 classes, batch 16."""
    pixels = torch.randn(BATCH, 3, 224, 224, device=DEVICE)
    labels = torch.randint(0, CLASSES, (BATCH,), device=DEVICE)

    def classify(model: nn.Module) -> tuple[nn.Module, Callable[[], Tensor]]:
        model.to(DEVICE)
        return model, lambda: F.cross_entropy(model(pixels), labels)

    of_timm = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    ours = accelerate(family.from_pretrained(of_timm).to(DEVICE))
    same("ViT of timm", ours(pixels), of_timm.to(DEVICE)(pixels))
    models = {
        "ours": classify(ours),
        "timm": classify(of_timm),
        "torchvision": classify(VisionTransformer(224, 16, 12, 3, 192, 768)),
    }
    if transformers := peer("transformers"):
        config = transformers.ViTConfig(
            hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768,
            num_labels=CLASSES,
        )  # fmt: skip
        theirs = transformers.ViTForImageClassification(config).to(DEVICE)
        models["transformers"] = (
            theirs,
            lambda: F.cross_entropy(theirs(pixel_values=pixels).logits, labels),
        )
    return compare("Training step, ViT-tiny/16 at 224, batch 16", models, rounds, ("ours", "timm"))


def clip(rounds: int) -> dict[str, Any]:
    """Towers of 6 layers, 256 wide: pictures of 64 pixels in patches of 8, texts of 77 tokens."""
    pixels = torch.randn(PAIRS, 3, 64, 64, device=DEVICE)
    ids = torch.randint(3, VOCAB - 1, (PAIRS, TOKENS), device=DEVICE)
    ids[:, -1] = eos = VOCAB - 1
    of_open_clip = open_clip_model(pixels, ids) if peer("open_clip") else None
    if of_open_clip is None:
        ours = family.clip_small(VOCAB, max_tokens=TOKENS, eos_id=eos)
    else:
        ours = family.from_pretrained(of_open_clip[0])
        found = F.normalize(ours.to(DEVICE).encode_text(ids), dim=-1)
        same("CLIP of open_clip", found, of_open_clip[0].encode_text(ids, normalize=True))
    accelerate(ours.to(DEVICE))

    def our_loss() -> Tensor:
        return clip_loss(ours.encode_image(pixels), ours.encode_text(ids), ours.logit_scale)

    models: Models = {"ours": (ours, our_loss)}
    if of_open_clip is not None:
        models["open_clip"] = of_open_clip
    if transformers := peer("transformers"):
        stack = {
            "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6,
            "num_attention_heads": 4, "hidden_act": "gelu",
        }  # fmt: skip
        words = {
            "vocab_size": VOCAB, "max_position_embeddings": TOKENS, "bos_token_id": 1,
            "pad_token_id": 0, "eos_token_id": eos,
        }  # fmt: skip
        config = transformers.CLIPConfig(
            vision_config={**stack, "image_size": 64, "patch_size": 8},
            text_config={**stack, **words},
            projection_dim=256,
        )
        theirs = transformers.CLIPModel(config).to(DEVICE)
        models["transformers"] = (
            theirs,
            lambda: theirs(input_ids=ids, pixel_values=pixels, return_loss=True).loss,
        )
    return compare("Training step, CLIP 6 x 256, batch 32", models, rounds, ("ours", "open_clip"))


def open_clip_model(pixels: Tensor, ids: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The same sizes in open_clip; its texts end at the greatest id."""
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    model = CLIP(
        256,
        CLIPVisionCfg(layers=6, width=256, head_width=64, patch_size=8, image_size=64),
        CLIPTextCfg(context_length=TOKENS, vocab_size=VOCAB, width=256, heads=4, layers=6),
    ).to(DEVICE)
    criterion = ClipLoss()
    return model, lambda: criterion(*model(pixels, ids))


def detr(rounds: int) -> dict[str, Any]:
    """DETR-ResNet-50, 256 pixels, batch 2, 100 queries, six losses, on both terms in use."""
    transformers = peer("transformers")
    return {
        "backbone_frozen": detr_step("backbone frozen", (), transformers, rounds),
        "layers_2_to_4_trained": detr_step("layers 2 to 4 trained", TRAINED, transformers, rounds),
    }


def detr_step(
    terms: str, trained: tuple[str, ...], transformers: Any, rounds: int
) -> dict[str, Any]:
    """One of the two terms.

    Args:
        trained: the parts of the ResNet that learn.
    """
    pixels = torch.randn(PICTURES, 3, 256, 256, device=DEVICE)
    targets = [
        {
            "labels": torch.randint(0, KINDS, (OBJECTS,), device=DEVICE),
            "boxes": torch.cat(
                [torch.rand(OBJECTS, 2) * 0.4 + 0.3, torch.rand(OBJECTS, 2) * 0.5], 1
            ).to(DEVICE),
        }
        for _ in range(PICTURES)
    ]
    freeze = {} if trained else {"freeze": "all"}
    # The rates of transformers, which drops nothing in attention and feed-forward.
    ours = family.detr_resnet50(
        KINDS, queries=QUERIES, attention_dropout=0.0, ffn_dropout=0.0, **freeze
    )
    accelerate(ours.to(DEVICE))
    criterion, matching = timed_loss()
    models: Models = {
        "ours": (ours, lambda: criterion.total(criterion(ours(pixels), targets))),
    }
    if transformers:
        models["transformers"] = transformers_detr(transformers, pixels, targets, trained)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            models["transformers"][0].save_pretrained(folder)
            as_theirs = family.from_pretrained(folder).to(DEVICE).eval()
            found = models["transformers"][0].eval()(pixel_values=pixels).pred_boxes
            same("DETR of transformers", as_theirs(pixels)["boxes"], found)
    rows = compare(f"Training step, DETR-R50 at 256, batch 2, {terms}", models, rounds)
    seconds = statistics.median(matching[-rounds:])
    share = seconds / rows["ours"]["seconds"]
    rows["matching"] = {"seconds": round(seconds, 5), "share_of_ours": round(share, 4)}
    print(f"  {'matching, in our step':28} {seconds * 1000:9.2f} ms   {share:6.1%} of ours")
    return rows


def timed_loss() -> tuple[SetLoss, list[float]]:
    """Our loss, and the seconds of every matching: the costs of all layers and the assignment."""
    times: list[float] = []

    class Timed(SetLoss):
        def _match(self, *arguments: Any) -> Any:
            start = time.perf_counter()
            pairs = super()._match(*arguments)
            times.append(time.perf_counter() - start)
            return pairs

    return Timed(), times


def transformers_detr(
    transformers: Any, pixels: Tensor, targets: list[dict[str, Tensor]], trained: tuple[str, ...]
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Theirs with the published sizes, which are its defaults, on timm's ResNet-50."""
    config = transformers.DetrConfig(
        num_labels=KINDS, num_queries=QUERIES, auxiliary_loss=True, backbone="resnet50",
        use_timm_backbone=True, use_pretrained_backbone=False,
    )  # fmt: skip
    model = transformers.DetrForObjectDetection(config).to(DEVICE)
    for name, parameter in model.model.backbone.named_parameters():
        parameter.requires_grad_(any(part in name for part in trained))
    labels = [{"class_labels": one["labels"], "boxes": one["boxes"]} for one in targets]
    return model, lambda: model(pixel_values=pixels, labels=labels).loss


PARTS = {"vit": vit, "clip": clip, "detr": detr}


if __name__ == "__main__":
    run(__doc__, PARTS, 12)
