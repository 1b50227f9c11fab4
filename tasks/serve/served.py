"""The models that are served: what each can do, and what of it may be joined with what others ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from family.inference.loaded import Loaded
from family.inputs.pictures import WHITE
from family.look.maps import has_attention
from tasks.errors import UserError, some_of
from tasks.serve.limits import Limits, RefusedError
from tasks.serve.pictures import pictures_of
from tasks.serve.together import Together
from tasks.serve.worker import Call, Worker

ACTIONS: dict[str, tuple[str, ...]] = {
    "ImageClassification": ("classify",),
    "VideoClassification": ("classify",),
    "TextClassification": ("classify",),
    "ImageRegression": ("classify",),
    "TextRegression": ("classify",),
    "Tagging": ("tag",),
    "QuestionAnswering": ("answer",),
    "LanguageModeling": ("chat", "generate"),
    "MaskedLanguageModeling": ("fill",),
    "Translation": ("translate",),
    "TextToText": ("translate",),
    "Detection": ("detect",),
    "Segmentation": ("segment",),
    "VisualQuestions": ("ask",),
    "VisionChat": ("ask",),
    "Captioning": ("caption",),
    "ImageTokenizing": ("reconstruct",),
    "Unified": ("caption", "ask", "draw", "translate", "detect", "classify"),
    "ImageText": ("search", "embed"),
    "SentenceEmbedding": ("search", "embed"),
    "RewardModeling": ("reward",),
    "TextToImage": ("draw",),
    "Series": ("series",),
}
"""By the task that a model is for, what can be asked of it; the first is shown first."""
READS: dict[str, tuple[str, ...]] = {
    "ImageClassification": ("pictures",),
    "ImageRegression": ("pictures",),
    "VideoClassification": ("clips",),
    "Unified": ("pictures",),
    "ImageText": ("texts", "pictures"),
    "SentenceEmbedding": ("texts",),
}
"""What those actions take that take one thing or another."""
SHOWN = (
    "Translation",
    "TextToText",
    "TextClassification",
    "TextRegression",
    "Tagging",
    "MaskedLanguageModeling",
    "LanguageModeling",
    "SentenceEmbedding",
    "Unified",
)
"""Tasks whose attention is shown beside the answer."""
SEEN: dict[str, tuple[str, ...]] = {
    "ImageClassification": ("classify",),
    "ImageRegression": ("classify",),
    "Detection": ("detect",),
    "Segmentation": ("segment",),
    "Captioning": ("caption",),
    "VisualQuestions": ("ask",),
    "VisionChat": ("ask",),
    "Unified": ("ask", "caption", "classify", "detect", "draw"),
    "VideoClassification": ("classify",),
    "ImageText": ("search",),
    "TextToImage": ("draw",),
    "Series": ("series",),
}
"""By task, the actions beside whose answers stands what they read of the picture, clip or series, or by which parts of a
drawing each word was read."""
WORDS = {"ask": "answer"}
"""What a model of all tasks calls an action, where that is not its name."""


class Served:
    """One model.

    Args:
        name: what requests call it.
    """

    def __init__(self, name: str, loaded: Loaded, limits: Limits) -> None:
        self.name, self.loaded, self.limits = name, loaded, limits
        self.model: Any = loaded.model
        self.actions = actions_of(loaded)
        self.reads = reads_of(loaded)
        attends = has_attention(self.model)
        self.attention = attends and loaded.task in SHOWN
        self.seen = seen_of(loaded, self.actions) if attends else ()
        tokens = getattr(self.model, "language_tokens", None)
        self.languages = sorted(tokens.ids) if tokens is not None else []
        self.worker, self.together = Worker(loaded, limits), Together(self.model)

    @property
    def unified(self) -> bool:
        return self.loaded.task == "Unified"

    def described(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "name": self.name,
            "task": self.loaded.task,
            "member": type(self.model).__name__,
            "actions": self.actions,
            "reads": self.reads,
            "attention": self.attention,
            "seen": list(self.seen),
            "instances": hasattr(self.model, "instances"),
            "languages": self.languages,
            "channels": list(self.loaded.preprocess.channels)
            if self.loaded.task == "Series"
            else [],
            "labels": [str(label) for label in (self.loaded.labels or [])[:1000]],
        }

    async def ask(self, call: Call) -> list[Any]:
        """The answers of a call, which may run with those of others."""
        return await asyncio.wrap_future(self.worker.ask(call))

    async def run(self, function: Callable[[], Any], weight: int = 0) -> Any:
        """What a function gives, called in the model's thread; see :class:`~tasks.serve.worker.Call` for its
        weight."""
        return await asyncio.wrap_future(self.worker.run(function, weight))


def actions_of(loaded: Loaded) -> list[str]:
    """What can be asked of a model.

    Raises:
        UserError: nothing.
    """
    model: Any = loaded.model
    found = list(ACTIONS.get(loaded.task, ()))
    if loaded.task == "Unified":
        known = model.tokenizer.token_to_id
        found = [action for action in found if known(f"<{WORDS.get(action, action)}>") is not None]
    if loaded.task == "LanguageModeling":
        if not hasattr(model, "stream"):
            found = []
        elif model.tokenizer is None or model.tokenizer.chat_template is None:
            found.remove("chat")
    if not found:
        raise UserError(
            f"{loaded.origin} is for {loaded.task or 'no task that is known'}, of which nothing can be "
            f"served: give models for {some_of(ACTIONS, 30)}."
        )
    return found


def seen_of(loaded: Loaded, actions: Sequence[str]) -> tuple[str, ...]:
    """The actions of a model that attends beside whose answers stands what was read."""
    if loaded.task == "ImageText" and not has_attention(loaded.model.image):
        return ()  # a convolutional tower
    return tuple(action for action in SEEN.get(loaded.task, ()) if action in actions)


def reads_of(loaded: Loaded) -> list[str]:
    """What a model takes, of an action that may take several things."""
    if loaded.task in ("TextClassification", "TextRegression"):
        pairs = loaded.assets.get("pairs")
        return ["texts", "pairs"] if pairs is None else ["pairs"] if pairs else ["texts"]
    return list(READS.get(loaded.task, ()))


class Catalogue:
    """All that are served, by name.

    Args:
        models: name -> a model that is ready.
    """

    def __init__(self, models: dict[str, Loaded], limits: Limits) -> None:
        self.limits = limits
        self.served = {name: Served(name, loaded, limits) for name, loaded in models.items()}
        self.decoding = asyncio.Semaphore(2)

    def pick(self, name: str | None, *actions: str) -> Served:
        """The model of this name, or the first that can do one of these.

        Raises:
            RefusedError: there is none.
        """
        able = [one for one in self.served.values() if set(actions) & set(one.actions)]
        wanted = " or ".join(actions)
        known = some_of(one.name for one in able)
        if name is None:
            if not able:
                raise RefusedError(404, f"no model that is served here can {wanted}.", "model")
            return able[0]
        if name not in self.served:
            hint = f" Those that can {wanted}: {known}." if able else ""
            raise RefusedError(404, f"no model of that name is served here.{hint}", "model")
        if self.served[name] not in able:
            hint = f", but these can: {known}" if able else ""
            task = self.served[name].loaded.task
            raise RefusedError(404, f"the model is for {task} and cannot {wanted}{hint}.", "model")
        return self.served[name]

    async def pictures(self, served: Served, given: Sequence[str], field: str) -> tuple[Any, int]:
        """Pictures for a model, and the pixels that they hold; two requests at a time are decoded."""
        background = getattr(served.loaded.preprocess, "background", WHITE)
        async with self.decoding:
            return await asyncio.to_thread(pictures_of, given, self.limits, field, background)

    async def clips(self, served: Served, given: Sequence[Sequence[str]], field: str) -> Any:
        """The same of clips, each a list of frames."""
        read, weight = await self.pictures(
            served, [frame for clip in given for frame in clip], field
        )
        left = iter(read)
        return [[next(left) for _ in clip] for clip in given], weight

    def close(self) -> None:
        for one in self.served.values():
            one.worker.close()


def named(sources: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """What each source is called: the folder of its run, or its own name, with a number behind it where
    another is called so."""
    found: list[str] = []
    for source in sources:
        path = Path(source)
        name = source
        if path.exists():
            path = path.resolve()
            if path.suffix == ".ckpt":
                path = path.parent.parent if path.parent.name == "checkpoints" else path.parent
            name = path.name or source
        again, number = name, 1
        while again in (*found, *taken):
            number += 1
            again = f"{name}-{number}"
        found.append(again)
    return found
