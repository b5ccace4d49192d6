"""From the names of weights in Meta's SAM 2 code, which MedSAM2 keeps, to those in transformers' Sam2Model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from medreasoner.contract.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

# The memory that follows a target through a video; a single picture needs none of it.
_VIDEO = (
    "mask_downsample.",
    "maskmem_tpos_enc",
    "memory_attention.",
    "memory_encoder.",
    "no_mem_pos_enc",
    "no_obj_",
    "obj_ptr_",
)

_RENAMINGS = [
    (re.compile(pattern), new)
    for pattern, new in [
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"^sam_prompt_encoder\.", "prompt_encoder."),
        (r"^sam_mask_decoder\.", "mask_decoder."),
        (r"^no_mem_embed$", "no_memory_embedding"),
        (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
        (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
        (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
        (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
        (r"\.out_proj\.", ".o_proj."),
        # Perceptrons of two layers (in blocks) and of three (heads): the first and the last have names of their own.
        (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
        (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
        (r"(_head|_mlps\.\d)\.layers\.0\.", r"\1.proj_in."),
        (r"(_head|_mlps\.\d)\.layers\.1\.", r"\1.layers.0."),
        (r"(_head|_mlps\.\d)\.layers\.2\.", r"\1.proj_out."),
    ]
]
_POINTS = [f"prompt_encoder.point_embeddings.{kind}.weight" for kind in range(4)]  # off, on, two corners of a box
_GRID = "prompt_encoder.shared_embedding.positional_embedding"


def transformers_name(name: str) -> str:
    """Rename one weight, such as ``image_encoder.trunk.blocks.0.norm1.weight``."""
    for pattern, new in _RENAMINGS:  # in this order: layers.1 becomes layers.0 only after layers.0 is gone
        name = pattern.sub(new, name)
    return name


def for_transformers(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename all weights of a picture, drop those of the video memory, and stack the four kinds of point.

    Raises:
        CheckpointError: the weights are not SAM 2's.
    """
    import torch

    found = {transformers_name(n): tensor for n, tensor in weights.items() if not n.startswith(_VIDEO)}
    try:
        found["prompt_encoder.point_embed.weight"] = torch.cat([found.pop(name) for name in _POINTS])
        found["shared_image_embedding.positional_embedding"] = found[_GRID]
    except KeyError as error:
        raise CheckpointError(
            f"{path} holds no weights of SAM 2: {error} is missing", "fetch MedSAM2_latest.pt again"
        ) from error
    return found
