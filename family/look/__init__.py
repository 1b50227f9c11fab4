"""What goes on inside a model: numbers and figures, no command line."""

from family.look.record import record_attention

__all__ = ["record_attention"]
