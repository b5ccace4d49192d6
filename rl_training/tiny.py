"""Make a Qwen2.5-VL of 0.1 M random weights with a byte-level tokenizer, to try the training commands on a CPU.

python -m rl_training.tiny FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from medreasoner.instruction import instruction_hash
from medreasoner.reasoner.card import ReasonerCard
from rl_training.trunk import IMAGE_TOKENS, processor

CANVAS = 56  # pixels; 2 x 2 image tokens
_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS)


def tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of 256 bytes, the canvas's whole numbers and Qwen's marks."""
    alphabet = {text: token for token, text in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=_MARKS[1], eos_token=_MARKS[2], pad_token=_MARKS[0]
    )
    made.add_tokens([AddedToken(str(number), normalized=False) for number in range(CANVAS + 1)])
    made.add_special_tokens({"additional_special_tokens": [AddedToken(mark, special=True) for mark in IMAGE_TOKENS]})
    return made


def configuration(words: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Describe the model: two text and two vision layers of width 48."""
    start, end, image, video = (int(words.vocab[token]) for token in IMAGE_TOKENS)
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 96,
            "vocab_size": len(words),
            "max_position_embeddings": 2048,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 2, 2]},
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 48,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=True,
    )


def make_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a whole checkpoint folder; returns it."""
    torch.manual_seed(seed)
    words = tokenizer()
    model = Qwen2_5_VLForConditionalGeneration(configuration(words))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor(words, CANVAS).save_pretrained(folder)
    ReasonerCard(
        "tiny",
        canvas=CANVAS,
        instruction="direct",
        may_abstain=True,
        dialect="strict",
        max_reasoning=64,
        trained_with=instruction_hash("direct"),
    ).save(folder)
    return folder


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    make_tiny(parser.parse_args(argv).folder)


if __name__ == "__main__":
    main()
