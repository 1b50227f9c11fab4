"""OpenAI's API, so that tools made for it work with models that are served here: ``/v1``."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import in_short
from tasks.serve.events import Events, event
from tasks.serve.limits import INPUTS, TEXT, RefusedError
from tasks.serve.schemas import Count, Part, Stop, Temperature, Text
from tasks.serve.served import Catalogue, Served
from tasks.serve.talking import Ask, begin_all
from tasks.serve.talking import Text as Growing
from tasks.serve.worker import Call

UNUSED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
"""Options that do not change what is answered."""
NOTHING: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Options that are not carried -> the values at which they say nothing."""


class Asked(BaseModel):
    """A request; what it has beside these is refused by name, unless it changes nothing."""

    model_config = ConfigDict(extra="allow")
    model: Annotated[str, Field(min_length=1, max_length=300)]

    def check(self) -> None:
        """Refuse options that change what is answered, and that are not carried.

        Raises:
            RefusedError: see above.
        """
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in UNUSED and not says_nothing(name, value):
                raise RefusedError(
                    400, f"this server does not know {in_short(name)}: leave it out.", name[:100]
                )


def says_nothing(name: str, value: Any) -> bool:
    """Whether an option that is not carried asks for nothing, as ``logprobs`` of False but not of 0."""
    kind = isinstance(value, bool)
    return any(value == one and isinstance(one, bool) == kind for one in NOTHING.get(name, ()))


class StreamOptions(BaseModel):
    include_usage: bool = False


class Drawn(Asked):
    temperature: Temperature | None = None
    top_p: Part | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class TextPart(BaseModel):
    type: Literal["text"]
    text: Annotated[str, Field(max_length=TEXT)]


class Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: Annotated[str, Field(min_length=1, max_length=20)]
    content: (
        Annotated[str, Field(max_length=TEXT)] | Annotated[list[TextPart], Field(max_length=50)]
    )

    def plain(self) -> dict[str, str]:
        said = self.content
        text = said if isinstance(said, str) else "".join(part.text for part in said)
        # What was called system is called developer by newer clients; templates know the old name.
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Drawn):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "NAME", "messages": [{"role": "user", "content": "hello"}]}]
        }
    )
    messages: Annotated[list[Turn], Field(min_length=1, max_length=200)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class CompletionRequest(Drawn):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "NAME", "prompt": "there is"}]}
    )
    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=8)]


class EmbeddingRequest(Asked):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "NAME", "input": "a text"}]}
    )
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=INPUTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=100_000)] | None = None


