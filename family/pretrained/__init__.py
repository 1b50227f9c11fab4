"""Published checkpoints to ours and back; one file a published format."""

from family.pretrained.saved import save_pretrained
from family.pretrained.sources import from_pretrained

__all__ = ["from_pretrained", "save_pretrained"]
