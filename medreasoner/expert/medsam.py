"""MedSAM: SAM's ViT-B trained on medical boxes, prepared as in its published inference script.

Ma et al., Nature Communications 2024, https://doi.org/10.1038/s41467-024-44824-z; github.com/bowang-lab/MedSAM,
MedSAM_Inference.py: the picture fills the square whatever its shape, grey levels are stretched to [0, 1] without
SAM's mean and deviation, and probabilities, not logits, are scaled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from medreasoner.contract.answer import Box, Point
from medreasoner.expert.box_decoder import decode_box
from medreasoner.expert.picture_expert import PictureExpert
from medreasoner.expert.protocol import BOX


@dataclass(frozen=True)
class Look:
    """SAM's features of the square, and the picture's own height and width."""

    features: Tensor
    size: tuple[int, int]


class MedSamExpert(PictureExpert[Look]):
    """MedSAM, which takes boxes only."""

    def __init__(self, name: str, model: Sam, sha256: str, pictures_kept: int = 16) -> None:
        super().__init__(name, sha256, BOX, pictures_kept)
        self._model = model
        self._side: int = model.image_encoder.img_size

    @torch.inference_mode()
    def _embed(self, pixels: NDArray[np.uint8]) -> Look:
        square = stretched(pixels, self._side).astype(np.float64)
        square = (square - square.min()) / max(square.max() - square.min(), 1e-8)
        batch = torch.from_numpy(square).float().permute(2, 0, 1)[None].to(self._model.device)
        return Look(self._model.image_encoder(batch), (pixels.shape[0], pixels.shape[1]))

    @torch.inference_mode()
    def _decode(
        self,
        embedding: Look,
        box: Box | None,
        points: Sequence[Point],  # noqa: ARG002
    ) -> tuple[NDArray[np.bool_], float]:
        assert box is not None  # `segment` saw to it
        height, width = embedding.size
        scale = self._side / width, self._side / height
        logits, quality = decode_box(self._model, embedding.features, box, scale)
        likely = F.interpolate(torch.sigmoid(logits), (height, width), mode="bilinear", align_corners=False)
        return (likely[0, 0] > 0.5).cpu().numpy(), quality


def stretched(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(height, width, 3) to (side, side, 3) by cubic splines after a Gaussian blur where it shrinks.

    This is what `skimage.transform.resize` of order 3 with anti-aliasing does, which MedSAM was trained on.
    """
    levels = pixels.astype(np.float64)
    shrink = np.array([levels.shape[0] / side, levels.shape[1] / side, 1.0])
    smooth = ndimage.gaussian_filter(levels, np.maximum(0, (shrink - 1) / 2), mode="mirror")
    square = ndimage.zoom(smooth, 1 / shrink, order=3, mode="mirror", grid_mode=True)
    return np.asarray(square.clip(levels.min(), levels.max()).astype(np.uint8))
