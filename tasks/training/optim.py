"""Optimizers and schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import timm.optim
import torch
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import Optimizer

from family.core.transformer import Transformer
from family.models.member import facts_of
from tasks.errors import UserError, closest

OPTIONS = ("lr", "initial_lr", "weight_decay", "betas")
"""What a run says of its groups, and no checkpoint."""


def parameter_groups(
    model: nn.Module, weight_decay: float, lr: float = 0.0, layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """Groups: the weights of layers decay; embeddings, norms, biases and bare parameters do not.

    A bare parameter is a class token or a table of positions: what is not called a weight. With
    ``layer_decay`` there are two groups for each layer, with a learning rate of their own, see
    :func:`layer_factors`. What is frozen is in none.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    factors = {} if layer_decay is None else layer_factors(model, layer_decay)
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            weight = "weight" in name.rsplit(".", 1)[-1] and parameter.dim() >= 2
            plain = not weight or id(parameter) in embeddings
            groups.setdefault((factors.get(id(parameter), 1.0), plain), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if plain else weight_decay}
        | ({} if layer_decay is None else {"lr": lr * factor})
        for (factor, plain), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def layer_factors(model: nn.Module, decay: float) -> dict[int, float]:
    """``decay ** (last - layer)`` by the id of a parameter (Clark et al. 2020, section 4; BEiT).

    Embeddings are layer 0, block i is layer i + 1, and all else (final norm, heads) the last, with a
    factor of 1. Each stack counts on its own; what feeds it (an embedding, or a network that makes
    features of pictures) lies beside it in the model, and a target's embedding feeds the second.

    Raises:
        UserError: a model without a stack of blocks.
    """
    stacks = {name: m for name, m in model.named_modules() if isinstance(m, Transformer)}
    if not stacks:
        raise UserError(
            f"model.layer_decay={decay} counts the blocks of a stack: a {type(model).__name__} "
            "has none."
        )
    factors: dict[int, float] = {}
    for name, module in model.named_modules():
        parent, _, own = name.rpartition(".")
        if own.endswith("embedding") or own in ("backbone", "project"):
            beside = [s for path, s in stacks.items() if path.rpartition(".")[0] == parent]
            if beside:
                stack = beside[-1 if own.startswith("target") else 0]
                for parameter in module.parameters():
                    # A table of source and target both is the source's, which comes first.
                    factors.setdefault(id(parameter), decay ** (len(stack.blocks) + 1))
    for stack in stacks.values():
        for i, block in enumerate(stack.blocks):
            for parameter in block.parameters():
                factors[id(parameter)] = decay ** (len(stack.blocks) - i)
    return factors


def build_optimizer(
    name: str,
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    fused: bool = True,
    layer_decay: float | None = None,
) -> Optimizer:
    """An optimizer over :func:`parameter_groups`.

    Args:
        name: "adamw", "adam", "muon", or any name that timm knows.
        betas: for those that have two.
        fused: one kernel for PyTorch's own; Lightning cannot clip with it in mixed precision.
        layer_decay: how much slower each layer learns than the one above, see
            :func:`layer_factors`; None is no slower.

    Raises:
        UserError: an unknown name, with the nearest known one.
    """
    if name == "muon":
        return MuonAdamW(model, lr, weight_decay, betas, layer_decay=layer_decay)
    groups = parameter_groups(model, weight_decay, lr, layer_decay)
    if name in ("adamw", "adam"):
        build = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
        return build(groups, lr=lr, betas=betas, fused=fused)
    known = ["adamw", "adam", "muon", *map(str, timm.optim.list_optimizers())]
    if name not in known:
        raise UserError(f"optimizer={name!r} is unknown.{closest(name, known)}")
    info = timm.optim.get_optimizer_info(name)
    more: dict[str, Any] = {"betas": betas} if info.has_betas and info.num_betas == 2 else {}
    return timm.optim.create_optimizer_v2(groups, opt=name, lr=lr, **more)


