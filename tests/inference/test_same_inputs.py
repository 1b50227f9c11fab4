"""What a model is shown by an inference command is, to the bit, what validation showed it, whatever the
options of the data: all that changes ``pixel_values`` or ``input_ids`` travels with the checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from data_files import COUNT, WORDS, files_of, talk

import family
from family.inputs.conversation import prompt_ids
from family.inputs.encode import encode_prompt
from family.inputs.image_slots import IMAGE, image_id_of, spread
from family.models.member import describe
from family.pretrained.runs import build_model
from tasks.data.base import FamilyData
from tasks.data.captioning import CaptioningData
from tasks.data.chat_tuning import ChatTuningData
from tasks.data.detection import DetectionData
from tasks.data.image_classification import ImageClassificationData
from tasks.data.image_regression import ImageRegressionData
from tasks.data.image_text import ImageTextData
from tasks.data.image_tokenizing import ImageTokenizingData
from tasks.data.language_modeling import LanguageModelingData
from tasks.data.masked_language_modeling import MaskedLanguageModelingData
from tasks.data.preferences import PreferenceData
from tasks.data.prompts import PromptData
from tasks.data.question_answering import QuestionAnsweringData
from tasks.data.segmentation import SegmentationData
from tasks.data.sentence_pairs import SentencePairsData
from tasks.data.series import SeriesData
from tasks.data.span_corruption import SpanCorruptionData
from tasks.data.tagging import TaggingData
from tasks.data.text_classification import TextClassificationData
from tasks.data.text_regression import TextRegressionData
from tasks.data.text_to_image import TextToImageData
from tasks.data.text_to_text import TextToTextData
from tasks.data.translation import TranslationData
from tasks.data.video_classification import VideoClassificationData
from tasks.data.vision_chat import VisionChatData
from tasks.data.visual_questions import VisualQuestionsData

SMALL = {"dim": 16, "depth": 1, "heads": 2}
PIXELS = {"mean": (0.2, 0.4, 0.6), "std": (0.5, 0.3, 0.2)}
TOKENS = [
    {"tokenizer": "bpe", "vocab_size": 270},
    {"tokenizer": "unigram", "vocab_size": 40},
    {"tokenizer": "char"},
]

SLOTS = {"slots": 6, "image_size": (24, 16)}

CASES = [
    (ImageClassificationData, {"image_size": (24, 16)}),
    (ImageRegressionData, {"image_size": 16}),
    (ImageClassificationData, {"image_size": 16, "cache": False, **PIXELS}),
    (DetectionData, {"image_size": (40, 24)}),
    (SegmentationData, {"image_size": (16, 24), **PIXELS}),
    (ImageTextData, {"image_size": (16, 16)}),
    (ImageTextData, {"image_size": (24, 16), "background": (0, 0, 0)}),
    (ImageTextData, {"image_size": (16, 16), "max_tokens": 5, "lowercase": False}),
    *((ImageTextData, {"image_size": (16, 16), **given}) for given in TOKENS),
    (CaptioningData, {"image_size": (16, 24), "tokenizer": "char", "max_tokens": 99}),
    (VisualQuestionsData, {"image_size": (16, 24), "tokenizer": "char", "max_tokens": 99}),
    (VisualQuestionsData, {"image_size": (16, 24), "max_tokens": 99, "without": "picture"}),
    (VideoClassificationData, {"image_size": (24, 16), "frames": 4}),
    (VideoClassificationData, {"image_size": 16, "frames": 2, "cache": False, **PIXELS}),
    (SeriesData, {"channels": ["x", "y"]}),
    (SeriesData, {"channels": ["y"], "missing": "fill", "max_steps": 6}),
    (SeriesData, {"channels": ["x"], "target_columns": ["mass"]}),
    (SeriesData, {"channels": ["x", "y"], "horizon": 2, "window": 3}),
    (ImageTokenizingData, {"image_size": (24, 16)}),
    (ImageTokenizingData, {"image_size": 16, "cache": False, "background": (0, 0, 0)}),
    *((TextClassificationData, given) for given in TOKENS),
    (TextClassificationData, {"tokenizer": "char", "lowercase": True, "max_tokens": 6}),
    (TextClassificationData, {"tokenizer": "char", "max_tokens": 200}),  # above the default
    *((TextClassificationData, {"pair_column": "other", **given}) for given in TOKENS),
    (TextClassificationData, {"pair_column": "other", "tokenizer": "char", "max_tokens": 9}),
    (TextRegressionData, {"tokenizer": "char"}),
    (TextRegressionData, {"pair_column": "other", "tokenizer": "char", "max_tokens": 12}),
    *((SentencePairsData, given) for given in TOKENS),
    (SentencePairsData, {"tokenizer": "char", "lowercase": True, "max_tokens": 6}),
    *((TaggingData, given) for given in TOKENS),
    (TaggingData, {"tokenizer": "char", "lowercase": True, "max_tokens": 12}),  # in windows
    *((QuestionAnsweringData, {"max_tokens": 96, "stride": 8, **given}) for given in TOKENS),
    (
        QuestionAnsweringData,
        {"tokenizer": "char", "lowercase": True, "max_tokens": 50, "stride": 3},
    ),
    *((PreferenceData, given) for given in TOKENS),
    (PreferenceData, {"tokenizer": "char", "lowercase": True, "max_tokens": 60}),  # some are cut
    *((TranslationData, given) for given in TOKENS),
    (TranslationData, {"tokenizer": "char", "lowercase": True, "shared_vocabulary": False}),
    (TranslationData, {"tokenizer": "char", "languages": ["en", "fr"], "directions": ["fr-en"]}),
    *((TextToImageData, {"image_size": (16, 16), "max_tokens": 80, **given}) for given in TOKENS),
    *((TextToTextData, given) for given in TOKENS),
    (
        TextToTextData,
        {"tokenizer": "char", "max_tokens": 60},
    ),  # others are left out of training alone
    *((LanguageModelingData, given) for given in TOKENS),
    *((ChatTuningData, given) for given in TOKENS),
    *((VisionChatData, {**SLOTS, **given}) for given in TOKENS),
    *((MaskedLanguageModelingData, given) for given in TOKENS),
    *((PromptData, given) for given in TOKENS),
    (PromptData, {"tokenizer": "char", "lowercase": True}),
    (SpanCorruptionData, {"tokenizer": "bpe", "vocab_size": 370}),  # a hundred for spans
    (SpanCorruptionData, {"tokenizer": "char"}),
]

KINDS = {PromptData: "LanguageModeling"}
"""What a checkpoint's model is used as, where its task is called otherwise."""


