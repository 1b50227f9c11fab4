"""What answers hold; the OpenAPI description is made of these and of :mod:`tasks.serve.schemas`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Answer(BaseModel):
    model: str


class TextAnswers(Answer):
    answers: list[str]


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class GeneratedAnswer(Answer):
    text: str
    finish_reason: str
    usage: Usage


class Chance(BaseModel):
    label: str
    score: float | None
    probabilities: dict[str, float | None]


class ChanceAnswers(Answer):
    answers: list[Chance | float | None] = Field(description="of a regression the numbers")


class NumberAnswers(Answer):
    answers: list[float | None]


class Span(BaseModel):
    word: str
    label: str
    score: float | None
    start: int
    end: int


class TagAnswers(Answer):
    answers: list[list[Span]]


class Token(BaseModel):
    token: str
    id: int
    score: float | None


class FillAnswers(Answer):
    answers: list[list[list[Token]]] = Field(description="by text, gap and rank")


class SpanAnswer(BaseModel):
    answer: str
    score: float | None
    start: int | None
    end: int | None
    no_answer: float | None


class SpanAnswers(Answer):
    answers: list[SpanAnswer]


class Found(BaseModel):
    label: str
    category_id: int | None = None
    score: float | None
    box: list[float | None] = Field(description="left, top, right, bottom in pixels")


class DetectAnswers(Answer):
    answers: list[list[Found]]


class Seen(BaseModel):
    label: str
    category_id: int
    color: str
    share: float = Field(description="of the pixels")


class Instance(Found):
    mask: str = Field(description="a PNG, 255 where the object is")


class Segments(BaseModel):
    mask: str = Field(description="a PNG whose values are the ids of the classes in the data")
    overlay: str = Field(description="a PNG of the classes' colours")
    classes: list[Seen]
    objects: list[Instance] | None = Field(None, description="if asked for, the best first")


class SegmentAnswers(Answer):
    answers: list[Segments]


class Ranked(BaseModel):
    index: int
    similarity: float | None


class SearchAnswers(Answer):
    answers: list[Ranked] = Field(description="the nearest first")


class EmbedAnswers(Answer):
    answers: list[list[float | None]]


class PictureAnswers(Answer):
    answers: list[list[str]] = Field(description="PNGs as data URLs, those of each input")


class AskAnswer(BaseModel):
    answer: str
    score: float | None = None


class AskAnswers(Answer):
    answers: list[AskAnswer]


class SeriesAnswer(BaseModel):
    label: str | None = None
    score: float | None = None
    probabilities: dict[str, float | None] | None = None
    numbers: dict[str, float | list[float | None] | None] | None = Field(
        None, description="by target; of a forecast those that follow, in turn"
    )


class SeriesAnswers(Answer):
    answers: list[SeriesAnswer]


class AttentionAnswer(Answer):
    """Row i of ``weights`` is how much token i of ``rows`` attends to each of ``columns``: the mean over
    the heads of the last layer."""

    rows: list[str]
    columns: list[str]
    weights: list[list[float | None]]


class SeenAnswer(Answer):
    """Row i of ``weights`` is what class, box, segment or word i was read from, cell by cell of the picture: of a
    class what speaks for it, of others the mean over the heads of the last layer. A clip is a sheet of its frames, a
    series a picture of its curves; of a drawing row i is how much each cell read word i."""

    rows: list[str]
    picture: str = Field(description="as the model sees it, a PNG as a data URL")
    grid: list[int] = Field(description="rows and columns of cells")
    covers: list[float] = Field(description="parts of height and width that the cells lie over")
    weights: list[list[float | None]]


class Served(BaseModel):
    name: str
    task: str
    member: str = Field(description="the class of the model")
    actions: list[str]
    reads: list[str] = Field(description="what classify, search and embed take: texts, pairs ...")
    attention: bool
    seen: list[str] = Field(
        description="actions of which /api/seen tells what the answer was read from"
    )
    channels: list[str] = Field(description="of numeric series")
    instances: bool = Field(description="whether segment can tell objects apart")
    languages: list[str]
    labels: list[str]


class ServedAnswer(BaseModel):
    models: list[Served]


class Problem(BaseModel):
    error: str = Field(description="one sentence")


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": says}
    for status, says in {
        400: "the body cannot be read",
        403: "asked for by the page of another site",
        404: "no such model, or none that can do this",
        413: "too large",
        422: "a field that is not right",
        429: "too many requests wait",
        503: "the server is being stopped, or is out of memory",
    }.items()
}
