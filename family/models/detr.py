"""DETR: a picture becomes a set of boxes (Carion et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.mask import Shared
from family.core.transformer import Transformer
from family.heads.detection import DetectionHead
from family.inputs.backbone import CNNBackbone, PatchBackbone
from family.inputs.sine import sine_positions
from family.losses.set_matching import Targets, check_targets
from family.models.detr_queries import (
    AnchorQueries,
    Denoising,
    Proposals,
    denoising_mask,
)
from family.models.examples import SCENES
from family.models.member import build, member


class Memory(NamedTuple):
    """What the encoder knows of the pictures."""

    tokens: Tensor
    """``(batch, cells, dim)``."""
    mask: Tensor | None
    """``(batch, cells)``, True = picture; None = all."""
    position: Tensor
    """``(batch or 1, cells, dim)``."""
    cells: Tensor
    """``(batch or 1, height, width)``, True = picture."""


@member(
    task="Detection",
    reads=("pictures",),
    inputs=SCENES,
    example={
        "num_classes": 5,
        "config": TransformerConfig(dim=16, depth=2, heads=2),
        "backbone": "patch",
        "queries": 7,
        "patch_size": 32,
    },
    variants=(
        {"anchors": True, "classification": "focal"},
        {"anchors": True, "classification": "focal", "denoising": 6, "two_stage": True},
    ),
    classes=("head.classes.", "proposals.head.classes.", "denoising."),
    any_size=True,
)
class DETR(nn.Module):
    """backbone -> encoder -> decoder over object queries -> a class and a box for each.

    ::

        picture ── backbone ── encoder ──┐        positions in two dimensions are added to queries
        queries ─────────────── decoder ─┴─ head  and keys at every layer; so are the queries' own

    Plain, it is the model of the paper, whose users find it slow to learn. The options below
    cure that, each on its own: ``anchors``, ``classification="focal"``, and on top of anchors
    ``denoising`` and ``two_stage``.

    Args:
        num_classes: without "no object".
        config: the encoder, and but for the depth the decoder.
        backbone: any network of timm by name, "patch" for a plain projection of patches, or a
            module like :class:`~family.inputs.backbone.CNNBackbone`.
        queries: the most objects that can be found.
        decoder_depth: None is ``config.depth``.
        stage, pretrained, frozen_norm, freeze: of a network of timm, see
            :class:`~family.inputs.backbone.CNNBackbone`.
        patch_size: of "patch".
        dilation: the network's last stage dilates in place of its stride, for a map of twice the
            size ("DC5", section 4).
        anchors: queries are learned boxes, which every decoder layer refines (DAB-DETR).
        classification: "softmax" with "no object" as last class, or "focal".
        denoising: about so many further queries in training, made from targets with noise
            (DN-DETR); 0 is none.
        two_stage: the encoder proposes the first anchors (Deformable DETR, DINO).

    Raises:
        ValueError: options that do not go together.
    """

    def __init__(
        self,
        num_classes: int,
        config: TransformerConfig,
        backbone: str | nn.Module = "resnet50",
        queries: int = 100,
        decoder_depth: int | None = None,
        stage: int = -1,
        pretrained: bool = False,
        frozen_norm: bool = True,
        freeze: str | Sequence[str] = (),
        patch_size: int = 16,
        dilation: bool = False,
        anchors: bool = False,
        classification: str = "softmax",
        denoising: int = 0,
        two_stage: bool = False,
    ) -> None:
        super().__init__()
        check_options(config, anchors, denoising, two_stage)
        dim = config.dim
        self.config, self.num_classes, self.classification = config, num_classes, classification
        self.project: nn.Module = nn.Identity()
        if backbone == "patch":
            self.backbone: nn.Module = PatchBackbone(dim, patch_size)
        else:
            if isinstance(backbone, str):
                options = {"output_stride": 16} if dilation else {}
                backbone = CNNBackbone(backbone, stage, pretrained, frozen_norm, freeze, **options)
            self.backbone = backbone
            self.project = nn.Conv2d(int(backbone.channels), dim, 1)  # type: ignore[arg-type]
        self.encoder = Transformer(config)
        self.decoder_depth = depth = decoder_depth or config.depth
        self.decoder = Transformer(
            config.replace(depth=depth, cross_attention=True, final_norm=True)
        )
        self.queries: nn.Embedding | AnchorQueries = (
            AnchorQueries(queries, dim) if anchors else nn.Embedding(queries, dim)
        )
        self.head = DetectionHead(dim, num_classes, classification, refine=anchors)
        self.denoising = Denoising(num_classes, dim, denoising) if denoising else None
        self.proposals = Proposals(dim, num_classes, classification) if two_stage else None

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        targets: Targets | None = None,
    ) -> dict[str, Any]:
        """Classes and boxes of every query.

        Args:
            pixel_values: ``(batch, 3, height, width)``; smaller pictures stand at the top left.
            pixel_mask: ``(batch, height, width)``, True = picture; None = all of it. No cell attends
                to padding; but a convolution at the border of a picture sees it, as in the
                original, which "patch" does not.
            targets: what denoising queries are made from, in training: for each picture ``labels``
                (n) and ``boxes`` (n, 4), as :class:`~family.losses.set_matching.SetLoss` takes.

        Returns:
            ``logits`` (batch, queries, classes), with "no object" last for "softmax", and ``boxes``
            (batch, queries, 4): cx, cy, w, h in 0..1 of the picture without its padding. In
            training also ``aux``, a list of the same for the earlier layers, ``proposals``, the
            same for the cells that became anchors, and ``denoising`` for the further queries.
        """
        memory = self.encode(pixel_values, pixel_mask)
        if isinstance(self.queries, nn.Embedding):
            hidden = self._decode(self.queries.weight, memory)
            return self._outputs(self.head.classes(hidden), self.head.box_logits(hidden).sigmoid())
        return self._anchored(self.queries, memory, targets if self.training else None)

    def encode(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> Memory:
        """The encoder's view of pictures ``(batch, 3, height, width)``."""
        features, mask = self.backbone(pixel_values, pixel_mask)
        features = self.project(features)
        tokens = features.flatten(2).transpose(1, 2)
        cells = mask
        if mask is None:
            cells = features.new_ones(1, *features.shape[-2:], dtype=torch.bool)
        else:
            mask = mask.flatten(1)
        position = sine_positions(cells, self.config.dim, tokens.dtype)
        tokens = self.encoder(tokens, mask=mask, query_position=position)
        return Memory(tokens, mask, position, cells)

    def _decode(self, position: Tensor, memory: Memory) -> Tensor:
        """The paper's queries: ``(layers, batch, queries, dim)``, in evaluation the last layer."""
        position = position.expand(memory.tokens.shape[0], -1, -1)
        layers: list[Tensor] | None = [] if self.training else None
        last = self.decoder(
            torch.zeros_like(position),
            context=memory.tokens,
            context_mask=memory.mask,
            query_position=position,
            context_position=memory.position,
            layers=layers,
        )
        return last[None] if layers is None else torch.stack(layers)

    def _anchored(
        self, queries: AnchorQueries, memory: Memory, targets: Targets | None
    ) -> dict[str, Any]:
        """Queries with a place: the learned ones, and in training those made from targets."""
        content = queries.content.expand(memory.tokens.shape[0], -1, -1)
        anchors, proposals = self._first_anchors(queries, memory)
        count, mask, noised = content.shape[1], None, None
        if self.denoising is not None and targets is not None:
            check_targets(targets, content, self.num_classes)
            noised = self.denoising(targets)
            mask = denoising_mask(noised.target_ids, noised.groups, count)
            content = torch.cat([content, noised.content], dim=1)
            anchors = torch.cat([anchors, noised.anchors], dim=1)
        hidden, boxes = self._refine(queries, content, anchors, mask, memory)
        logits = self.head.classes(hidden)
        outputs = self._outputs(logits[:, :, :count], boxes[:, :, :count])
        if self.training and proposals is not None:
            outputs["proposals"] = proposals
        if noised is not None:
            outputs["denoising"] = {
                **self._outputs(logits[:, :, count:], boxes[:, :, count:]),
                "target_ids": noised.target_ids,
                "groups": noised.groups,
            }
        return outputs

    def _first_anchors(
        self, queries: AnchorQueries, memory: Memory
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Anchors ``(batch, queries, 4)`` before the sigmoid, and the proposals they come from."""
        batch = memory.tokens.shape[0]
        anchors = queries.boxes.expand(batch, -1, -1)
        anchors = anchors.to(torch.promote_types(anchors.dtype, torch.float32))
        if self.proposals is None:
            return anchors, None
        cells = memory.cells.expand(batch, -1, -1)
        logits, boxes, real = self.proposals(memory.tokens, cells, anchors.shape[1])
        # Where a picture has fewer cells than there are queries, the others keep what they learned.
        learned, others = anchors.split([boxes.shape[1], anchors.shape[1] - boxes.shape[1]], dim=1)
        chosen = torch.where(real[..., None], boxes.detach(), learned)
        proposals = {"logits": logits, "boxes": boxes.sigmoid()}
        return torch.cat([chosen, others], dim=1), proposals

    def _refine(
        self,
        queries: AnchorQueries,
        x: Tensor,
        anchors: Tensor,
        mask: Tensor | None,
        memory: Memory,
    ) -> tuple[Tensor, Tensor]:
        """Every layer corrects the boxes of the layer before.

        Returns:
            ``(layers, batch, queries, dim)`` and boxes ``(layers, batch, queries, 4)``; in
            evaluation those of the last layer.
        """
        layers, boxes = [], []
        shared = Shared(
            mask=mask,
            context=memory.tokens,
            context_mask=memory.mask,
            context_position=memory.position,
        )
        for step in self.decoder.walk(x, shared):
            x = step(x, query_position=queries.position(anchors, memory.tokens.dtype))
            layers.append(self.decoder.norm(x))
            refined = self.head.box_logits(layers[-1], anchors)
            boxes.append(refined.sigmoid())
            anchors = refined.detach()
        last = 0 if self.training else -1
        return torch.stack(layers[last:]), torch.stack(boxes[last:])

    def _outputs(self, logits: Tensor, boxes: Tensor) -> dict[str, Any]:
        """From ``(layers, batch, queries, ...)`` to the last layer and, in ``aux``, the others."""
        *aux, last = [
            {"logits": layer, "boxes": box}
            for layer, box in zip(logits.unbind(), boxes.unbind(), strict=True)
        ]
        return {**last, "aux": aux} if self.training else last


def check_options(
    config: TransformerConfig, anchors: bool, denoising: int, two_stage: bool
) -> None:
    """Refuse what does not go together.

    Raises:
        ValueError: one sentence that names field and value.
    """
    if config.causal or config.cross_attention or config.position != "none":
        raise ValueError(
            "DETR's config describes its encoder: it needs causal=False, cross_attention=False and "
            f"position='none' (it has its own), not {config.causal}, {config.cross_attention} and "
            f"{config.position!r}."
        )
    if config.dim % 4:
        raise ValueError(
            f"positions in two dimensions need a dim divisible by 4, not {config.dim}."
        )
    if denoising < 0:
        raise ValueError(f"denoising={denoising}: a number of queries is wanted, or 0.")
    for name, value in (("denoising", denoising), ("two_stage", two_stage)):
        if value and not anchors:
            raise ValueError(f"{name}={value} gives queries a place: it needs anchors=True.")


def detr_resnet50(num_classes: int = 91, **overrides: Any) -> DETR:
    """The published model, 41 M parameters: ResNet-50, 6 + 6 layers, 256 wide, 100 queries.

    Its backbone is made to be loaded or ``pretrained``: batch norms and first layers do not learn.
    Overrides are arguments of :class:`DETR`, and fields of its config.
    """
    fields: dict[str, Any] = {
        "dim": 256,
        "depth": 6,
        "heads": 8,
        "ffn_dim": 2048,
        "activation": "relu",
        "norm_order": "post",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "ffn_dropout": 0.1,
        "init_std": None,
        "backbone": "resnet50",
        "freeze": ("conv1", "bn1", "layer1"),
    }
    return build(DETR, {"num_classes": num_classes, **fields, **overrides})


def detr_small(num_classes: int, **overrides: Any) -> DETR:
    """Our own default, to train from scratch on a few hundred pictures: all that speeds it up.

    ResNet-18 up to a stride of 16 pixels, 3 + 3 layers, 192 wide; overrides as for
    :func:`detr_resnet50`.
    """
    fields: dict[str, Any] = {
        "dim": 192,
        "depth": 3,
        "heads": 6,
        "ffn_dim": 768,
        "activation": "relu",
        "norm_order": "pre",
        "dropout": 0.1,
        "init_std": None,
        "backbone": "resnet18",
        "stage": -2,
        "frozen_norm": False,
        "anchors": True,
        "classification": "focal",
        "denoising": 100,
        "two_stage": True,
    }
    return build(DETR, {"num_classes": num_classes, **fields, **overrides})
