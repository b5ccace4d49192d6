"""Adapters merged by the product against PEFT's own merging, and every way in which one cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from medreasoner.contract.errors import CheckpointError
from medreasoner.reasoner.adapter import CONFIG, WEIGHTS, merge_adapter
from medreasoner.reasoner.card import FILE, ReasonerCard
from medreasoner.reasoner.local import LocalReasoner
from medreasoner.reasoner.quantised import folder_hash, load_quantised, save_quantised
from rl_training.tiny import make_tiny

LAYERS = r".*(language_model.*\.(q_proj|k_proj|down_proj)|visual.*\.(qkv|gate_proj))"


def load(folder: Path) -> Any:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base") / "tiny")


def adapt(base: Path, folder: Path, **options: Any) -> Path:
    """Save an adapter of random matrices, large enough to change what the model says."""
    torch.manual_seed(7)
    settings = {"r": 3, "lora_alpha": 5, "target_modules": LAYERS, **options}
    model = get_peft_model(load(base), LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapt(base, tmp_path_factory.mktemp("adapter"))


@pytest.mark.parametrize("rslora", [False, True], ids=["alpha/rank", "alpha/sqrt(rank)"])
def test_peft_merges_to_the_same_weights(base: Path, tmp_path: Path, rslora: bool) -> None:
    folder = adapt(base, tmp_path, use_rslora=rslora)
    theirs = PeftModel.from_pretrained(load(base), folder).merge_and_unload().state_dict()
    plain = load(base)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    merge_adapter(plain.state_dict(), folder)
    ours = plain.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, msg=name)
    changed = {name for name in ours if not torch.equal(ours[name], before[name])}
    assert len(changed) == 2 * (3 + 2)  # two layers in each trunk, three and two matrices of each


def test_an_adapter_beside_int8_rows_comes_with_them(base: Path, adapter: Path, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in load(base).state_dict().items() if name != "lm_head.weight"}
    save_quantised(state, tmp_path)
    plain, alone = load_quantised(tmp_path), folder_hash(tmp_path)
    for name in (CONFIG, WEIGHTS):
        shutil.copy(adapter / name, tmp_path)
    merge_adapter(plain, adapter)
    both = load_quantised(tmp_path)
    assert all(torch.equal(both[name], plain[name]) for name in plain)
    assert folder_hash(tmp_path) != alone, "answers must name the adapter too"


def checkpoint(base: Path, adapter: Path, folder: Path) -> Path:
    """Put an adapter into a folder of its own, beside a copy of its base."""
    shutil.copytree(base, folder / "base")
    shutil.copytree(adapter, folder / "mine")
    card = ReasonerCard.of(base)
    (folder / "mine" / FILE).write_text(json.dumps({**vars(card), "name": "mine", "base": "../base"}))
    return folder / "mine"


def test_a_folder_may_change_the_weights_of_another(base: Path, adapter: Path, tmp_path: Path) -> None:
    reasoner = LocalReasoner(checkpoint(base, adapter, tmp_path), "cpu")
    theirs = PeftModel.from_pretrained(load(base), adapter).merge_and_unload().state_dict()
    ours = reasoner._model.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    assert reasoner.name == "mine"
    assert reasoner.sha256 not in (LocalReasoner(base, "cpu").sha256, folder_hash(adapter))


def test_an_adapter_of_an_earlier_release_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    folder = checkpoint(base, adapter, tmp_path)
    card = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**card, "base_sha256": folder_hash(base)}))
    assert LocalReasoner(folder, "cpu").name == "mine"
    (folder / FILE).write_text(json.dumps({**card, "base_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="trained on other weights"):
        LocalReasoner(folder, "cpu")


def test_an_adapter_beside_plain_weights_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    """transformers would add it where PEFT is installed, and leave it out on a server without PEFT."""
    shutil.copytree(base, tmp_path / "both")
    for name in (CONFIG, WEIGHTS):
        shutil.copy(adapter / name, tmp_path / "both")
    with pytest.raises(CheckpointError, match="beside plain weights") as caught:
        LocalReasoner(tmp_path / "both", "cpu")
    assert "as its base" in caught.value.hint


def edit(folder: Path, **changes: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def drop_a_half(folder: Path) -> None:
    parts = load_file(folder / WEIGHTS)
    save_file(
        {name: tensor for name, tensor in parts.items() if "layers.0.self_attn.q_proj.lora_B" not in name},
        folder / WEIGHTS,
    )


def widen(folder: Path) -> None:
    parts = load_file(folder / WEIGHTS)
    save_file(
        {n: torch.zeros(t.shape[0], 99) if "q_proj.lora_A" in n else t for n, t in parts.items()}, folder / WEIGHTS
    )


UNUSABLE = {
    "another rule": (lambda f: edit(f, use_dora=True), "no plain LoRA .use_dora."),
    "another method": (lambda f: edit(f, peft_type="IA3"), "no plain LoRA .IA3."),
    "with biases": (lambda f: edit(f, bias="all"), "no plain LoRA"),
    "no rank": (lambda f: edit(f, r=0), "no plain LoRA"),
    "not JSON": (lambda f: (f / CONFIG).write_text("{"), "no adapter's description"),
    "cut off": (cut, "cannot be read"),
    "missing": (lambda f: (f / WEIGHTS).unlink(), "cannot be read"),
    "half a pair": (drop_a_half, "pairs of matrices"),
    "of a wider model": (widen, "of other weights: .*q_proj"),
}


@pytest.mark.parametrize("how", UNUSABLE)
def test_an_unusable_adapter_is_refused(base: Path, adapter: Path, tmp_path: Path, how: str) -> None:
    shutil.copytree(adapter, tmp_path / "broken")
    damage, message = UNUSABLE[how]
    damage(tmp_path / "broken")
    with pytest.raises(CheckpointError, match=message):
        merge_adapter(load(base).state_dict(), tmp_path / "broken")


def test_a_changed_description_is_another_reasoner(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "other")
    edit(tmp_path / "other", lora_alpha=50)
    assert folder_hash(tmp_path / "other") != folder_hash(adapter)


def test_a_lost_base_is_named(base: Path, adapter: Path, tmp_path: Path) -> None:
    folder = checkpoint(base, adapter, tmp_path)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(CheckpointError, match="which is not there"):
        LocalReasoner(folder, "cpu")
