"""Texts that grow: what a language model writes, piece by piece, how many tokens it took and why it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from family import Sampling
from family.inference.pieces import pieces, until
from family.inference.texts import new_tokens, random_numbers, sampling_of
from family.inputs.encode import encode_prompt
from family.models.member import longest_text
from tasks.serve.limits import RefusedError
from tasks.serve.served import Served
from tasks.serve.worker import Growing

CHATTING = Sampling(temperature=0.7, top_p=0.95)
"""Where neither the request nor the model's ``generation`` says how to draw, as ``family chat`` does."""
WRITING = Sampling(temperature=0.8)
"""The same of ``family generate``."""
USUAL = 256
"""New tokens at most, where nobody says."""


@dataclass
class Ask:
    """A text that is wanted.

    Args:
        prompt: the text that goes on, or a conversation, a list of messages.
        most: new tokens; None is as the model says, or 256, within the limits.
    """

    prompt: str | list[dict[str, str]]
    temperature: float | None = None
    top_p: float | None = None
    most: int | None = None
    seed: int = 0
    stop: Sequence[str] = ()


@dataclass
class Begun:
    """What is known once a model has read the prompt."""

    prompt_tokens: int


@dataclass
class Ended:
    """What is known in the end: ``"stop"`` where the text ended by itself, ``"length"`` where it was cut."""

    reason: str
    tokens: int


def grown(served: Served, ask: Ask) -> Iterator[Begun | str | Ended]:
    """What is known of a text, in turn; runs in the model's thread.

    Raises:
        ValueError: a prompt that is empty, too long, or that the template refuses.
    """
    model: Any = served.model
    tokenizer, talks = model.tokenizer, not isinstance(ask.prompt, str)
    usual = CHATTING if talks else WRITING
    sampling = sampling_of(model, usual, temperature=ask.temperature, top_p=ask.top_p)
    if isinstance(ask.prompt, str):
        ids = encode_prompt(tokenizer, ask.prompt)
    else:
        ids = tokenizer.chat_ids(ask.prompt)
    room = longest_text(model)
    if len(ids) >= room:
        raise ValueError(
            f"the text of {len(ids)} tokens leaves no room for an answer in the model's context of "
            f"{int(room)} tokens."
        )
    count = min(new_tokens(model, len(ids), ask.most, USUAL), served.limits.new_tokens)
    tokens, raw = 0, ""

    def counted(made: Iterator[Any]) -> Iterator[Any]:
        nonlocal tokens
        for token in made:
            tokens += 1
            yield token

    def remembered(texts: Iterator[str]) -> Iterator[str]:
        nonlocal raw
        for text in texts:
            raw += text
            yield text

    made = served.together.join(ids, count, sampling, random_numbers(model, ask.seed))
    yield Begun(len(ids))
    before = () if talks else ids
    yield from until(remembered(pieces(tokenizer, counted(made), before)), ask.stop)
    stopped = tokens < count or any(stop in raw for stop in ask.stop)
    yield Ended("stop" if stopped else "length", tokens)


class Text:
    """A text as it grows, for a request.

    Args:
        served: the model; a place in its queue is taken until :meth:`close`.
    """

    def __init__(self, served: Served, ask: Ask) -> None:
        loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

        def put(piece: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.queue.put_nowait, piece)

        begin: Callable[[], Iterator[Any]] = lambda: grown(served, ask)  # noqa: E731
        self.served, self.growing = served, Growing(begin, put)
        served.worker.grow(self.growing)
        self.closed = False
        self.prompt_tokens = self.tokens = 0
        self.reason = ""

    async def begin(self) -> None:
        """Wait until the model has read the prompt.

        Raises:
            RefusedError: it cannot, or the server ends.
        """
        begun = await self.next()
        assert isinstance(begun, Begun)
        self.prompt_tokens = begun.prompt_tokens

    async def next(self) -> Any:
        piece = await self.queue.get()
        if isinstance(piece, RefusedError):
            raise piece
        return piece

    async def pieces(self) -> AsyncIterator[str]:
        """What is added, in turn."""
        while (piece := await self.next()) is not None:
            if isinstance(piece, Ended):
                self.reason, self.tokens = piece.reason, piece.tokens
            elif piece:
                yield piece

    async def whole(self) -> str:
        return "".join([piece async for piece in self.pieces()])

    def close(self) -> None:
        """Nobody reads it any more."""
        if not self.closed:
            self.closed = self.growing.cancelled = True
            self.served.worker.leave()


async def begin_all(served: Served, asks: Sequence[Ask]) -> list[Text]:
    """Texts whose prompts were read; all or none.

    Raises:
        RefusedError: see :meth:`Text.begin`.
    """
    texts: list[Text] = []
    try:
        for ask in asks:
            texts.append(Text(served, ask))
        for text in texts:
            await text.begin()
    except BaseException:
        for text in texts:
            text.close()
        raise
    return texts
