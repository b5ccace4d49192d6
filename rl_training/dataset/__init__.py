"""Collections of questions, pictures and masks: readers, checks, the prepared folder, transforms."""

from rl_training.dataset.collection import Collection
from rl_training.dataset.example import DataError, Example, Reader, View, examples_of
from rl_training.dataset.parquet import UmrgParquet
from rl_training.dataset.question_file import QuestionFile
from rl_training.dataset.saved_labels import SavedLabels

__all__ = [
    "Collection",
    "DataError",
    "Example",
    "QuestionFile",
    "Reader",
    "SavedLabels",
    "UmrgParquet",
    "View",
    "examples_of",
]
