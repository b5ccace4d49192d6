"""Weights of transformers' SAM 2 in the layout in which Meta's code, and MedSAM2, save them."""

from __future__ import annotations

import re

import torch
from torch import nn

# transformers' names back to those of Meta's code: an answer key of its own beside the table that is tested.
_META = {
    "no_memory_positional_encoding": "no_mem_pos_enc",
    "memory_temporal_positional_encoding": "maskmem_tpos_enc",
    "no_object_pointer": "no_obj_ptr",
    "occlusion_spatial_embedding_parameter": "no_obj_embed_spatial",
    r"object_pointer_proj\.proj_in": "obj_ptr_proj.layers.0",
    r"object_pointer_proj\.layers\.0": "obj_ptr_proj.layers.1",
    r"object_pointer_proj\.proj_out": "obj_ptr_proj.layers.2",
    "temporal_positional_encoding_projection_layer": "obj_ptr_tpos_proj",
    r"memory_fuser\.layers": "fuser.layers",
    "depthwise_conv": "dwconv",
    "pointwise_conv": "pwconv",
    r"\.scale$": ".gamma",
    "feature_projection": "pix_feat_proj",
    r"memory_encoder\.projection": "memory_encoder.out_proj",
    r"mask_downsampler\.layers\.0\.conv": "mask_downsampler.encoder.0",
    r"mask_downsampler\.layers\.0\.layer_norm": "mask_downsampler.encoder.1",
    r"mask_downsampler\.layers\.1\.conv": "mask_downsampler.encoder.3",
    r"mask_downsampler\.layers\.1\.layer_norm": "mask_downsampler.encoder.4",
    r"mask_downsampler\.layers\.2\.conv": "mask_downsampler.encoder.6",
    r"mask_downsampler\.layers\.2\.layer_norm": "mask_downsampler.encoder.7",
    r"mask_downsampler\.layers\.3\.conv": "mask_downsampler.encoder.9",
    r"mask_downsampler\.layers\.3\.layer_norm": "mask_downsampler.encoder.10",
    r"mask_downsampler\.final_conv": "mask_downsampler.encoder.12",
    r"^vision_encoder\.backbone\.": "image_encoder.trunk.",
    r"^vision_encoder\.neck\.convs\.(\d)": r"image_encoder.neck.convs.\1.conv",
    r"patch_embed\.projection": "patch_embed.proj",
    r"mlp\.proj_in": "mlp.layers.0",
    r"mlp\.proj_out": "mlp.layers.1",
    r"(_head|_mlps\.\d)\.layers\.0": r"\1.layers.1",
    r"(_head|_mlps\.\d)\.proj_in": r"\1.layers.0",
    r"(_head|_mlps\.\d)\.proj_out": r"\1.layers.2",
    r"mask_embed\.conv1": "mask_downscaling.0",
    r"mask_embed\.layer_norm1": "mask_downscaling.1",
    r"mask_embed\.conv2": "mask_downscaling.3",
    r"mask_embed\.layer_norm2": "mask_downscaling.4",
    r"mask_embed\.conv3": "mask_downscaling.6",
    r"upscale_conv1": "output_upscaling.0",
    r"upscale_layer_norm": "output_upscaling.1",
    r"upscale_conv2": "output_upscaling.3",
    r"layer_norm": "norm",
    r"o_proj": "out_proj",
    r"shared_embedding\.positional_embedding": "pe_layer.positional_encoding_gaussian_matrix",
    r"^prompt_encoder": "sam_prompt_encoder",
    r"^mask_decoder": "sam_mask_decoder",
    r"^no_memory_embedding": "no_mem_embed",
}


def metas_layout(model: nn.Module) -> dict[str, torch.Tensor]:
    """Rename a model's weights, and part the four kinds of point."""
    out = {}
    for name, tensor in model.state_dict().items():
        for pattern, old in _META.items():
            name = re.sub(pattern, old, name)
        if name == "sam_prompt_encoder.point_embed.weight":
            out |= {f"sam_prompt_encoder.point_embeddings.{i}.weight": row[None] for i, row in enumerate(tensor)}
        elif not name.startswith("shared_image_embedding"):
            out[name] = tensor
    return out
