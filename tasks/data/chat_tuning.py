"""Conversations whose assistant a model learns to be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from family.inputs.chat import CHATML
from family.inputs.conversation import Marked, mark_answers, marks_answers
from family.inputs.encode import pad_rows
from family.inputs.tokenizer import TRAINED, Tokenizer
from family.losses.language_model import IGNORE
from tasks.data.captions import json_rows
from tasks.data.language_modeling import generation_fields
from tasks.data.messages import ROLES, Message, conversation
from tasks.data.packing import packed
from tasks.data.sampling import ExampleBatches, Pick, batch_loader
from tasks.data.shape_dialogues import exchange
from tasks.data.text_data import TextData
from tasks.data.text_files import read_text
from tasks.data.tokenizers import SPECIALS, make_chat_tokenizer
from tasks.errors import UserError, some_of

LOG = logging.getLogger(__name__)
FIELDS = ("messages", "conversations")
"""What a conversation may be called in a line of a file."""


class Conversation(NamedTuple):
    """Messages in turn, the last one the assistant's; and where they stand."""

    messages: list[Message]
    where: str
    pictures: tuple[Any, ...] = ()
    """That are shown in it, in turn."""
    kind: str = ""
    """Of what is asked; empty where nobody says it."""


class Example(NamedTuple):
    """A conversation as a model learns it: its tokens up to the last but one that the assistant says, and
    after each the next one, where the assistant says that; and which of the split's rows it is."""

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    row: int


