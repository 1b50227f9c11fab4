"""Which languages a model translates between, and where their tokens stand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from family.generation.defaults import defaults_of
from family.generation.hooks import FirstTokens
from family.inputs.encode import encode_sources
from family.inputs.languages import find_language, listed
from family.inputs.tokenizer import Tokenizer

LOG = logging.getLogger(__name__)
Direction = tuple[str, str]
"""The languages of source and target."""
PLACES = {"source": ("none", "first", "last"), "target": ("first", "start", "source")}


@dataclass(frozen=True)
class LanguageTokens:
    """A model's ``language_tokens``: the token of each language, and where it stands.

    Args:
        ids: code of a language -> id of its token.
        source: where the source's stands in what the encoder reads: "none" is nowhere, "first" before the
            sentence (M2M-100, mBART-50, NLLB), "last" behind its end (mBART).
        target: where the target's stands: "first" is what a translation must begin with, behind the token
            that decoding starts from (M2M-100, mBART-50, NLLB, and ours); "start" is that token itself
            (mBART); "source" is before the source (Johnson et al. 2017; Marian).
        learnt: a target's first token counts in the loss, as published models were trained; otherwise it
            is given, and nothing is to be learnt from it.
        usual: the source's language where nobody says.
        directions: those that the model was trained on; none are not known.
    """

    ids: Mapping[str, int]
    source: str = "none"
    target: str = "first"
    learnt: bool = False
    usual: str | None = None
    directions: tuple[Direction, ...] = ()
    told: set[str] = field(default_factory=set, compare=False, repr=False)
    """Warnings that were given."""

    def __post_init__(self) -> None:
        for name, places in PLACES.items():
            if getattr(self, name) not in places:
                raise ValueError(
                    f"languages: {name}={getattr(self, name)!r} must be one of {', '.join(places)}."
                )

    # --- As plain values ---

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any] | None) -> LanguageTokens | None:
        """What :meth:`to_fields` gave; None of None.

        Raises:
            ValueError: fields that make no sense.
        """
        if fields is None:
            return None
        try:
            pairs = tuple((str(s), str(t)) for s, t in fields.get("directions", ()))
            ids = {str(code): int(i) for code, i in fields["ids"].items()}
            return cls(**{**fields, "ids": ids, "directions": pairs})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the languages of the model cannot be read: {error}.") from None

    def to_fields(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["told"]
        return fields | {"ids": dict(self.ids), "directions": [list(d) for d in self.directions]}

    # --- What is asked for ---

    def find(self, name: str) -> str:
        """The code of a language, see :func:`~family.inputs.languages.find_language`."""
        return find_language(name, self.ids)

    def knows(self, name: str) -> bool:
        """Whether :meth:`find` has an answer."""
        try:
            return bool(self.find(name))
        except ValueError:
            return False

    def default_target(self, source: str | None = None) -> str | None:
        """The one language that is translated into, from ``source`` if that is given; None of several."""
        targets = {there for here, there in self.directions if source in (None, here)}
        return targets.pop() if len(targets) == 1 else None

    def direction(
        self, source: str | None, target: str | None, model: Any = None
    ) -> tuple[str | None, str | None]:
        """The codes of two languages, with what follows where one is not given.

        Args:
            model: whose ``generation`` may say which target is usual.

        Raises:
            ValueError: an unknown language, or one that must be said.
        """
        source = None if source is None else self.find(source)
        target = self.default_target(source) if target is None else self.find(target)
        if target is None and self.directions:
            known = listed(sorted({there for _, there in self.directions}))
            raise ValueError(f"the model translates into {known}: say which (target=, or --to).")
        if target is None:
            target = self._by_id(self._begins(model))
        if target is None:
            self._tell("no target language is said (target=, or --to): the model may write in any.")
        if source is None and self.source != "none":
            sources = {here for here, there in self.directions if target in (None, there)}
            if len(sources) > 1:
                known = listed(sorted(sources))
                raise ValueError(
                    f"the model translates from {known}: say which (source=, or --from)."
                )
            source = sources.pop() if sources else self.usual
        trained = not self.directions or any(
            source in (None, here) and target in (None, there) for here, there in self.directions
        )
        if not trained:
            said = f"into {target}" if source is None else f"from {source} into {target}"
            self._tell(
                f"the model was never trained to translate {said}: what it makes is a guess."
            )
        return source, target

    def _begins(self, model: Any) -> int | None:
        """The token of a language that a model's texts begin with, where nobody says."""
        if model is None or self.target == "source":
            return None
        if self.target == "start":
            return getattr(model, "bos_id", None)
        return defaults_of(model).rules.forced.get(0)

    def _by_id(self, token: int | None) -> str | None:
        return next((code for code, i in self.ids.items() if i == token), None)

    def _tell(self, warning: str) -> None:
        """Warn, once."""
        if warning not in self.told:
            self.told.add(warning)
            LOG.warning(warning)

    # --- What a model reads, and begins with ---

    def sources(
        self,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        source: str | None,
        target: str | None,
    ) -> list[list[int]]:
        """Ids of sentences that are to be translated, with the tokens that stand around them."""
        before = target if self.target == "source" else source if self.source == "first" else None
        behind = source if self.source == "last" else None
        if before is None and behind is None:
            return encode_sources(tokenizer, texts)
        first, last = ([] if code is None else [self.ids[code]] for code in (before, behind))
        assert tokenizer.eos_id is not None
        end = [tokenizer.eos_id, *last]
        return [[*first, *ids, *end] for ids in tokenizer.encode_batch(texts)]

    def first(self, target: str) -> list[int]:
        """The tokens of a target that stand before its sentence, behind what decoding starts from."""
        return [self.ids[target]] if self.target == "first" else []

    def start(self, target: str) -> int | None:
        """What decoding starts from; None is the model's usual."""
        return self.ids[target] if self.target == "start" else None

    def generation(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults of generation, which begin with the one language that is translated into, or with none
        where there are several."""
        target = self.default_target()
        if self.target != "first" or not self.directions:
            return dict(fields)
        kept = {name: value for name, value in fields.items() if name != "forced_bos_token_id"}
        return kept if target is None else {**kept, "forced_bos_token_id": self.ids[target]}

    def begin(self, targets: Sequence[str], device: Any = None) -> dict[str, Any]:
        """The options of ``generate`` that make each row a text in its language."""
        if self.target == "source":
            return {}
        ids = torch.tensor([self.ids[target] for target in targets], device=device)
        return {"hook": FirstTokens(ids)} if self.target == "first" else {"prompt": ids[:, None]}
