"""Sizes of the Qwen2.5-VL family, for reckoning with checkpoints that are not on this machine and for benchmarks.

From the published config.json of Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct; Lingshu-7B and MedReasoner-Soft-7B have
the shape of the latter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from medreasoner.folders import embedded_folder

_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_TEXT = {
    "3b": {
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "intermediate_size": 11008,
        "vocab_size": 151936,
    },
    "7b": {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
    },
}


@dataclass(frozen=True)
class Shape:
    """What memory depends on.

    Attributes:
        parameters: all of them; tied embeddings count once.
        linear: text layers by their last name: how many, output and input width.
        layers, hidden, key_value: text layers, their width, and the width of a layer's keys (or values).
        inner: width inside a text layer's gated MLP.
        vocabulary: rows of the embedding.
        image_side: pixels of the picture's side to one image token.
    """

    parameters: int
    linear: dict[str, tuple[int, int, int]]
    layers: int
    hidden: int
    key_value: int
    inner: int
    vocabulary: int
    image_side: int

    def adapter_parameters(self, rank: int, names: tuple[str, ...]) -> int:
        """Count the parameters of low-rank adapters on the named layers."""
        return sum(count * rank * (out + into) for name, (count, out, into) in self.linear.items() if name in names)


def configuration(name: str) -> Qwen2_5_VLConfig:
    """Return the configuration of "embedded", "3b" or "7b"."""
    if name == "embedded":
        return Qwen2_5_VLConfig.from_pretrained(embedded_folder())
    text, tied = _TEXT[name], name == "3b"
    rotary = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    return Qwen2_5_VLConfig(
        text_config={
            **text,
            "rope_parameters": rotary,
            "max_position_embeddings": 128_000,
            "tie_word_embeddings": tied,
        },
        vision_config={**_VISION, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=tied,
    )


def shape_of(config: Qwen2_5_VLConfig) -> Shape:
    """Measure a configuration without making its weights."""
    with torch.device("meta"):
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    model.tie_weights()
    linear: dict[str, tuple[int, int, int]] = {}
    for name, module in model.model.language_model.named_modules():
        if isinstance(module, torch.nn.Linear):
            last = name.rsplit(".", 1)[-1]
            linear[last] = (linear.get(last, (0, 0, 0))[0] + 1, module.out_features, module.in_features)
    text: Any = config.text_config
    vision: Any = config.vision_config
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=linear,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        key_value=text.hidden_size // text.num_attention_heads * text.num_key_value_heads,
        inner=text.intermediate_size,
        vocabulary=text.vocab_size,
        image_side=vision.patch_size * vision.spatial_merge_size,
    )


def shape_in(folder: Path) -> Shape:
    """Measure a checkpoint folder by its config.json."""
    return shape_of(Qwen2_5_VLConfig.from_pretrained(folder))
