"""DETR and Segmenter as their authors' code computes them, put together from torch's own layers: the
names of all weights are those of their files."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d


def waves(mask: Tensor, dim: int) -> Tensor:
    """The sines of a map ``(batch, height, width)`` -> ``(batch, height * width, dim)``."""
    halves = []
    for axis in (1, 2):
        steps = mask.double().cumsum(axis)
        angle = steps / (steps.select(axis, -1).unsqueeze(axis) + 1e-6) * 2 * math.pi
        channel = torch.arange(dim // 2)
        angle = angle[..., None] / 10_000 ** (2 * (channel // 2) / (dim // 2)).double()
        halves.append(torch.where(channel % 2 == 0, angle.sin(), angle.cos()))
    return torch.cat(halves, dim=-1).flatten(1, 2)


class Layer(nn.Module):
    """A layer of the encoder, or with ``cross`` of the decoder."""

    def __init__(self, dim: int, heads: int, hidden: int, cross: bool, pre: bool) -> None:
        super().__init__()
        self.pre = pre
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(dim, heads, batch_first=True) if cross else None
        self.linear1, self.linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim) if cross else None

    def forward(
        self, x: Tensor, place: Tensor, memory: Any = None, spot: Any = None, mask: Any = None
    ) -> Tensor:
        hidden = None if self.multihead_attn is not None else mask

        def itself(y: Tensor) -> Tensor:
            return self.self_attn(y + place, y + place, y, key_padding_mask=hidden)[0]

        def across(y: Tensor) -> Tensor:
            return self.multihead_attn(y + place, memory + spot, memory, key_padding_mask=mask)[0]

        def further(y: Tensor) -> Tensor:
            return self.linear2(F.relu(self.linear1(y)))

        steps = [(itself, self.norm1), (further, self.norm2)]
        if self.multihead_attn is not None:
            steps = [(itself, self.norm1), (across, self.norm2), (further, self.norm3)]
        for step, norm in steps:
            x = x + step(norm(x)) if self.pre else norm(x + step(x))
        return x


class Stack(nn.Module):
    def __init__(self, layers: list[nn.Module], norm: nn.Module | None) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm


class OriginalDETR(nn.Module):
    """ResNet-18, heads of 32 channels."""

    def __init__(self, classes: int, dim: int, hidden: int, queries: int, pre: bool) -> None:
        super().__init__()
        heads = dim // 32
        net = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
        body = IntermediateLayerGetter(net, {"layer4": "0"})
        self.backbone = nn.ModuleList([nn.ModuleDict({"body": body})])
        for name, parameter in body.named_parameters():
            parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))
        encoder = [Layer(dim, heads, hidden, False, pre) for _ in range(2)]
        decoder = [Layer(dim, heads, hidden, True, pre) for _ in range(3)]
        self.transformer = nn.ModuleDict(
            {
                "encoder": Stack(encoder, nn.LayerNorm(dim) if pre else None),
                "decoder": Stack(decoder, nn.LayerNorm(dim)),
            }
        )
        self.class_embed = nn.Linear(dim, classes + 1)
        widths = (dim, dim, dim, 4)
        layers = [nn.Linear(width, widths[i + 1]) for i, width in enumerate(widths[:3])]
        self.bbox_embed = Stack(layers, None)
        self.query_embed = nn.Embedding(queries, dim)
        self.input_proj = nn.Conv2d(512, dim, 1)

    def forward(self, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and their mask, True = picture -> logits and boxes."""
        features = self.input_proj(self.backbone[0]["body"](pixels)["0"])
        cells = F.interpolate(mask[None].float(), size=features.shape[-2:])[0].bool()
        spot = waves(cells, features.shape[1]).to(features.dtype)
        hidden = ~cells.flatten(1)
        memory = features.flatten(2).transpose(1, 2)
        for layer in self.transformer["encoder"].layers:
            memory = layer(memory, spot, mask=hidden)
        if self.transformer["encoder"].norm is not None:
            memory = self.transformer["encoder"].norm(memory)
        place = self.query_embed.weight.expand(len(pixels), -1, -1)
        x = torch.zeros_like(place)
        for layer in self.transformer["decoder"].layers:
            x = layer(x, place, memory, spot, hidden)
        x = self.transformer["decoder"].norm(x)
        boxes = x
        for layer in self.bbox_embed.layers[:-1]:
            boxes = F.relu(layer(boxes))
        return self.class_embed(x), self.bbox_embed.layers[-1](boxes).sigmoid()


