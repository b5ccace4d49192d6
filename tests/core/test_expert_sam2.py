"""SAM 2 and MedSAM2 with random weights: masks of transformers' own processing, and names of Meta's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoModel,
)

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import CheckpointError
from medreasoner.expert import EXPERTS, load_expert
from medreasoner.expert.sam2 import Sam2Expert, medsam2_config
from medreasoner.picture import Picture
from tests.metas_sam2 import metas_layout
from tests.small_sam2 import SIDE, small_parts, small_video_config

PIXELS = np.random.default_rng(0).integers(0, 200, (70, 100, 3), np.uint8)
BOX = Box(20, 10, 60.5, 55)
POINTS = [Point(40, 50), Point(60.5, 55)]
SIZE = {"height": SIDE, "width": SIDE}


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    torch.manual_seed(0)
    return Sam2Model(Sam2Config(**small_parts())).eval()


@pytest.fixture(scope="module")
def processor() -> Sam2Processor:
    return Sam2Processor(Sam2ImageProcessor(size=SIZE))


@pytest.mark.parametrize(
    ("box", "points"), [(BOX, []), (BOX, POINTS), (None, POINTS)], ids=["box", "box and points", "points"]
)
def test_mask_is_transformers_own(
    model: Sam2Model, processor: Sam2Processor, box: Box | None, points: list[Point]
) -> None:
    prompts: dict[str, Any] = {"input_boxes": [[box.as_list()]]} if box else {}
    if points:
        prompts |= {"input_points": [[[[p.x, p.y] for p in points]]], "input_labels": [[[1] * len(points)]]}
    inputs = processor(images=Image.fromarray(PIXELS), return_tensors="pt", **prompts)
    with torch.inference_mode():
        out = model(**inputs, multimask_output=box is None)
    masks = processor.post_process_masks(out.pred_masks, inputs["original_sizes"])[0][0]
    best = int(out.iou_scores[0, 0].argmax())
    assert len(masks) == (3 if box is None else 1)
    assert 0 < masks[best].float().mean() < 1, "random weights drew a trivial mask"

    expert = Sam2Expert("sam2", model, processor, "")
    expert.set_picture(Picture(PIXELS))
    found = expert.segment(box, points)
    assert np.array_equal(found.mask, masks[best].numpy())
    assert found.quality == pytest.approx(float(out.iou_scores[0, 0, best]), abs=1e-4)


def test_the_published_folder_is_loaded_though_it_is_the_video_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processor: Sam2Processor
) -> None:
    folder = tmp_path / "sam2.1_hiera_tiny"
    video = Sam2VideoModel(small_video_config(32))
    video.save_pretrained(folder)
    processor.save_pretrained(folder)
    monkeypatch.setenv("MEDREASONER_MODELS", str(tmp_path))
    expert = load_expert("sam2")
    assert expert.takes == EXPERTS["sam2"].takes
    expert.set_picture(Picture(PIXELS))
    assert expert.segment(BOX).mask.shape == (70, 100)
    assert len(expert.sha256) == 64


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("processor_config.json", None),
        ("config.json", None),
        ("config.json", "{"),
        ("config.json", '{"model_type": "sam", "vision_config": {"hidden_size": 8}}'),
        ("config.json", '{"model_type": "sam2", "vision_config": {"fpn_hidden_size": "wide"}}'),
        ("model.safetensors", None),
        ("model.safetensors", ""),
        ("model.safetensors", "not a checkpoint"),
    ],
)
def test_spoilt_folders_are_refused(
    tmp_path: Path, model: Sam2Model, processor: Sam2Processor, file: str, content: str | None
) -> None:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    load_expert("sam2", tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(CheckpointError):
        load_expert("sam2", tmp_path)


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path, model: Sam2Model, processor: Sam2Processor) -> None:
    kept = {name: tensor for name, tensor in model.state_dict().items() if "upscale_conv1" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    processor.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="lacks weights"):
        load_expert("sam2", tmp_path)


# Names in Meta's checkpoints, at least one of each kind, written down from its modules, not from the table above.
PUBLISHED = [
    "image_encoder.neck.convs.0.conv.weight",
    "image_encoder.trunk.blocks.1.proj.weight",
    "image_encoder.trunk.blocks.11.mlp.layers.1.bias",
    "image_encoder.trunk.blocks.3.attn.qkv.weight",
    "image_encoder.trunk.blocks.3.norm2.weight",
    "image_encoder.trunk.patch_embed.proj.weight",
    "image_encoder.trunk.pos_embed",
    "image_encoder.trunk.pos_embed_window",
    "no_mem_embed",
    "sam_mask_decoder.conv_s0.weight",
    "sam_mask_decoder.iou_prediction_head.layers.2.weight",
    "sam_mask_decoder.iou_token.weight",
    "sam_mask_decoder.obj_score_token.weight",
    "sam_mask_decoder.output_hypernetworks_mlps.3.layers.1.weight",
    "sam_mask_decoder.output_upscaling.1.weight",
    "sam_mask_decoder.output_upscaling.3.weight",
    "sam_mask_decoder.pred_obj_score_head.layers.0.weight",
    "sam_mask_decoder.transformer.final_attn_token_to_image.out_proj.weight",
    "sam_mask_decoder.transformer.layers.1.cross_attn_image_to_token.k_proj.weight",
    "sam_mask_decoder.transformer.layers.1.mlp.layers.0.weight",
    "sam_mask_decoder.transformer.layers.1.norm4.bias",
    "sam_mask_decoder.transformer.norm_final_attn.weight",
    "sam_prompt_encoder.mask_downscaling.0.weight",
    "sam_prompt_encoder.mask_downscaling.6.bias",
    "sam_prompt_encoder.no_mask_embed.weight",
    "sam_prompt_encoder.not_a_point_embed.weight",
    "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    "sam_prompt_encoder.point_embeddings.3.weight",
]
# A checkpoint for videos holds these too; a single picture needs none of them.
MEMORY = dict.fromkeys(
    [
        "mask_downsample.weight",
        "maskmem_tpos_enc",
        "memory_attention.layers.0.self_attn.q_proj.weight",
        "memory_encoder.fuser.layers.0.gamma",
        "no_mem_pos_enc",
        "no_obj_embed_spatial",
        "no_obj_ptr",
        "obj_ptr_proj.layers.0.weight",
        "obj_ptr_tpos_proj.weight",
    ],
    torch.zeros(1),
)


def test_medsam2_is_read_from_metas_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    model = Sam2Model(medsam2_config()).eval()
    torch.nn.init.normal_(model.no_memory_embedding)  # zero by default, which would hide a wrong name
    torch.nn.init.normal_(model.vision_encoder.backbone.pos_embed)
    layout = metas_layout(model) | MEMORY
    assert set(PUBLISHED) <= set(layout)
    torch.save({"model": layout, "epoch": 1}, tmp_path / "MedSAM2_latest.pt")
    monkeypatch.setenv("MEDREASONER_MODELS", str(tmp_path))
    expert = load_expert("medsam2")
    assert expert.takes == EXPERTS["medsam2"].takes == {"box"}

    processor = Sam2Processor(Sam2ImageProcessor(size={"height": 512, "width": 512}))
    inputs = processor(images=Image.fromarray(PIXELS), input_boxes=[[BOX.as_list()]], return_tensors="pt")
    with torch.inference_mode():
        out = model(**inputs, multimask_output=False)
    expected = processor.post_process_masks(out.pred_masks, inputs["original_sizes"])[0][0, 0]
    expert.set_picture(Picture(PIXELS))
    found = expert.segment(BOX)
    assert np.array_equal(found.mask, expected.numpy())
    assert found.quality == pytest.approx(float(out.iou_scores), abs=1e-4)


@pytest.mark.parametrize("lost", ["sam_prompt_encoder.point_embeddings.2.weight", "sam_mask_decoder.iou_token.weight"])
def test_medsam2_without_one_of_its_weights_is_refused(tmp_path: Path, lost: str) -> None:
    layout = metas_layout(Sam2Model(medsam2_config())) | MEMORY
    del layout[lost]
    torch.save({"model": layout}, tmp_path / "MedSAM2_latest.pt")
    with pytest.raises(CheckpointError):
        load_expert("medsam2", tmp_path / "MedSAM2_latest.pt")
