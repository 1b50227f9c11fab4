"""Vectors become ids of a discrete codebook, and ids vectors again.

Ours, and not the package vector-quantize-pytorch, against whose numbers ``tests/parity`` holds it: the
codes have to agree between processes, whose restarts too, go on to the bit when a run is resumed, without
a random state of their own, stay in float32 under autocast, and stand still in evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

KINDS = ("ema", "rotation", "fsq")
EPS = 1e-5
"""What keeps codes that nothing is nearest to from a division by zero (Laplace smoothing)."""


@dataclass(frozen=True)
class CodebookConfig:
    """What a codebook may differ in.

    Args:
        kind: "ema", vector quantisation whose codes are moving means of the vectors that are nearest to
            them, with gradients straight through (van den Oord et al. 2017, appendix A.1); "rotation", the
            same, whose gradients are turned and stretched as the vector is to its code (Fifty et al.
            2024); "fsq", each number of a vector rounded to one of few levels (Mentzer et al. 2023),
            which has no codes to learn.
        size: codes of "ema" and "rotation".
        dim: numbers of each of these; few, or many codes stay far from all vectors.
        levels: of "fsq", of each number; their product is the number of codes.
        decay: of the moving means, a step.
        commitment: weight of the squared distance that draws vectors to their codes.
        restart: a code to which less than this share of a fair part of the vectors goes, by its moving
            mean, begins again at a vector of the batch; 0 leaves it where it is.

    Raises:
        ValueError: an unknown or impossible value, in one sentence.
    """

    kind: str = "ema"
    size: int = 512
    dim: int = 16
    levels: tuple[int, ...] = (8, 5, 5, 5)
    decay: float = 0.99
    commitment: float = 0.25
    restart: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        if self.kind not in KINDS:
            raise ValueError(
                f"codebook.kind={self.kind!r} is unknown; choose one of: {', '.join(KINDS)}."
            )
        for name in ("size", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"codebook.{name} must be at least 1, not {getattr(self, name)}.")
        if not self.levels or min(self.levels) < 3:
            raise ValueError(
                f"codebook.levels must be whole numbers of at least 3, not {list(self.levels)}."
            )
        for name in ("decay", "restart"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"codebook.{name} must be at least 0 and below 1, not {getattr(self, name)}."
                )
        if not 0 <= self.commitment < math.inf:
            raise ValueError(f"codebook.commitment must be at least 0, not {self.commitment}.")

    @property
    def vocab_size(self) -> int:
        """How many codes there are."""
        return math.prod(self.levels) if self.kind == "fsq" else self.size

    @property
    def latent_dim(self) -> int:
        """Numbers of a vector."""
        return len(self.levels) if self.kind == "fsq" else self.dim


class Quantised(NamedTuple):
    """Vectors at their codes.

    Args:
        latents: ``(batch, latent_dim, rows, columns)``, in training with gradients to what they were.
        ids: ``(batch, rows * columns)`` int64.
        commitment: the weighted loss, a number in float32 at least.
    """

    latents: Tensor
    ids: Tensor
    commitment: Tensor


class Codebook(nn.Module):
    """What all kinds share; :func:`make_codebook` makes one. All is computed in float32 at least."""

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__()
        self.config, self.vocab_size = config, config.vocab_size

    def forward(self, latents: Tensor) -> Quantised:
        """``(batch, latent_dim, rows, columns)`` at their codes; in training the codes learn."""
        with torch.autocast(latents.device.type, enabled=False):
            rows = latents.flatten(2).transpose(1, 2)
            made, ids, commitment = self.quantise(at_least_float32(rows).flatten(0, 1))
        made = made.view_as(rows).transpose(1, 2).view_as(latents).to(latents.dtype)
        return Quantised(made, ids.view(rows.shape[:2]), commitment)

    @torch.no_grad()
    def ids(self, latents: Tensor) -> Tensor:
        """The ids of :meth:`forward`; nothing is learnt."""
        with torch.autocast(latents.device.type, enabled=False):
            rows = at_least_float32(latents.flatten(2).transpose(1, 2))
            return self.find(rows.flatten(0, 1)).view(rows.shape[:2])

    def find(self, rows: Tensor) -> Tensor:
        """The ids of ``(vectors, latent_dim)``."""
        raise NotImplementedError

    def quantise(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of ``(vectors, latent_dim)`` the same at their codes, the ids and the loss."""
        raise NotImplementedError

    def continuous(self, latents: Tensor) -> Tensor:
        """Vectors as a decoder gets them, ``(batch, latent_dim, rows, columns)``, but not at a code."""
        return latents

    def vectors(self, ids: Tensor) -> Tensor:
        """Those of ids ``(batch, tokens)``: ``(batch, tokens, latent_dim)``.

        Raises:
            ValueError: ids that no code has.
        """
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(f"ids of codes are whole numbers, not {ids.dtype}.")
        if ids.numel() and (ids.min() < 0 or ids.max() >= self.vocab_size):
            wrong = ids[(ids < 0) | (ids >= self.vocab_size)]
            raise ValueError(
                f"the id {int(wrong[0])} is beyond the codebook, which has the codes 0 to "
                f"{self.vocab_size - 1}."
            )
        return self.chosen(ids.long())

    def chosen(self, ids: Tensor) -> Tensor:
        """See :meth:`vectors`; of ids that are known to be right."""
        raise NotImplementedError

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Weights of another codebook are refused in a sentence that says what they are of."""
        theirs = kind_of({n: state_dict.get(f"{prefix}{n}") for n in ("codes", "levels")})
        ours = kind_of(dict(self.named_buffers()))
        if theirs and theirs != ours:
            error_msgs.append(
                f"its codebook has {theirs}, but this model's {ours}: give the codebook that it was "
                "trained with."
            )
            return
        keys = missing_keys, unexpected_keys, error_msgs
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *keys)


def kind_of(buffers: Mapping[str, Any]) -> str:
    """What a codebook is, in words, by what it keeps; nothing where it keeps neither."""
    if buffers.get("codes") is not None:
        return "{} codes of {} numbers".format(*buffers["codes"].shape)
    levels = buffers.get("levels")
    return "" if levels is None else f"the levels {levels.tolist()}"


class VectorCodebook(Codebook):
    """Kinds "ema" and "rotation"; without restarts, several processes train as one does.

    Buffers, all part of a checkpoint: ``codes (size, dim)``; ``counts (size)`` and ``sums (size, dim)``,
    moving means of the vectors of a step nearest to each code, and of their sum; ``steps``.
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__(config)
        self.register_buffer("codes", torch.randn(config.size, config.dim))
        self.register_buffer("counts", torch.zeros(config.size))
        self.register_buffer("sums", torch.zeros(config.size, config.dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def quantise(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = rows.detach()
        if self.training and self.steps == 0:
            self.begin(seen)
        ids, far = self.nearest(seen)
        codes = self.chosen(ids).to(rows)
        commitment = self.config.commitment * F.mse_loss(rows, codes)
        if not self.training:
            return codes, ids, commitment
        self.update(seen, ids, far)
        if self.config.kind == "rotation":
            return rotated(rows, codes), ids, commitment
        return rows + (codes - rows).detach(), ids, commitment

    def find(self, rows: Tensor) -> Tensor:
        return self.nearest(rows)[0]

    def nearest(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of ``(vectors, dim)`` the ids of the codes, and the squared distances from them."""
        codes = self.codes.to(rows)
        distances = torch.addmm(codes.square().sum(1), rows, codes.T, alpha=-2)
        least, ids = distances.min(1)
        return ids, (least + rows.square().sum(1)).clamp(min=0)

    def chosen(self, ids: Tensor) -> Tensor:
        return self.codes[ids]

    @torch.no_grad()
    def begin(self, rows: Tensor) -> None:
        """Codes are vectors of the first batch."""
        count = summed(rows.new_tensor(len(rows)))
        everyone = torch.ones_like(self.counts, dtype=torch.bool)
        self.restart(everyone, rows, rows.new_ones(len(rows)), count / self.vocab_size)

    @torch.no_grad()
    def update(self, rows: Tensor, ids: Tensor, far: Tensor) -> None:
        """Let the codes learn from a batch, that of all processes."""
        config = self.config
        # By a product, whose order of additions is the same each time.
        of_code = (ids[:, None] == torch.arange(config.size, device=ids.device)).to(rows.dtype)
        found = summed(of_code.T @ torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1))
        self.counts.lerp_(found[:, -1].to(self.counts), 1 - config.decay)
        self.sums.lerp_(found[:, :-1].to(self.sums), 1 - config.decay)
        total = self.counts.sum()
        smooth = (self.counts + EPS) / (total + config.size * EPS) * total
        self.codes.copy_(self.sums / smooth[:, None])
        fair = total / config.size
        dead = self.counts < config.restart * fair
        if dead.any():
            self.restart(dead, rows, far, fair)
        self.steps += 1

    def restart(self, dead: Tensor, rows: Tensor, far: Tensor, count: Tensor) -> None:
        """Put codes on vectors of the batch, drawn by how far they are from any code: most of them are
        often all alike. What is drawn depends on the step alone; each process draws for some codes.

        Args:
            dead: ``(size)``, True for these codes.
            far: ``(vectors)``, the squared distance of each.
            count: what they count at first.
        """
        alone = not (dist.is_available() and dist.is_initialized())
        rank, world = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())
        mine = dead.nonzero()[:, 0][rank::world][: len(rows)]
        fresh = rows.new_zeros(len(dead), rows.shape[1] + 1)
        if len(mine):
            generator = torch.Generator().manual_seed(int(self.steps) * world + rank)
            chances = far.double().cpu() + 1e-12
            drawn = torch.multinomial(chances, len(mine), generator=generator).to(rows.device)
            fresh[mine] = torch.cat([rows[drawn], rows.new_ones(len(mine), 1)], dim=1)
        fresh = summed(fresh)
        new = fresh[:, -1] > 0  # of few vectors, not all
        self.codes[new] = fresh[new, :-1].to(self.codes)
        self.counts[new] = count.to(self.counts)
        self.sums[new] = self.codes[new] * count.to(self.counts)


class FiniteCodebook(Codebook):
    """Kind "fsq": ids count the levels of the first number fastest."""

    levels: Tensor

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__(config)
        self.register_buffer("levels", torch.tensor(config.levels))

    def bounded(self, rows: Tensor) -> Tensor:
        """``(..., latent_dim)`` between the outermost levels, which are whole numbers around 0."""
        levels = self.levels.to(rows.dtype)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = (1 - self.levels % 2) / 2
        return torch.tanh(rows + torch.atanh(offset / half)) * half - offset

    def quantise(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bounded = self.bounded(rows)
        whole = bounded.round().detach()
        made = bounded + (whole - bounded).detach() if self.training else whole
        return made / (self.levels // 2), self.ids_of(whole), rows.new_zeros(())

    def find(self, rows: Tensor) -> Tensor:
        return self.ids_of(self.bounded(rows).round())

    def ids_of(self, whole: Tensor) -> Tensor:
        """The ids of rows of levels, whole numbers around 0."""
        return ((whole.long() + self.levels // 2) * self.places).sum(-1)

    @property
    def places(self) -> Tensor:
        """What a level of each number adds to the id."""
        return self.levels.cumprod(0) // self.levels

    def continuous(self, latents: Tensor) -> Tensor:
        rows = at_least_float32(latents).movedim(1, -1)
        made = self.bounded(rows) / (self.levels // 2)
        return made.movedim(-1, 1).to(latents.dtype)

    def chosen(self, ids: Tensor) -> Tensor:
        digits = ids[..., None] // self.places % self.levels
        return (digits - self.levels // 2) / (self.levels // 2)


def make_codebook(config: CodebookConfig) -> Codebook:
    """The codebook of a config."""
    return FiniteCodebook(config) if config.kind == "fsq" else VectorCodebook(config)


def rotated(x: Tensor, to: Tensor) -> Tensor:
    """``(vectors, dim)`` turned and stretched onto others, by a linear map of each that gradients take for
    constant (Fifty et al. 2024, section 4.2)."""
    with torch.no_grad():
        length, wanted = (v.norm(dim=-1, keepdim=True).clamp(min=1e-6) for v in (x, to))
        one, other = x / length, to / wanted
        between = F.normalize(one + other, dim=-1, eps=1e-6)
    along = 2 * (x * between).sum(-1, keepdim=True) * between
    turned = x - along + 2 * (x * one).sum(-1, keepdim=True) * other
    return turned * (wanted / length)


def summed(x: Tensor) -> Tensor:
    """The sum over all processes."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(x)
    return x


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
