"""The embedded reasoner with low-rank adapters: its likelihoods, its copy that writes answers, its files."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from medreasoner.contract.errors import CheckpointError
from medreasoner.reasoner.adapter import WEIGHTS
from rl_training.config.embedded import EmbeddedGrpoConfig
from rl_training.forward import rotary_positions, text_states, to_patches, vision_tokens, with_picture

_ADAPTED = (
    r"model\.(language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
    r"|visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj))"
)


@dataclass(frozen=True)
class Asked:
    """Questions about pictures, as the policy reads them.

    Attributes:
        ids: (questions, prompt) long, right-padded, the answer's opening at the end.
        lengths: (questions,) long.
        image_start: (questions,) long, index of the first image token.
        pictures: (questions, 3, side, side) float in [0, 1].
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    image_start: torch.Tensor
    pictures: torch.Tensor

    def part(self, start: int, stop: int) -> Asked:
        """Return some of the questions."""
        return Asked(*(v[start:stop] for v in (self.ids, self.lengths, self.image_start, self.pictures)))


class Policy:
    """A model whose adapters alone are trained, and the actor: the same weights merged, in short floats on a GPU."""

    def __init__(self, model: Any, config: EmbeddedGrpoConfig) -> None:
        device = model.device
        half = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.actor = copy.deepcopy(model).to(half).eval()
        settings = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=_ADAPTED)
        torch.manual_seed(config.seed)
        self.adapted = get_peft_model(model, settings)
        self.model: Any = self.adapted.get_base_model()
        self.compiled = device.type == "cuda"
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._layers: dict[str, Any] = {n: m for n, m in self.model.named_modules() if isinstance(m, LoraLayer)}

    def log_likelihoods(self, asked: Asked, tokens: torch.Tensor, start: bool = False) -> torch.Tensor:
        """Return the log-likelihood of every token of answers that follow the prompts, group after group.

        Args:
            asked: the questions.
            tokens: (questions * group, answer) long.
            start: of the model without its adapters, which is where training began.

        Returns:
            (questions * group, answer) float.
        """
        if start:
            with torch.no_grad(), self.adapted.disable_adapter():
                return self._log_likelihoods(asked, tokens)
        return self._log_likelihoods(asked, tokens)

    def _log_likelihoods(self, asked: Asked, tokens: torch.Tensor) -> torch.Tensor:
        rows, answer = tokens.shape
        group, grid = rows // len(asked.ids), asked.pictures.shape[-1] // 28
        core, device = self.model.model, tokens.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            seen = vision_tokens(core.visual, to_patches(asked.pictures), self.compiled).repeat_interleave(group, 0)
            prompts, lengths, image_start = (
                part.repeat_interleave(group, 0) for part in (asked.ids, asked.lengths, asked.image_start)
            )
            behind = lengths[:, None] + torch.arange(answer, device=device)
            ids = torch.cat([prompts, tokens.new_zeros(tokens.shape)], 1).scatter(1, behind, tokens)
            embedded = with_picture(core.language_model.embed_tokens(ids), image_start, seen)
            positions = rotary_positions(image_start, ids.shape[1], grid)
            states, _ = text_states(core.language_model, embedded, positions, compiled=self.compiled)
            before = (behind - 1)[..., None].expand(-1, -1, states.shape[-1])
            logits = self.model.lm_head(states.gather(1, before))
        flat = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten(), reduction="none")
        return -flat.reshape(rows, answer)

    @torch.no_grad()
    def refresh_actor(self) -> None:
        """Merge the adapters into the actor's weights."""
        for name, layer in self._layers.items():
            merged = layer.get_base_layer().weight + layer.get_delta_weight("default")
            self.actor.get_submodule(name).weight.copy_(merged)

    def load(self, folder: Path) -> None:
        """Go on from an adapter that `save` wrote."""
        found: Any = set_peft_model_state_dict(self.adapted, load_file(folder / WEIGHTS))
        if found.unexpected_keys:
            raise CheckpointError(f"{folder} has an adapter of another model", "start from its own base")

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's files, its matrices as float16."""
        self.adapted.save_pretrained(str(folder))
        path = folder / WEIGHTS
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
