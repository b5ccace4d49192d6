"""SAM through Meta's segment-anything package: its own predictor answers, so its own masks come out.

Kirillov et al., Segment Anything, https://arxiv.org/abs/2304.02643.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from medreasoner.contract.answer import Box, Point
from medreasoner.expert.checkpoint import load_strictly, read_weights, sha256_of
from medreasoner.expert.picture_expert import PictureExpert
from medreasoner.expert.protocol import BOX_AND_POINTS


@dataclass(frozen=True)
class Look:
    """What `SamPredictor` keeps of a picture: features on the device, sizes as (height, width) in pixels."""

    features: Tensor
    original_size: tuple[int, int]
    input_size: tuple[int, int]


class SamExpert(PictureExpert[Look]):
    """SAM with a box, points on the target, or both."""

    def __init__(self, name: str, model: Sam, sha256: str, pictures_kept: int = 16) -> None:
        super().__init__(name, sha256, BOX_AND_POINTS, pictures_kept)
        self._predictor = SamPredictor(model)

    @torch.inference_mode()
    def _embed(self, pixels: NDArray[np.uint8]) -> Look:
        seen = self._predictor
        seen.set_image(pixels)
        return Look(seen.features, seen.original_size, seen.input_size)

    @torch.inference_mode()
    def _decode(self, embedding: Look, box: Box | None, points: Sequence[Point]) -> tuple[NDArray[np.bool_], float]:
        """Points alone are ambiguous: of SAM's three masks for them, take the one that it rates best."""
        seen = self._predictor
        seen.features, seen.is_image_set = embedding.features, True
        seen.original_size, seen.input_size = embedding.original_size, embedding.input_size
        masks, qualities, _ = seen.predict(
            point_coords=np.array([[p.x, p.y] for p in points]) if points else None,
            point_labels=np.ones(len(points), np.int32) if points else None,
            box=np.array(box.as_list()) if box else None,
            multimask_output=box is None,
        )
        best = int(qualities.argmax())
        return masks[best], float(qualities[best])


def read_sam(path: Path, architecture: str) -> tuple[Sam, str]:
    """Build SAM with a vit_b, vit_l or vit_h encoder from a checkpoint, on the GPU if there is one.

    Returns:
        The model and the SHA-256 of the file.

    Raises:
        CheckpointError: the file is damaged, or of another model.
    """
    weights = read_weights(path)
    model = sam_model_registry[architecture]()
    load_strictly(model, weights, path)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), sha256_of([path])
