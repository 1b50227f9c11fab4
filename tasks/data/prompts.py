"""Prompts that a model answers by itself, and what a scorer is told beside them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch.utils.data import DataLoader, Dataset, Sampler

from family.inputs.conversation import prompt_ids
from family.inputs.encode import pad_rows
from family.inputs.tokenizer import Tokenizer
from tasks.data.batching import LoaderProgress
from tasks.data.captions import json_rows
from tasks.data.messages import Message, conversation
from tasks.data.sampling import ExampleBatches, Pick, batch_loader
from tasks.data.shape_dialogues import exchange
from tasks.data.splits import nothing_held_out
from tasks.data.sums import sums
from tasks.data.text_data import TextData
from tasks.data.tokenizers import make_chat_tokenizer, make_tokenizer
from tasks.errors import UserError, in_short, some_of

Batch = dict[str, Any]
TAKEN = ("prompts", "answers", "messages")
"""Names by which scorers get what is not a field."""


class Prompt(NamedTuple):
    """What is to be answered: a text's begin, or a conversation that ends with its user."""

    prompt: str | list[Message]
    fields: dict[str, Any]
    """What else its line says, for the scorer."""
    file: str
    line: int

    @property
    def text(self) -> str:
        """The begin, or what the user said last."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[-1]["content"]

    @property
    def where(self) -> str:
        return f"{self.file} line {self.line}"


class PromptData(TextData[Prompt]):
    """Prompts in batches, and what a scorer is to know of them.

    A batch:

    - ``input_ids (batch, tokens)`` int64: the prompt up to where the answer begins, padded at the right;
    - ``mask (batch, tokens)`` bool: True = a token;
    - ``prompt``: a list of the prompts as texts, of a conversation what its user said last;
    - ``fields``: the further fields of the prompts, a list each, and ``messages`` of conversations;
    - ``index``: a list of the prompts' numbers in their split; ``file``, ``line``: where they stand;
    - ``use``: how often the answers to these prompts were trained on before. In training each batch is
      given ``uses`` times of the task one after another; it is written to at the first.

    Args:
        root: JSON lines ``{"prompt": ...}``, a text or a list of messages (``{"role": ..., "content":
            ...}``) that ends with the user's: a folder with a file for each split, or one of everything,
            which is divided. Further fields are the scorer's. None is a built-in view.
        view: "shapes", a scene in words with a question, or "sums", ``27+35=``; both with their
            ``answer``.
        max_tokens: of a prompt; a longer one is refused.
        options: of :class:`~tasks.data.text_data.TextData`; ``batch_size`` counts prompts.
    """

    task = "PolicyTuning"
    decided = ("tokenizer", "vocab_size", "lowercase")
    endings, kind_of_file = (".jsonl",), "file of prompts"

    def __init__(
        self,
        root: str | None = None,
        view: Literal["shapes", "sums"] = "shapes",
        max_tokens: int = 512,
        **options: Any,
    ) -> None:
        super().__init__(root, max_tokens=max_tokens, **options)
        if view not in ("shapes", "sums"):
            raise UserError(f"data.view={view!r} is unknown; choose shapes or sums.")
        self.view = view
        self.generation: dict[str, Any] | None = None
        """What a checkpoint or a published model says of it."""
        self._ids: dict[str, list[list[int]]] = {}

    # --- What there is ---

    def generated(self, count: int, split: str) -> list[Prompt]:
        if self.view == "sums":
            made: list[tuple[Any, str]] = [*sums(count, self.seed, split)]
        else:
            told = (exchange(i, self.seed, split) for i in range(count))
            made = [(one.prompt, one.answer) for one in told]
        named = f"the {split} split of {self.view}"
        return [Prompt(p, {"answer": a}, named, i) for i, (p, a) in enumerate(made, 1)]

    def read(self, file: Path) -> list[Prompt]:
        found = [prompt_of(file, number, row) for number, row in json_rows(file)]
        for one in found:
            if one.fields.keys() != found[0].fields.keys():
                raise UserError(
                    f"{one.where} has the fields {listed(one.fields)}, but line {found[0].line} has "
                    f"{listed(found[0].fields)}: a scorer needs the same of every prompt."
                )
            if isinstance(one.prompt, str) != isinstance(found[0].prompt, str):
                raise UserError(
                    f"{one.where}: its prompt is of another kind than that of line {found[0].line}: all "
                    "must be texts, or all lists of messages."
                )
        return found

    def kinds(self, rows: list[Prompt]) -> tuple[Sequence[Hashable], Sequence[str]]:
        return [0] * len(rows), [str(row.prompt) for row in rows]

    def said(self, row: Prompt) -> Sequence[str]:
        return [row.prompt] if isinstance(row.prompt, str) else [m["content"] for m in row.prompt]

    def written(self) -> Iterator[str]:
        for row in self.rows("train"):
            yield from (*self.said(row), *(str(value) for value in row.fields.values()))

    def ids(self, split: str) -> list[list[int]]:
        """Each prompt as the model reads it.

        Raises:
            UserError: one that the tokenizer or its chat template refuses, or that is too long.
        """
        if split not in self._ids:
            tokenizer, found = self._tokenizer(), []
            for row in self.rows(split):
                try:
                    found.append(prompt_ids(tokenizer, row.prompt))
                except ValueError as error:
                    raise UserError(f"{row.where}: {error}") from None
            self._ids[split] = found
            self.check_lengths(split, self.max_tokens, "data.max_tokens")
        return self._ids[split]

    def check_lengths(self, split: str, most: float, why: str) -> None:
        """Refuse prompts that are empty, or longer than ``most`` tokens.

        Args:
            why: what says how many these are.

        Raises:
            UserError: the first of them, and where it stands.
        """
        for row, ids in zip(self.rows(split), self.ids(split), strict=True):
            if not ids:
                raise UserError(f"{row.where}: the prompt has no token.")
            if len(ids) > most:
                raise UserError(
                    f"{row.where}: the prompt has {len(ids)} tokens, more than the {int(most)} of {why}."
                )

    def check(self, split: str) -> None:
        self.ids(split)

    # --- What a checkpoint carries ---

    def _tokenizer(self) -> Tokenizer:
        """A checkpoint's, that of the first process, or made now; for conversations with a template."""
        if self.tokenizer is None:
            chats = not isinstance(self.rows("train")[0].prompt, str)
            make = make_chat_tokenizer if chats else make_tokenizer
            self.tokenizer = make(self.kind, self.written(), self.vocab_size, self.lowercase)
        return self.tokenizer

    def assets(self) -> dict[str, Any]:
        known = {} if self.generation is None else {"generation": self.generation}
        return {"tokenizers": {"text": self._tokenizer().to_json()}, **known}

    def use_assets(self, assets: dict[str, Any]) -> None:
        self.tokenizer = Tokenizer.from_json(assets["tokenizers"]["text"])
        self.generation, self._ids = assets.get("generation"), {}

    # --- Batches ---

    @property
    def uses(self) -> int:
        """How often the task trains on the answers to a batch of prompts."""
        task = getattr(self.trainer, "lightning_module", None)
        return getattr(task, "uses", 1)

    def loader(self, split: str) -> DataLoader[Any]:
        rows, ids = self.rows(split), self.ids(split)
        if not rows:
            raise nothing_held_out(split)
        made = partial(collate, rows, ids, self._tokenizer().pad_id or 0)
        sampler: Sampler[Any]
        if split == "train":
            given = (len(rows), self.batch_size, self.uses, self.order_seed, self.progress)
            sampler = RepeatedBatches(*given)
        else:
            sampler = ExampleBatches(len(rows), self.batch_size, False, progress=self.progress)
        return batch_loader(Made(made), sampler, self.num_workers)


