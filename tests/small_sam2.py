"""SAM 2 small enough to run in a test: half a million random parameters, pictures of 128 pixels."""

from __future__ import annotations

from typing import Any

from transformers import (
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VideoConfig,
    Sam2VisionConfig,
)

SIDE = 128
_MEMORY_WIDTHS = (
    "memory_attention_hidden_size",
    "memory_attention_feed_forward_hidden_size",
    "memory_encoder_hidden_size",
    "memory_fuser_embed_dim",
    "memory_fuser_intermediate_dim",
    "mask_downsampler_embed_dim",
)


def small_parts(width: int = 32) -> dict[str, Any]:
    """Return the configurations of the three parts that pictures and volumes share."""
    backbone = Sam2HieraDetConfig(
        hidden_size=16,
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 1, 2, 4],
        blocks_per_stage=[1, 1, 2, 1],
        global_attention_blocks=[3],
        image_size=[SIDE, SIDE],
    )
    return {
        "vision_config": Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[128, 64, 32, 16],
            fpn_hidden_size=width,
            backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        ),
        "prompt_encoder_config": Sam2PromptEncoderConfig(hidden_size=width, image_size=SIDE),
        "mask_decoder_config": Sam2MaskDecoderConfig(
            hidden_size=width, mlp_dim=64, iou_head_hidden_dim=32, num_attention_heads=2
        ),
    }


def small_video_config(width: int = 128) -> Sam2VideoConfig:
    """Return the same with a memory, which runs only where the features are wider than its own 64 channels."""
    sizes = dict.fromkeys(_MEMORY_WIDTHS, width)
    return Sam2VideoConfig(**small_parts(width), **sizes, memory_attention_rope_feat_sizes=[8, 8], image_size=SIDE)
