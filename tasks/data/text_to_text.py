"""Texts with what is to be made of them, of one task or several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from family.inputs.encode import encode_sources
from tasks.data.base import FamilyData
from tasks.data.batching import token_loader
from tasks.data.captions import TABLES
from tasks.data.kept import as_files
from tasks.data.mixing import MixedBatches
from tasks.data.paired_texts import BUILT_IN, Columns, PairedText, paired_shapes, read_paired
from tasks.data.split_files import find_file, shared_file
from tasks.data.splits import divide, nothing_held_out
from tasks.data.stored import Stored
from tasks.data.tokenizers import Tokenizer, make_tokenizer
from tasks.data.translation_batches import Batch, Example, length, short_enough
from tasks.data.translation_batches import collate as pairs_collate
from tasks.errors import UserError, at_least, between

MORE = 10
"""Tokens that an answer may have beyond the longest of training."""


@dataclass
class TextTask:
    """One of several tasks of a model.

    Args:
        root: as that of :class:`TextToTextData`; None is the built-in task of its name.
        prefix: what stands before each text; None is nothing, or that of the built-in task.
        source_column, target_column: as there.
        weight: how often it is trained on, beside others of its size.
    """

    root: str | None = None
    prefix: str | None = None
    source_column: str | None = None
    target_column: str | None = None
    weight: float = 1.0


class TextToTextData(FamilyData):
    """Texts and what is to be made of each, tokenized, in batches of like length; of several tasks in one
    model, which a prefix tells apart (Raffel et al. 2020). Training takes of each task as many examples as
    its size, ``temperature`` and ``weight`` say; validation and test have all of all tasks.

    A batch:

    - ``source (batch, tokens)`` int64: prefix and text and the end, padded at the right;
    - ``source_mask (batch, tokens)`` bool: True = a token;
    - ``target (batch, tokens)`` int64: what the decoder reads, its first token and the answer;
    - ``labels (batch, tokens)`` int64: what it is to say, the answer and the end, -100 at padding;
    - ``source_text``, ``target_text``: lists of the texts, with their prefixes, and the answers; ``task``:
      of the names of their tasks; ``line``: of their rows from 0, in their table.

    Args:
        root: a folder with a table for each split, ``SPLIT.tsv``, ``.csv`` or ``.jsonl``, whose first line
            (or whose fields) name the columns; or one table of everything, or the folder of it, which is
            divided. None is the built-in world of shapes, or that ``tasks`` say what there is.
        tasks: name -> :class:`TextTask`, in the place of ``root``; ``{}`` of a name is the built-in task.
        prefix: what stands before each text of ``root``, such as "summarize: ".
        source_column, target_column: without them columns with usual names are found: source and target,
            input and output, text and summary, question and answer.
        task_column: of ``root``, names the task of each row, by which it is scored.
        prefix_column: of ``root``, what stands before each row's text, and a space.
        temperature: of the mixture of tasks, see :func:`~tasks.data.mixing.shares`.
        train, val, test: the splits' names; "val" is also found as valid, validation or dev.
        val_fraction, test_fraction: the shares of one table; "val" comes from "train" where only that has
            no file. Rows of the same text are held out together.
        columns: see :class:`~tasks.data.text_data.TextData`; {source: question, target: answer}.
        split_seed: other numbers divide otherwise.
        quotes: fields of a ``.tsv`` may stand in quotes, as spreadsheets write them.
        tokenizer: "bpe", "unigram" or "char", trained on the training split alone; or one that exists, by
            the path of a ``tokenizer.json``, a folder, a run or a published source.
        vocab_size: for bpe and unigram.
        tokens_per_batch: rows times the longest row of a batch.
        max_tokens: training leaves longer examples out.
        examples: training examples of each built-in task.
    """

    task = "TextToText"
    decided = ("tokenizer", "vocab_size")

    def __init__(
        self,
        root: str | None = None,
        tasks: dict[str, TextTask] | None = None,
        prefix: str = "",
        source_column: str | None = None,
        target_column: str | None = None,
        task_column: str | None = None,
        prefix_column: str | None = None,
        temperature: float = 1.0,
        train: str = "train",
        val: str = "val",
        test: str = "test",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        quotes: bool = False,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        tokens_per_batch: int = 4096,
        max_tokens: int = 512,
        examples: int = 5000,
        seed: int = 0,
        num_workers: int = 0,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        at_least(1, tokens_per_batch=tokens_per_batch, max_tokens=max_tokens, examples=examples)
        at_least(1, temperature=temperature)
        at_least(0, num_workers=num_workers, seed=seed)
        between(0, 1, val_fraction=val_fraction, test_fraction=test_fraction)
        if root is not None and tasks:
            raise UserError(f"data.root={root} beside data.tasks: give each task its own root.")
        one = (prefix, source_column, target_column, task_column, prefix_column)
        if root is None and any(one):
            raise UserError(
                "data.prefix and names of columns are of data.root, which is not given."
            )
        self.columns = Columns(source_column, target_column, task_column, prefix_column)
        if root is not None:
            tasks = {"": TextTask(root, prefix)}
        parts = {name: of_task(name, given) for name, given in (tasks or builtin()).items()}
        self.parts = {
            name: part
            if part.root is None
            else replace(part, root=str(as_files(part.root, columns, quotes=quotes)))
            for name, part in parts.items()
        }
        for name, part in self.parts.items():
            if not part.weight > 0:
                raise UserError(f"data.tasks.{name}.weight must be above 0, not {part.weight}.")
        self.temperature = temperature
        self.splits = {"train": train, "val": val, "test": test}
        self.held_out = {"val": val_fraction, "test": test_fraction}
        self.split_seed, self.quotes = split_seed, quotes
        self.kind, self.vocab_size = tokenizer, vocab_size
        self.tokens_per_batch, self.max_tokens = tokens_per_batch, max_tokens
        self.examples, self.seed, self.num_workers = examples, seed, num_workers
        self.tokenizer: Tokenizer | None = None
        self.start_id: int | None = None
        """What a published model's decoder starts from; None is ``<bos>``."""
        self.generation: dict[str, Any] | None = None
        """What a checkpoint or a published model says of it."""
        self.longest = 0
        """Tokens of the longest answer of training, once it was read for that."""
        self._rows: dict[tuple[str, str], list[PairedText]] = {}

    # --- What there is ---

    def rows(self, split: str) -> dict[str, list[PairedText]]:
        """The examples of "train", "val" or "test" by their tasks, with the prefixes of their texts.

        Raises:
            UserError: see :func:`~tasks.data.paired_texts.read_paired`.
        """
        for name, part in self.parts.items():
            if (name, split) not in self._rows:
                self._read(name, part, split)
        found: dict[str, list[PairedText]] = {}
        for name in self.parts:
            for row in self._rows[name, split]:
                found.setdefault(row.task or name, []).append(row)
        return found

    def _read(self, name: str, part: TextTask, split: str) -> None:
        """Read a split's own file, or divide the table that it is a part of."""
        if part.root is None:
            count = self.examples if split == "train" else max(100, self.examples // 40)
            self._keep(name, split, paired_shapes(name, count, self.seed, split))
            return
        root = Path(part.root)
        columns = self.columns._replace(
            source=part.source_column or self.columns.source,
            target=part.target_column or self.columns.target,
        )
        file, parts = shared_file(root, self.splits, TABLES)
        if file is None or split not in parts:
            file = find_file(root, split, self.splits[split], TABLES, "table")
            self._keep(name, split, read_paired(file, columns, self.quotes))
            return
        rows = read_paired(file, columns, self.quotes)
        shares = {other: self.held_out[other] for other in parts if other != "train"}
        groups = [row.source for row in rows]
        found = divide([row.task for row in rows], groups, shares, self.split_seed)
        for of, indices in found.items():
            self._keep(name, of, [rows[i] for i in indices])

    def _keep(self, name: str, split: str, rows: list[PairedText]) -> None:
        """Put before each text what is to stand there."""
        before = self.parts[name].prefix or ""
        self._rows[name, split] = [
            row._replace(source=f"{before}{row.prefix}{' ' * bool(row.prefix)}{row.source}".strip())
            for row in rows
        ]

    # --- What Lightning and tasks ask for ---

    def assets(self) -> dict[str, Any]:
        tokenizer = self._tokenizer()
        ends = {"eos_token_id": tokenizer.target.eos_id, "pad_token_id": tokenizer.target.pad_id}
        most = self.max_new_tokens
        said = {} if most is None else {"max_new_tokens": most}
        return {
            "tokenizers": {"text": tokenizer.to_json()},
            "start_id": self._start(),
            "generation": {**(self.generation or ends), **said},
        }

    def use_assets(self, assets: dict[str, Any]) -> None:
        given = assets["tokenizers"]
        self.tokenizer = Tokenizer.from_json(given.get("text") or given["source"])
        self.start_id, self.generation = assets.get("start_id"), assets.get("generation")

    @property
    def target_tokenizer(self) -> Tokenizer:
        """What cuts the answers; the same, but of some published models."""
        return self._tokenizer().target

    @property
    def max_new_tokens(self) -> int | None:
        """How long an answer may become: some tokens more than the longest of training, and what a source
        says; None where nobody says."""
        most = [self.longest + MORE] if self.longest else []
        said = (self.generation or {}).get("max_new_tokens")
        return max([*most, *([said] if said else [])], default=None)

    def _tokenizer(self) -> Tokenizer:
        """A checkpoint's, that of the first process, or trained now."""
        if self.tokenizer is None:
            rows = [row for rows in self.rows("train").values() for row in rows]
            texts = (text for row in rows for text in (row.source, row.target))
            made = make_tokenizer(self.kind, texts, self.vocab_size)
            if None in (made.target.eos_id, made.target.pad_id, made.pad_id):
                raise UserError(
                    f"the tokenizer data.tokenizer={self.kind!r} names no eos_token and pad_token, "
                    "without which no answer ends."
                )
            self.tokenizer = made
        return self.tokenizer

    def _start(self) -> int:
        target = self.target_tokenizer
        start = next(i for i in (self.start_id, target.bos_id, target.pad_id) if i is not None)
        assert start is not None
        return start

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        tokenizer = self._tokenizer().target
        # Read now, so that a mistake in the files ends the run before it began.
        if stage in (None, "fit"):
            answers = [row.target for rows in self.rows("train").values() for row in rows]
            self.longest = min(max(map(len, tokenizer.encode_batch(answers))) + 1, self.max_tokens)
        if stage in (None, "fit", "validate"):
            self.rows("val")

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size``, and ``bos_id``, the token that decoding starts from."""
        return {"vocab_size": self._tokenizer().vocab_size, "bos_id": self._start()}

    def _encoded(self, split: str) -> dict[str, list[Example]]:
        """The examples of each task; of training those that are short enough."""
        tokenizer, found = self._tokenizer(), {}
        for name, rows in self.rows(split).items():
            source = encode_sources(tokenizer, [row.source for row in rows])
            target = tokenizer.target.encode_batch([row.target for row in rows])
            texts, lines = [(row.source, row.target) for row in rows], [row.row for row in rows]
            examples = list(map(Example, source, target, texts, lines))
            found[name] = short_enough(examples, self.max_tokens) if split == "train" else examples
        return found

    def stored(self, split: str) -> Stored:
        rows = [row for rows in self.rows(split).values() for row in rows]
        tokenizer = self._tokenizer()
        return Stored(
            len(rows),
            lambda i: [rows[i].source, rows[i].target],
            lambda i: [rows[i].source, rows[i].target],
            tokenizer.encode_batch,
            self.max_tokens,
        )

    def loader(self, split: str) -> DataLoader[Any]:
        by_task = self._encoded(split)
        if not by_task:
            raise nothing_held_out(split)
        examples = [(name, one) for name, some in by_task.items() for one in some]
        lengths = [length(one) for _, one in examples]
        numbers = {name: i for i, name in enumerate(by_task)}
        sampler = MixedBatches(
            lengths,
            self.tokens_per_batch,
            [numbers[name] for name, _ in examples],
            self.temperature,
            [self._weight(name) for name in by_task],
            shuffle=split == "train",
            seed=self.order_seed,
            progress=self.progress,
        )
        batch = partial(collate, self._tokenizer(), self._start())
        return token_loader(examples, sampler, batch, self.num_workers)

    def _weight(self, name: str) -> float:
        return self.parts[name].weight if name in self.parts else 1.0


def builtin() -> dict[str, TextTask]:
    """All tasks of the world of shapes."""
    return {name: TextTask() for name in BUILT_IN}


def of_task(name: str, given: Any) -> TextTask:
    """A task as it is read: from plain values, too, and a built-in one with its usual prefix.

    Raises:
        UserError: no such built-in task, or an option that no task has.
    """
    try:
        part = given if isinstance(given, TextTask) else TextTask(**(given or {}))
    except TypeError as error:
        raise UserError(f"data.tasks.{name}: {str(error).removeprefix('TextTask.')}.") from None
    if part.root is None and part.prefix is None and name in BUILT_IN:
        return TextTask(None, BUILT_IN[name][0], weight=part.weight)
    if part.root is None:
        paired_shapes(name, 0, 0, "train")  # says what is wrong
    return part


def collate(tokenizer: Tokenizer, start_id: int, examples: list[tuple[str, Example]]) -> Batch:
    """A batch of :class:`TextToTextData`."""
    names, pairs = zip(*examples, strict=True)
    batch = pairs_collate(tokenizer, tokenizer.target, list(pairs), start_id)
    return {**batch, "task": list(names)}