def prompt_of(file: Path, number: int, row: dict[str, Any]) -> Prompt:
    """A line of a file.

    Raises:
        UserError: it has no prompt, or a field by a name that is taken.
    """
    where, value = f"{file} line {number}", row.get("prompt")
    if isinstance(value, list):
        value = conversation(value, where, ends="user")
    elif not isinstance(value, str) or not value.strip():
        raise UserError(
            f'{where} has no "prompt": it must be a text, or a list of messages, not {in_short(value)}.'
        )
    fields = {name: given for name, given in row.items() if name != "prompt"}
    for name in TAKEN:
        if name in fields:
            raise UserError(
                f"{where} has a field {name!r}: scorers get {listed(TAKEN)} by these names, so call it "
                "otherwise."
            )
    return Prompt(value, fields, str(file), number)


def listed(names: Any) -> str:
    return some_of(names) or "none"


def collate(
    rows: Sequence[Prompt], ids: Sequence[list[int]], pad_id: int, picks: Sequence[Pick | Use]
) -> Batch:
    """A batch of :class:`PromptData`, of picks of a sampler."""
    use = picks[0].use if isinstance(picks[0], Use) else 0
    chosen = [pick.index for pick in picks]
    mine = [rows[i] for i in chosen]
    fields = {name: [row.fields[name] for row in mine] for name in mine[0].fields}
    if not isinstance(mine[0].prompt, str):
        fields["messages"] = [row.prompt for row in mine]
    input_ids = pad_rows([ids[i] for i in chosen], -1)
    return {
        "input_ids": input_ids.masked_fill(input_ids < 0, pad_id),
        "mask": input_ids >= 0,
        "prompt": [row.text for row in mine],
        "fields": fields,
        "index": chosen,
        "file": [row.file for row in mine],
        "line": [row.line for row in mine],
        "use": use,
    }


