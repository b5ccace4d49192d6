"""SAM 2's video memory through a volume: slices are frames, the target's earlier masks tell the next one.

Ravi et al., SAM 2, section 4, https://arxiv.org/abs/2408.00714; MedSAM2 (https://arxiv.org/abs/2504.03600) goes through
CT and MR in this way. The work is transformers' own Sam2VideoModel's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import Sam2Processor, Sam2VideoModel, Sam2VideoProcessor, Sam2VideoVideoProcessor
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from medreasoner.contract.answer import Box, Point
from medreasoner.expert.volume import CANCELLED, END, Cancelled, Progress, VolumeMask, check_key, check_size
from medreasoner.picture import Picture

_TARGET = 1  # the one object of a session
_Slices = dict[int, NDArray[np.bool_]]


class Sam2Video:
    """A `VolumeExpert` that remembers the last slices instead of prompting each with a box.

    It stops at the first slice that the model's own judgement, the object score, calls empty: a target does not come
    back after a slice without it. Each way begins anew from the key slice, so neither depends on the other.
    """

    def __init__(
        self, name: str, model: Sam2VideoModel, processor: Sam2Processor, sha256: str, takes: frozenset[str]
    ) -> None:
        self.name, self.sha256, self.takes = name, sha256, takes
        self._model = model.eval()
        self._images: Any = processor
        self._prompts: Any = Sam2VideoProcessor(processor.image_processor, Sam2VideoVideoProcessor())
        self._kept = max(model.config.num_maskmem, model.config.max_object_pointers_in_encoder)

    @torch.inference_mode()
    def propagate(
        self,
        pictures: Sequence[Picture],
        key: int,
        box: Box,
        points: Sequence[Point] = (),
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> VolumeMask:
        """See `VolumeExpert.propagate`."""
        check_key(pictures, key)
        picture = pictures[key]
        clipped, given = picture.clip(box), tuple(points) if "points" in self.takes else ()
        found: _Slices = {}
        reasons = [f"slice {key} is empty"] * 2
        tell = progress or (lambda _done, _most: None)
        for side, step in enumerate((-1, 1)):
            session = self._begin(pictures, key, clipped, given)
            found[key] = self._mask(session, key, step)
            if not found[key].any():
                break
            tell(len(found), len(pictures))
            reasons[side] = self._walk(session, key, step, found, tell, cancelled or (lambda: False))
        masks = np.zeros((len(pictures), picture.height, picture.width), bool)
        for number, mask in found.items():
            masks[number] = mask
        return VolumeMask(masks, min(found), max(found), (reasons[0], reasons[1]))

    def _begin(self, pictures: Sequence[Picture], key: int, box: Box, points: tuple[Point, ...]) -> _Session:
        session = _Session(pictures, key, self._images, self._model)
        prompts: dict[str, Any] = {"input_boxes": [[box.as_list()]]}
        if points:
            prompts["input_points"] = [[[[p.x, p.y] for p in points]]]
            prompts["input_labels"] = [[[1] * len(points)]]
        self._prompts.add_inputs_to_inference_session(session, frame_idx=key, obj_ids=_TARGET, **prompts)
        return session

    def _walk(
        self, session: _Session, key: int, step: int, found: _Slices, tell: Progress, cancelled: Cancelled
    ) -> str:
        number = key + step
        while 0 <= number < session.num_frames:
            if cancelled():
                return CANCELLED
            mask = self._mask(session, number, step)
            if not mask.any():
                return f"slice {number}: nothing found"
            found[number] = mask
            tell(len(found), session.num_frames)
            session.forget(number - step * self._kept)
            number += step
        return END

    def _mask(self, session: _Session, number: int, step: int) -> NDArray[np.bool_]:
        """Where the model thinks that the target is not there, all its logits are far below 0."""
        out = self._model(session, frame_idx=number, reverse=step < 0)
        size = [(session.video_height, session.video_width)]
        mask: Tensor = self._images.post_process_masks([out.pred_masks.cpu()], size)[0][0, 0]
        return mask.numpy()


class _Session(Sam2VideoInferenceSession):
    """A session whose frames are cut and prepared when they are asked for: a CT of 500 slices would take 6 GB."""

    def __init__(self, pictures: Sequence[Picture], key: int, processor: Any, model: Sam2VideoModel) -> None:
        self._pictures, self._key, self._processor = pictures, pictures[key], processor
        super().__init__(
            video_height=self._key.height,
            video_width=self._key.width,
            inference_device=model.device,
            inference_state_device=model.device,
            dtype=model.dtype,
        )

    @property
    def num_frames(self) -> int:
        return len(self._pictures)

    def get_frame(self, frame_idx: int) -> Tensor:
        """Return (3, side, side) as the image processor of the single-picture expert makes it."""
        picture = self._pictures[frame_idx]
        check_size(picture, self._key, frame_idx)
        batch = self._processor(images=Image.fromarray(picture.pixels), return_tensors="pt")
        frame: Tensor = batch["pixel_values"][0].to(self.inference_device, self.dtype)
        return frame

    def forget(self, number: int) -> None:
        """Drop what no later frame looks back to."""
        self.output_dict_per_obj[0]["non_cond_frame_outputs"].pop(number, None)
