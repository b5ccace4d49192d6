"""Weights stored as int8 with one scale a row: a quarter of fp32, small enough to ship in the repository."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from medreasoner.contract.errors import CheckpointError
from medreasoner.reasoner.adapter import CONFIG as ADAPTER
from medreasoner.reasoner.adapter import has_adapter, merge_adapter

_SCALE = ".scale"


def quantise_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a matrix to int8 with ``weight = int8 * scale``, one fp32 scale a row (largest magnitude to 127).

    Args:
        weight: (rows, columns) float.

    Returns:
        (rows, columns) int8 and (rows, 1) float32.
    """
    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    return (weight.float() / scale).round().to(torch.int8), scale


def rounded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return float32 weights exactly as they will be after saving and loading."""
    return dict(_unpack(_pack(state)))


def save_quantised(state: dict[str, torch.Tensor], folder: Path, shard_bytes: int = 15 << 20) -> list[Path]:
    """Write matrices as int8 rows and all else as float32 into numbered safetensors shards."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in _pack(state).items():
        if size + tensor.nbytes > shard_bytes and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.contiguous()
        size += tensor.nbytes
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"weights-{n:02d}-of-{len(shards):02d}.safetensors" for n in range(1, len(shards) + 1)]
    for path, shard in zip(paths, shards, strict=True):
        save_file(shard, path)
    return paths


def load_quantised(folder: Path, adapter: bool = True) -> dict[str, torch.Tensor]:
    """Read all shards back as float32, with the folder's own adapter merged where it has one and `adapter` says so.

    Raises:
        CheckpointError: a shard is missing or damaged, or the adapter is.
    """
    packed: dict[str, torch.Tensor] = {}
    for path in shard_paths(folder):
        try:
            packed.update(load_file(path))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"{path.name} cannot be read: {error}", "fetch the checkpoint folder again"
            ) from error
    try:
        state = dict(_unpack(packed))
    except KeyError as error:
        raise CheckpointError(f"the weights in {folder} lack {error}", "fetch the checkpoint folder again") from error
    if adapter and has_adapter(folder):
        merge_adapter(state, folder)
    return state


def shard_paths(folder: Path) -> list[Path]:
    """List the shards in order; raises `CheckpointError` when some are missing."""
    paths = sorted(folder.glob("weights-*-of-*.safetensors"))
    wanted = int(paths[0].stem.rsplit("-", 1)[1]) if paths else 0
    if not paths or len(paths) != wanted:
        raise CheckpointError(
            f"{folder} holds {len(paths)} of {wanted or 'its'} weight files", "fetch the whole checkpoint folder again"
        )
    return paths


def folder_hash(*folders: Path) -> str:
    """SHA-256 over the SHA-256 of each weight file, and adapter's description, of the folders in their order."""
    digest = hashlib.sha256()
    for folder in folders:
        described = [folder / ADAPTER] if has_adapter(folder) else []
        for path in [*sorted(folder.glob("*.safetensors")), *described]:
            digest.update(_stream_hash(path))
    return digest.hexdigest()


def _stream_hash(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.digest()


def _pack(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    packed = {}
    for name, tensor in state.items():
        flat = tensor.detach().cpu().float()
        if flat.ndim >= 2 and flat.numel() >= 4096:
            rows, scale = quantise_rows(flat.reshape(flat.shape[0], -1))
            packed[name], packed[name + _SCALE] = rows.reshape(flat.shape), scale
        else:
            packed[name] = flat
    return packed


def _unpack(packed: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in packed.items():
        if name.endswith(_SCALE):
            continue
        if tensor.dtype != torch.int8:
            yield name, tensor
            continue
        rows = tensor.reshape(tensor.shape[0], -1).float() * packed[name + _SCALE]
        yield name, rows.reshape(tensor.shape)
