"""What several processes found, together."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist


def gather(items: list[Any]) -> list[Any]:
    """The items of all processes, in the order of their ranks; of this one where it is alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return items
    parts: list[list[Any]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]
