"""Text becomes token ids, and a conversation becomes a text, as a checkpoint was trained on them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, Self, cast

import tokenizers
import torch
from torch import Tensor

from family.checks import first_line
from family.inputs.chat import render
from family.inputs.plain_text import characters, check_ids, exchange, renamed, texts_of, unwritable

SPECIALS = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")
TRAINED = {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>"}
"""The special tokens of tokenizers that we train."""
PIECE = 1_000_000
"""Characters encoded at a time: more would take gigabytes."""
Message = Mapping[str, Any]
"""``{"role": "system" | "user" | "assistant", "content": text}``."""


class Tokenizer:
    """Text to ids and back, over the ``tokenizers`` library.

    A text that spells a special token is encoded as the characters it is, and comes back as them: as
    ``transformers`` has it with ``split_special_tokens=True``. Only templates, and what stands around
    a text, put special tokens in; a text written with special tokens on purpose says
    ``parse_special=True``.

    ``pad_id, bos_id, eos_id, unk_id, cls_id, sep_id, mask_id`` are None where there is no such token.

    Args:
        inner: does the work; lengths to which it fills or cuts are switched off.
        pad, bos, eos, unk, cls, sep, mask: the special tokens; one that is not in the vocabulary
            counts as None.
        chat_template: a Jinja template that writes a conversation as text.
        max_tokens: the longest text that the model was made for, special tokens included.
        padding_side: "right" or "left": where others fill a row; :meth:`batch` gives a mask instead.
        truncation_side: where a text that is too long is cut.
        vocabulary: token -> id, where those of ``inner`` count for nothing (Marian); what it lacks is
            unknown.
        target: cuts what a model translates into, where that is cut otherwise than its sources.
        file: the SentencePiece model, where others need it to read the tokenizer again.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        *,
        pad: str | None = None,
        bos: str | None = None,
        eos: str | None = None,
        unk: str | None = None,
        cls: str | None = None,
        sep: str | None = None,
        mask: str | None = None,
        chat_template: str | None = None,
        max_tokens: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        vocabulary: dict[str, int] | None = None,
        target: Tokenizer | None = None,
        file: bytes | None = None,
    ) -> None:
        check_ids(inner)
        inner.no_padding()
        inner.no_truncation()
        self.inner, self.vocabulary, self.file = inner, vocabulary, file
        self.target: Tokenizer = self if target is None else target
        self.tokens = {i: token for token, i in (vocabulary or {}).items()}
        self.vocab_size: int = max(self.tokens) + 1 if vocabulary else inner.get_vocab_size()
        self.chat_template, self.max_tokens = chat_template, max_tokens
        self.padding_side, self.truncation_side = padding_side, truncation_side
        given = zip(SPECIALS, (pad, bos, eos, unk, cls, sep, mask), strict=True)
        self.specials: dict[str, str] = {
            name: token
            for name, token in given
            if token is not None and self.token_to_id(token) is not None
        }
        added = inner.get_added_tokens_decoder()
        self.marked = {i: token.content for i, token in added.items() if token.special}
        """The added tokens that are special, by the ids of ``inner``."""
        named = {i for name in SPECIALS if (i := self.special_id(name)) is not None}
        marked = {*self.marked}
        if vocabulary is not None:
            marked = {vocabulary[t] for t in self.marked.values() if t in vocabulary}
        self.special_ids: frozenset[int] = frozenset(named | marked)
        self.alphabet = None if "unk" in self.specials else characters(inner)
        ids = [self.special_id(name) for name in SPECIALS]
        self.pad_id, self.bos_id, self.eos_id, self.unk_id = ids[:4]
        self.cls_id, self.sep_id, self.mask_id = ids[4:]

    def special_id(self, name: str) -> int | None:
        """The id of "pad", "bos" ...; None where there is none."""
        token = self.specials.get(name)
        return None if token is None else self.token_to_id(token)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token; None where there is no such."""
        known = self.inner.token_to_id if self.vocabulary is None else self.vocabulary.get
        return known(token)

    def encode(
        self, text: str, special_tokens: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Ids of a text.

        Args:
            special_tokens: add those that the checkpoint puts around a text, as BERT's [CLS].
            parse_special: what spells a special token is one (``[MASK]``, a prompt in a published
                format); never for a text that others wrote.

        Raises:
            ValueError: see :meth:`encode_batch`.
        """
        if special_tokens or parse_special or len(text) <= PIECE:
            return self.encode_batch([text], special_tokens, parse_special)[0]
        pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
        return list(chain.from_iterable(self.encode_batch(pieces)))

    def encode_batch(
        self, texts: Sequence[str], special_tokens: bool = False, parse_special: bool = False
    ) -> list[list[int]]:
        """As :meth:`encode`, for many short texts in parallel.

        Raises:
            ValueError: the vocabulary has nothing for a character of a text, and no unknown token.
        """
        rows = [(text,) for text in texts]
        found = self.encodings(rows, special_tokens, parse_special, fast=self.vocabulary is None)
        return [self.ids_of(encoding) for encoding in found]

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], max_tokens: int | None = None
    ) -> list[tuple[list[int], list[int]]]:
        """Pairs of texts in one row each, as the tokenizer's own template has them: ids, and the segment
        of each token.

        Args:
            max_tokens: of a pair that is longer, the longer text loses its end, token by token, as with
                transformers' ``truncation=True``.

        Raises:
            ValueError: see :meth:`encode_batch`.
        """
        with self._cutting(max_tokens):
            found = self.encodings(pairs, True)
        return [(self.ids_of(encoding), encoding.type_ids) for encoding in found]

    @contextmanager
    def _cutting(self, most: int | None) -> Iterator[None]:
        """Within it, rows of more tokens lose an end, of pairs the longer text's."""
        if most is not None:
            self.inner.enable_truncation(most, direction=self.truncation_side)
        try:
            yield
        finally:
            self.inner.no_truncation()

    def encodings(
        self,
        texts: Sequence[tuple[str, ...]],
        special_tokens: bool = False,
        parse_special: bool = False,
        fast: bool = False,
    ) -> list[tokenizers.Encoding]:
        """Rows of one text or two, as the library gives them, with each token's place in its text.

        Args:
            fast: without these places.
        """
        if self.alphabet is not None:
            for some in texts:
                self.check_characters(some, self.alphabet, parse_special)
        inner = self.inner
        inner.encode_special_tokens = not parse_special  # here, as copies lose it
        encode = inner.encode_batch_fast if fast else inner.encode_batch
        given: list[Any] = [some if len(some) > 1 else some[0] for some in texts]
        try:
            found = encode(given, add_special_tokens=special_tokens)
        except Exception as error:
            if type(error) not in (Exception, TypeError):
                raise  # else it is the library's own
            raise ValueError(f"the tokenizer cannot read a text: {first_line(error)}.") from None
        if not parse_special:
            for row, some in enumerate(texts):
                if self.finds_special(" ".join(some), found[row], special_tokens):
                    # A vocabulary that holds special tokens finds them in a text by itself.
                    plain = [self.plain[0].encode(t, add_special_tokens=False) for t in some]
                    second = plain[1] if len(plain) > 1 else None
                    found[row] = inner.post_process(plain[0], second, special_tokens)
        return found

    def ids_of(self, encoding: tokenizers.Encoding) -> list[int]:
        if self.vocabulary is None:
            return encoding.ids
        known, unknown = self.vocabulary, cast(int, self.unk_id)
        return [known.get(token, unknown) for token in encoding.tokens]

    def finds_special(self, text: str, encoding: tokenizers.Encoding, around: bool) -> bool:
        """Whether a special token came out of a text itself.

        Args:
            around: there are others around it.
        """
        ids = self.ids_of(encoding)
        if around:
            added = encoding.special_tokens_mask
            ids = [i for i, there in zip(ids, added, strict=True) if not there]
        special = self.special_ids.intersection(ids)
        if special == {self.unk_id}:  # something unknown, most of the time
            normalizer = self.inner.normalizer
            seen = text if normalizer is None else normalizer.normalize_str(text)
            return self.specials["unk"] in seen
        return bool(special)

    @cached_property
    def plain(self) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
        """The tokenizer whose special tokens go by names that nobody writes, and these names."""
        names = unwritable({*self.marked.values(), *self.specials.values()})
        return renamed(self.inner, names), names

    def check_characters(
        self, texts: Sequence[str], alphabet: frozenset[str], parse_special: bool = False
    ) -> None:
        """Refuse a character that would be dropped in silence."""
        for text in texts:
            normalizer = self.inner.normalizer
            seen = text if normalizer is None else normalizer.normalize_str(text)
            if alphabet.issuperset(seen):
                continue
            for token in self.inner.get_added_tokens_decoder().values():
                if parse_special or not token.special:
                    seen = seen.replace(token.content, "")
            missing = next((c for c in seen if c not in alphabet), None)
            if missing is not None:
                raise ValueError(
                    f"the tokenizer does not know the character {missing!r}: the text that it was "
                    "trained on has none."
                )

    def batch(
        self, texts: Sequence[str], max_tokens: int | None = None, parse_special: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Texts as a model reads them, special tokens included, filled at the right.

        Args:
            max_tokens: longer texts lose their end (or their start, by ``truncation_side``), not their
                special tokens; None is the tokenizer's own limit, if it has one.
            parse_special: see :meth:`encode`.

        Returns:
            ids and mask, both ``(texts, longest)``; True = a token.
        """
        with self._cutting(max_tokens or self.max_tokens):
            rows = self.encode_batch(texts, True, parse_special)
        longest = max(map(len, rows), default=0)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(longest) < lengths[:, None]
        input_ids = torch.full(mask.shape, self.pad_id or 0)
        input_ids[mask] = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long)
        return input_ids, mask

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, those of special tokens left out."""
        seen = [i for i in ids if i not in self.special_ids]
        if self.vocabulary is None:
            return self.inner.decode(seen, skip_special_tokens=False)
        return self.inner.decoder.decode([self.tokens[i] for i in seen if i in self.tokens])

    def chat(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **values: str
    ) -> str:
        """A conversation as the text that the model was trained on; :meth:`chat_ids` is for a model.

        Args:
            messages: in turn, ``{"role": ..., "content": ...}``.
            add_generation_prompt: end with what stands before an answer.
            values: what else the template sees.

        Raises:
            ValueError: no template, or one that is broken or refuses the conversation.
        """
        if self.chat_template is None:
            raise ValueError("this tokenizer has no chat template: its model is no chat model.")
        tokens = {f"{name}_token": token for name, token in self.specials.items()}
        return render(
            self.chat_template,
            messages=[{k: v for k, v in each.items() if v is not None} for each in messages],
            add_generation_prompt=add_generation_prompt,
            **tokens,
            **values,
        )

    def chat_ids(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        written: Collection[str] = (),
    ) -> list[int]:
        """A conversation as the model reads it: special tokens are those of the template alone, so that
        nobody who writes ``<|im_end|>`` ends a turn.

        Args:
            written: special tokens that are such in what is said, too.

        Raises:
            ValueError: see :meth:`chat`.
        """
        text, encode = self.chat_text(messages, add_generation_prompt, written)
        return self.ids_of(encode(text))

    def chat_text(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        written: Collection[str] = (),
        **values: str,
    ) -> tuple[str, Callable[[str], tokenizers.Encoding]]:
        """The text of a conversation, and what encodes it as :meth:`chat_ids` says.

        Raises:
            ValueError: see :meth:`chat`.
        """
        inner, without = self.inner, dict.fromkeys(written, " ")
        inner.encode_special_tokens = False
        texts = texts_of(exchange(list(messages), without))
        said = [(text, inner.encode(text, add_special_tokens=False)) for text in texts]
        if not any(self.finds_special(text, found, False) for text, found in said):
            text = self.chat(messages, add_generation_prompt, **values)
            return text, lambda text: self.encodings([(text,)], parse_special=True)[0]
        (plain, names), hidden = self.plain, unwritable(self.plain[1].keys() - {*written})
        text = self.chat(exchange(list(messages), hidden), add_generation_prompt, **values)
        added = {token.content for token in inner.get_added_tokens_decoder().values()}
        text = exchange(text, {token: name for token, name in names.items() if token in added})
        text = exchange(text, {name: token for token, name in hidden.items()})

        def encode(text: str) -> tokenizers.Encoding:
            if self.alphabet is not None:
                bare = exchange(text, dict.fromkeys(names.values(), ""))
                self.check_characters([bare], self.alphabet)
            return plain.encode(text, add_special_tokens=False)

        return text, encode

    def stop_ids(self) -> set[int]:
        """The tokens that end an answer: the end of a text and, of a chat model, that of a turn."""
        return {end for end in (self.eos_id, self.turn_end()) if end is not None}

    def turn_end(self) -> int | None:
        """The special token that the chat template writes behind an answer; None where it writes none."""
        if self.chat_template is None:
            return None
        said = "\N{WHITE SQUARE}"
        turns = [{"role": "user", "content": said}, {"role": "assistant", "content": said * 2}]
        try:
            after = self.chat(turns, add_generation_prompt=False).rpartition(said)[2]
        except ValueError:
            return None
        self.inner.encode_special_tokens = False
        first = self.inner.encode(after.lstrip(), add_special_tokens=False).ids[:1]
        return first[0] if first and first[0] in self.marked else None

    def to_json(self) -> str:
        """All of it as one string; kept in checkpoints."""
        content = {
            "tokenizer": json.loads(self.inner.to_str()),
            "specials": self.specials,
            "chat_template": self.chat_template,
            "max_tokens": self.max_tokens,
        }
        sides = {"padding_side": self.padding_side, "truncation_side": self.truncation_side}
        content |= {name: side for name, side in sides.items() if side != "right"}
        if self.vocabulary is not None:
            content["vocabulary"] = self.vocabulary
        if self.target is not self:
            content["target"] = self.target.to_json()
        if self.file is not None:
            content["file"] = base64.b64encode(self.file).decode()
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The reverse of :meth:`to_json`; reads the bare JSON of the ``tokenizers`` library too."""
        content: dict[str, Any] = json.loads(text)
        if "tokenizer" not in content:
            content = {"tokenizer": content, "specials": TRAINED}
        inner = tokenizers.Tokenizer.from_str(json.dumps(content["tokenizer"]))
        plain = ("chat_template", "max_tokens", "padding_side", "truncation_side", "vocabulary")
        beside = {name: content[name] for name in plain if name in content}
        if "target" in content:
            beside["target"] = cls.from_json(content["target"])
        if "file" in content:
            beside["file"] = base64.b64decode(content["file"])
        return cls(inner, **content["specials"], **beside)
