"""EoMT: a plain ViT whose last blocks read queries too, of which each finds a segment (Kerssies et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.init import init_linear
from family.core.mask import Shared
from family.heads.classifier import PoolConfig
from family.inputs.patches import PatchConfig, covering, pair
from family.losses.mask_matching import MaskLoss, Segments, class_segments
from family.losses.set_matching import Whole
from family.models.examples import PICTURES
from family.models.member import member
from family.models.vit import ViT

MASKED = ("annealed", "always", "never")


class Found(NamedTuple):
    """What the queries found, before a block or after the last."""

    logits: Tensor
    """``(batch, queries, classes + 1)``, the last for "no object"."""
    masks: Tensor
    """``(batch, queries, rows, columns)``, logits."""


@member(
    task="Segmentation",
    reads=("pictures",),
    any_size=True,
    inputs=PICTURES,
    example={
        "num_classes": 5,
        "config": TransformerConfig(dim=16, depth=3, heads=2, position="learned"),
        "image_size": 16,
        "patch_size": 8,
        "queries": 6,
        "query_blocks": 2,
        "upscaling": 1,
    },
    classes=("classes.",),
)
class EoMT(nn.Module):
    """The blocks of a ViT, the last of them over queries and patches together; a class and a mask of each
    query.

    ::

        patches ── blocks ──┬── blocks ──┬── norm ──┬── upscaling ──(x)── masks
        queries ────────────┘            └──────────┴── MLP ─────────┘
                                                    └── linear ────────── classes

    In training each of the last blocks is told what the queries have found so far: a query attends to the
    patches of its mask alone. This is unlearned one block after the other (:meth:`anneal`), so that
    nothing but the plain ViT is left; a model whose training was broken off keeps some of its masks.

    Args:
        num_classes: classes, background included where it is one.
        config: the stack.
        image_size: pixels, ``side`` or ``(height, width)``; other sizes work too.
        patch_size: pixels, ``side`` or ``(height, width)``.
        queries: the most segments that can be found.
        query_blocks: the last blocks, which queries go through.
        upscaling: how often the grid of patches is doubled for the masks.
        masked_attention: whether queries are held to their masks: "annealed", "always" or "never".
        patches: the tokens before patches, their stem, and where they stand.

    Raises:
        ValueError: no queries, more blocks of queries than there are, or an unknown ``masked_attention``.
    """

    def __init__(
        self,
        num_classes: int,
        config: TransformerConfig,
        image_size: int | Sequence[int] = 640,
        patch_size: int | Sequence[int] = 16,
        queries: int = 100,
        query_blocks: int = 4,
        upscaling: int = 2,
        masked_attention: str = "annealed",
        *,
        patches: PatchConfig = PatchConfig(),
    ) -> None:
        super().__init__()
        if not 0 < query_blocks <= config.depth:
            raise ValueError(
                f"query_blocks={query_blocks} must be between 1 and the depth, {config.depth}."
            )
        if queries < 1 or upscaling < 0:
            raise ValueError(
                f"queries={queries} and upscaling={upscaling} must be at least 1 and 0."
            )
        if masked_attention not in MASKED:
            raise ValueError(
                f"masked_attention={masked_attention!r} is unknown; choose one of: {', '.join(MASKED)}."
            )
        self.num_classes, self.query_blocks = num_classes, query_blocks
        self.masked_attention = masked_attention
        self.image_size, self.patch_size = pair(image_size), pair(patch_size)
        covered = covering(self.image_size, self.patch_size)
        # Nothing is pooled, so the final norm has to stand before the pooling.
        pooling = PoolConfig("mean", norm_after=False)
        self.encoder = ViT(0, config, covered, patch_size, patches=patches, pooling=pooling)
        self.config, dim = self.encoder.config, config.dim
        self.queries = nn.Embedding(queries, dim)
        self.classes = nn.Linear(dim, num_classes + 1)
        self.mask = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim)
        )
        self.upscaling = nn.Sequential(*(Upscale(dim, config.norm_eps) for _ in range(upscaling)))
        nn.init.normal_(self.queries.weight, std=1.0)
        for layer in (self.classes, *self.mask):
            if isinstance(layer, nn.Linear):
                init_linear(layer, dim**-0.5)
        held = 0.0 if masked_attention == "never" else 1.0
        self.register_buffer("masked", torch.full((query_blocks,), held))
        self.masked: Tensor
        self.shares = [held] * query_blocks
        """The same as plain numbers, of each block the share of queries that are held to their masks."""
        self.register_load_state_dict_post_hook(read_shares)

    def train(self, mode: bool = True) -> EoMT:
        """As any module's; weights may have come since."""
        read_shares(self)
        return super().train(mode)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` -> logits ``(batch, classes, height, width)``: the
        logarithm of what all queries together give to a class at a pixel.

        A picture whose sides are no multiples of the patch's is filled up with zeros right and
        below, and the logits there are cut off.
        """
        logits, masks = self.found(pixel_values)[-1]
        chances = logits.float().softmax(-1)[..., :-1]
        masks = self._whole(masks, *pixel_values.shape[-2:]).sigmoid()
        scores = torch.einsum("bqc,bqhw->bchw", chances, masks)
        return scores.clamp(min=torch.finfo(scores.dtype).tiny).log()

    @torch.no_grad()
    def instances(
        self,
        pixel_values: Tensor,
        threshold: float = 0.5,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Of each picture the segments found, best first: ``labels (n)``, ``scores (n)``, ``queries (n)``, which
        found them, and ``masks (n, height, width)``, bool. Each query gives one at most.

        A score is the chance of the class times the mean of the mask's own chances (Mask2Former).

        Args:
            threshold: the least score.
            sizes: ``(height, width)`` of the masks of each picture; None is that of ``pixel_values``.
        """
        logits, masks = self.found(pixel_values)[-1]
        chances = logits.float().softmax(-1)[..., :-1]
        found = []
        for i, whole in enumerate(self._whole(masks, *pixel_values.shape[-2:])):
            best, labels = chances[i].max(-1)
            likely = best >= threshold  # the score is no more
            best, labels, whole = best[likely], labels[likely], whole[likely]
            queries = likely.nonzero()[:, 0]
            if sizes is not None and len(whole):
                whole = F.interpolate(whole[None], tuple(sizes[i]), mode="bilinear")[0]
            inside = whole > 0
            sure = (whole.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
            scores, order = (best * sure).sort(descending=True)
            order = order[(scores >= threshold) & (scores > 0)]  # no pixel is no segment
            kept = {"labels": labels[order], "scores": (best * sure)[order]}
            found.append({**kept, "queries": queries[order], "masks": inside[order]})
        return found

    def losses(
        self, pixel_values: Tensor, targets: Tensor | Segments, whole: Whole | None = None
    ) -> dict[str, Tensor]:
        """``loss``, the sum over all blocks that were asked, and ``class``, ``mask`` and ``dice`` of the
        last; see :class:`~family.losses.mask_matching.MaskLoss`.

        Args:
            targets: the class of each pixel ``(batch, height, width)``, 255 where it counts for nothing;
                or segments, such as instances.
            whole: of a batch that is a part of more what :class:`~family.losses.mask_matching.MaskLoss` divides by.
        """
        if isinstance(targets, Tensor):
            targets = class_segments(targets)
        height, width = pixel_values.shape[-2:]
        terms: dict[str, Tensor] = {}
        total = list[Tensor]()
        for logits, masks in self.found(pixel_values):
            terms = MaskLoss()(logits, self._whole(masks, height, width), targets, whole)
            total += terms.values()
        return {"loss": torch.stack(total).sum(), **terms}

    def anneal(self, progress: float) -> None:
        """Hold fewer queries to their masks, as training goes on: of ``n`` blocks, block ``i`` lets them go
        between ``(i + 1) / (n + 2)`` and ``(i + 2) / (n + 2)`` of it, by a power of 0.9. Only where
        ``masked_attention`` is "annealed".

        Args:
            progress: the share of the training that is done.
        """
        if self.masked_attention != "annealed":
            return
        parts = (progress * (self.query_blocks + 2) - 1 - i for i in range(self.query_blocks))
        self.shares = [(1 - min(1.0, max(0.0, part))) ** 0.9 for part in parts]
        self.masked.copy_(torch.tensor(self.shares))

    def found(self, pixel_values: Tensor) -> list[Found]:
        """What the queries found: before each block that holds them to it, in training each, and after
        the last.

        In evaluation a block holds all to their masks, or none, if it let most of them go.
        """
        height, width = pixel_values.shape[-2:]
        covered = covering((height, width), self.patch_size)
        x = F.pad(pixel_values, (0, covered[1] - width, 0, covered[0] - height))
        embedding, stack, grid = self.encoder.embedding, self.encoder.transformer, self.encoder.grid
        positions, first = embedding.coordinates(*covered), self.config.depth - self.query_blocks
        x = embedding(x)
        for step in stack.walk(x, positions=positions, part=slice(first)):
            x = step(x)
        queries = self.queries.weight.to(x.dtype).expand(len(x), -1, -1)
        x = torch.cat([queries, x], dim=1)
        if positions is not None:  # they stand nowhere, as prefix tokens
            positions = F.pad(positions, (0, 0, queries.shape[1], 0))
        found = []
        for i, share in enumerate(self.shares, first):
            mask = None
            if self.training or share > 0.5:
                found.append(self._find(stack.norm(x), grid(*covered)))
                mask = self._attended(found[-1].masks, grid(*covered), share, x.shape[1])
            for step in stack.walk(x, Shared(mask=mask), positions, part=slice(i, i + 1)):
                x = step(x)
        return [*found, self._find(stack.norm(x), grid(*covered))]

    def _find(self, x: Tensor, grid: tuple[int, int]) -> Found:
        count = self.queries.num_embeddings
        queries, patches = x[:, :count], x[:, count + self.encoder.num_prefix_tokens :]
        features = self.upscaling(patches.transpose(1, 2).unflatten(2, grid))
        masks = torch.einsum("bqc,bchw->bqhw", self.mask(queries), features)
        return Found(self.classes(queries), masks)

    def _attended(
        self, masks: Tensor, grid: tuple[int, int], share: float, tokens: int
    ) -> Tensor | None:
        """``(batch, tokens, tokens)``, True = may attend: a query not to the patches outside its mask."""
        if share == 0:
            return None
        seen = F.interpolate(masks.detach(), grid, mode="bilinear").flatten(2) > 0
        if self.training and share < 1:
            free = torch.rand(seen.shape[:2], device=seen.device) > share
            seen = seen | free[..., None]
        batch, count, patches = seen.shape
        others = seen.new_ones(batch, count, tokens - patches)
        rest = seen.new_ones(batch, tokens - count, tokens)
        return torch.cat([torch.cat([others, seen], dim=2), rest], dim=1)

    def _whole(self, masks: Tensor, height: int, width: int) -> Tensor:
        """Mask logits at the size of the picture."""
        covered = covering((height, width), self.patch_size)
        return F.interpolate(masks.float(), covered, mode="bilinear")[..., :height, :width]


class Upscale(nn.Module):
    """A map of twice the size: ``(batch, dim, rows, columns) -> (batch, dim, 2 rows, 2 columns)``."""

    def __init__(self, dim: int, norm_eps: float) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(dim, dim, 2, 2)
        self.smooth = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.smooth(F.gelu(self.enlarge(x)))
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def read_shares(model: Any, _: Any = None) -> None:
    """What was loaded, as plain numbers: nothing has to wait for a device in each step."""
    if not model.masked.is_meta:
        model.shares = model.masked.tolist()