def name_of(case) -> str:
    return case.__name__ if isinstance(case, type) else ",".join(case)


def small(kind):
    """A tiny model as a record describes it: class path and arguments."""
    stack = {**SMALL, "max_tokens": 256}
    learned = {**stack, "position": "learned"}
    layers = {name: SMALL[name] for name in ("dim", "depth", "heads")}
    drawing = {**family.DALLE.facts.example, "text_tokens": 80}
    return {
        **dict.fromkeys(
            (ImageClassificationData, ImageRegressionData),
            ("family.ViT", {"config": learned, "patch_size": 8}),
        ),
        SegmentationData: ("family.Segmenter", {"config": learned, "patch_size": 8}),
        VideoClassificationData: ("family.VideoViT", {"config": SMALL, "patch_size": 8}),
        SeriesData: ("family.SeriesTransformer", {"config": SMALL, "patch_size": 2}),
        ImageTokenizingData: ("family.ImageTokenizer", {"width": 8, "depth": 1}),
        DetectionData: (
            "family.DETR",
            {"config": layers, "backbone": "patch", "queries": 2},
        ),
        ImageTextData: ("family.clip_small", {**layers, "embed_dim": 8, "max_tokens": 64}),
        **dict.fromkeys(
            (TextClassificationData, TextRegressionData),
            ("family.BERT", {"config": learned, "masked_head": False}),
        ),
        CaptioningData: (
            "family.Captioner",
            {
                "config": learned,
                "decoder_config": {**learned, "causal": True, "cross_attention": True},
                "patch_size": 8,
            },
        ),
        VisionChatData: (
            "family.VisionLanguage",
            {
                "vision": {"class": "ViT", "arguments": {"config": learned, "patch_size": 8}},
                "language": {"class": "GPT", "arguments": {"config": {**stack, "causal": True}}},
            },
        ),
        VisualQuestionsData: ("family.Fusion", {"config": learned, "patch_size": 8}),
        SentencePairsData: ("family.SentenceEncoder", {"config": learned}),
        TaggingData: (
            "family.BERT",
            {"config": learned, "masked_head": False, "pooling": "tokens"},
        ),
        QuestionAnsweringData: (
            "family.BERT",
            {"config": learned, "masked_head": False, "pooling": "spans"},
        ),
        PreferenceData: ("family.RewardModel", {"config": {**stack, "causal": True}}),
        TranslationData: ("family.Seq2Seq", {"config": stack}),
        TextToTextData: ("family.Seq2Seq", {"config": stack}),
        TextToImageData: ("family.DALLE", {**drawing, "config": {**learned, "causal": True}}),
        MaskedLanguageModelingData: ("family.BERT", {"config": learned}),
        SpanCorruptionData: ("family.T5", {"config": stack}),
        **dict.fromkeys(
            (LanguageModelingData, ChatTuningData, PromptData),
            ("family.GPT", {"config": {**stack, "causal": True}}),
        ),
    }[kind]


