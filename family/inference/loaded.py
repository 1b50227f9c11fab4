"""A model that is ready for use: of a run, a published source, or in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from family.adapt.lora import adapted, merge_lora
from family.inference.batches import Picture, most_tokens
from family.inference.embeddings import embed_captions, embed_pictures, embed_sentences
from family.inference.predictors import INPUTS, OF_LISTS, OPTIONS, PREDICTORS, READERS
from family.models.member import Facts, facts_of, overflows_float16, tasks_of
from family.pretrained import runs
from family.pretrained.sources import check_arguments, from_pretrained


@dataclass
class Loaded:
    """A model in eval mode, and what inference needs beside it.

    Args:
        model: has ``tokenizer``, ``preprocess`` and ``labels`` with it, where there are any.
        task: the name of the task that it was trained for.
        assets: plain values, as a checkpoint carries them.
        origin: what to call it in an error.
    """

    model: Any
    task: str
    assets: dict[str, Any]
    origin: str

    @property
    def tokenizer(self) -> Any:
        """Of what the model reads; of a translation its ``target`` is that of what it writes."""
        return getattr(self.model, "tokenizer", None)

    @property
    def preprocess(self) -> Any:
        """What makes ``pixel_values`` of a picture."""
        return getattr(self.model, "preprocess", None)

    @property
    def labels(self) -> list[str] | None:
        """The names of the classes, in the order of their ids."""
        return self.assets.get("labels")

    def predict(self, *inputs: Any, **options: Any) -> Any:
        """What the model makes of a batch of inputs, by its task.

        Pictures are PIL's or paths; all but prompts, and the pictures and sentences of ``ImageText``,
        have the option ``batch_size``.

        - ``ImageClassification``: pictures, and ``TextClassification``: texts -> of each ``label``,
          ``score`` and ``probabilities`` by label, which are each by themselves where the model's
          ``problem_type`` is of several labels; of pairs of texts the second ones are the option ``pairs``;
        - ``VideoClassification``: clips, each a folder of frames, a video file or a list of frames -> as with
          pictures;
        - ``ImageRegression``: pictures, and ``TextRegression``: texts, with ``pairs`` as above -> a number of
          each, or its sigmoid, by the ``problem_type``;
        - ``Series``: arrays ``(steps, channels)``, or lists of steps by channel, in the data's own unit -> as with
          pictures, or, of numbers and forecasts, of each a number, or the list of those that follow, by target;
        - ``Tagging``: texts -> of each a list of spans: ``word``, ``label``, ``score``, ``start`` and
          ``end`` in characters;
        - ``QuestionAnswering``: questions, and as many ``contexts``, the texts that they are asked of -> of
          each ``answer``, ``score``, ``start`` and ``end`` in characters of the text, and ``no_answer``;
          options ``threshold``, of ``no_answer``, above which there is none (without it, as the run has
          it; else each is answered), ``longest``, tokens of an answer, and ``stride``;
        - ``LanguageModeling``: prompts -> the texts that follow them; options ``max_new_tokens``,
          ``sampling`` (a :class:`family.Sampling`; greedy without), ``seed``, ``num`` (a list of so many
          texts of each), ``beams``, ``stop`` (strings before which a text ends), ``min_new_tokens``,
          ``no_repeat_ngram``;
        - ``MaskedLanguageModeling``: texts with the tokenizer's mask token, or ``[MASK]`` -> of each,
          for each of its gaps in turn, the likeliest tokens: ``token``, ``id``, ``score``; option
          ``top``, how many;
        - ``Translation``: sentences -> sentences; options ``beams``: else the model's own, or 4;
          ``target`` and ``source``, of a model of several languages: their codes, or ``en``;
        - ``TextToText``: texts, with the prefix of their task -> texts; option ``beams``: else the model's
          own, or 1;
        - ``Captioning``: pictures -> a sentence about each; option ``beams``: else the model's own, or 1;
        - ``VisualQuestions``: pictures, and as many questions -> of each ``answer`` and ``score``;
        - ``VisionChat``: pictures, and as many questions (without, a description is asked for) -> texts;
          options ``beams``: else the model's own, or 1, and ``max_new_tokens``;
        - ``Detection``: pictures -> of each a list of objects, best first: ``label``,
          ``category_id``, ``score``, ``box`` (left, top, right, bottom in pixels); option
          ``threshold``, the least score: else what validation found best, or 0.3;
        - ``Segmentation``: pictures -> the class of each pixel, a tensor ``(height, width)`` each; with the
          option ``instances``, of a model that finds them, of each a list, best first: ``label``,
          ``category_id``, ``score``, ``mask``, a bool tensor; option ``threshold``, the least score: else 0.5;
        - ``ImageTokenizing``: pictures -> of each its ``ids`` and the ``picture`` made of these;
        - ``Unified``: ``texts``, ``pictures`` or both, and ``task``, the word for what is to be done;
        - ``ImageText``: pictures and sentences -> cosines ``(pictures, sentences)``, see
          :meth:`embed` too;
        - ``SentenceEmbedding``: texts -> ``(texts, dim)``;
        - ``RewardModeling``: prompts, texts or conversations (lists of messages), and as many ``answers``
          -> of each a number, how good it is;
        - ``TextToImage``: sentences -> of each a picture of PIL's; options ``num`` (a list of so many of
          each), ``guidance``, ``seed``, and those of the model's ``draw``.

        Raises:
            ValueError: another task; an input that cannot be read, or is too long; a model without
                what its task needs.
        """
        if self.task not in PREDICTORS:
            raise ValueError(
                f"{self.origin} is for {self.task or 'no task that is known'}: predict knows "
                f"{', '.join(PREDICTORS)}, and load takes one of them as task=."
            )
        function, needs = PREDICTORS[self.task]
        self.check(needs)
        for given in (*inputs, *(options[name] for name in INPUTS if name in options)):
            check_list(given, "predict", kinds=OF_LISTS.get(self.task, ()))
        if self.task in ("TextClassification", "TextRegression"):
            self.check_pairs("pairs" in options)
        known = {
            name: self.assets[name] for name in OPTIONS.get(self.task, ()) if name in self.assets
        }
        options = {**known, **options}
        return function(self.model, *inputs, **options)

    def embed(
        self,
        texts: Sequence[str] | None = None,
        pictures: Sequence[Picture] | None = None,
        **options: Any,
    ) -> Tensor:
        """Texts or pictures as vectors, ``(inputs, dim)``; those of ``ImageText`` are of length 1;
        option ``batch_size``.

        Raises:
            ValueError: neither or both; a model of another task.
        """
        if (texts is None) == (pictures is None):
            raise ValueError("embed takes texts, or pictures=.")
        check_list(pictures if texts is None else texts, "embed")
        if pictures is not None and self.task == "ImageText":
            self.check(("preprocess",))
            return embed_pictures(self.model, pictures, **options)
        if texts is not None and self.task in ("ImageText", "SentenceEmbedding"):
            self.check(("tokenizer",))
            embed = embed_captions if self.task == "ImageText" else embed_sentences
            return embed(self.model, texts, **options)
        what = "texts" if pictures is None else "pictures"
        raise ValueError(f"{self.origin} is for {self.task}, which gives no vectors of {what}.")

    def check(self, needs: Sequence[str]) -> None:
        """Refuse a model without something that it needs.

        Raises:
            ValueError: see above.
        """
        for name in needs:
            if getattr(self.model, name, None) is None:
                raise ValueError(
                    f"{self.origin} has no {name}, which {self.task} needs: set model.{name}."
                )

    def check_pairs(self, given: bool) -> None:
        """Refuse pairs of texts for a model that was trained on single ones, and the other way about; of
        a published model nobody knows.

        Raises:
            ValueError: see above.
        """
        reads = self.assets.get("pairs")
        if reads is None or reads == given:
            return
        if given:
            raise ValueError(f"{self.origin} reads single texts, but a second text is given.")
        raise ValueError(f"{self.origin} reads pairs of texts, but one text alone is given.")


def check_list(given: Any, method: str, kinds: tuple[type, ...] = ()) -> None:
    """Refuse one input in place of several: a text would be taken for a list of its characters.

    Args:
        kinds: what an input may be beside a text or a picture: a list, of messages or frames; an array.

    Raises:
        ValueError: see above.
    """
    if isinstance(given, Picture):
        raise ValueError(f"{method} takes lists of inputs: [{given!r}], not {given!r}.")
    if not isinstance(given, Sequence):
        raise ValueError(f"{method} takes lists of inputs, not a {type(given).__name__}.")
    for one in given:
        if not isinstance(one, (Picture, *kinds)):
            kind = type(one).__name__
            raise ValueError(f"{method} takes texts, paths or pictures of PIL's, not a {kind}.")


def load(
    source: str | Path | nn.Module, *, task: str | None = None, dtype: torch.dtype | None = None
) -> Loaded:
    """A model ready for inference, with all that goes with it.

    Args:
        source: a ``.ckpt`` file, or a folder with one somewhere below; anything else that
            :func:`family.from_pretrained` takes; or a model in memory that has ``tokenizer``,
            ``preprocess`` and ``labels`` as its task needs them, which goes into eval mode.
        task: what the model is for, where it does not say so itself or is to be used otherwise.
        dtype: of the weights; None keeps that of the file.

    Raises:
        ValueError: what :func:`family.from_pretrained` refuses; or a model that is not ready:
            without classes of its own yet, without the tokenizer or preprocessing that it needs, or in
            float16 where its numbers are beyond that.
    """
    if runs.is_run(source):
        run = runs.open_run(source)
        model = from_pretrained(source, dtype=dtype)
        check_range(model, str(run.file))
        return Loaded(model, task or run.task, run.assets, str(run.file))
    check_arguments(dtype, None)
    if isinstance(source, nn.Module) and (task is not None or facts_of(source) is not None):
        model = source.eval() if dtype is None else source.eval().to(dtype)
        return ready(model, f"this {type(model).__name__}", task)
    model = from_pretrained(source, dtype=dtype)
    if any(adapted(model)):
        merge_lora(model, remove=True)
    return ready(model, str(source) if isinstance(source, str | Path) else "the source", task)


def ready(model: Any, origin: str, task: str | None = None) -> Loaded:
    """A model with what goes with it.

    Raises:
        ValueError: it is not ready, see :func:`load`.
    """
    facts = facts_of(model)
    check_range(model, origin)
    if facts is not None:
        task = task or made_for(model)
        if task not in tasks_of(model)[1:]:
            check_complete(model, origin)
        check_tokenizer(model, origin)
    return Loaded(model, task or "", assets_of(model), origin)


def made_for(model: Any) -> str:
    """The task of a member; where it cannot answer that without training, the next that it is for."""
    facts, tasks = facts_of(model), tasks_of(model)
    assert facts is not None
    return tasks[0] if facts.complete(model) else tasks[-1]


def check_complete(model: Any, origin: str) -> None:
    """Refuse a member that needs training, or files that are not there, before it is of use.

    Raises:
        ValueError: no classes, or no preprocessing of pictures.
    """
    facts = facts_of(model)
    assert facts is not None
    if not facts.complete(model):
        by = "" if " " in origin else f" (family fit with --model.pretrained={origin})"
        raise ValueError(f"{origin} has no classes of its own yet: train it first{by}.")
    if "pictures" in facts.reads and model.preprocess is None:
        raise ValueError(f"{origin} does not say how its pictures are prepared.")


def check_range(model: nn.Module, origin: str) -> None:
    """Refuse weights in float16 of a member whose numbers are beyond its range.

    Raises:
        ValueError: see above.
    """
    if overflows_float16(model) and any(p.dtype == torch.float16 for p in model.parameters()):
        raise ValueError(
            f"{origin} is in float16, beyond whose range is what a {type(model).__name__} computes: give "
            "dtype=torch.bfloat16 or torch.float32."
        )


def check_tokenizer(model: Any, origin: str) -> None:
    """Refuse a member that reads text without a tokenizer, or with one that has more tokens.

    Raises:
        ValueError: see above.
    """
    facts = facts_of(model)
    if facts is None or "text" not in facts.reads:
        return
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ValueError(f"{origin} has no tokenizer, and its model reads text.")
    if tokenizer.vocab_size > model.vocab_size:
        raise ValueError(
            f"{origin} has a tokenizer of {tokenizer.vocab_size} tokens, but a model of "
            f"{model.vocab_size}."
        )
    if facts.task == "Translation" and None in (tokenizer.eos_id, tokenizer.pad_id):
        raise ValueError(f"{origin} has a tokenizer that does not name eos_token and pad_token.")


def assets_of(model: Any) -> dict[str, Any]:
    """What a model carries for inference, as plain values, as a checkpoint has them; what it has not is
    left out."""
    task = (facts_of(model) or Facts()).task
    assets, defaults = dict[str, Any](), getattr(model, "generation", None)
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is not None:
        assets["tokenizers"] = dict.fromkeys(("text", "source", "target"), tokenizer.to_json())
        if task in READERS:
            assets["max_tokens"] = most_tokens(model)
    if hasattr(
        model, "generate"
    ):  # empty, where nothing is said: a model that is trained on keeps that
        assets["generation"] = defaults.to_fields() if defaults else {}
    languages = getattr(model, "language_tokens", None)
    if languages is not None:
        assets["languages"] = languages.to_fields()
    if hasattr(model, "bos_id"):
        assets["start_id"] = model.bos_id
    if isinstance(getattr(model, "slots", None), int):
        assets["slots"] = model.slots
    if getattr(model, "preprocess", None) is not None:
        assets["preprocess"] = asdict(model.preprocess)
    labels = getattr(model, "labels", None)
    classes = len(labels) if labels else getattr(model, "num_classes", 0)
    if classes:
        assets["labels"] = list(labels or map(str, range(classes)))
        assets["category_ids"] = list(getattr(model, "category_ids", None) or range(classes))
    if getattr(model, "problem_type", None) is not None:
        assets["problem_type"] = model.problem_type
    if "threshold" in OPTIONS.get(task, ()) and getattr(model, "threshold", None) is not None:
        assets["threshold"] = model.threshold
    if getattr(model, "things", None) is not None:
        assets["things"] = model.things
    return assets
