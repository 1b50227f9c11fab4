"""How a model generates where nobody says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from family.generation.hooks import TokenRules
from family.generation.sampling import Sampling

PLAIN = {
    "max_new_tokens": "max_new_tokens",
    "max_length": "max_length",
    "min_new_tokens": "min_new_tokens",
    "min_length": "min_length",
    "beams": "num_beams",
    "length_penalty": "length_penalty",
    "no_repeat_ngram": "no_repeat_ngram_size",
    "pad_id": "pad_token_id",
    "trained_tokens": "trained_tokens",
}
"""Our field -> theirs, where the value is the same."""
LEAST = {
    "max_new_tokens": 1,
    "max_length": 1,
    "min_new_tokens": 0,
    "min_length": 0,
    "beams": 1,
    "no_repeat_ngram": 0,
    "trained_tokens": 1,
}
"""Whole numbers, and the least that each may be."""
CUTS = ("temperature", "top_k", "top_p", "min_p")
RULES = ("forced_bos_token_id", "suppress_tokens", "begin_suppress_tokens")
FORCED = "forced_tokens"
"""Ours alone: [place, token] of those that must come after the first, of which they have no field any more."""
LISTED = {*PLAIN.values(), *CUTS, *RULES, FORCED, "eos_token_id", "do_sample", "repetition_penalty"}
USUAL_TOP_K = 50
"""Theirs, where they sample and say nothing."""


@dataclass(frozen=True)
class Generation:
    """A model's ``generation``: what its ``generate`` does where it is not told otherwise.

    All of it is used but for what is random: a model draws only where a ``sampling`` is given, as
    ``sampling=model.generation.sampling``.
    """

    stop_ids: tuple[int, ...] | None = None
    """Tokens that end a text; None are those that the model's tokenizer names."""
    pad_id: int | None = None
    """What stands after the end; None is the tokenizer's padding, or 0."""
    max_new_tokens: int | None = None
    max_length: int | None = None
    """Of prompt and new tokens together (of a decoder, with the token that it begins from), where
    ``max_new_tokens`` is None."""
    min_new_tokens: int | None = None
    min_length: int | None = None
    """As ``max_length``, the least."""
    beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    """No so many tokens in a row come twice; 0 is no limit."""
    sampling: Sampling = field(default_factory=Sampling)
    """Its repetition penalty always counts, the rest where it is handed over."""
    rules: TokenRules = field(default_factory=TokenRules)
    trained_tokens: int | None = None
    """The longest text that a language model was trained on: of one that grows beyond, generation reads
    the last so many tokens alone, as positions further on say nothing that was learnt. None is as much as
    it can read, which is what a published model says of itself."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a ``generation_config.json`` that mean nothing here; they are written again."""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{name}={value!r} must be a whole number.")
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}.")

    def most_new_tokens(self, begun: int, usual: int) -> int:
        """How many new tokens follow so many, at most; ``usual`` where nothing is said.

        Raises:
            ValueError: ``max_length`` leaves room for none.
        """
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        if self.max_length is None:
            return usual
        if self.max_length <= begun:
            raise ValueError(
                f"a prompt of {begun} tokens leaves no room for new ones in the max_length="
                f"{self.max_length} of the model's generation: give max_new_tokens."
            )
        return self.max_length - begun

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Generation:
        """From the fields of transformers' ``generation_config.json``.

        Raises:
            ValueError: a value that makes no sense.
        """
        found = {k: v for k, v in fields.items() if v is not None}
        try:
            sampling = Sampling(float(found.get("repetition_penalty", 1.0)))
            if found.get("do_sample"):
                cuts: dict[str, Any] = {"temperature": 1.0, "top_k": USUAL_TOP_K}
                cuts |= {name: found[name] for name in CUTS if name in found}
                sampling = replace(sampling, **cuts)
            forced = {int(place): int(token) for place, token in found.get(FORCED, ())}
            if (first := found.get("forced_bos_token_id")) is not None:
                forced[0] = int(first)
            stops = ids(found["eos_token_id"]) if "eos_token_id" in found else None
            return cls(
                stop_ids=stops,
                sampling=sampling,
                rules=TokenRules(
                    forced,
                    ids(found.get("suppress_tokens", ())),
                    ids(found.get("begin_suppress_tokens", ())),
                ),
                others={name: value for name, value in found.items() if name not in LISTED},
                **{ours: found[theirs] for ours, theirs in PLAIN.items() if theirs in found},
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"the defaults of generation cannot be read: {error}") from None

    def to_fields(self) -> dict[str, Any]:
        """The reverse of :meth:`from_fields`, as plain values."""
        usual = Generation()
        made: dict[str, Any] = dict(self.others)
        for ours, theirs in PLAIN.items():
            if getattr(self, ours) != getattr(usual, ours):
                made[theirs] = getattr(self, ours)
        if self.stop_ids is not None:
            made["eos_token_id"] = (
                self.stop_ids[0] if len(self.stop_ids) == 1 else list(self.stop_ids)
            )
        if self.sampling.repetition_penalty != 1:
            made["repetition_penalty"] = self.sampling.repetition_penalty
        if self.sampling.temperature > 0:
            made["do_sample"] = True
            made |= {name: getattr(self.sampling, name) for name in CUTS}
        rules = (self.rules.forced.get(0), self.rules.suppressed, self.rules.suppressed_first)
        for name, value in zip(RULES, rules, strict=True):
            if value not in (None, (), []):
                made[name] = value if isinstance(value, int) else list(value)
        if later := [[place, token] for place, token in self.rules.forced.items() if place]:
            made[FORCED] = later
        return made


def beams_of(model: Any, sampling: Sampling | None) -> int:
    """How many beams where nobody says: the model's own, or 1 where something is drawn."""
    return 1 if sampling is not None and draws(sampling) else defaults_of(model).beams


def draws(sampling: Sampling) -> bool:
    """Whether it does more than a search may: it has more than a repetition penalty."""
    return replace(sampling, repetition_penalty=1.0) != Sampling()


def ids(value: Any) -> tuple[int, ...]:
    """A token, or several."""
    return (value,) if isinstance(value, int) else tuple(int(one) for one in value)


def defaults_of(model: Any) -> Generation:
    """A model's own, or what they are of any; the stop and padding tokens by its tokenizer."""
    own = getattr(model, "generation", None) or Generation()
    tokenizer: Any = getattr(model, "tokenizer", None)
    tokenizer = getattr(tokenizer, "target", tokenizer)
    if own.stop_ids is None and hasattr(tokenizer, "stop_ids"):
        own = replace(own, stop_ids=tuple(sorted(tokenizer.stop_ids())))
    if own.pad_id is None:
        own = replace(own, pad_id=getattr(tokenizer, "pad_id", None) or 0)
    return own
