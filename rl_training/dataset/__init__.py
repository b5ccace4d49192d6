"""Collections of questions, pictures and masks: readers, checks, the prepared folder, transforms."""

from rl_training.dataset.collection import Collection
from rl_training.dataset.example import DataError, Example, Reader, View, examples_of

__all__ = ["Collection", "DataError", "Example", "Reader", "View", "examples_of"]
