"""What requests hold; the OpenAPI description is made of these and of :mod:`tasks.serve.answers`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from tasks.serve.limits import CHANNELS, FRAMES, INPUTS, STEPS, TEXT


def said(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: write something.")
    return text


def not_below(least: float, otherwise: float) -> AfterValidator:
    """What is smaller than numbers of 32 bits can divide by is meant as the limit that it is near to."""
    return AfterValidator(lambda value: value if value >= least else otherwise)


Text = Annotated[str, Field(min_length=1, max_length=TEXT), AfterValidator(said)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=INPUTS)]
Picture = Annotated[str, Field(min_length=1, description="data:image/png;base64,... or base64")]
Pictures = Annotated[list[Picture], Field(min_length=1, max_length=INPUTS)]
Clips = Annotated[
    list[Annotated[list[Picture], Field(min_length=1, max_length=FRAMES)]],
    Field(min_length=1, max_length=INPUTS),
]
Number = Annotated[float, Field(allow_inf_nan=False)] | None
Row = Annotated[list[Number], Field(min_length=1, max_length=CHANNELS)]
Numbers = Annotated[list[Number], Field(min_length=1, max_length=STEPS)]


def kind_of(series: Any) -> str:
    """How a series is written, so that what is wrong is said of that way alone."""
    if isinstance(series, dict):
        return "channels"
    first = series[0] if isinstance(series, list) and series else None
    return "rows" if isinstance(first, list) else "numbers"


Steps = Annotated[
    Annotated[list[Row], Field(min_length=1, max_length=STEPS), Tag("rows")]
    | Annotated[Numbers, Tag("numbers")]
    | Annotated[dict[str, Numbers], Field(min_length=1, max_length=CHANNELS), Tag("channels")],
    Discriminator(kind_of),
]
"""A series: a row of numbers a step, or a number a step, or of each channel its steps; null is a missing value."""
Score = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=8)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Temperature = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False), not_below(1e-4, 0.0)]
Part = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), not_below(1e-6, 1e-6)]
Stop = Annotated[str, Field(min_length=1, max_length=100)]


class Request(BaseModel):
    """What all have: which of the served models is meant."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = Field(
        None,
        max_length=300,
        description="by its name; the first that can do this, where none is given",
    )


class TranslateRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["un cercle rouge"]}]})
    texts: Texts
    beams: Count | None = Field(None, description="of the search; as the model says, or 4")
    source: str | None = Field(None, max_length=40, description="of a model of several languages")
    target: str | None = Field(None, max_length=40, description="of a model of several languages")


class Drawing(Request):
    """How text is drawn, token by token."""

    temperature: Temperature | None = Field(None, description="0 is greedy; else as the model says")
    top_p: Part | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    seed: Seed = 0
    stop: list[Stop] = Field([], max_length=4, description="strings before which a text ends")
    stream: bool = Field(False, description="server-sent events, a piece of the text each")


class GenerateRequest(Drawing):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "there is", "max_new_tokens": 20}]}
    )
    prompt: Text


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Annotated[str, Field(min_length=1, max_length=20)]
    content: Annotated[str, Field(max_length=TEXT)]


class ChatRequest(Drawing):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "hello"}]}]}
    )
    messages: Annotated[list[Message], Field(min_length=1, max_length=200)]


class FillRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["a red [MASK]"]}]})
    texts: Texts
    top: Annotated[int, Field(ge=1, le=50)] = 5


class ClassifyRequest(Request):
    """Texts, maybe with a second one each; or pictures; or clips."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["a moving film"]}]})
    texts: Texts | None = None
    pairs: Texts | None = Field(None, description="the second text of each")
    pictures: Pictures | None = None
    clips: Clips | None = Field(None, description="each a list of frames")


class TextsRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["Ann lives in Paris"]}]})
    texts: Texts


class AnswerRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"questions": ["Where?"], "contexts": ["In Paris."]}]}
    )
    questions: Texts
    contexts: Texts = Field(description="the text that each question is asked of")


class PicturesRequest(Request):
    pictures: Pictures


class DetectRequest(PicturesRequest):
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="the least score; as the model says, or 0.3"
    )


class SegmentRequest(PicturesRequest):
    instances: bool = Field(
        False, description="every object by itself too, of a model that finds them"
    )
    threshold: Annotated[float, Field(ge=0.05, le=1, allow_inf_nan=False)] | None = Field(
        None, description="the least score of an object; 0.5"
    )


class SearchRequest(Request):
    """What to look for, and where: texts or pictures."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "somebody eats", "texts": ["she has lunch"]}]}
    )
    query: Text
    texts: Texts | None = None
    pictures: Pictures | None = None


class EmbedRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["a sentence"]}]})
    texts: Texts | None = None
    pictures: Pictures | None = None


class DrawRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["a red circle"]}]})
    texts: Annotated[list[Text], Field(min_length=1, max_length=4)]
    num: Count = Field(1, description="pictures of each text")
    seed: Seed = 0


class AskRequest(Request):
    pictures: Pictures
    questions: Texts = Field(description="one a picture")


class RewardRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompts": ["hello"], "answers": ["good day"]}]}
    )
    prompts: Texts
    answers: Texts


class AttentionRequest(Request):
    """A text, and what belongs to it: its translation, or the second of a pair."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "un cercle rouge"}]})
    text: Text
    other: Text | None = Field(None, description="the translation, answer, or second text")
    source: str | None = Field(None, max_length=40, description="of a model of several languages")
    target: str | None = Field(None, max_length=40, description="of a model of several languages")


class SeriesRequest(Request):
    """Numeric series with the channels of the training, in the data's own unit."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"series": [[[1.2, 10], [1.3, 11]], {"speed": [4, 4.1], "height": [9, 8]}]}
            ]
        }
    )
    series: Annotated[list[Steps], Field(min_length=1, max_length=INPUTS)]


class SeenRequest(Request):
    """What an answer was read from: a picture, clip or series, a text, and which answer is meant."""

    picture: Picture | None = None
    clip: Annotated[list[Picture], Field(min_length=1, max_length=FRAMES)] | None = Field(
        None, description="frames, in turn"
    )
    series: Steps | None = None
    text: Text | None = None
    action: str | None = Field(
        None, max_length=40, description="of a model that can do several things"
    )
    seed: Seed = Field(0, description="of what is drawn")