class ChatTuningData(TextData[Conversation]):
    """Conversations through the chat template of the checkpoint, of which the assistant's words and the
    end of each of its turns are learnt, and nothing else.

    What the assistant says is marked by the template itself, ``{% generation %}``; where it has no such
    marks, it is what the conversation up to an answer has more than that up to the question before it.
    In training a row holds as many conversations as follow each other and fit. A conversation that is
    longer than the context loses its end; one that then has no word of the assistant's is left out.

    A batch of training:

    - ``input_ids (batch, context)`` int64: packed conversations, padded at the right;
    - ``labels (batch, context)`` int64: the token after each, where the assistant says it; else -100;
    - ``documents (batch, context)`` int64: the number of each token's conversation in its row, of which
      none sees another; -1 for padding.

    A batch of validation or test has one conversation in a row, no ``documents``, and as many columns as
    the longest has tokens; and beside it, lists with an entry for each row:

    - ``messages``: the conversation;
    - ``where``: the file and line where it stands;
    - ``number``: which of the split's conversations it is.

    Args:
        root: a folder with a file of JSON lines for each split, ``SPLIT.jsonl``, or one such file of
            everything, which is divided; a line is ``{"messages": [{"role": "user", "content": "..."},
            {"role": "assistant", "content": "..."}]}``, an optional "system" message first, or as
            ShareGPT has it, ``{"conversations": [{"from": "human", "value": "..."}, ...]}``. None are
            dialogues about the built-in world of shapes.
        tokenizer: "bpe", "unigram" or "char", trained on the training split alone, with special tokens
            for turns and the template that goes with them (ChatML); or one that exists, by the path of a
            ``tokenizer.json``, a folder, a run or a published source. A published model
            (``model.pretrained``) brings its own, and its own template.
        vocab_size: for bpe and unigram.
        context: tokens of a row.
        chat_template: a file with a template (Jinja, as transformers has them), for a tokenizer that
            has none.
        examples: training conversations of the built-in world.
        options: of :class:`~tasks.data.text_data.TextData`; ``batch_size`` counts rows. Conversations
            that begin with the same question are held out together.
    """

    task = "ChatTuning"
    decided: tuple[str, ...] = ("tokenizer", "vocab_size", "chat_template")
    endings, kind_of_file = (".jsonl",), "file of conversations"
    isolate = True
    """Of what is packed in a row, nothing sees another."""

    def __init__(
        self,
        root: str | None = None,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        context: int = 256,
        chat_template: str | None = None,
        examples: int = 8000,
        **options: Any,
    ) -> None:
        super().__init__(
            root,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            lowercase=False,
            max_tokens=context,
            examples=examples,
            **options,
        )
        self.context = context
        self.template = None if chat_template is None else Path(chat_template)
        self.generation: dict[str, Any] | None = None
        """What a checkpoint or a published model says of it."""
        self._examples: dict[str, list[Example]] = {}

    # --- What there is ---

    def generated(self, count: int, split: str) -> list[Conversation]:
        found = (exchange(i, self.seed, split) for i in range(count))
        return [
            Conversation(
                [*one.prompt, {"role": "assistant", "content": one.answer}], f"dialogue {i}"
            )
            for i, one in enumerate(found)
        ]

    def read(self, file: Path) -> list[Conversation]:
        """See :func:`~tasks.data.messages.conversation`."""
        return [self.told(row, f"{file} line {number}") for number, row in json_rows(file)]

    def told(self, row: dict[str, Any], where: str) -> Conversation:
        """The conversation of a line."""
        name = next((name for name in FIELDS if name in row), None)
        if name is None:
            raise UserError(
                f"{where} has no {' or '.join(FIELDS)}, but: {some_of(row) or 'nothing'}."
            )
        return Conversation(conversation(row[name], where), where)

    def kinds(self, rows: list[Conversation]) -> tuple[Sequence[Hashable], Sequence[str]]:
        questions = (
            next(one["content"] for one in row.messages if one["role"] == "user") for row in rows
        )
        return [0] * len(rows), list(questions)

    def said(self, row: Conversation) -> Sequence[str]:
        return [one["content"] for one in row.messages]

    def written(self) -> Iterator[str]:
        yield from (f"{role}\n" for role in ROLES)  # as the template writes them
        for row in self.rows("train"):
            yield from (one["content"] for one in row.messages)

    def conversations(self, split: str) -> list[Example]:
        """The conversations of a split that have something to learn; it logs what is cut and left out.

        Raises:
            UserError: see :func:`~family.inputs.conversation.mark_answers`, with the line; or none is left.
        """
        if split not in self._examples:
            self._examples[split] = self._encoded(split)
        return self._examples[split]

    def _encoded(self, split: str) -> list[Example]:
        tokenizer, rows = self._tokenizer(), self.rows(split)
        found, cut, ended, beyond = list[Example](), 0, False, list[str]()
        stops = tokenizer.stop_ids()
        for i, row in enumerate(rows):
            try:
                ids, said = self.marked(row)
            except ValueError as error:
                raise UserError(f"{row.where}: {error}") from None
            places = [place for place, own in enumerate(said) if own and place]
            if not places:
                raise UserError(
                    f"{row.where}: the chat template writes no word of the assistant's."
                )
            ended |= ids[places[-1]] in stops
            last = next((place for place in reversed(places) if place <= self.context), 0)
            self.check_cut(row, ids, last)
            if not last:
                beyond.append(row.where)
                continue
            cut += places[-1] > self.context
            labels = np.where(said[1 : last + 1], ids[1 : last + 1], IGNORE).astype(np.int32)
            found.append(Example(np.array(ids[:last], np.int32), labels, i))
        context = f"data.context={self.context} tokens"
        if beyond:
            which = f"{beyond[0]}{' and others' * (len(beyond) > 1)}"
            lost = f"{which}: the prompt is longer than {context} and leaves no room for an answer"
            if not found:
                raise UserError(f"{lost}, as in all {len(rows)} conversations of {split}.")
            LOG.warning("%s; %d of %d in %s left out.", lost, len(beyond), len(rows), split)
        if cut:
            said_of = f"{cut} of {len(rows)} conversations in {split}"
            LOG.warning("%s are longer than %s and lose their end.", said_of, context)
        if split == "train" and not ended:
            LOG.warning(
                "the chat template ends answers with no special token that ends a text, so that the model "
                "will not learn to stop."
            )
        return found

    def marked(self, row: Any) -> Marked:
        """A conversation as a model reads it.

        Raises:
            ValueError: see :func:`~family.inputs.conversation.mark_answers`.
        """
        return mark_answers(self._tokenizer(), row.messages)

    def check_cut(self, row: Any, ids: list[int], last: int) -> None:
        """For data that do not let a conversation lose all, or what stands behind ``last``."""

    def check(self, split: str) -> None:
        self.conversations(split)

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if stage in (None, "fit") and not marks_answers(self._tokenizer()):
            LOG.warning(
                "the chat template does not mark what the assistant says ({% generation %}): it is what a "
                "conversation up to an answer has more than up to the question before it."
            )

    # --- Tokenizer, template, and what a checkpoint carries ---

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            # Of characters without <unk>: one that is unknown is said, not learnt.
            own = (TRAINED["pad"], TRAINED["eos"]) if self.kind == "char" else SPECIALS
            template = CHATML if self.template is None else None
            made = make_chat_tokenizer(
                self.kind, self.written(), self.vocab_size, specials=own, template=template
            )
            self.tokenizer = self._templated(made, f"data.tokenizer={self.kind!r}")
        return self.tokenizer

    def _templated(self, tokenizer: Tokenizer, called: str) -> Tokenizer:
        """A tokenizer with a template: its own, or that of the option.

        Raises:
            UserError: it has none, or another than the option says.
        """
        if self.template is not None:
            given = read_text(self.template)
            if tokenizer.chat_template not in (None, given):
                raise UserError(
                    f"data.chat_template={self.template} is for a tokenizer that has none, but {called} has "
                    "another chat template of its own: leave the option out."
                )
            tokenizer.chat_template = given
        if tokenizer.chat_template is None:
            raise UserError(
                f"{called} has no chat template, which says how a conversation is written: give "
                "data.chat_template, a file with one (Jinja)."
            )
        return tokenizer

    def assets(self) -> dict[str, Any]:
        tokenizer, own = self._tokenizer(), self.generation
        stops = tokenizer.stop_ids()
        if own is not None:  # the end of a turn ends a text, whatever did before
            theirs = own.get("eos_token_id", [])
            stops |= {theirs} if isinstance(theirs, int) else set(theirs)
            own = {**own, "eos_token_id": sorted(stops)}
        return {
            "tokenizers": {"text": tokenizer.to_json()},
            "generation": generation_fields(own, stops, self.context),
        }

    def use_assets(self, assets: dict[str, Any]) -> None:
        tokenizer = Tokenizer.from_json(assets["tokenizers"]["text"])
        self.tokenizer = self._templated(tokenizer, "the checkpoint")
        self.generation = assets.get("generation")

    # --- Batches ---

    def loader(self, split: str) -> DataLoader[Any]:
        examples, pad = self.conversations(split), self._tokenizer().pad_id or 0
        if split == "train":
            order = np.random.default_rng(self.seed).permutation(len(examples))
            rows = self.packed([examples[i] for i in order], pad)
            batches = ExampleBatches(
                len(rows), self.batch_size, True, self.order_seed, self.progress
            )
            return batch_loader(rows, batches, self.num_workers)
        lengths = [len(one.input_ids) for one in examples]
        return self.batches(split, list(enumerate(examples)), lengths, self.collate(split, pad))

    def packed(self, examples: list[Example], pad_id: int) -> PackedConversations:
        """The rows of training."""
        return PackedConversations(examples, self.context, pad_id)

    def collate(self, split: str, pad_id: int) -> Callable[[list[tuple[int, Example]]], Any]:
        """What makes a batch of validation or test."""
        return partial(apart, self.rows(split), pad_id)


