"""Chains of transforms for training, and the data sets that run them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data.dataset import CacheDataset, PersistentDataset
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    ThresholdIntensityd,
)
from monai.transforms.transform import Randomizable, Transform

from medreasoner.evaluation.questions import Entry, choose
from rl_training.dataset.example import Example
from rl_training.dataset.loading import Data, LoadExample, Numbersd
from rl_training.dataset.transforms import RandAffineTargetd, RandCropTargetd, RandFlipTargetd

MIX = {"implicit": 0.34, "visual": 0.18, "clinical": 0.18, "terse": 0.18, "explicit": 0.12}


class RandQuestiond(Randomizable, Transform):
    """Draw one of the example's questions by the weight of its style; sets `question` and `style`."""

    def __init__(self, mix: Mapping[str, float]) -> None:
        self.mix = dict(mix)
        self.seed = 0

    def randomize(self, data: Any = None) -> None:  # noqa: ARG002  MONAI's signature
        self.seed = int(self.R.randint(2**31))

    def __call__(self, data: Mapping[Any, Any]) -> Data:
        """Return the dictionary with a question."""
        self.randomize()
        entry = Entry(data["target"], "", data["questions"])
        style, question = choose(entry, self.mix, random.Random(self.seed))
        return {**data, "question": question, "style": style}


def grey_levels(prob: float = 0.3) -> list[Transform]:
    """Vary grey levels and never the geometry: window (centre, width), gamma, blur, noise; then clip to [0, 1].

    A picture's own window is burnt in, so a jittered one is a mild change of brightness and contrast.
    """
    image: dict[str, Any] = {"keys": "image", "prob": prob}
    return [
        RandShiftIntensityd(offsets=0.08, **image),
        RandScaleIntensityd(factors=0.2, **image),
        ThresholdIntensityd(keys="image", threshold=0.0, above=True, cval=0.0),
        ThresholdIntensityd(keys="image", threshold=1.0, above=False, cval=1.0),
        RandAdjustContrastd(gamma=(0.7, 1.4), **image),
        RandGaussianSmoothd(sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), **image),
        RandGaussianNoised(std=0.03, **image),
        ThresholdIntensityd(keys="image", threshold=0.0, above=True, cval=0.0),
        ThresholdIntensityd(keys="image", threshold=1.0, above=False, cval=1.0),
    ]


def training_chain(canvas: int, mix: Mapping[str, float] | None = None, seed: int = 0) -> Compose:
    """Example -> moved dictionary: load, draw a question, flip, turn, crop, vary grey levels, whole numbers.

    Loading is the only step without chance, and the one that a caching data set keeps.
    """
    return Compose([LoadExample(canvas), RandQuestiond(mix or MIX), moving_chain()]).set_random_state(seed)


def moving_chain() -> Compose:
    """Loaded dictionary with its question -> flipped, turned, cropped, varied in grey levels, in whole numbers."""
    return Compose([RandFlipTargetd(), RandAffineTargetd(), RandCropTargetd(), *grey_levels(), Numbersd()])


def validation_chain(canvas: int, mix: Mapping[str, float] | None = None, seed: int = 0) -> Compose:
    """Example -> dictionary as it is; only the question is drawn."""
    return Compose([LoadExample(canvas), RandQuestiond(mix or MIX), Numbersd()]).set_random_state(seed)


def in_memory(examples: Sequence[Example], chain: Compose, share: float = 1.0, workers: int = 1) -> CacheDataset:
    """Load every example once and keep it: 4 bytes x 4 channels a canvas pixel, 1.8 MB at 336 pixels."""
    return CacheDataset(examples, chain, cache_rate=share, num_workers=workers, progress=False)


def on_disk(examples: Sequence[Example], chain: Compose, folder: Path) -> PersistentDataset:
    """Load every example once and keep it in a folder, for collections that do not fit into memory."""
    return PersistentDataset(examples, chain, cache_dir=folder)
