"""The training of the family: tasks, data and the ``family`` command."""

from tasks.data.detection import DetectionData
from tasks.data.image_classification import ImageClassificationData
from tasks.data.image_text import ImageTextData
from tasks.data.language_modeling import LanguageModelingData
from tasks.data.segmentation import SegmentationData
from tasks.data.text_classification import TextClassificationData
from tasks.data.translation import TranslationData
from tasks.detection import Detection
from tasks.image_classification import ImageClassification
from tasks.image_text import ImageText
from tasks.language_modeling import LanguageModeling
from tasks.segmentation import Segmentation
from tasks.text_classification import TextClassification
from tasks.translation import Translation

__all__ = [
    "Detection",
    "DetectionData",
    "ImageClassification",
    "ImageClassificationData",
    "ImageText",
    "ImageTextData",
    "LanguageModeling",
    "LanguageModelingData",
    "Segmentation",
    "SegmentationData",
    "TextClassification",
    "TextClassificationData",
    "Translation",
    "TranslationData",
]
