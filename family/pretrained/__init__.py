"""Published checkpoints to ours and back; one file a published format.

A format of your own is a :class:`Format`, read and written by ``format=`` of both functions: a member of
the family, or of your own, a :class:`Field` for each field of the published config, and for each weight
its published name, or a :class:`Row` where that is not all. ``examples/own_format.py`` has one, and
``CONTRIBUTING.md`` takes it apart. What formats share:

- :data:`Names` is the type of a table of weights; :func:`blocks` fills in the layers of a stack, and
  :func:`nested` the part that is a model by itself;
- :data:`TRANSPOSED`, :data:`FIRST` and :data:`ADDED` are a :class:`Reshape` of a weight that is stored
  otherwise, and :data:`POSITIONS` that of fairseq's tables of positions;
- :data:`ACTIVATIONS` are transformers' names of activations, and :func:`token_ids` its fields for the
  tokenizer;
- :mod:`rope` carries rotary positions, :mod:`layers` what differs from layer to layer.
"""

from family.pretrained import layers, rope
from family.pretrained.saved import save_pretrained
from family.pretrained.saved_adapter import save_adapter
from family.pretrained.shared_fields import ACTIVATIONS, token_ids
from family.pretrained.sources import from_pretrained
from family.pretrained.table import (
    ADDED,
    FIRST,
    POSITIONS,
    REQUIRED,
    TRANSPOSED,
    Field,
    Format,
    Names,
    Reshape,
    Row,
    blocks,
    nested,
)

__all__ = [
    "ACTIVATIONS",
    "ADDED",
    "FIRST",
    "POSITIONS",
    "REQUIRED",
    "TRANSPOSED",
    "Field",
    "Format",
    "Names",
    "Reshape",
    "Row",
    "blocks",
    "from_pretrained",
    "layers",
    "nested",
    "rope",
    "save_adapter",
    "save_pretrained",
    "token_ids",
]