class Made(Dataset[Any]):
    """A data set whose batches a function makes."""

    def __init__(self, make: partial[Batch]) -> None:
        self.make = make

    def __getitems__(self, picks: Sequence[Pick | Use]) -> Batch:
        return self.make(picks)


class Use(NamedTuple):
    """A prompt, and how often its answers were trained on before."""

    index: int  # type: ignore[assignment]
    use: int


class Whole(ExampleBatches):
    """Batches of training from an example on."""

    first = 0

    def _done(self) -> int:
        return min(self.first, self.count)


class RepeatedBatches(Sampler[list[Use]]):
    """Batches of training, each of them so often one after another, as
    :class:`~tasks.data.sampling.ExampleBatches` makes them.

    A resumed run goes on with the next use of the batch that it was cut in; where batches or processes are
    others than before, with the next batch.
    """

    def __init__(
        self, count: int, batch_size: int, uses: int, seed: int, progress: LoaderProgress
    ) -> None:
        self.size, self.progress = [batch_size, uses], progress
        self.once = Whole(count, batch_size, True, seed, progress, drop_last=True)

    def begun(self) -> tuple[int, int]:
        """The examples of this epoch that are done with, and the uses of the next batch."""
        examples, used, world = 0, 0, self.progress.process[1]
        parts = self.progress.parts
        for i, part in enumerate(parts):
            size, uses = self.size if part.size is None else part.size
            processes = part.processes or world
            whole, used = divmod(part.batches, uses)
            same = [size, uses] == self.size and processes == world and i == len(parts) - 1
            examples += (whole + (used > 0 and not same)) * size * processes
            used = used if same else 0
        return examples, used

    def __iter__(self) -> Iterator[list[Use]]:
        self.once.first, used = self.begun()
        for batch in self.once:
            for use in range(used, self.size[1]):
                yield [Use(pick.index, use) for pick in batch]
            used = 0

    def left(self) -> int:
        self.once.first, used = self.begun()
        return self.size[1] * self.once.left() - used

    def __len__(self) -> int:
        """Of a whole epoch."""
        return self.size[1] * len(self.once)
