"""What goes on inside a model: numbers and figures, no command line."""

from family.look.lens import logit_lens
from family.look.maps import StackMaps, alignment, attention_maps, entropy, rollout
from family.look.record import record_attention
from family.look.relevance import relevance
from family.look.views import view_of

__all__ = [
    "StackMaps",
    "alignment",
    "attention_maps",
    "entropy",
    "logit_lens",
    "record_attention",
    "relevance",
    "rollout",
    "view_of",
]
