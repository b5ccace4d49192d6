"""SAM 2 and MedSAM2 on single pictures, through transformers; sam2_video.py goes through volumes.

Ravi et al., SAM 2, https://arxiv.org/abs/2408.00714; Ma et al., MedSAM2, https://arxiv.org/abs/2504.03600.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2PromptEncoderConfig,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VisionConfig,
)

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import CheckpointError
from medreasoner.expert.checkpoint import load_strictly, read_weights, sha256_of
from medreasoner.expert.picture_expert import PictureExpert
from medreasoner.expert.protocol import BOX, BOX_AND_POINTS
from medreasoner.expert.sam2_names import for_transformers, without_memory

if TYPE_CHECKING:
    from medreasoner.expert.sam2_video import Sam2Video

# What transformers lets through when a folder's files are missing, cut short, or another model's.
_UNREADABLE = (OSError, ValueError, RuntimeError, LookupError, TypeError, SafetensorError, StrictDataclassError)

_Look = tuple[list[Tensor], tuple[int, int]]  # feature maps, finest first; the picture's height and width


class Sam2Expert(PictureExpert[_Look]):
    """SAM 2's image model with the prompts that these weights were trained on."""

    def __init__(
        self,
        name: str,
        model: Sam2Model,
        processor: Sam2Processor,
        sha256: str,
        takes: frozenset[str] = BOX_AND_POINTS,
        read_video: Callable[[], Sam2VideoModel] | None = None,
        pictures_kept: int = 16,
    ) -> None:
        """Take the image model and, where the weights hold the video memory, a way to read the video model."""
        super().__init__(name, sha256, takes, pictures_kept)
        self._model, self._processor = model.eval(), processor
        self._read_video = read_video

    def own_volume_expert(self) -> Sam2Video | None:
        """Go through volumes with the video memory; its other weights are this expert's, not a second copy.

        Raises:
            CheckpointError: the file with the memory's weights has since been removed or changed.
        """
        if self._read_video is None:
            return None
        from medreasoner.expert.sam2_video import Sam2Video

        video = self._read_video().to(self._model.device)
        video.load_state_dict(self._model.state_dict(), strict=False, assign=True)
        return Sam2Video(self.name, video, self._processor, self.sha256, self.takes)

    @torch.inference_mode()
    def _embed(self, pixels: NDArray[np.uint8]) -> _Look:
        batch = self._processor(images=Image.fromarray(pixels), return_tensors="pt").to(self._model.device)
        return self._model.get_image_embeddings(batch["pixel_values"]), (pixels.shape[0], pixels.shape[1])

    @torch.inference_mode()
    def _decode(self, embedding: _Look, box: Box | None, points: Sequence[Point]) -> tuple[NDArray[np.bool_], float]:
        """Points alone are ambiguous: of the three masks for them, take the one that SAM 2 rates best."""
        maps, size = embedding
        prompts: dict[str, Any] = {}
        if box is not None:
            prompts["input_boxes"] = [[box.as_list()]]
        if points:
            prompts["input_points"] = [[[[p.x, p.y] for p in points]]]
            prompts["input_labels"] = [[[1] * len(points)]]
        prepared = self._processor(original_sizes=[list(size)], return_tensors="pt", **prompts)
        inputs = {key: value.to(self._model.device) for key, value in prepared.items() if key in prompts}
        out = self._model(image_embeddings=maps, multimask_output=box is None, **inputs)
        best = int(out.iou_scores[0, 0].argmax())
        low = out.pred_masks[:, 0, best : best + 1].cpu()
        mask = self._processor.post_process_masks([low], [size])[0][0, 0]
        return mask.numpy(), float(out.iou_scores[0, 0, best])


def read_sam2(folder: Path) -> Sam2Expert:
    """Load SAM 2 from a folder in transformers' layout, as facebook/sam2.1-hiera-tiny is published.

    Raises:
        CheckpointError: files are missing or damaged, or belong to another model.
    """
    model = _from_folder(Sam2Model, folder)
    try:
        processor = Sam2Processor.from_pretrained(folder, local_files_only=True)
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except _UNREADABLE as error:
        raise _not_whole(folder) from error
    sha256 = sha256_of(sorted(folder.glob("*.safetensors")))
    video = (lambda: _from_folder(Sam2VideoModel, folder)) if kind == "sam2_video" else None
    return Sam2Expert("sam2", _placed(model), processor, sha256, read_video=video)


def _from_folder(kind: Any, folder: Path) -> Any:
    try:
        model, report = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except _UNREADABLE as error:
        raise _not_whole(folder) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        raise CheckpointError(f"{folder} lacks weights of SAM 2", "fetch the folder again")
    return model


def _not_whole(folder: Path) -> CheckpointError:
    return CheckpointError(
        f"{folder} holds no whole SAM 2 checkpoint", "fetch config, processor and safetensors files again"
    )


def read_medsam2(path: Path) -> Sam2Expert:
    """Load MedSAM2's published file: SAM 2.1 tiny for pictures of 512 x 512, in the layout of Meta's own code.

    Raises:
        CheckpointError: the file is damaged, or of another model.
    """
    model = Sam2Model(medsam2_config())
    load_strictly(model, without_memory(for_transformers(read_weights(path), path)), path)
    processor = Sam2Processor(Sam2ImageProcessor(size={"height": 512, "width": 512}))
    return Sam2Expert(
        "medsam2", _placed(model), processor, sha256_of([path]), takes=BOX, read_video=lambda: _medsam2_video(path)
    )


def _medsam2_video(path: Path) -> Sam2VideoModel:
    parts = medsam2_config()
    config = Sam2VideoConfig(
        vision_config=parts.vision_config,
        prompt_encoder_config=parts.prompt_encoder_config,
        mask_decoder_config=parts.mask_decoder_config,
        image_size=512,
        memory_attention_rope_feat_sizes=[32, 32],
    )
    video = Sam2VideoModel(config)
    load_strictly(video, for_transformers(read_weights(path), path), path)
    return video


def medsam2_config() -> Sam2Config:
    """SAM 2.1 tiny at 512 instead of 1024 pixels, as in MedSAM2's sam2.1_hiera_t512.yaml."""
    return Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=Sam2HieraDetConfig(image_size=[512, 512]),
            backbone_feature_sizes=[[128, 128], [64, 64], [32, 32]],
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(image_size=512),
    )


def _placed(model: Any) -> Any:
    """Move a model to the GPU if there is one."""
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