class Trouble(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Problem(BaseModel):
    error: Trouble


def openai_router(catalogue: Catalogue) -> APIRouter:
    """The routes of what is served."""
    statuses: Sequence[int | str] = (400, 403, 404, 413, 422, 429, 503)
    v1 = APIRouter(prefix="/v1", responses={status: {"model": Problem} for status in statuses})
    since = int(time.time())

    @v1.get("/models", summary="What is served")
    async def models() -> dict[str, Any]:
        found = [
            {"id": name, "object": "model", "created": since, "owned_by": "transformer-family"}
            for name in catalogue.served
        ]
        return {"object": "list", "data": found}

    @v1.post("/chat/completions", summary="The next turn of a conversation")
    async def chat(body: ChatRequest) -> Any:
        body.check()
        served = catalogue.pick(body.model, "chat")
        most = body.max_completion_tokens or body.max_tokens
        return await complete(served, body, [[turn.plain() for turn in body.messages]], most, CHAT)

    @v1.post("/completions", summary="Continue texts")
    async def completions(body: CompletionRequest) -> Any:
        body.check()
        served = catalogue.pick(body.model, "generate")
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        return await complete(served, body, prompts, body.max_tokens, PLAIN)

    @v1.post("/embeddings", summary="Texts as vectors")
    async def embeddings(body: EmbeddingRequest) -> dict[str, Any]:
        body.check()
        served = catalogue.pick(body.model, "embed")
        texts = [body.input] if isinstance(body.input, str) else body.input
        rows, tokens = await asyncio.gather(
            served.ask(Call((texts,), method="embed")), served.run(lambda: count(served, texts))
        )
        if body.dimensions not in (None, len(rows[0])):
            raise RefusedError(
                400,
                f"the vectors have {len(rows[0])} dimensions: leave dimensions out.",
                "dimensions",
            )
        written: Callable[[list[float]], Any] = (
            in_base64 if body.encoding_format == "base64" else list
        )
        return {
            "object": "list",
            "model": served.name,
            "data": [
                {"object": "embedding", "index": i, "embedding": written(row)}
                for i, row in enumerate(rows)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    return v1


def count(served: Served, texts: Sequence[str]) -> int:
    """The tokens of texts; runs in the model's thread."""
    return sum(map(len, served.loaded.tokenizer.encode_batch(texts, special_tokens=True)))


def in_base64(row: list[float]) -> str:
    """Numbers of 32 bits, the least byte first."""
    return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()


# --- Texts that grow ---


class Kind:
    """How an answer is spelt: that of a conversation, or that of a text that goes on."""

    def __init__(self, prefix: str, whole: str, part: str) -> None:
        self.prefix, self.whole, self.part = prefix, whole, part

    def text(self, said: str) -> dict[str, Any]:
        if self.prefix == "cmpl":
            return {"text": said}
        return {"message": {"role": "assistant", "content": said, "refusal": None}}

    def piece(self, said: str | None) -> dict[str, Any]:
        """None is the end."""
        if self.prefix == "cmpl":
            return {"text": said or ""}
        return {"delta": {} if said is None else {"content": said}}


CHAT = Kind("chatcmpl", "chat.completion", "chat.completion.chunk")
PLAIN = Kind("cmpl", "text_completion", "text_completion")


async def complete(
    served: Served, body: Drawn, prompts: Sequence[Any], most: int | None, kind: Kind
) -> Any:
    """``n`` answers to each prompt, whole or as events.

    Raises:
        RefusedError: a prompt that cannot be answered.
    """
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    first = secrets.randbits(31) if body.seed is None else body.seed % 2**31
    limit = served.limits.new_tokens
    if most is not None and most > limit:
        raise RefusedError(
            400, f"max_tokens={most} is more than the {limit} that are made.", "max_tokens"
        )
    asks = [
        # The answers of one seed are further seeds, so that each can be had again.
        Ask(prompt, body.temperature, body.top_p, most, first + i, stop)
        for prompt in prompts
        for i in range(body.n or 1)
    ]
    texts = await begin_all(served, asks)
    head = {
        "id": f"{kind.prefix}-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": served.name,
    }
    if body.stream:
        wanted = body.stream_options is not None and body.stream_options.include_usage
        return Events(told(texts, {**head, "object": kind.part}, kind, wanted, body.n or 1), texts)
    try:
        said = [await text.whole() for text in texts]
    finally:
        for text in texts:
            text.close()
    choices = [
        {"index": i, **kind.text(whole), "logprobs": None, "finish_reason": text.reason}
        for i, (whole, text) in enumerate(zip(said, texts, strict=True))
    ]
    return {**head, "object": kind.whole, "choices": choices, "usage": used(texts, body.n or 1)}


def used(texts: Sequence[Growing], n: int) -> dict[str, int]:
    """Tokens of the prompts, each counted once, and of the answers."""
    prompts = sum(text.prompt_tokens for text in texts[::n])
    made = sum(text.tokens for text in texts)
    return {"prompt_tokens": prompts, "completion_tokens": made, "total_tokens": prompts + made}


async def told(
    texts: Sequence[Growing], head: dict[str, Any], kind: Kind, usage: bool, n: int
) -> AsyncIterator[str]:
    """Answers as events, those of all texts as they come."""
    found: asyncio.Queue[tuple[int, str | None] | RefusedError] = asyncio.Queue()

    async def read(i: int, text: Growing) -> None:
        try:
            async for piece in text.pieces():
                await found.put((i, piece))
            await found.put((i, None))
        except RefusedError as error:
            await found.put(error)

    def chunk(*choices: dict[str, Any], **more: Any) -> str:
        return event(
            {**head, "choices": list(choices), **({"usage": None} if usage else {}), **more}
        )

    readers = [asyncio.create_task(read(i, text)) for i, text in enumerate(texts)]
    try:
        if kind is CHAT:
            for i in range(len(texts)):
                delta = {"role": "assistant", "content": ""}
                yield chunk({"index": i, "delta": delta, "finish_reason": None})
        left = len(texts)
        while left:
            piece = await found.get()
            if isinstance(piece, RefusedError):
                yield event({"error": {"message": piece.said, "type": "server_error"}})
                return
            i, said = piece
            left -= said is None
            reason = texts[i].reason if said is None else None
            yield chunk({"index": i, **kind.piece(said), "finish_reason": reason})
        if usage:
            yield chunk(usage=used(texts, n))
        yield event("[DONE]")
    finally:
        for reader in readers:
            reader.cancel()