class MuonAdamW(Optimizer):
    """Muon for the matrices of the blocks (:func:`hidden_matrices`), AdamW for all the rest (Jordan et al.
    2024).

    Muon's step is the momentum with all its singular values made about 1; it is scaled by
    ``0.2 * sqrt(larger side)``, so that one learning rate suits both (Liu et al. 2025). A matrix
    that fuses several projections of one size (:func:`fused_parts`) is treated part by part: that,
    and steps in single precision on the CPU, is what ``torch.optim.Muon`` has not; else they agree.
    A matrix that is sharded over processes (a DTensor) is gathered for its step, as its singular
    values are those of the whole.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        momentum: float = 0.95,
        layer_decay: float | None = None,
    ) -> None:
        self.parts = fused_parts(model)
        groups = parameter_groups(model, weight_decay, lr, layer_decay)
        self.earlier = divided(groups, matrices_of_before(model))
        """The groups of runs of before, which they keep when they go on."""
        defaults = {"lr": lr, "betas": betas, "momentum": momentum, "eps": 1e-8}
        super().__init__(divided(groups, hidden_matrices(model)), defaults)

    def as_before(self) -> None:
        """Divide the weights as runs of before did."""
        self.param_groups.clear()
        for group in self.earlier:
            self.add_param_group({**group})
            self.param_groups[-1]["initial_lr"] = self.param_groups[-1]["lr"]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                (self._muon if group["muon"] else self._adamw)(parameters, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        updates: list[Tensor] = []
        for some in together(parameters):
            momenta = [self.state[parameter]["momentum"] for parameter in some]
            gradients: Any = [parameter.grad for parameter in some]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            updates += torch._foreach_lerp(gradients, momenta, group["momentum"])
        counts = [self.parts.get(id(parameter), 1) for parameter in parameters]
        parts: list[Tensor] = []
        for update, count in zip(updates, counts, strict=True):
            parts += whole(update).chunk(count)
        # In one batch all that are of one shape, or are when turned.
        shapes: dict[tuple[int, ...], list[int]] = {}
        for i, part in enumerate(parts):
            shapes.setdefault(tuple(sorted(part.shape)), []).append(i)
        for places in shapes.values():
            wide = [
                parts[i] if parts[i].shape[0] <= parts[i].shape[1] else parts[i].T for i in places
            ]
            for i, flat in zip(places, orthogonalise(torch.stack(wide)), strict=True):
                scaled = flat * (0.2 * math.sqrt(max(flat.shape)))
                parts[i] = scaled if parts[i].shape == flat.shape else scaled.T
        steps = []
        for parameter, count in zip(parameters, counts, strict=True):
            steps.append(like(parameter, torch.cat(parts[:count])))
            del parts[:count]
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, steps, alpha=-group["lr"])

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = 0
                state["mean"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
            state["step"] += 1
        for some in together(parameters):
            states = [self.state[parameter] for parameter in some]
            gradients: Any = [parameter.grad for parameter in some]
            means, squares = ([state[name] for state in states] for name in ("mean", "square"))
            torch._foreach_lerp_(means, gradients, 1 - beta1)
            torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - beta2)
            mean = torch._foreach_div(means, [1 - beta1 ** state["step"] for state in states])
            roots = torch._foreach_div(squares, [1 - beta2 ** state["step"] for state in states])
            torch._foreach_sqrt_(roots)
            torch._foreach_add_(roots, group["eps"])
            torch._foreach_mul_(some, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_addcdiv_(some, mean, roots, -group["lr"])


def together(parameters: list[Tensor]) -> list[list[Tensor]]:
    """What is stepped at once: on a GPU all, in one kernel for each operation; elsewhere each by itself, whose
    numbers stay in the cache."""
    return [parameters] if parameters[0].is_cuda else [[parameter] for parameter in parameters]


def check_matrices(strategy: Any) -> None:
    """Refuse Muon where a strategy hands out weights in pieces that are no longer matrices.

    Raises:
        UserError: FSDP's first kind and DeepSpeed make one vector of many weights.
    """
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        raise UserError(
            "model.optimizer='muon' needs weights as matrices, which trainer.strategy="
            f"{type(strategy).__name__} flattens: choose ddp or ModelParallelStrategy, or another "
            "optimizer."
        )


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process may hold a part; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """A value that each process has, laid out as a parameter is."""
    if not isinstance(parameter, DTensor):
        return value
    mesh = parameter.device_mesh
    everywhere = DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=parameter.placements)


def hidden_matrices(model: nn.Module) -> Iterator[Tensor]:
    """Weights from width to width: the matrices of the blocks of a model's stacks.

    What meets the world beside the width is none of them, wherever it stands: embeddings and other tables,
    what feeds the stacks and what reads them (projections, heads, poolers), and what a member names as
    its classes'. A model without a stack of ours has the blocks that it keeps in lists, layers put together
    or else single ones; without such lists all layers but its first and last are hidden.
    """
    facts, modules = facts_of(model), list(model.modules())
    classes = facts.classes if facts else ()
    tables = {id(m.weight) for m in modules if isinstance(m, nn.Embedding)}
    blocks = [block for m in modules if isinstance(m, Transformer) for block in m.blocks]
    lists = [m for m in modules if isinstance(m, nn.ModuleList | nn.Sequential)]
    if not blocks:
        blocks = [
            block for found in lists for block in found if any(True for _ in block.children())
        ]
    if not blocks:
        blocks = [one for found in lists if isinstance(found, nn.ModuleList) for one in found]
    if blocks:
        inside = {id(p) for block in blocks for p in block.parameters()}
    else:
        owned = [[p for p in m.parameters(recurse=False) if p.dim() >= 2] for m in modules]
        inside = {id(p) for layer in list(filter(None, owned))[1:-1] for p in layer}
    for name, p in model.named_parameters():
        bare = "weight" not in name.rsplit(".", 1)[-1]  # tokens, tables of positions
        plain = p.dim() != 2 or id(p) in tables or bare
        if id(p) in inside and not plain and not name.startswith(classes):
            yield p


def matrices_of_before(model: nn.Module) -> Iterator[Tensor]:
    """What Muon stepped once: all matrices but those of embeddings and of what is called a head."""
    edges = {
        id(p)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) or name.split(".")[-1] == "head"
        for p in module.parameters()
    }
    yield from (p for p in model.parameters() if p.dim() == 2 and id(p) not in edges)


def divided(groups: Sequence[dict[str, Any]], inner: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Groups of weights, each in two: those that Muon steps, and the others."""
    chosen, found = {id(p) for p in inner}, list[dict[str, Any]]()
    for group in groups:
        for muon in (True, False):
            some = [p for p in group["params"] if (id(p) in chosen) == muon]
            if some:
                found.append({**group, "params": some, "muon": muon})
    return found


