"""LiteMedSAM's image encoder, for inference: TinyViT with SAM's neck, written for two CPU cores.

Architecture: Wu et al., TinyViT (https://arxiv.org/abs/2207.10666), with the two changes that LiteMedSAM's published
weights need: the first convolutions keep the full 256 x 256 resolution, and the last stage keeps 64 x 64. Every
batch normalisation is folded into its convolution, 1 x 1 convolutions are matrix products on channels-last rows, and
the full-resolution blocks run a strip of rows at a time so that their wide activations stay in the processor's cache.
Weights keep their published names, less the folded ones. Inside, every map is (batch, rows, columns, channels).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STRIP_ROWS = 16


class TinyViTEncoder(nn.Module):
    """(1, 3, 256, 256) float32 in [0, 1] to the (1, 256, 64, 64) embedding that SAM's mask decoder reads."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(OrderedDict(seq=nn.Sequential(nn.Linear(3, 32), nn.GELU(), nn.Linear(32, 64))))
        self.layers = nn.Sequential(
            _Stage([_MBConv(64) for _ in range(2)], _Merge(64, 128, stride=2)),
            _Stage([_Block(128, heads=4, window=7) for _ in range(2)], _Merge(128, 160, stride=2)),
            _Stage([_Block(160, heads=5, window=14) for _ in range(6)], _Merge(160, 320, stride=1)),
            _Stage([_Block(320, heads=10, window=7) for _ in range(2)]),
        )
        self.neck = nn.Sequential(
            nn.Linear(320, 256, bias=False),
            nn.LayerNorm(256, eps=1e-6),
            _RowsConv(256, 256, 3, padding=1, bias=False),
            nn.LayerNorm(256, eps=1e-6),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Encode a batch of pictures."""
        rows = self.neck(self.layers(self.patch_embed(images.permute(0, 2, 3, 1))))
        embedding: Tensor = rows.permute(0, 3, 1, 2).contiguous()
        return embedding


def folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold each published pair of convolution ``.c`` and batch normalisation ``.bn`` into one weight and bias.

    ``w' = w * gamma / sqrt(variance + eps)``, ``b' = beta - mean * gamma / sqrt(variance + eps)``. Kernels of 1 x 1
    become matrices.
    """
    out = {}
    for name, tensor in state.items():
        stem, pair, _ = name.rpartition(".c.weight")
        if pair:
            norm = {leaf: state[f"{stem}.bn.{leaf}"] for leaf in ("weight", "bias", "running_mean", "running_var")}
            gain = norm["weight"] / torch.sqrt(norm["running_var"] + 1e-5)
            out[f"{stem}.weight"] = _as_matrix(tensor * gain[:, None, None, None])
            out[f"{stem}.bias"] = norm["bias"] - norm["running_mean"] * gain
        elif ".bn." not in name:
            out[name] = _as_matrix(tensor)
    return out


def _as_matrix(weight: Tensor) -> Tensor:
    return weight.flatten(1) if weight.shape[2:] == (1, 1) else weight


class _RowsConv(nn.Conv2d):
    """A convolution on channels-last maps; the permutations copy nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _depthwise(channels: int, stride: int = 1) -> _RowsConv:
    return _RowsConv(channels, channels, 3, stride, padding=1, groups=channels)


def _in_strips(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run a layer that sees one row beyond its own, a strip of rows at a time.

    A strip gets one row more on either side. Inside the map the layer's zero padding spoils only those rows, which
    are cut off; at the map's edge there is no such row, and the zero padding is what the layer means.
    """
    strips = []
    for start in range(0, x.shape[1], _STRIP_ROWS):
        top = max(start - 1, 0)
        strips.append(layer(x[:, top : start + _STRIP_ROWS + 1])[:, start - top :][:, :_STRIP_ROWS])
    return torch.cat(strips, 1)


class _Stage(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.downsample(self.blocks(x))
        return out


class _MBConv(nn.Module):
    """Inverted bottleneck: four times the channels, a look at the neighbours, back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Linear(channels, 4 * channels)
        self.conv2 = _depthwise(4 * channels)
        self.conv3 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return _in_strips(self._strip, x)

    def _strip(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class _Merge(nn.Module):
    """Change the number of channels and, with a stride of 2, halve the resolution."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Linear(channels, out_channels)
        self.conv2 = _depthwise(out_channels, stride)
        self.conv3 = nn.Linear(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return out


class _Block(nn.Module):
    """Attention within square windows, a depthwise convolution across them, and a perceptron."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = _Attention(channels, heads, window)
        self.local_conv = _depthwise(channels)
        self.mlp = _Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        return _in_strips(self._strip, x + self._attend(x))

    def _strip(self, x: Tensor) -> Tensor:
        x = self.local_conv(x)
        out: Tensor = x + self.mlp(x)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        down, across = x.shape[1] // side, x.shape[2] // side
        x = x.view(batch, down, side, across, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, side * side, channels))
        x = x.view(batch, down, across, side, side, channels).transpose(2, 3)
        return x.reshape(batch, down * side, across * side, channels)[:, :height, :width]


class _Attention(nn.Module):
    """Multi-head attention of (windows, pixels, channels), with a learnt bias for each distance within the window."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        row, column = torch.arange(window * window).div(window, rounding_mode="floor"), torch.arange(window**2) % window
        distance = (row[:, None] - row).abs() * window + (column[:, None] - column).abs()
        self.distance: Tensor
        self.register_buffer("distance", distance, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        windows, pixels, channels = x.shape
        qkv = self.qkv(self.norm(x)).view(windows, pixels, self.heads, -1).transpose(1, 2)
        query, key, value = qkv.chunk(3, dim=-1)
        bias = self.attention_biases[:, self.distance].expand(windows, -1, -1, -1)  # 4-D: torch's quick CPU kernel
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        out: Tensor = self.proj(seen.transpose(1, 2).reshape(windows, pixels, channels))
        return out


class _Mlp(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out
