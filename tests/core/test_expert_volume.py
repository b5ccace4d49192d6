"""From one slice through a volume: made targets that end where the test says, and transformers' own video session."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    Sam2ImageProcessor,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
)

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import AnswerError, CheckpointError, ImageError
from medreasoner.expert import load_expert
from medreasoner.expert.mask_prompts import box_around, points_on
from medreasoner.expert.picture_expert import PictureExpert
from medreasoner.expert.protocol import BOX_AND_POINTS
from medreasoner.expert.sam2 import medsam2_config, read_medsam2, read_sam2
from medreasoner.expert.slice_by_slice import SliceBySlice
from medreasoner.expert.volume import CANCELLED, END, open_volume_expert
from medreasoner.imaging import open_image
from medreasoner.metrics import dice
from medreasoner.picture import Picture
from rl_training.warp import boxes_and_points
from tests.metas_sam2 import metas_layout
from tests.small_sam2 import SIDE, small_video_config

Mask = NDArray[np.bool_]
GREY, BRIGHT = 60, 180


class Threshold(PictureExpert[Mask]):
    """An ideal expert: the bright pixels in the box; as real ones do, it fills a box that holds nothing bright.

    `later` spoils what it finds on all slices but the first.
    """

    def __init__(self, later: Callable[[Mask], tuple[Mask, float]] = lambda mask: (mask, 0.9)) -> None:
        super().__init__("threshold", "", BOX_AND_POINTS)
        self._later, self._asked = later, 0

    def _embed(self, pixels: NDArray[np.uint8]) -> Mask:
        return pixels[..., 0] > (GREY + BRIGHT) / 2

    def _decode(self, embedding: Mask, box: Box | None, points: Sequence[Point]) -> tuple[Mask, float]:
        assert box is not None
        self._asked += 1
        inside = np.zeros_like(embedding)
        inside[int(box.y_min) : int(np.ceil(box.y_max)), int(box.x_min) : int(np.ceil(box.x_max))] = True
        bright = embedding & inside
        if self._asked == 1:
            assert all(embedding[int(p.y), int(p.x)] for p in points)
            return bright, 0.9
        return self._later(bright if bright.any() else inside)


def pictures_of(masks: Mask, noise: float = 4.0) -> list[Picture]:
    levels = np.where(masks, BRIGHT, GREY) + np.random.default_rng(0).normal(0, noise, masks.shape)
    return [Picture(np.repeat(level.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)) for level in levels]


def ball(slices: int = 15, side: int = 64, radius: float = 18.0, squeeze: float = 3.0) -> Mask:
    """A ball in the middle, its slices `squeeze` pixels apart: it ends well before the volume does."""
    z, y, x = np.mgrid[:slices, :side, :side] + 0.5
    return ((z - slices / 2) * squeeze) ** 2 + (y - side / 2) ** 2 + (x - side / 2 - z) ** 2 < radius**2


def test_a_ball_is_followed_to_its_ends_and_no_further() -> None:
    truth = ball()
    there = np.flatnonzero(truth.any((1, 2)))
    assert there[0] > 0 and there[-1] < len(truth) - 1
    seen: list[tuple[int, int]] = []
    found = open_volume_expert(Threshold()).propagate(
        pictures_of(truth), 7, box_around(truth[7]), points_on(truth[7]), lambda done, most: seen.append((done, most))
    )
    assert (found.first, found.last) == (there[0], there[-1])
    assert dice(found.masks, truth) > 0.99
    assert all(re.match(r"slice \d+: grey levels moved", reason) for reason in found.stopped_because)
    assert seen == [(n, len(truth)) for n in range(1, len(there) + 1)]


def test_a_target_that_runs_through_is_followed_to_the_volumes_ends() -> None:
    truth = np.repeat(ball()[7][None], 5, axis=0)
    found = SliceBySlice(Threshold()).propagate(pictures_of(truth), 0, box_around(truth[0]))
    assert (found.first, found.last, found.stopped_because) == (0, 4, (END, END))
    assert np.array_equal(found.masks, truth)


def grown(mask: Mask, by: int) -> Mask:
    rows, columns = np.nonzero(mask)
    out = mask.copy()
    out[max(rows.min() - by, 0) : rows.max() + by, max(columns.min() - by, 0) : columns.max() + by] = True
    return out


@pytest.mark.parametrize(
    ("later", "shift", "reason"),
    [
        (lambda mask: (mask, 0.3), 0, "quality fell to 0.30"),
        (lambda mask: (grown(mask, 8), 0.9), 0, "the mask grew at once"),  # 2.7 times the area
        (lambda mask: (mask & False, 0.9), 0, "nothing found"),
        (lambda mask: (mask, 0.9), 24, "the mask moved away"),
    ],
)
def test_each_reason_to_stop(later: Callable[[Mask], tuple[Mask, float]], shift: int, reason: str) -> None:
    disc = ball()[7]
    volume = pictures_of(np.stack([disc, np.roll(disc, shift, axis=1)]))
    found = SliceBySlice(Threshold(later)).propagate(volume, 0, box_around(disc), points_on(disc))
    assert (found.first, found.last) == (0, 0)
    assert found.stopped_because == (END, f"slice 1: {reason}")
    assert not found.masks[1].any()


def test_an_empty_key_slice_is_an_empty_volume() -> None:
    found = SliceBySlice(Threshold()).propagate(pictures_of(ball()), 7, Box(1, 1, 3, 3))
    assert not found.masks.any()
    assert (found.first, found.last) == (7, 7)
    assert found.stopped_because == ("slice 7 is empty", "slice 7 is empty")


def test_cancelling_returns_what_was_found() -> None:
    truth, calls = ball(), []

    def cancelled() -> bool:
        calls.append(1)
        return len(calls) > 2

    found = SliceBySlice(Threshold()).propagate(pictures_of(truth), 7, box_around(truth[7]), cancelled=cancelled)
    assert found.stopped_because == (CANCELLED, CANCELLED)
    assert (found.first, found.last) == (5, 7)


def test_wrong_requests_are_named() -> None:
    volume, expert = pictures_of(ball()), SliceBySlice(Threshold())
    for key in (-1, len(volume)):
        with pytest.raises(ImageError, match="not in the volume"):
            expert.propagate(volume, key, Box(0, 0, 5, 5))
    with pytest.raises(AnswerError, match="no area"):
        expert.propagate(volume, 7, Box(100, 100, 120, 120))
    volume[8] = Picture(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ImageError, match="slice 8 has 10 x 10 pixels"):
        expert.propagate(volume, 7, box_around(ball()[7]))


def test_prompts_from_a_mask_are_those_of_training() -> None:
    """The embedded reasoner learnt its points from rl_training.warp, which places them on the GPU, in whole pixels."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:40, :50]
    for _ in range(20):
        cx, cy, a, b, tilt = rng.uniform([15, 12, 4, 2, 0.2], [35, 28, 12, 6, 1.3])
        u, v = (x - cx) * np.cos(tilt) + (y - cy) * np.sin(tilt), (y - cy) * np.cos(tilt) - (x - cx) * np.sin(tilt)
        mask = (u / a) ** 2 + (v / b) ** 2 < 1
        box, points = boxes_and_points(torch.from_numpy(np.pad(mask, ((0, 10), (0, 0))))[None])
        assert box_around(mask).as_list() == box[0].tolist()
        ours = np.array([[p.x - 0.5, p.y - 0.5] for p in points_on(mask)])
        assert np.abs(ours - points[0].numpy()).max() <= 1  # ties may go either way


