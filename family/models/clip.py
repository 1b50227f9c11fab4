"""CLIP: a picture tower and a text tower that meet in one space (Radford et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.init import init_linear
from family.core.transformer import Transformer
from family.heads.classifier import POOLS, PoolConfig
from family.heads.pooling import pool_end, pool_mean
from family.inputs.backbone import network
from family.inputs.patches import PatchConfig
from family.inputs.text import TextEmbedding, token_positions
from family.models.examples import PICTURES_AND_TEXTS
from family.models.member import STACK, build, member
from family.models.vit import ViT


@dataclass(frozen=True)
class TowerPoolConfig:
    """How the tokens of each tower become one vector of the common space.

    Args:
        image: of the ViT, see :class:`~family.heads.classifier.PoolConfig`: "class" is CLIP's,
            "attention" SigLIP's.
        image_projection: a linear layer from the ViT to the common space; SigLIP has none, its ViT
            is as wide as the space.
        text: "eos", the vector at the end of the text, or "mean" over its tokens.
        eos_id: the token that ends a text; None reads the last one that the mask leaves.
        fill_id: fill texts with this token up to ``max_tokens`` and read it as any other: SigLIP
            was trained so, and reads a text from the last of them.
        text_projection_bias: of the linear layer from the text tower to the common space (SigLIP).

    Raises:
        ValueError: an unknown pooling.
    """

    image: str = "class"
    image_projection: bool = True
    text: str = "eos"
    eos_id: int | None = None
    fill_id: int | None = None
    text_projection_bias: bool = False

    def __post_init__(self) -> None:
        for name, known in (("image", POOLS), ("text", ("eos", "mean"))):
            if (kind := getattr(self, name)) not in known:
                choices = ", ".join(known)
                raise ValueError(f"pooling.{name}={kind!r} is unknown; choose one of: {choices}.")


def image_vit(
    embed_dim: int,
    config: TransformerConfig,
    image_size: int | Sequence[int],
    patch_size: int | Sequence[int],
    patches: PatchConfig,
    pooling: TowerPoolConfig,
) -> ViT:
    """The picture tower: a ViT whose classes are the common space; arguments as :class:`CLIP`'s.

    Raises:
        ValueError: no projection, and a width other than that of the space.
    """
    classes = embed_dim if pooling.image_projection else 0
    pool = PoolConfig(pooling.image, head_bias=False)
    vit = ViT(classes, config, image_size, patch_size, patches=patches, pooling=pool)
    if not classes and vit.pool.dim != embed_dim:
        raise ValueError(
            f"image_projection=False needs an image dim of embed_dim={embed_dim}, not {vit.pool.dim}."
        )
    if isinstance(vit.head, nn.Linear):
        # A head of zeros, a good start for classes, would give embeddings without a direction.
        init_linear(vit.head, config.dim**-0.5)
    return vit


class TextTower(nn.Module):
    """embed -> Transformer -> one vector a text -> projection (section 2.4).

    Args:
        vocab_size: tokens in the vocabulary.
        config: the stack, causal (CLIP) or not.
        embed_dim: width of the result.
        pooling: what of it is of texts.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        embed_dim: int,
        pooling: TowerPoolConfig = TowerPoolConfig(),
    ) -> None:
        super().__init__()
        self.config, self.pool = config, pooling.text
        self.eos_id, self.fill_id = pooling.eos_id, pooling.fill_id
        self.embedding = TextEmbedding(vocab_size, config)
        self.transformer = Transformer(config)
        self.projection = nn.Linear(config.dim, embed_dim, pooling.text_projection_bias)
        init_linear(self.projection, config.dim**-0.5)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, tokens)`` ids and mask (True = a token) -> ``(batch, embed_dim)``."""
        if self.fill_id is not None:
            input_ids, mask = self._filled(input_ids, mask, self.fill_id), None
        positions = token_positions(input_ids, mask)
        x = self.embedding(input_ids, positions)
        x = self.transformer(x, mask=mask, positions=positions)
        if self.pool == "mean":
            return self.projection(pool_mean(x, mask))
        return self.projection(pool_end(x, input_ids, mask, self.eos_id))

    def _filled(self, input_ids: Tensor, mask: Tensor | None, fill_id: int) -> Tensor:
        """``(batch, max_tokens)``: the same text, whatever it was padded with, on which side and how far."""
        if mask is not None:
            input_ids = input_ids.masked_fill(~mask, fill_id)
            input_ids = input_ids.gather(1, (~mask).long().argsort(dim=1, stable=True))
        missing = max(
            0, self.config.max_tokens - input_ids.shape[1]
        )  # too long: the embedding's error
        return F.pad(input_ids, (0, missing), value=fill_id)


def image_pool(kind: str) -> dict[str, Any]:
    """What this argument of before says: only the pooling that reads a class token came with one."""
    return {"pooling.image": kind, "patches.class_token": kind == "class"}


def image_norm(norm: bool) -> dict[str, Any]:
    """What this argument of before says: a norm stood in place of the patches' bias."""
    return {"patches.norm": norm, "patches.bias": not norm}


