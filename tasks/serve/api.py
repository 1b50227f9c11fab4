"""The JSON API of the page, under ``/api``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter

from tasks.serve import answers, calls, schemas
from tasks.serve.attention import attention_of, check_given, seen_in
from tasks.serve.events import Events, event
from tasks.serve.limits import RefusedError
from tasks.serve.served import WORDS, Catalogue
from tasks.serve.talking import Ask, Text, begin_all
from tasks.serve.worker import Call


def api_router(catalogue: Catalogue) -> APIRouter:
    """The routes of what is served."""
    api = APIRouter(prefix="/api", responses=answers.REFUSALS)
    describe(api, catalogue)
    of_texts(api, catalogue)
    that_grow(api, catalogue)
    of_pictures(api, catalogue)
    of_both(api, catalogue)
    of_series(api, catalogue)
    return api


def describe(api: APIRouter, catalogue: Catalogue) -> None:
    """What there is, and what is seen inside."""

    @api.get("/models", summary="What is served, and what each model can do")
    async def models() -> answers.ServedAnswer:
        return answers.ServedAnswer.model_validate(
            {"models": [one.described() for one in catalogue.served.values()]}
        )

    @api.post("/attention", summary="What a model attends to as it reads a text or translates it")
    async def attention(body: schemas.AttentionRequest) -> answers.AttentionAnswer:
        able = {action for one in catalogue.served.values() for action in one.actions}
        served = catalogue.pick(body.model, *sorted(able))
        if not served.attention:
            raise RefusedError(422, "this model has no attention that is shown here.", "model")
        given = (body.text, body.other, body.source, body.target)
        found = await served.run(lambda: attention_of(served.loaded, *given))
        return answers.AttentionAnswer(model=served.name, **found)

    @api.post("/seen", summary="What the answer about a picture, clip or series was read from")
    async def seen(body: schemas.SeenRequest) -> answers.SeenAnswer:
        able = {action for one in catalogue.served.values() for action in one.seen}
        served = catalogue.pick(body.model, *sorted(able if body.action is None else {body.action}))
        if not served.seen:
            raise RefusedError(422, "of this model nothing is shown over pictures.", "model")
        action = body.action or served.seen[0]
        if action not in served.seen:
            shown = " or ".join(served.seen)
            raise RefusedError(422, f"of this model it is shown for {shown} alone.", "action")
        given = {name: getattr(body, name) for name in ("text", "picture", "clip", "series")}
        task = WORDS.get(action, action) if served.unified else None
        check_given(served.loaded, task, given)
        inputs, weight = calls.given(**given, task=task), 0
        if body.picture is not None:
            [inputs["picture"]], weight = await catalogue.pictures(
                served, [body.picture], "picture"
            )
        if body.clip is not None:
            [inputs["clip"]], weight = await catalogue.clips(served, [body.clip], "clip")
        if action == "draw":
            inputs["seed"] = body.seed
        found = await served.run(lambda: seen_in(served.loaded, **inputs), weight)
        return answers.SeenAnswer(model=served.name, **found)


def of_texts(api: APIRouter, catalogue: Catalogue) -> None:
    """Texts to texts, gaps, spans, numbers."""

    @api.post(
        "/translate", summary="Sentences into another language, or texts into what was learnt"
    )
    async def translate(body: schemas.TranslateRequest) -> answers.TextAnswers:
        served = catalogue.pick(body.model, "translate")
        languages = calls.given(source=body.source, target=body.target)
        if languages and not served.languages:
            raise RefusedError(422, "the model translates one way: leave source and target out.")
        call = Call((body.texts,), options=calls.given(beams=body.beams) | languages)
        if served.unified:
            call = calls.unified("translate", texts=body.texts)
        return answers.TextAnswers(model=served.name, answers=await served.ask(call))

    @api.post("/fill", summary="The likeliest words for the gaps of texts")
    async def fill(body: schemas.FillRequest) -> answers.FillAnswers:
        served = catalogue.pick(body.model, "fill")
        rows = await served.ask(Call((body.texts,), options={"top": body.top}))
        return answers.FillAnswers(model=served.name, answers=rows)

    @api.post("/tag", summary="Names and other spans in texts")
    async def tag(body: schemas.TextsRequest) -> answers.TagAnswers:
        served = catalogue.pick(body.model, "tag")
        rows = await served.ask(Call((body.texts,)))
        return answers.TagAnswers(model=served.name, answers=rows)

    @api.post("/answer", summary="The spans of texts that answer questions")
    async def answer(body: schemas.AnswerRequest) -> answers.SpanAnswers:
        served = catalogue.pick(body.model, "answer")
        calls.as_many(body.questions, body.contexts, "questions", "contexts")
        call = Call((body.questions, body.contexts), ("", "contexts"))
        return answers.SpanAnswers(model=served.name, answers=await served.ask(call))

    @api.post("/reward", summary="How good answers are")
    async def reward(body: schemas.RewardRequest) -> answers.NumberAnswers:
        served = catalogue.pick(body.model, "reward")
        calls.as_many(body.prompts, body.answers, "prompts", "answers")
        call = Call((body.prompts, body.answers), ("", "answers"))
        return answers.NumberAnswers(model=served.name, answers=await served.ask(call))

    @api.post("/draw", summary="Pictures from sentences")
    async def draw(body: schemas.DrawRequest) -> answers.PictureAnswers:
        served = catalogue.pick(body.model, "draw")
        if served.unified:
            call = calls.unified(
                "draw", texts=[text for text in body.texts for _ in range(body.num)]
            )
            call.options["seed"] = body.seed
        else:
            call = Call((body.texts,), options={"num": body.num, "seed": body.seed}, alone=True)
        rows = await served.ask(call)
        if served.unified:
            rows = [rows[i : i + body.num] for i in range(0, len(rows), body.num)]
        return answers.PictureAnswers(model=served.name, answers=calls.drawn(rows))


def that_grow(api: APIRouter, catalogue: Catalogue) -> None:
    """Texts, piece by piece."""
    streamed: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "the whole text, or with stream=true events: {text}, and at last {done, "
            "finish_reason, usage}",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    }

    @api.post(
        "/generate",
        summary="Continue a text",
        response_model=answers.GeneratedAnswer,
        responses=streamed,
    )
    async def generate(body: schemas.GenerateRequest) -> Any:
        return await grow(body, body.prompt, "generate")

    @api.post(
        "/chat",
        summary="The next turn of a conversation",
        response_model=answers.GeneratedAnswer,
        responses=streamed,
    )
    async def chat(body: schemas.ChatRequest) -> Any:
        return await grow(body, [message.model_dump() for message in body.messages], "chat")

    async def grow(body: schemas.Drawing, prompt: Any, action: str) -> Any:
        served = catalogue.pick(body.model, action)
        most = body.max_new_tokens
        if most is not None and most > served.limits.new_tokens:
            raise RefusedError(
                422,
                f"max_new_tokens={most} is more than the {served.limits.new_tokens} that this server makes.",
                "max_new_tokens",
            )
        ask = Ask(prompt, body.temperature, body.top_p, most, body.seed, body.stop)
        [text] = await begin_all(served, [ask])
        if body.stream:
            return Events(told(text), [text])
        try:
            whole = await text.whole()
        finally:
            text.close()
        return {"model": served.name, "text": whole, **ended(text)}


def ended(text: Text) -> dict[str, Any]:
    """How a text ended, and how long it is."""
    usage = {"prompt_tokens": text.prompt_tokens, "completion_tokens": text.tokens}
    return {"finish_reason": text.reason, "usage": usage}


async def told(text: Text) -> AsyncIterator[str]:
    """A text as events; an error that comes in its midst is one too."""
    try:
        async for piece in text.pieces():
            yield event({"text": piece})
        yield event({"done": True, **ended(text)})
    except RefusedError as error:
        yield event({"error": error.said})


def of_pictures(api: APIRouter, catalogue: Catalogue) -> None:
    """Pictures to words, boxes, masks, pictures."""

    async def seen(body: Any, action: str, **options: Any) -> tuple[Any, list[Any]]:
        served = catalogue.pick(body.model, action)
        pictures, weight = await catalogue.pictures(served, body.pictures, "pictures")
        call = Call((pictures,), options=options, weight=weight)
        if served.unified:
            call = calls.unified(action, pictures=pictures, weight=weight)
        return served, await served.ask(call)

    @api.post("/detect", summary="Objects in pictures")
    async def detect(body: schemas.DetectRequest) -> answers.DetectAnswers:
        served, rows = await seen(body, "detect", **calls.given(threshold=body.threshold))
        return answers.DetectAnswers(model=served.name, answers=rows)

    @api.post("/segment", summary="The class of each pixel, and each object by itself")
    async def segment(body: schemas.SegmentRequest) -> answers.SegmentAnswers:
        if body.threshold is not None and not body.instances:
            raise RefusedError(
                422, "threshold is the least score of an object: ask for instances.", "threshold"
            )
        served, rows = await seen(body, "segment")
        found = calls.segmented(served, rows)
        if body.instances:
            least = calls.given(threshold=body.threshold)
            _, objects = await seen(body, "segment", instances=True, **least)
            for one, some in zip(found, objects, strict=True):
                one["objects"] = calls.instances(some)
        return answers.SegmentAnswers.model_validate({"model": served.name, "answers": found})

    @api.post("/caption", summary="A sentence about each picture")
    async def caption(body: schemas.PicturesRequest) -> answers.TextAnswers:
        served, rows = await seen(body, "caption")
        return answers.TextAnswers(model=served.name, answers=rows)

    @api.post("/reconstruct", summary="Pictures from the tokens of pictures")
    async def reconstruct(body: schemas.PicturesRequest) -> answers.PictureAnswers:
        served, rows = await seen(body, "reconstruct")
        found = calls.drawn([row["picture"] for row in rows])
        return answers.PictureAnswers(model=served.name, answers=found)

    @api.post("/ask", summary="Questions about pictures")
    async def ask(body: schemas.AskRequest) -> answers.AskAnswers:
        served = catalogue.pick(body.model, "ask")
        calls.as_many(body.pictures, body.questions, "pictures", "questions")
        pictures, weight = await catalogue.pictures(served, body.pictures, "pictures")
        call = Call((pictures, body.questions), ("", "questions"), weight=weight)
        if served.unified:
            call = calls.unified("ask", texts=body.questions, pictures=pictures, weight=weight)
        found = calls.asked(await served.ask(call))
        return answers.AskAnswers.model_validate({"model": served.name, "answers": found})


def of_both(api: APIRouter, catalogue: Catalogue) -> None:
    """What is asked of texts or of pictures, by the model."""

    @api.post("/classify", summary="Classes or numbers of texts, pairs of texts, pictures or clips")
    async def classify(body: schemas.ClassifyRequest) -> answers.ChanceAnswers:
        served = catalogue.pick(body.model, "classify")
        kind = calls.one_of(served, body, "texts", "pictures", "clips")
        rows = await served.ask(await calls_of[kind](served, body))
        found = calls.classified(served, rows)
        return answers.ChanceAnswers.model_validate({"model": served.name, "answers": found})

    async def texts(served: Any, body: schemas.ClassifyRequest) -> Call:
        assert body.texts is not None
        if body.pairs is None and served.reads == ["pairs"]:
            raise RefusedError(
                422, "the model reads pairs of texts: give the second of each as pairs."
            )
        if body.pairs is None:
            return Call((body.texts,))
        if "pairs" not in served.reads:
            raise RefusedError(422, "the model reads single texts: leave pairs out.", "pairs")
        calls.as_many(body.texts, body.pairs, "texts", "pairs")
        return Call((body.texts, body.pairs), ("", "pairs"))

    async def pictures(served: Any, body: schemas.ClassifyRequest) -> Call:
        read, weight = await catalogue.pictures(served, body.pictures or [], "pictures")
        if served.unified:
            return calls.unified("classify", pictures=read, weight=weight)
        return Call((read,), weight=weight)

    async def clips(served: Any, body: schemas.ClassifyRequest) -> Call:
        read, weight = await catalogue.clips(served, body.clips or [], "clips")
        return Call((read,), weight=weight)

    calls_of: dict[str, Callable[..., Any]] = {"texts": texts, "pictures": pictures, "clips": clips}

    async def vectors(served: Any, kind: str, given: Any) -> list[Any]:
        if kind == "texts":
            return await served.ask(Call((given,), method="embed"))
        read, weight = await catalogue.pictures(served, given, "pictures")
        return await served.ask(Call((read,), ("pictures",), method="embed", weight=weight))

    @api.post("/embed", summary="Texts or pictures as vectors")
    async def embed(body: schemas.EmbedRequest) -> answers.EmbedAnswers:
        served = catalogue.pick(body.model, "embed")
        kind = calls.one_of(served, body, "texts", "pictures")
        rows = await vectors(served, kind, getattr(body, kind))
        return answers.EmbedAnswers(model=served.name, answers=rows)

    @api.post("/search", summary="Texts or pictures, by how near they are to a sentence")
    async def search(body: schemas.SearchRequest) -> answers.SearchAnswers:
        served = catalogue.pick(body.model, "search")
        kind = calls.one_of(served, body, "texts", "pictures")
        rows = await vectors(served, kind, getattr(body, kind))
        query = await vectors(served, "texts", [body.query])
        found = calls.ranked(query, rows)
        return answers.SearchAnswers.model_validate({"model": served.name, "answers": found})


def of_series(api: APIRouter, catalogue: Catalogue) -> None:
    """Numeric series."""

    @api.post("/series", summary="Classes or numbers of numeric series, or the steps that follow")
    async def series(body: schemas.SeriesRequest) -> answers.SeriesAnswers:
        served = catalogue.pick(body.model, "series")
        rows = await served.ask(Call((body.series,)))
        found = calls.of_series(served, rows)
        return answers.SeriesAnswers.model_validate({"model": served.name, "answers": found})
