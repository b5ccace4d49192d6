"""From the names of weights in Meta's SAM 2 code, which MedSAM2 keeps, to those in transformers' Sam2VideoModel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from medreasoner.contract.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

# The memory that follows a target through a video, in transformers' names; a single picture needs none of it.
_MEMORY = (
    "mask_downsample.",
    "memory_",
    "no_memory_positional_encoding",
    "no_object_pointer",
    "object_pointer_proj.",
    "occlusion_spatial_embedding_parameter",
    "temporal_positional_encoding_projection_layer.",
)
_RENAMINGS = [
    (re.compile(pattern), new)
    for pattern, new in [
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"^sam_prompt_encoder\.", "prompt_encoder."),
        (r"^sam_mask_decoder\.", "mask_decoder."),
        (r"^no_mem_embed$", "no_memory_embedding"),
        (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
        (r"^no_obj_ptr$", "no_object_pointer"),
        (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
        (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
        (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
        (r"^obj_ptr_proj\.layers\.0\.", "object_pointer_proj.proj_in."),
        (r"^obj_ptr_proj\.layers\.1\.", "object_pointer_proj.layers.0."),
        (r"^obj_ptr_proj\.layers\.2\.", "object_pointer_proj.proj_out."),
        (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
        (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
        (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
        (r"\.dwconv\.", ".depthwise_conv."),
        (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
        (r"\.gamma$", ".scale"),
        # Four times convolution, normalisation, activation; then one convolution.
        (r"\.mask_downsampler\.encoder\.12\.", ".mask_downsampler.final_conv."),
        *((rf"\.mask_downsampler\.encoder\.{3 * n}\.", f".mask_downsampler.layers.{n}.conv.") for n in range(4)),
        *((rf"\.mask_downsampler\.encoder\.{3 * n + 1}\.", f".mask_downsampler.layers.{n}.norm.") for n in range(4)),
        (r"\.norm\.", ".layer_norm."),
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
    """Rename all weights and stack the four kinds of point.

    Raises:
        CheckpointError: the weights are not SAM 2's.
    """
    import torch

    found = {transformers_name(name): tensor for name, tensor in weights.items()}
    try:
        found["prompt_encoder.point_embed.weight"] = torch.cat([found.pop(name) for name in _POINTS])
        found["shared_image_embedding.positional_embedding"] = found[_GRID]
    except KeyError as error:
        raise CheckpointError(
            f"{path} holds no weights of SAM 2: {error} is missing", "fetch MedSAM2_latest.pt again"
        ) from error
    return found


def without_memory(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep what Sam2Model, which knows single pictures only, has a place for."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(_MEMORY)}
