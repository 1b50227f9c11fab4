"""Published checkpoints to ours and back; one file a published format."""

from family.pretrained.saved import save_pretrained
from family.pretrained.saved_adapter import save_adapter
from family.pretrained.sources import from_pretrained

__all__ = ["from_pretrained", "save_adapter", "save_pretrained"]