class Block(nn.Module):
    """A block of Segmenter's ViT and of its decoder."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.attn["qkv"](self.norm1(x)).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        x = x + self.attn["proj"]((scores @ v).transpose(1, 2).flatten(2))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class OriginalSegmenter(nn.Module):
    """A ViT of 128 channels with a mask transformer, or a linear decoder."""

    def __init__(self, classes: int, size: int, patch: int, masks: bool, distilled: bool) -> None:
        super().__init__()
        dim, self.patch, self.side, self.classes = 128, patch, size // patch, classes
        self.before, self.masks = 1 + distilled, masks
        encoder, decoder = nn.Module(), nn.Module()
        encoder.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        encoder.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        encoder.head = nn.Linear(dim, 1000)
        if distilled:
            encoder.dist_token = nn.Parameter(torch.empty(1, 1, dim))
            encoder.head_dist = nn.Linear(dim, 1000)
        encoder.pos_embed = nn.Parameter(torch.empty(1, self.before + self.side**2, dim))
        encoder.blocks = nn.ModuleList(Block(dim, 2) for _ in range(2))
        encoder.norm = nn.LayerNorm(dim)
        if masks:
            decoder.blocks = nn.ModuleList(Block(dim, 2) for _ in range(2))
            decoder.cls_emb = nn.Parameter(torch.randn(1, classes, dim))
            decoder.proj_dec = nn.Linear(dim, dim)
            decoder.proj_patch = nn.Parameter(torch.empty(dim, dim))
            decoder.proj_classes = nn.Parameter(torch.empty(dim, dim))
            decoder.decoder_norm = nn.LayerNorm(dim)
            decoder.mask_norm = nn.LayerNorm(classes)
        else:
            decoder.head = nn.Linear(dim, classes)
        self.encoder, self.decoder = encoder, decoder

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        pixels = F.pad(pixels, (0, -width % self.patch, 0, -height % self.patch))
        encoder, grid = self.encoder, [side // self.patch for side in pixels.shape[-2:]]
        x = encoder.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        tokens = [encoder.cls_token] + ([encoder.dist_token] if self.before == 2 else [])
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in tokens), x], dim=1)
        table = encoder.pos_embed
        if x.shape[1] != table.shape[1]:
            square = table[:, self.before :].transpose(1, 2).unflatten(2, (self.side, self.side))
            square = F.interpolate(square, size=grid, mode="bilinear").flatten(2).transpose(1, 2)
            table = torch.cat([table[:, : self.before], square], dim=1)
        x = x + table
        for block in encoder.blocks:
            x = block(x)
        x = self.decode(encoder.norm(x)[:, self.before :])
        scores = x.transpose(1, 2).unflatten(2, grid)
        return F.interpolate(scores, pixels.shape[-2:], mode="bilinear")[..., :height, :width]

    def decode(self, x: Tensor) -> Tensor:
        decoder = self.decoder
        if not self.masks:
            return decoder.head(x)
        x = torch.cat([decoder.proj_dec(x), decoder.cls_emb.expand(len(x), -1, -1)], dim=1)
        for block in decoder.blocks:
            x = block(x)
        x = decoder.decoder_norm(x)
        patches, classes = x[:, : -self.classes], x[:, -self.classes :]
        patches = F.normalize(patches @ decoder.proj_patch, dim=-1)
        classes = F.normalize(classes @ decoder.proj_classes, dim=-1)
        return decoder.mask_norm(patches @ classes.transpose(1, 2))