class PackedConversations(Dataset[Any]):
    """Rows of conversations that follow each other, as many as fit; a whole batch is fetched at once.

    Args:
        context: tokens of a row.
        pad_id: of what fills a row up.
    """

    def __init__(self, examples: Sequence[Example], context: int, pad_id: int) -> None:
        self.input_ids = np.concatenate([one.input_ids for one in examples])
        self.labels = np.concatenate([one.labels for one in examples])
        ends = np.cumsum([len(one.input_ids) for one in examples]).tolist()
        self.rows = packed(zip([0, *ends[:-1]], ends, strict=True), context, 0)
        self.context, self.pad_id = context, pad_id

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, picks: list[Pick]) -> dict[str, Tensor]:
        input_ids = torch.full((len(picks), self.context), self.pad_id)
        labels, documents = torch.full_like(input_ids, IGNORE), torch.full_like(input_ids, -1)
        for i, pick in enumerate(picks):
            parts = self.rows[pick.index]
            first, size = parts[0][0], parts[-1][1] - parts[0][0]
            numbers = np.repeat(np.arange(len(parts)), [b - a for a, b in parts])
            for rows, values in ((input_ids, self.input_ids), (labels, self.labels)):
                rows[i, :size] = torch.from_numpy(values[first : first + size].astype(np.int64))
            documents[i, :size] = torch.from_numpy(numbers)
        return {"input_ids": input_ids, "labels": labels, "documents": documents}


def apart(
    rows: Sequence[Conversation], pad_id: int, picked: list[tuple[int, Example]]
) -> dict[str, Any]:
    """A batch of conversations with a row each."""
    examples = [one for _, one in picked]
    ids = pad_rows([one.input_ids.tolist() for one in examples], -1)
    return {
        "input_ids": ids.masked_fill(ids < 0, pad_id),
        "labels": pad_rows([one.labels.tolist() for one in examples], IGNORE),
        "messages": [rows[one.row].messages for one in examples],
        "where": [rows[one.row].where for one in examples],
        "number": [number for number, _ in picked],
    }
