"""What all tasks share: open the image, answer, write a mask over the whole of it, say everything in plain JSON."""

from __future__ import annotations

import json
import logging
import time
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from medreasoner.contract.wire import GroundingResult
from medreasoner.imaging import StoredImage, write_volume_mask
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from monailabel_app.lib.images import OpenedImages
from monailabel_app.lib.infers.wishes import Wish, check_image, file_ending, number_type
from monailabel_app.lib.scratch import scratch_file

logger = logging.getLogger(__name__)

UNNAMED = "target"  # what a segment is called where the reasoning gives no name


@dataclass(frozen=True)
class Answered:
    """A result and its mask.

    Attributes:
        result: what goes to the client, as JSON.
        volume: (i, j, k) uint8 of zeros and ones in the grid of the whole image; all zero when the target is absent.
        frame: the k that a .png holds, which has room for one.
    """

    result: GroundingResult
    volume: NDArray[np.uint8]
    frame: int = 0

    @classmethod
    def on(cls, picture: Picture, result: GroundingResult, mask: NDArray[np.bool_]) -> Answered:
        """An answer about one slice, with a mask in its pixels."""
        return cls(result, picture.mask_in_volume(mask), frame_of(picture))


def frame_of(picture: Picture) -> int:
    """The k that a picture shows of an image whose slices make no volume."""
    return picture.slice_index if picture.shape[2] > 1 else 0


class AnsweringTask(InferTask):
    """An `InferTask` less its answer. It may be called from any number of threads; the models take turns inside."""

    def __init__(
        self,
        pipeline: GroundingPipeline,
        images: OpenedImages,
        kind: InferType,
        dimension: int,
        description: str,
        config: dict[str, Any],
    ) -> None:
        super().__init__(kind, [UNNAMED], dimension, description, config)
        self.pipeline = pipeline
        self._images = images

    def is_valid(self) -> bool:
        return True

    @abstractmethod
    def answer(self, wish: Wish, image: StoredImage) -> Answered:
        """Answer what the client wished about this image."""

    def __call__(self, request: Wish) -> tuple[str, dict[str, Any]]:
        """Return the mask's file, which the caller removes, and what the client reads beside it.

        Raises:
            MedReasonerError: the request, the image or the answer cannot be used; it says what to do.
        """
        start = time.perf_counter()
        wish = {**_first_choices(self.config()), **request}
        image = self._images.get(Path(check_image(wish)))
        ending, numbers = file_ending(wish, image), number_type(wish)
        opened = time.perf_counter()
        answered = self.answer(wish, image)
        done = time.perf_counter()
        name = str(wish.get("label") or answered.result.target or UNNAMED)[:200]
        mask = _write(answered, image, ending, numbers, name)
        end = time.perf_counter()
        latencies = {"pre": opened - start, "infer": done - opened, "post": end - done, "total": end - start}
        params: dict[str, Any] = json.loads(answered.result.to_json())  # plain numbers; refuses NaN
        params["label_names"] = {name: 1}
        params["latencies"] = {stage: round(seconds, 4) for stage, seconds in latencies.items()}
        logger.info("%s answered: absent %s, %.2f s", type(self).__name__, answered.result.absent, end - start)
        return str(mask), params


def _first_choices(config: dict[str, Any]) -> dict[str, Any]:
    """The defaults of a task's table; of a list, Slicer offers all and the first one is the default."""
    return {name: value[0] if isinstance(value, list) else value for name, value in config.items()}


def _write(answered: Answered, image: StoredImage, ending: str, numbers: str, segment: str) -> Path:
    with scratch_file(ending) as path:
        return write_volume_mask(answered.volume.astype(numbers, copy=False), image, path, answered.frame, segment)
