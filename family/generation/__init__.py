"""Greedy, sampling, beam search: for any model with ``prefill`` and ``decode``."""

from family.generation.beam import beam_search
from family.generation.choose import sampled_stream, search_or_sample
from family.generation.defaults import Generation
from family.generation.generate import generate, stream
from family.generation.hooks import LogitsHook, TokenRules
from family.generation.sampling import Sampling, pick

__all__ = [
    "Generation",
    "LogitsHook",
    "Sampling",
    "TokenRules",
    "beam_search",
    "generate",
    "pick",
    "sampled_stream",
    "search_or_sample",
    "stream",
]