def test_a_grown_box_stays_in_the_picture() -> None:
    mask = np.zeros((20, 30), bool)
    mask[0:4, 10:30] = True
    assert box_around(mask, 0.1).as_list() == [8, 0, 30, 5]


def test_litemedsam_follows_an_ellipsoid() -> None:
    truth = ball(slices=5, side=96, radius=26, squeeze=15)
    there = np.flatnonzero(truth.any((1, 2)))
    assert list(there) == [1, 2, 3]
    found = open_volume_expert(load_expert("litemedsam")).propagate(pictures_of(truth, 8.0), 2, box_around(truth[2]))
    assert (found.first, found.last) == (there[0], there[-1])
    assert dice(found.masks, truth) > 0.9


@pytest.fixture(scope="module")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder in small, its memory drawn wide enough to change masks."""
    folder = tmp_path_factory.mktemp("sam2")
    torch.manual_seed(3)
    model = Sam2VideoModel(small_video_config())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and ("memory" in name or "pointer" in name):
                parameter.normal_(0, 0.3)
        last = model.mask_decoder.pred_obj_score_head.proj_out
        last.weight.zero_()
        last.bias.fill_(2.0)  # there, on every slice
    model.save_pretrained(folder)
    Sam2Processor(Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})).save_pretrained(folder)
    return folder


NOISE = np.random.default_rng(0).integers(0, 200, (6, 70, 100, 3), np.uint8)


@pytest.mark.parametrize("points", [(), (Point(40, 50), Point(60.5, 55))], ids=["box", "box and points"])
def test_sam2_video_is_transformers_own_session(video_folder: Path, points: tuple[Point, ...]) -> None:
    key, box = 2, Box(20, 10, 60.5, 55)
    images = Sam2Processor.from_pretrained(video_folder)
    processor = Sam2VideoProcessor(images.image_processor, Sam2VideoVideoProcessor())
    model = Sam2VideoModel.from_pretrained(video_folder).eval()
    prompts: dict[str, Any] = {"input_boxes": [[box.as_list()]]}
    if points:
        prompts |= {"input_points": [[[[p.x, p.y] for p in points]]], "input_labels": [[[1, 1]]]}
    expected = {}
    for reverse in (True, False):
        session = processor.init_video_session(dtype=torch.float32)
        for frame in NOISE:
            session.add_new_frame(images(images=Image.fromarray(frame), return_tensors="pt")["pixel_values"])
        processor.add_inputs_to_inference_session(session, key, 1, original_size=(70, 100), **prompts)
        with torch.inference_mode():
            for out in model.propagate_in_video_iterator(session, key, reverse=reverse):
                mask = images.post_process_masks([out.pred_masks], [(70, 100)])[0][0, 0]
                expected[out.frame_idx] = mask.numpy()
    assert sorted(expected) == list(range(6))
    assert len({mask.tobytes() for mask in expected.values()}) == 6, "random weights drew trivial masks"

    expert = read_sam2(video_folder)
    followed = open_volume_expert(expert)
    assert not isinstance(followed, SliceBySlice)
    found = followed.propagate([Picture(frame) for frame in NOISE], key, box, points)
    assert (found.first, found.last, found.stopped_because) == (0, 5, (END, END))
    for number, mask in expected.items():
        assert np.array_equal(found.masks[number], mask), number
    assert (followed.name, followed.sha256) == (expert.name, expert.sha256)


def test_sam2_stops_where_the_model_says_that_nothing_is_there(video_folder: Path) -> None:
    followed = open_volume_expert(read_sam2(video_folder))
    model = followed._model  # type: ignore[attr-defined]
    real, seen = model.forward, []

    def forward(session: Any, frame_idx: int, reverse: bool) -> Any:
        out = real(session, frame_idx=frame_idx, reverse=reverse)
        seen.append(frame_idx)
        out.pred_masks = out.pred_masks if frame_idx != 4 else torch.full_like(out.pred_masks, -1024.0)
        return out

    model.forward = forward
    found = followed.propagate([Picture(frame) for frame in NOISE], 2, Box(20, 10, 60, 55))
    assert (found.first, found.last) == (0, 3)
    assert found.stopped_because == (END, "slice 4: nothing found")
    assert seen == [2, 1, 0, 2, 3, 4]


def test_the_video_model_shares_the_picture_models_weights(video_folder: Path) -> None:
    expert = read_sam2(video_folder)
    video = open_volume_expert(expert)._model  # type: ignore[attr-defined]
    mine, its = expert._model.state_dict(keep_vars=True), video.state_dict(keep_vars=True)
    assert all(its[name].data_ptr() == tensor.data_ptr() for name, tensor in mine.items())


def test_a_folder_without_memory_goes_slice_by_slice(video_folder: Path, tmp_path: Path) -> None:
    expert = read_sam2(video_folder)
    expert._model.save_pretrained(tmp_path)
    expert._processor.save_pretrained(tmp_path)
    assert isinstance(open_volume_expert(read_sam2(tmp_path)), SliceBySlice)


def test_medsam2s_memory_is_read_from_metas_layout(tmp_path: Path) -> None:
    parts = medsam2_config()
    torch.manual_seed(1)
    model = Sam2VideoModel(
        Sam2VideoConfig(
            vision_config=parts.vision_config,
            prompt_encoder_config=parts.prompt_encoder_config,
            mask_decoder_config=parts.mask_decoder_config,
            image_size=512,
            memory_attention_rope_feat_sizes=[32, 32],
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand(1))  # what is zero or one at first would hide a wrong name
        grid = model.prompt_encoder.shared_embedding.positional_embedding
        model.shared_image_embedding.positional_embedding.copy_(grid)  # Meta's code has one of them
    layout = metas_layout(model)
    assert set(PUBLISHED_MEMORY) <= set(layout)
    torch.save({"model": layout}, tmp_path / "MedSAM2_latest.pt")
    expert = read_medsam2(tmp_path / "MedSAM2_latest.pt")
    read = open_volume_expert(expert)._model.state_dict()  # type: ignore[attr-defined]
    for name, tensor in model.state_dict().items():
        assert torch.equal(read[name], tensor), name

    del layout["memory_encoder.out_proj.weight"]
    torch.save({"model": layout}, tmp_path / "MedSAM2_latest.pt")
    expert = read_medsam2(tmp_path / "MedSAM2_latest.pt")
    with pytest.raises(CheckpointError, match="another network"):
        open_volume_expert(expert)


# Names of the memory in Meta's checkpoints, one of each kind, written down from its modules.
PUBLISHED_MEMORY = [
    "mask_downsample.weight",
    "maskmem_tpos_enc",
    "memory_attention.layers.0.cross_attn_image.k_proj.weight",
    "memory_attention.layers.3.linear1.bias",
    "memory_attention.layers.3.norm2.weight",
    "memory_attention.layers.3.self_attn.out_proj.weight",
    "memory_attention.norm.weight",
    "memory_encoder.fuser.layers.1.dwconv.weight",
    "memory_encoder.fuser.layers.1.gamma",
    "memory_encoder.fuser.layers.1.norm.bias",
    "memory_encoder.fuser.layers.1.pwconv2.weight",
    "memory_encoder.mask_downsampler.encoder.0.weight",
    "memory_encoder.mask_downsampler.encoder.10.weight",
    "memory_encoder.mask_downsampler.encoder.12.bias",
    "memory_encoder.out_proj.weight",
    "memory_encoder.pix_feat_proj.weight",
    "no_mem_embed",
    "no_mem_pos_enc",
    "no_obj_embed_spatial",
    "no_obj_ptr",
    "obj_ptr_proj.layers.2.weight",
    "obj_ptr_tpos_proj.weight",
]

ACDC = Path(__file__).parents[3] / "shared" / "data" / "umrg-mini" / "volumes" / "acdc_patient001_frame01.nii.gz"


@pytest.mark.nightly
@pytest.mark.shared_data
@pytest.mark.skipif(not ACDC.exists(), reason="umrg-mini does not ship with the repository")
def test_a_left_ventricle_is_followed_through_a_cine_mr() -> None:
    """Ten slices; 3 is the label of the ventricle's cavity. Measured 0.937."""
    stored, labels = open_image(ACDC), nibabel.load(str(ACDC).replace(".nii", "_label.nii")).get_fdata()
    volume = [stored.picture(slice_index=k, axis="axial") for k in range(labels.shape[2])]
    truth = np.stack([picture_mask(picture, labels == 3) for picture in volume])
    key = int(truth.sum((1, 2)).argmax())
    found = open_volume_expert(load_expert()).propagate(volume, key, box_around(truth[key]), points_on(truth[key]))
    assert dice(found.masks, truth) > 0.9


def picture_mask(picture: Picture, volume: Mask) -> Mask:
    y, x = np.mgrid[: picture.height, : picture.width] + 0.5
    i, j, k = np.rint(np.stack([x, y, np.ones_like(x)], axis=-1) @ picture.to_index.T).astype(int).transpose(2, 0, 1)
    return np.asarray(volume[i, j, k])
