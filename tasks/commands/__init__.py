"""One small module a command, each with ``run(arguments)``; imported when it is called."""

from typing import NamedTuple


class Command(NamedTuple):
    """A module of this package, and what ``family --help`` says of it."""

    module: str
    says: str


TRAINING = {
    "fit": "train by a config",
    "resume": "go on with a run: family resume RUN --trainer.max_steps N",
    "validate": "the metrics of a run, or of --ckpt_path, on the validation split",
    "test": "the same on the test split: family test RUN",
    "predict": "what a run makes of each example of the test split",
}
"""LightningCLI's own."""
COMMANDS = {
    "list": Command("listing", "the configs that come with the project"),
    "summary": Command("summary", "parts, shapes, parameters and a diagram of models"),
    "check": Command("check", "data and model of a config, before hours are spent"),
    "new": Command("new", "a config fitted to a folder of data, to begin with"),
    "runs": Command("runs", "what was trained: state, steps, best metric; show RUN: its curves"),
    "translate": Command("translate", "sentences into another language"),
    "generate": Command("generate", "continue a text"),
    "chat": Command("chat", "talk with a language model that was trained to answer"),
    "classify": Command("classify", "the likeliest classes of pictures, clips or texts"),
    "tag": Command("tag", "names and other spans in texts"),
    "answer": Command("answer", "the span of a text that answers a question"),
    "fill": Command("fill", "the likeliest words for the gaps of a text"),
    "caption": Command("caption", "a sentence about each picture"),
    "ask": Command("ask", "questions about pictures"),
    "detect": Command("detect", "boxes in pictures, drawn and as JSON"),
    "segment": Command("segment", "the class of each pixel, as masks and overlays"),
    "draw": Command("draw", "pictures from sentences"),
    "search": Command("search", "rank pictures by a sentence"),
    "embed": Command("embed", "texts as vectors"),
    "look": Command("look", "where a model attends, as a page"),
    "serve": Command("serve", "a local page and an API to use models with, OpenAI's too"),
    "evaluate": Command("evaluate", "a language model on questions, or on the harness's tasks"),
    "export": Command("export", "a model in files that other programs read"),
    "plan": Command("plan", "memory, sending and time of a config on many devices"),
    "hand_on": Command("hand_on", "a run as a folder for others, with a model card"),
    "push": Command("push", "that folder to the Hugging Face hub"),
    "compare": Command("compare", "variants of a task on equal budgets, with a report"),
    "profile": Command("profile", "time and memory of training and decoding by length"),
    "transplant": Command("transplant", "what a model would take from another"),
}
