"""The training of the family: tasks, data and the ``family`` command."""

from tasks.data.language_modeling import LanguageModelingData
from tasks.data.translation import TranslationData
from tasks.language_modeling import LanguageModeling
from tasks.translation import Translation

__all__ = ["LanguageModeling", "LanguageModelingData", "Translation", "TranslationData"]