def saved(path, data: FamilyData):
    """A checkpoint of an untrained model, with what the data give it."""
    kind = type(data)
    where, given = small(kind)
    if kind is ImageTextData:  # a record names classes alone
        model = getattr(family, where.rpartition(".")[2])(**data.model_arguments, **given)
        where, given = "family.CLIP", describe(model)["arguments"]
    spec = {"class_path": where, "init_args": given}
    model = build_model(spec, data.model_arguments)
    record = {
        "task": f"tasks.{data.task.lower()}.{data.task}",
        "kind": KINDS.get(kind, data.task),
        "model": spec,
        "arguments": data.model_arguments,
        "assets": data.assets(),
    }
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"family": record, "state_dict": state}, path)
    return path


class Shown:
    """Stands in for what a model is called by, and keeps what it is called with."""

    def __init__(self, inner):
        self.inner, self.seen = inner, []

    def __call__(self, first, *rest, **options):
        self.seen += list(first)
        return self.inner(first, *rest, **options)


def watch(model, name):
    shown = Shown(getattr(model, name))
    object.__setattr__(model, name, shown)
    return shown


def rows_of(batches, name):
    """Each row as it is without its padding."""
    found = []
    for batch in batches:
        masks = {"input_ids": "mask", "source": "source_mask", "values": "step_mask"}
        mask = masks.get(name)
        for i, row in enumerate(batch[name]):
            if mask is not None:
                row = row[batch[mask][i]]
            elif "pixel_mask" in batch:
                seen = batch["pixel_mask"][i]
                row = row[:, seen.any(1)][:, :, seen.any(0)]
            found.append(row)
    return found


def in_rows(batch):
    """The two rows of each pair one after the other."""
    return {
        name: value.flatten(0, 1) if name in ("input_ids", "mask") and value.dim() == 3 else value
        for name, value in batch.items()
    }


def same(ours, theirs):
    """Equal to the bit, in any order (batches of texts are sorted by length)."""
    assert len(ours) == len(theirs)
    left = list(theirs)
    for row in ours:
        i = next(i for i, other in enumerate(left) if torch.equal(row, other.to(row.dtype)))
        left.pop(i)


def unpadded(rows, pad):
    return [row[: int((row != pad).nonzero().max()) + 1] for row in rows]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=name_of)