@member(
    task="ImageText",
    reads=("text", "pictures"),
    inputs=PICTURES_AND_TEXTS,
    example={
        "vocab_size": 40,
        "image": TransformerConfig(dim=16, depth=2, heads=2, position="learned"),
        "text": TransformerConfig(
            dim=16, depth=2, heads=2, causal=True, position="learned", max_tokens=16
        ),
        "embed_dim": 8,
        "image_size": 16,
        "patch_size": 8,
    },
    variants=(
        {
            "pooling": TowerPoolConfig(image="attention", text="mean"),
            "patches": PatchConfig(class_token=False),
            "logit_bias": True,
        },
        {"pooling": TowerPoolConfig(fill_id=1)},
    ),
    renamed={
        "image_pool": image_pool,
        "image_norm": image_norm,
        "text_pool": "pooling.text",
        "text_bias": "pooling.text_projection_bias",
    },
)
class CLIP(nn.Module):
    """pixels -> ViT -> projection; text -> causal Transformer -> projection; cosines of the two.

    ``logit_scale`` is the logarithm of the factor on cosines, as in every published checkpoint:
    it starts at log(1 / 0.07), or at log(10) with a bias of -10 for the sigmoid loss (Zhai et al.
    2023, section 3.2). ``family.losses.contrastive`` takes both as they are.

    Args:
        vocab_size: tokens in the vocabulary.
        image: the ViT's stack, or the name of a network of timm, whose classifier becomes the
            projection (section 2.4 trains ResNets too); None where ``image_tower`` stands in for it.
        text: the text stack; causal in CLIP.
        embed_dim: width of the common space.
        image_size, patch_size, patches: of the ViT; CLIP's patches have a norm in place of a bias.
        pooling: how the tokens of each tower become one vector.
        logit_bias: learn a bias on the logits, which the sigmoid loss needs.
        image_tower: any module ``(batch, channels, height, width) -> (batch, embed_dim)``.

    Raises:
        ValueError: both or neither of ``image`` and ``image_tower``; what the towers refuse.
    """

    def __init__(
        self,
        vocab_size: int,
        image: TransformerConfig | str | None,
        text: TransformerConfig,
        embed_dim: int = 512,
        image_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 32,
        *,
        patches: PatchConfig = PatchConfig(norm=True, bias=False),
        pooling: TowerPoolConfig = TowerPoolConfig(),
        logit_bias: bool = False,
        image_tower: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if (image is None) == (image_tower is None):
            given = "neither" if image is None else "both"
            raise ValueError(f"CLIP needs either image or image_tower, not {given}.")
        self.vocab_size, self.embed_dim = vocab_size, embed_dim
        if isinstance(image, str):
            made = network(image, "image", num_classes=embed_dim)
            if made.pretrained_cfg.get("fixed_input_size"):
                raise ValueError(
                    f"image={image!r} takes pictures of one size alone: give a ViT as a stack, or the "
                    "name of a convolutional network."
                )
            image_tower = made
        elif image is not None:
            image_tower = image_vit(embed_dim, image, image_size, patch_size, patches, pooling)
        self.image: Any = image_tower
        self.text = TextTower(vocab_size, text, embed_dim, pooling)
        scale = math.log(10.0) if logit_bias else math.log(1 / 0.07)
        self.logit_scale = nn.Parameter(torch.tensor(scale))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if logit_bias else None

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """``(batch, channels, height, width) -> (batch, embed_dim)``, not normalised."""
        return self.image(pixel_values)

    def encode_text(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, tokens) -> (batch, embed_dim)``, not normalised.

        Args:
            mask: ``(batch, tokens)``, True = a token; may be left out where texts end in ``eos_id``
                and the stack is causal.
        """
        return self.text(input_ids, mask)

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Logits ``(pictures, texts)``; transposed, they are those of texts over pictures."""
        images = F.normalize(self.encode_image(pixel_values), dim=-1)
        texts = F.normalize(self.encode_text(input_ids, mask), dim=-1)
        logits = self.logit_scale.exp() * (images @ texts.T)
        return logits if self.logit_bias is None else logits + self.logit_bias

    @torch.no_grad()
    def clamp_temperature(self, maximum: float = 100.0) -> None:
        """Bring the factor on cosines back to ``maximum`` (section 2.5): call it after each step.

        The parameter itself is changed, not what ``forward`` makes of it: clamped there, a scale
        above the limit would have no gradient and never come back.
        """
        self.logit_scale.clamp_(max=math.log(maximum))


def _clip(
    vocab_size: int, image: dict[str, Any], text: dict[str, Any], overrides: dict[str, Any]
) -> CLIP:
    """Hand each override to both towers, to the one that it names, or to CLIP itself."""
    both = {name: value for name, value in overrides.items() if name in STACK}
    towers: dict[str, dict[str, Any]] = {
        "image": {"position": "learned", **image, **both},
        "text": {"causal": True, "position": "learned", "max_tokens": 77, **text, **both},
    }
    own: dict[str, Any] = {}
    for name, value in overrides.items():
        tower, _, field = name.partition("_")
        if tower in towers and field in STACK:
            towers[tower][field] = value
        elif name not in STACK:
            own[name] = value
    if own.get("image_tower") is not None:
        own.setdefault("image", None)
    return build(CLIP, {"vocab_size": vocab_size, **towers, **own})


def _openai(
    vocab_size: int, image: dict[str, Any], text: dict[str, Any], overrides: dict[str, Any]
) -> CLIP:
    published: dict[str, Any] = {"activation": "quick_gelu"}
    if vocab_size == 49_408:
        published["eos_id"] = 49_407  # the end of text in OpenAI's own vocabulary
    return _clip(vocab_size, image, text, {**published, **overrides})


def clip_vit_b32(vocab_size: int = 49_408, **overrides: Any) -> CLIP:
    """OpenAI's CLIP ViT-B/32, 151 M parameters.

    Args:
        overrides: arguments of :class:`CLIP`, and fields of its configs: of a stack for both towers
            as ``dropout=0.1``, for one as ``image_depth=6`` or ``text_causal=False``.
    """
    image = {"dim": 768, "depth": 12, "heads": 12}
    text = {"dim": 512, "depth": 12, "heads": 8}
    return _openai(vocab_size, image, text, overrides)


def clip_vit_b16(vocab_size: int = 49_408, **overrides: Any) -> CLIP:
    """OpenAI's CLIP ViT-B/16, 150 M parameters; overrides as :func:`clip_vit_b32`."""
    return clip_vit_b32(vocab_size, **{"patch_size": 16, **overrides})


def clip_vit_l14(vocab_size: int = 49_408, **overrides: Any) -> CLIP:
    """OpenAI's CLIP ViT-L/14, 428 M parameters; overrides as :func:`clip_vit_b32`."""
    image = {"dim": 1024, "depth": 24, "heads": 16}
    text = {"dim": 768, "depth": 12, "heads": 12}
    return _openai(vocab_size, image, text, {"patch_size": 14, "embed_dim": 768, **overrides})


def clip_small(vocab_size: int, **overrides: Any) -> CLIP:
    """A size for thousands of pairs: two towers of 6 layers, 256 wide, pictures of 64 pixels.

    Args:
        overrides: as :func:`clip_vit_b32`.
    """
    stack = {"dim": 256, "depth": 6, "heads": 4}
    small = {"embed_dim": 256, "image_size": 64, "patch_size": 8}
    return _clip(vocab_size, stack, stack, {**small, **overrides})
