"""Prompts with a better and a worse answer."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from family.inputs.conversation import answered_ids
from family.inputs.encode import pad_rows
from family.losses.language_model import IGNORE
from tasks.data.batching import TokenBatches, token_loader
from tasks.data.preference_files import Compared, compared_shapes, read_compared
from tasks.data.splits import nothing_held_out
from tasks.data.text_data import TextData
from tasks.data.tokenizers import Tokenizer, make_chat_tokenizer, make_tokenizer
from tasks.errors import UserError

LOG = logging.getLogger(__name__)
Batch = dict[str, Any]


class Encoded(NamedTuple):
    """A pair as a model reads it: how many tokens its prompt has, the prompt with either answer, a number
    that no other pair has, and its place in the split."""

    before: int
    rows: list[list[int]]
    key: int
    place: int


class PreferenceData(TextData[Compared]):
    """Prompts, each with an answer that is better than another, in batches of like length.

    A prompt and an answer are cut by themselves, so that no token reaches over the border, and the end of the
    answer is learned. A conversation is written by the tokenizer's chat template; a tokenizer that is trained
    here gets one (ChatML). An answer that is too long loses its end; pairs whose answers are alike up to
    there are left out; how many is said in the log.

    A batch:

    - ``input_ids (pairs, 2, tokens)`` int64: of each pair the prompt with the better answer, and with the
      worse one, padded at the right;
    - ``mask (pairs, 2, tokens)`` bool: True = a token;
    - ``labels (pairs, 2, tokens)`` int64: the token after each where that is of the answer, elsewhere -100;
    - ``margin (pairs,)`` float32: by how much the one is better, where the data say it;
    - ``key (pairs,)`` int64: a number of each pair, made of its tokens, the same in every run;
    - ``index``: list of the numbers of the pairs in their split;
    - ``prompt``, ``chosen``, ``rejected``: lists of the texts; ``file``, ``line``: where they stand.

    Args:
        root: a folder with a file for each split, ``SPLIT.jsonl``, or one such file of everything, which is
            divided by prompts; a line is ``{"prompt": ..., "chosen": ..., "rejected": ..., "margin": ...}``,
            see :func:`~tasks.data.preference_files.read_compared`. None is the built-in world of shapes:
            questions about scenes with a right answer and a wrong one.
        options: of :class:`~tasks.data.text_data.TextData`; ``batch_size`` counts pairs, and ``max_tokens``
            the tokens of a prompt with one answer.
    """

    task = "RewardModeling"
    endings, kind_of_file = (".jsonl",), "file of preferences"

    def __init__(self, root: str | None = None, max_tokens: int = 256, **options: Any) -> None:
        super().__init__(root, max_tokens=max_tokens, **options)
        self.generation: dict[str, Any] | None = None
        """What a checkpoint or a published model says of it."""
        self._encoded: dict[str, list[Encoded]] = {}

    # --- What there is ---

    def generated(self, count: int, split: str) -> list[Compared]:
        return compared_shapes(count, self.seed, split)

    def read(self, file: Path) -> list[Compared]:
        return read_compared(file)

    def kinds(self, rows: list[Compared]) -> tuple[Sequence[Hashable], Sequence[str]]:
        return [0] * len(rows), [json.dumps(row.prompt) for row in rows]

    def said(self, row: Compared) -> Sequence[str]:
        prompt = row.prompt
        before = [prompt] if isinstance(prompt, str) else [m["content"] for m in prompt]
        return [*before, row.chosen, row.rejected]

    def written(self) -> Iterator[str]:
        for row in self.rows("train"):
            if isinstance(row.prompt, str):
                yield row.prompt
            else:
                yield from (message["content"] for message in row.prompt)
                yield from (f"{message['role']}\n" for message in row.prompt)
                yield "assistant\n"
            yield row.chosen
            yield row.rejected

    def check(self, split: str) -> None:
        self.encoded(split)

    # --- What Lightning and tasks ask for ---

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            talks = any(not isinstance(row.prompt, str) for row in self.rows("train"))
            make = make_chat_tokenizer if talks else make_tokenizer
            self.tokenizer = make(self.kind, self.written(), self.vocab_size, self.lowercase)
        return self.tokenizer

    def assets(self) -> dict[str, Any]:
        ends = sorted(self._tokenizer().stop_ids())
        generation = {"eos_token_id": ends} if ends else {}
        return {**super().assets(), "generation": self.generation or generation}

    def use_assets(self, assets: dict[str, Any]) -> None:
        self.tokenizer = Tokenizer.from_json(assets["tokenizers"]["text"])
        self.max_tokens = assets.get("max_tokens") or self.max_tokens
        self.generation = assets.get("generation")
        self._encoded = {}

    def encoded(self, split: str) -> list[Encoded]:
        """The pairs of a split as a model reads them.

        Raises:
            UserError: a prompt that is too long, or that the chat template refuses.
        """
        if split not in self._encoded:
            rows = self.rows(split)
            found = [self._encode(row, i) for i, row in enumerate(rows)]
            kept = [one for one in found if one.rows[0] != one.rows[1]]
            cut = sum(max(map(len, one.rows)) == self.max_tokens for one in kept)
            if not rows:
                raise nothing_held_out(split)
            if not kept:
                raise UserError(
                    f"all pairs of {split} are alike in their first {self.max_tokens} tokens: give a "
                    "larger data.max_tokens."
                )
            if len(kept) < len(found) or cut:
                LOG.warning(
                    "%s: of %d pairs %d fill data.max_tokens=%d, where longer answers lose their end, and %d "
                    "that are alike up to there are left out.",
                    *(split, len(found), cut, self.max_tokens, len(found) - len(kept)),
                )
            self._encoded[split] = kept
        return self._encoded[split]

    def _encode(self, row: Compared, place: int) -> Encoded:
        answers = [row.chosen, row.rejected]
        try:
            before, rows = answered_ids(self._tokenizer(), row.prompt, answers, self.max_tokens)
        except ValueError as error:
            raise UserError(f"{row.where}: {error}") from None
        digest = hashlib.sha256(json.dumps([before, rows]).encode()).digest()
        return Encoded(before, rows, int.from_bytes(digest[:8], signed=True), place)

    def has_margins(self, split: str) -> bool:
        """Whether the pairs of a split say by how much the one is better."""
        return self.rows(split)[0].margin is not None

    def loader(self, split: str) -> DataLoader[Any]:
        pairs = self.encoded(split)
        return self.batches(split, pairs, lengths(pairs), self._collate(split))

    def every(self, split: str) -> DataLoader[Any]:
        """The batches of a split in the order of their lengths, in which each pair stands once."""
        pairs = self.encoded(split)
        most = self.batch_size * self.max_tokens
        sampler = TokenBatches(
            lengths(pairs), most, False, progress=self.progress, max_rows=self.batch_size
        )
        return token_loader(pairs, sampler, self._collate(split), 0)

    def _collate(self, split: str) -> Any:
        return partial(collate, self._tokenizer().pad_id or 0, self.rows(split))


def lengths(pairs: Sequence[Encoded]) -> list[int]:
    """The tokens of each pair's longer row."""
    return [max(map(len, one.rows)) for one in pairs]


def collate(pad_id: int, rows: Sequence[Compared], pairs: list[Encoded]) -> Batch:
    """A batch of :class:`PreferenceData`."""
    ids = pad_rows([row for one in pairs for row in one.rows], -1)
    behind = torch.tensor([[one.before] for one in pairs for _ in one.rows])
    after = ids.roll(-1, 1)
    after[:, -1] = -1
    columns = torch.arange(1, ids.shape[1] + 1)
    labels = after.masked_fill((after < 0) | (columns < behind), IGNORE)
    said = [rows[one.place] for one in pairs]
    batch: Batch = {
        "input_ids": ids.masked_fill(ids < 0, pad_id).view(len(pairs), 2, -1),
        "mask": (ids >= 0).view(len(pairs), 2, -1),
        "labels": labels.view(len(pairs), 2, -1),
        "key": torch.tensor([one.key for one in pairs]),
        "index": [one.place for one in pairs],
        "prompt": [row.asked for row in said],
        "chosen": [row.chosen for row in said],
        "rejected": [row.rejected for row in said],
        "file": [row.file for row in said],
        "line": [row.line for row in said],
    }
    if said[0].margin is not None:
        batch["margin"] = torch.tensor([row.margin for row in said])
    return batch