def test_commands_see_what_validation_saw(tmp_path, kind, options):
    root = tmp_path / "data"
    paths = files_of(root, kind)
    where: dict[str, Any] = {}
    if issubclass(kind, LanguageModelingData):
        where = {
            "cache": str(tmp_path / "cache"),
            "context": 16 if kind is SpanCorruptionData else 8,
        }
    data = kind(str(root), **where, **options)
    data.setup()
    torch.manual_seed(0)
    loaded = family.load(saved(tmp_path / "best.ckpt", data))
    model, batches = loaded.model, list(map(in_rows, data.val_dataloader()))

    if not (draws := kind is TextToImageData) and "pixel_values" in batches[0]:
        reads = {
            ImageTextData: "encode_image",
            CaptioningData: "prefill",
            VisionChatData: "encode",
        }
        shown = watch(model, reads.get(kind, "forward"))
        if kind in (VisualQuestionsData, VisionChatData):
            loaded.predict(paths, WORDS)
        elif kind is ImageTextData:
            loaded.embed(pictures=paths)
        else:
            loaded.predict(paths)
        same(rows_of(batches, "pixel_values"), shown.seen)
    if kind is SeriesData:
        # Of a forecast each window by itself.
        raw = [one.seen for one in data.made("val")]
        shown = watch(model, "forward")
        loaded.predict(raw, batch_size=1)
        same(rows_of(batches, "values"), shown.seen)
    if kind is LanguageModelingData:
        prompt = encode_prompt(loaded.tokenizer, WORDS[0])
        tokens = data.tokens("val").tolist()
        assert any(tokens[i : i + len(prompt)] == prompt for i in range(len(tokens)))
    elif kind is ChatTuningData:
        for batch in batches:
            for messages, ids in zip(batch["messages"], batch["input_ids"].tolist(), strict=True):
                prompt = prompt_ids(loaded.tokenizer, messages[:-1])
                assert ids[: len(prompt)] == prompt
    elif kind is VisionChatData:
        shown, image_id = watch(model, "prefill"), image_id_of(loaded.tokenizer)
        loaded.predict(paths, WORDS, max_new_tokens=1)
        rows = [
            spread(prompt_ids(loaded.tokenizer, messages[:-1], (IMAGE,)), image_id, model.slots)
            for batch in batches
            for messages in batch["messages"]
        ]
        begins = [row for batch in batches for row in batch["input_ids"].tolist()]
        assert all(ids[: len(row)] == row for row, ids in zip(rows, begins, strict=True))
        same([torch.tensor(row) for row in rows], unpadded(shown.seen, 0))
    elif kind is MaskedLanguageModelingData:
        shown = watch(model, "encode")
        loaded.predict([f"{WORDS[2]} [MASK]"])
        around = data.loader("val").dataset.ends
        ids = shown.seen[0].tolist()
        assert ids[:1] == around[0] and ids[-1:] == around[1]
        inner = data.tokenizer.encode(f"{WORDS[2]} ")
        assert ids[1 : 1 + len(inner)] == inner and ids[-2] == data.tokenizer.mask_id
    elif kind is PromptData:
        shown = watch(model, "prefill")
        loaded.predict(WORDS, max_new_tokens=1)
        same(rows_of(batches, "input_ids"), shown.seen)
    elif kind in (TranslationData, TextToTextData):
        shown = watch(model, "generate")
        loaded.predict(WORDS, beams=1)
        pad = loaded.tokenizer.pad_id
        same(rows_of(batches, "source"), unpadded(shown.seen, pad))
    elif kind is PreferenceData:
        shown, prompts = watch(model, "forward"), [talk(text, i) for i, text in enumerate(WORDS)]
        answers = [WORDS[i - 1] for i in range(COUNT)]
        loaded.predict(prompts * 2, [*answers, *(f"a {text}" for text in answers)])
        same(rows_of(batches, "input_ids"), unpadded(shown.seen, loaded.tokenizer.pad_id))
    elif kind is VisualQuestionsData:
        shown = watch(model, "words")
        loaded.predict(paths, WORDS)
        same(rows_of(batches, "input_ids"), unpadded(shown.seen, loaded.tokenizer.pad_id))
    elif "input_ids" in batches[0]:
        embeds = kind in (ImageTextData, SentencePairsData)
        shown = watch(model, "encode_text" if embeds else "draw" if draws else "forward")
        texts = [[WORDS[3]] * COUNT] if kind is QuestionAnsweringData else []
        seconds = [WORDS[i - 1] for i in range(COUNT)]
        pairs = {"pairs": seconds} if not embeds and "pair" in batches[0] else {}
        (loaded.embed if embeds else loaded.predict)(WORDS, *texts, **pairs)
        same(rows_of(batches, "input_ids"), unpadded(shown.seen, loaded.tokenizer.pad_id))

    # ``family predict``: other data, or the same without the options, and the checkpoint's assets.
    where |= {name: options[name] for name in options if name == "pair_column"}
    again = kind(str(root), **where)
    again.use_assets(loaded.assets)
    again.setup("predict")
    if issubclass(kind, LanguageModelingData):
        assert np.array_equal(again.tokens("val"), data.tokens("val"))
        return
    if issubclass(kind, ChatTuningData):
        for one, other in zip(batches, again.predict_dataloader(), strict=True):
            assert torch.equal(one["input_ids"], other["input_ids"])
        return
    name = "source" if kind in (TranslationData, TextToTextData) else "input_ids"
    predicted = list(map(in_rows, again.predict_dataloader()))
    for field in {"pixel_values", "values", name} & batches[0].keys():
        same(rows_of(batches, field), rows_of(predicted, field))


def ours(kind) -> bool:
    """A base of several is for no task."""
    return kind.__module__.startswith("tasks.") and hasattr(kind, "task")


WITHOUT_FILES = {"UnifiedData"}
"""Data of the built-in world alone."""


def test_every_data_module_is_here():
    found, left = set(), [FamilyData]
    while left:
        left += (below := left.pop().__subclasses__())
        found |= {kind for kind in below if ours(kind)}
    with_files = {kind for kind in found if kind.__name__ not in WITHOUT_FILES}
    assert with_files == {kind for kind, _ in CASES}
