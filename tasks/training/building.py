"""The model of a task, from what builds it and what the data decide."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from family.models.member import overflows_float16
from tasks.errors import UserError
from tasks.runs.checkpoints import accepted, find_class


def build_for(
    build: Callable[..., nn.Module], arguments: dict[str, Any], spec: dict[str, Any] | None = None
) -> nn.Module:
    """The model that a task's ``build`` makes, with what the data decides of it.

    Args:
        spec: the class path and arguments that ``build`` was made from, where a config names them.

    Raises:
        UserError: it takes no number of classes or of tokens.
    """
    if isinstance(build, Given):
        return build.model
    maker, known = build, None
    if spec:
        maker, known = find_class(spec["class_path"]), spec.get("init_args")
    elif isinstance(build, partial):
        maker, known = build.func, build.keywords
    return build(**accepted(maker, arguments, known))


def own_losses(model: Any) -> Callable[..., dict[str, Tensor]] | None:
    """The losses of a model that brings its own; a submodule of that name is none."""
    losses = getattr(model, "losses", None)
    return losses if callable(losses) and not isinstance(losses, nn.Module) else None


def check_precision(model: nn.Module, precision: str) -> None:
    """Refuse to train in float16 what is beyond its range.

    Args:
        precision: Lightning's name of it, such as "16-mixed".

    Raises:
        UserError: see above.
    """
    if precision.startswith("16") and overflows_float16(model):
        raise UserError(
            f"trainer.precision={precision}: what a {type(model).__name__} computes is beyond the range "
            "of float16: set bf16-mixed."
        )


def full_name(found: type) -> str:
    """The dotted path of a class."""
    return f"{found.__module__}.{found.__qualname__}"


class Given:
    """Builds nothing: a model that is there already, whatever the data asks for."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, **arguments: Any) -> nn.Module:
        return self.model