def fused_parts(model: nn.Module) -> dict[int, int]:
    """How many projections of one size a weight holds, by its id, where they are several."""
    return {
        id(weight): int(module.parts)  # type: ignore[arg-type]
        for module in model.modules()
        if getattr(module, "parts", 1) > 1
        for weight in module.parameters(recurse=False)
    }


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of ``(count, rows, columns)`` near 1 by a Newton-Schulz iteration.

    Args:
        matrices: no more rows than columns.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.to(matrices.dtype)


def keep_options(optimizer: Optimizer) -> Optimizer:
    """Let an optimizer keep its rate, decay and betas when it loads the state of another run."""

    def own(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        saved = state["param_groups"]
        theirs, ours = (
            [len(group["params"]) for group in groups] for groups in (saved, optimizer.param_groups)
        )
        if isinstance(optimizer, MuonAdamW) and sum(theirs) == sum(ours) and theirs != ours:
            before = [len(group["params"]) for group in optimizer.earlier]
            if theirs == before:
                optimizer.as_before()
                return own(optimizer, state)
            raise UserError(
                "the checkpoint's optimizer stepped other weights by Muon than a run of now: begin a "
                "new run from its weights by --model.pretrained=CHECKPOINT."
            )
        if len(saved) != len(optimizer.param_groups):
            return state  # for PyTorch to refuse
        groups = [
            {**theirs, **{name: ours[name] for name in OPTIONS if name in ours}}
            for theirs, ours in zip(saved, optimizer.param_groups, strict=True)
        ]
        return {**state, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(own)
    return optimizer
