"""The mean of several adapters against the mean of the weights that each of them gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from medreasoner.contract.errors import CheckpointError
from medreasoner.reasoner.adapter import CONFIG, WEIGHTS, adapter_parts, merge_adapter, read_adapter
from rl_training.soup import main, make_soup, mean_change, rank_keeping
from rl_training.tiny import make_tiny

NAMES = ("model.language_model.layers.0.self_attn.q_proj.weight", "model.visual.blocks.1.attn.proj.weight")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base") / "tiny")


def adapter(base: Path, folder: Path, seed: int, rank: int = 3, names: tuple[str, ...] = NAMES) -> Path:
    """Write an adapter of random matrices of a tiny model, in PEFT's files."""
    generator = torch.Generator().manual_seed(seed)
    state = Qwen2_5_VLForConditionalGeneration.from_pretrained(base).state_dict()
    folder.mkdir()
    parts = {
        name: (
            torch.randn(rank, state[name].shape[1], generator=generator),
            torch.randn(state[name].shape[0], rank, generator=generator),
        )
        for name in names
    }
    save_file(adapter_parts(parts), folder / WEIGHTS)
    pattern = "|".join(name.removesuffix(".weight").replace(".", r"\.") for name in names)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": f"({pattern})"}
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return folder


def weights(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    state = Qwen2_5_VLForConditionalGeneration.from_pretrained(base).state_dict()
    merge_adapter(state, folder)
    return state


def test_the_whole_soup_is_the_mean_of_the_weights(base: Path, tmp_path: Path) -> None:
    adapters = [adapter(base, tmp_path / str(seed), seed, rank) for seed, rank in ((1, 3), (2, 3), (3, 2))]
    assert make_soup(adapters, tmp_path / "soup", keep=1) == (8, pytest.approx(1))
    each, soup = [weights(base, folder) for folder in adapters], weights(base, tmp_path / "soup")
    for name, tensor in soup.items():
        wanted = torch.stack([state[name] for state in each]).mean(0)
        torch.testing.assert_close(tensor, wanted, rtol=2e-3, atol=2e-2 if name in NAMES else 0)  # float16
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(base)
    theirs = PeftModel.from_pretrained(plain, tmp_path / "soup").merge_and_unload().state_dict()
    for name in NAMES:
        torch.testing.assert_close(theirs[name], soup[name])


def test_the_same_run_thrice_is_that_run_at_its_own_rank(base: Path, tmp_path: Path) -> None:
    one = adapter(base, tmp_path / "one", 5)
    rank, kept = make_soup([one, one, one], tmp_path / "soup", keep=0.999)
    assert (rank, kept) == (3, pytest.approx(1))
    whole, soup = weights(base, one), weights(base, tmp_path / "soup")
    for name in NAMES:
        torch.testing.assert_close(soup[name], whole[name], rtol=2e-3, atol=2e-2)


def test_the_rank_is_the_smallest_that_keeps_the_share() -> None:
    values = [torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 0.0])]  # squares 9 4 1 and 1 0, 15 in all
    assert rank_keeping(values, 0.6) == (1, pytest.approx(10 / 15))
    assert rank_keeping(values, 0.7) == (2, pytest.approx(14 / 15))
    assert rank_keeping(values, 1) == (3, 1.0)


def test_no_other_matrix_of_the_rank_is_nearer() -> None:
    generator = torch.Generator().manual_seed(0)
    changes = [
        (torch.randn(3, 20, generator=generator).double(), torch.randn(30, 3, generator=generator).double())
        for _ in range(2)
    ]
    left, values, right = mean_change(changes)
    wanted = sum(up @ down for down, up in changes) / 2
    torch.testing.assert_close((left * values) @ right, wanted)
    torch.testing.assert_close(values, torch.linalg.svdvals(wanted)[:6])


@pytest.mark.parametrize("given", [("another", 1), ("another", 0), ("missing", 1)], ids=str)
def test_what_cannot_be_averaged_is_named(base: Path, tmp_path: Path, given: tuple[str, int]) -> None:
    name, place = given
    folders = [adapter(base, tmp_path / "one", 1)]
    adapter(base, tmp_path / "another", 2, names=NAMES[:1])
    folders.insert(place, tmp_path / name)
    with pytest.raises(CheckpointError, match=name):
        make_soup(folders, tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_an_earlier_soup_is_kept(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(adapter(base, tmp_path / "one", 1))
    main([str(tmp_path / "soup"), one, one])
    assert "rank 3 keeps" in capsys.readouterr().out
    before = read_adapter(tmp_path / "soup")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "soup"), one, one])
    after = read_adapter(tmp_path / "soup")
    assert all(torch.equal(a, b) for name in before for a, b in zip(before[name], after[name], strict=True))
