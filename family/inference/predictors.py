"""What answers each task, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from family.inference.answers import answer_questions
from family.inference.captions import caption_pictures
from family.inference.classes import (
    classify_pictures,
    classify_texts,
    rate_pictures,
    rate_texts,
)
from family.inference.clips import classify_clips
from family.inference.detection import detect
from family.inference.drawing import draw_pictures
from family.inference.embeddings import embed_sentences, similarities
from family.inference.image_tokens import reconstruct_pictures
from family.inference.masked import fill_masks
from family.inference.rewards import reward_answers
from family.inference.segmentation import segment
from family.inference.series import judge_series
from family.inference.tagging import tag_texts
from family.inference.text_to_text import answer_texts
from family.inference.texts import continue_texts
from family.inference.translation import translate
from family.inference.unified import do_task
from family.inference.vision_chat import talk_about_pictures
from family.inference.visual_questions import answer_about_pictures


class Predictor(NamedTuple):
    """What answers a task, and what the model must have with it."""

    function: Callable[..., Any]
    needs: tuple[str, ...]


PREDICTORS = {
    "ImageClassification": Predictor(classify_pictures, ("preprocess",)),
    "VideoClassification": Predictor(classify_clips, ("preprocess",)),
    "TextClassification": Predictor(classify_texts, ("tokenizer",)),
    "ImageRegression": Predictor(rate_pictures, ("preprocess",)),
    "TextRegression": Predictor(rate_texts, ("tokenizer",)),
    "Series": Predictor(judge_series, ("preprocess",)),
    "Tagging": Predictor(tag_texts, ("tokenizer",)),
    "QuestionAnswering": Predictor(answer_questions, ("tokenizer",)),
    "LanguageModeling": Predictor(continue_texts, ("tokenizer",)),
    "MaskedLanguageModeling": Predictor(fill_masks, ("tokenizer",)),
    "Translation": Predictor(translate, ("tokenizer",)),
    "TextToText": Predictor(answer_texts, ("tokenizer",)),
    "Detection": Predictor(detect, ("preprocess",)),
    "Segmentation": Predictor(segment, ("preprocess",)),
    "VisualQuestions": Predictor(answer_about_pictures, ("preprocess", "tokenizer")),
    "VisionChat": Predictor(talk_about_pictures, ("preprocess", "tokenizer")),
    "Captioning": Predictor(caption_pictures, ("preprocess", "tokenizer")),
    "ImageTokenizing": Predictor(reconstruct_pictures, ("preprocess",)),
    "Unified": Predictor(do_task, ("preprocess", "tokenizer")),
    "ImageText": Predictor(similarities, ("preprocess", "tokenizer")),
    "SentenceEmbedding": Predictor(embed_sentences, ("tokenizer",)),
    "RewardModeling": Predictor(reward_answers, ("tokenizer",)),
    "TextToImage": Predictor(draw_pictures, ("preprocess", "tokenizer")),
}
"""By the names of the tasks."""


READERS = (
    "TextClassification",
    "TextRegression",
    "Tagging",
    "QuestionAnswering",
    "SentenceEmbedding",
    "ImageText",
    "VisualQuestions",
    "RewardModeling",
    "TextToImage",
)
"""Tasks whose texts are cut, or read in windows, at so many tokens."""

INPUTS = (
    "pictures",
    "clips",
    "series",
    "sentences",
    "texts",
    "pairs",
    "prompts",
    "questions",
    "contexts",
    "answers",
)
"""How the functions call what they are given, where it is given by name."""


OF_LISTS: dict[str, tuple[type, ...]] = {
    "RewardModeling": (list,),
    "VideoClassification": (list,),
    "Series": (list, dict, np.ndarray, Tensor),
}
"""Tasks of which an input may be a list: conversations, clips; and series, which may be arrays too."""

OPTIONS = {
    "Detection": ("threshold",),
    "Segmentation": ("things",),
    "QuestionAnswering": ("threshold", "longest", "stride"),
    "VisualQuestions": ("without",),
    "Unified": ("bins",),
    "VideoClassification": ("frames",),
}
"""Options of the functions that a checkpoint may have values of."""
