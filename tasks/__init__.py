"""The training of the family: tasks, data and the ``family`` command."""

from tasks.language_modeling import LanguageModeling
from tasks.translation import Translation

__all__ = ["LanguageModeling", "Translation"]
