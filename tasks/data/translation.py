"""Pairs of sentences for translation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from family.inference.translation import most_new_tokens as most_new_tokens
from family.models.languages import LanguageTokens
from tasks.data import shapes
from tasks.data.base import FamilyData
from tasks.data.batching import token_loader
from tasks.data.directions import (
    Direction,
    Row,
    check_languages,
    present,
    read_directions,
    rows_of,
)
from tasks.data.kept import as_files
from tasks.data.mixing import MixedBatches
from tasks.data.pair_texts import PairTexts
from tasks.data.parallel_texts import Parallel, ParallelTexts
from tasks.data.splits import nothing_held_out, pattern
from tasks.data.stored import Stored
from tasks.data.text_files import Pairs
from tasks.data.tokenizers import Tokenizer, add_languages, both_sides, make_tokenizer
from tasks.data.translation_batches import codes, collate, encoded, length, short_enough
from tasks.errors import UserError, at_least, between

log = logging.getLogger(__name__)


ONE_WAY = ("fr", "en")
"""The languages of the built-in world, where nobody names them."""


class TranslationData(FamilyData):
    """Sentence pairs, tokenized, in batches of like length.

    A batch:

    - ``source (batch, tokens)`` int64: a sentence and ``<eos>``, padded at the right;
    - ``source_mask (batch, tokens)`` bool: True = a token;
    - ``target (batch, tokens)`` int64: what the decoder reads, ``<bos>`` and the translation;
    - ``labels (batch, tokens)`` int64: what it is to say, the translation and ``<eos>``, -100 at
      padding;
    - ``source_text``, ``target_text``: lists of the raw sentences; ``line``: of their lines from 0, in
      the files as they are stored;
    - ``target_language``: list of the codes of what is translated into, where the model has a token for
      each (``language_tokens``): a target then begins, behind ``<bos>``, with that token, which is
      nothing to be learnt where the model is trained from scratch;
    - ``direction``: of several languages the list of ``en-de`` and the like.

    Args:
        root: a folder with, for each split, ``SPLIT.SOURCE`` and ``SPLIT.TARGET`` (one sentence a
            line), ``SPLIT.tsv``, ``SPLIT.po`` or ``SPLIT.mo``; or one such file (``all.tsv``) of
            everything, which is divided. None is the built-in world of shapes, French to English.
        source, target: the languages' names, which are the files' endings.
        languages: two or more, in the place of source and target: one model translates between all of
            them. Files are as :class:`~tasks.data.parallel_texts.ParallelTexts` says.
        directions: ``en-de`` and the like; None are all. Those without files in a split are left out there.
        temperature: of training, where directions have unequal numbers of pairs: each comes as often
            as ``pairs ** (1 / temperature)`` says. At 1 each pair comes once in an epoch; 5 suits a
            hundred languages of very unequal sizes (Arivazhagan et al. 2019).
        split_column, split_ignore: of one table in several languages: lines that are equal in this column,
            where what the pattern finds is left out, are held out together, as are those that share a
            sentence.
        train, val, test: the splits' names; "val" is also found as valid, validation or dev.
        val_fraction, test_fraction: the shares of one file; "val" comes from "train" where only that has
            no files. Pairs of the same source sentence are held out together.
        columns: see :class:`~tasks.data.text_data.TextData`; by the names of the languages, {de: german, en:
            english}.
        split_seed: other numbers divide otherwise.
        tokenizer: "bpe", "unigram" or "char", trained on the training split alone; or one that exists, by
            the path of a ``tokenizer.json``, a folder, a run or a published source, for all languages.
        vocab_size: of each tokenizer; tokens of languages come on top.
        shared_vocabulary: one tokenizer for both languages.
        quotes: fields of a ``.tsv`` may stand in quotes, as spreadsheets write them; without it a quote
            is a character like any other.
        lowercase: train on and produce lower-cased text.
        tokens_per_batch: rows times the longest row of a batch.
        max_tokens: training leaves longer sentences out.
        examples: sentences of the built-in world.
    """

    task = "Translation"
    decided = ("tokenizer", "vocab_size", "lowercase", "shared_vocabulary")

    def __init__(
        self,
        root: str | None = None,
        source: str = "fr",
        target: str = "en",
        train: str = "train",
        val: str = "val",
        test: str = "test",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        shared_vocabulary: bool = True,
        lowercase: bool = False,
        quotes: bool = False,
        tokens_per_batch: int = 4096,
        max_tokens: int = 256,
        examples: int = 20_000,
        seed: int = 0,
        num_workers: int = 0,
        languages: list[str] | None = None,
        directions: list[str] | None = None,
        temperature: float = 1.0,
        split_column: str | None = None,
        split_ignore: str | None = None,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        at_least(1, tokens_per_batch=tokens_per_batch, max_tokens=max_tokens, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        between(0, 1, val_fraction=val_fraction, test_fraction=test_fraction)
        at_least(1, temperature=temperature)
        self.root = as_files(root, columns, "tsv", quotes)
        self.source, self.target = one_way = source, target
        self.temperature = temperature
        self.splits = {"train": train, "val": val, "test": test}
        self.shares = {"val": val_fraction, "test": test_fraction}
        self.kind, self.vocab_size, self.shared = tokenizer, vocab_size, shared_vocabulary
        self.lowercase, self.tokens_per_batch, self.max_tokens = (
            lowercase,
            tokens_per_batch,
            max_tokens,
        )
        self.examples, self.seed, self.num_workers = examples, seed, num_workers
        self.source_tokenizer: Tokenizer | None = None
        self.target_tokenizer: Tokenizer | None = None
        self.generation: dict[str, Any] | None = None
        """What a checkpoint or a published model says of it."""
        self.start_id: int | None = None
        """What a published model's decoder starts from; None is ``<bos>``."""
        self.language_tokens: LanguageTokens | None = None
        """Those of a checkpoint or a published model, or of several languages; None is a model that
        translates one way."""
        self.directions: list[Direction] | None = None
        """Between several languages; None is from source into target."""
        given = (directions, split_column, split_ignore, None if temperature == 1 else temperature)
        if languages is None and any(value is not None for value in given):
            raise UserError(
                "data.directions, data.temperature, data.split_column and data.split_ignore are for "
                "several languages: give data.languages."
            )
        self._files: PairTexts | None = None
        self._texts: ParallelTexts | None = None
        self._read: dict[str, list[Parallel]] = {}
        if languages is not None:
            self.directions = read_directions(languages, directions)
            known = None if self.root is not None else shapes.LANGUAGES
            check_languages(languages, None if one_way == ONE_WAY else one_way, self.shared, known)
        if self.root is not None and languages is None:
            self._files = PairTexts(
                self.root, source, target, self.splits, self.shares, split_seed, quotes
            )
        elif self.root is not None and languages is not None:
            self._texts = ParallelTexts(
                self.root,
                languages,
                self.splits,
                self.shares,
                split_seed,
                quotes,
                split_column,
                pattern("split_ignore", split_ignore),
            )

    def pairs(self, split: str) -> Pairs:
        """The raw sentences of "train", "val" or "test".

        Raises:
            UserError: see :func:`~tasks.data.text_files.read_parallel`.
        """
        if self.directions is not None:
            return [(row.source, row.target) for row in self.rows(split)]
        if self._files is not None:
            return self._files.pairs(split)
        if (self.source, self.target) != ONE_WAY:
            raise UserError("the built-in data translates fr to en; give data.root for others.")
        return shapes.translation_pairs(self._examples(split), self.seed, split)

    def rows(self, split: str) -> list[Row]:
        """The same with their lines, and of several languages with their directions, in turn."""
        if self.directions is not None:
            return rows_of(self._blocks(split), present(self._blocks(split), self.directions))
        pairs = self.pairs(split)
        lines = None if self._files is None else self._files.lines.get(split)
        numbered = zip(pairs, lines or range(len(pairs)), strict=True)
        return [Row(*pair, line) for pair, line in numbered]

    def _blocks(self, split: str) -> list[Parallel]:
        """The sentences of several languages.

        Raises:
            UserError: see :class:`~tasks.data.parallel_texts.ParallelTexts`; no pair of any direction.
        """
        assert self.directions is not None
        if split not in self._read:
            if self._texts is not None:
                self._read[split] = self._texts.blocks(split)
            else:
                columns = shapes.parallel(self._examples(split), self.seed, split)
                self._read[split] = [Parallel(columns, range(self._examples(split)))]
            there = present(self._read[split], self.directions)
            absent = [str(one) for one in self.directions if one not in there]
            if not there:
                raise UserError(f"{self.root} has no {split} of {', '.join(absent)}.")
            if absent:
                log.warning("%s has no %s of %s.", self.root, split, ", ".join(absent))
        return self._read[split]

    def _examples(self, split: str) -> int:
        """Of the built-in world."""
        return self.examples if split == "train" else max(100, self.examples // 40)

    def assets(self) -> dict[str, Any]:
        source, target = self._tokenizers()
        ends = {"eos_token_id": target.eos_id, "pad_token_id": target.pad_id}
        made: dict[str, Any] = {
            "tokenizers": {"source": source.to_json(), "target": target.to_json()},
            "start_id": self.start_id,
            "generation": self.generation or ends,
        }
        if self.language_tokens is not None:
            made["languages"] = self.language_tokens.to_fields()
            made["generation"] = self.language_tokens.generation(made["generation"])
        return made

    def use_assets(self, assets: dict[str, Any]) -> None:
        given = {name: Tokenizer.from_json(text) for name, text in assets["tokenizers"].items()}
        self.source_tokenizer, self.target_tokenizer = given["source"], given["target"].target
        self.start_id = assets.get("start_id")
        self.generation = assets.get("generation")
        self.language_tokens = LanguageTokens.from_fields(assets.get("languages"))
        self._check_tokens()

    def _check_tokens(self) -> None:
        """Refuse a model without a token for each language.

        Raises:
            UserError: see above.
        """
        tokens = self.language_tokens
        if tokens is None and self.directions is not None:
            raise UserError(
                "data.languages: the model that is trained on, or evaluated, has no tokens of languages "
                "in its vocabulary: it translates one way, from data.source into data.target."
            )
        if tokens is None:
            return
        if self.directions is None and tokens.target == "source" and not tokens.knows(self.target):
            self.language_tokens = None  # sentences may begin with the token themselves
            return
        for one in self.directions or [Direction(self.source, self.target)]:
            codes(tokens, one)

    def _tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Of source and target: a checkpoint's, those of the first process, or trained now."""
        if self.source_tokenizer is None or self.target_tokenizer is None:
            make = partial(
                make_tokenizer, self.kind, vocab_size=self.vocab_size, lowercase=self.lowercase
            )
            if self.directions is not None:
                known = list(dict.fromkeys(language for one in self.directions for language in one))
                texts = (t for block in self._blocks("train") for t in block.texts(known))
                tokenizer, ids = add_languages(self.kind, make(texts), known)
                self.source_tokenizer = self.target_tokenizer = tokenizer
                self.language_tokens = LanguageTokens(ids)
                self._settle()
            else:
                given = self.kind, make, self.pairs("train"), self.shared
                self.source_tokenizer, self.target_tokenizer = both_sides(*given)
        return self.source_tokenizer, self.target_tokenizer

    def _settle(self) -> None:
        """Note which directions are trained."""
        if self.language_tokens is None:
            return
        trained: Sequence[Direction] = [Direction(self.source, self.target)]
        if self.directions is not None:
            trained = present(self._blocks("train"), self.directions)
        pairs = tuple(dict.fromkeys(codes(self.language_tokens, one) for one in trained))
        self.language_tokens = replace(self.language_tokens, directions=pairs)

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self._tokenizers()
        if stage in (None, "fit"):
            # Read now, so that a mistake in the files ends the run before it began.
            self.pairs("val")
            self._settle()

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model."""
        source, target = self._tokenizers()
        start = target.bos_id if self.start_id is None else self.start_id
        arguments: dict[str, Any] = {"vocab_size": source.vocab_size, "bos_id": start}
        if not self.shared:
            arguments["target_vocab_size"] = target.vocab_size
        return arguments

    def stored(self, split: str) -> Stored:
        pairs, (tokenizer, _) = self.pairs(split), self._tokenizers()
        return Stored(
            len(pairs),
            lambda i: list(pairs[i]),
            lambda i: pairs[i],
            tokenizer.encode_batch,
            self.max_tokens,
        )

    def loader(self, split: str) -> DataLoader[Any]:
        tokenizers, rows = self._tokenizers(), self.rows(split)
        if not rows:
            raise nothing_held_out(split)
        examples = encoded(
            rows, *tokenizers, self.language_tokens, Direction(self.source, self.target)
        )
        if split == "train":
            examples = short_enough(examples, self.max_tokens)
        numbers: dict[Direction | None, int] = {}
        sampler = MixedBatches(
            list(map(length, examples)),
            self.tokens_per_batch,
            [numbers.setdefault(example.direction, len(numbers)) for example in examples],
            self.temperature,
            shuffle=split == "train",
            seed=self.order_seed,
            progress=self.progress,
        )
        batch = partial(
            collate, *tokenizers, start_id=self.start_id, languages=self.language_tokens
        )
        return token_loader(examples, sampler, batch, self.num_workers)
