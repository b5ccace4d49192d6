"""A stand-in for the reasoner: a question and frozen features of a picture to a box, number by number.

A question is the hashed words and pieces that the product's reader of wordings takes, so a target's name means nothing
before it was learnt. The four numbers come one after the other, each a distribution over the canvas that depends on
those before it, so boxes can be drawn as a language model draws them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.learning.features import CELLS, CHANNELS
from medreasoner.reasoner.wording import buckets

BUCKETS = 16_384
WIDTH, HEADS = 64, 4
KNOTS = 2 * CELLS  # a side at which a distribution is given; straight lines between


class SmallReasoner(nn.Module):
    """About a million parameters, nearly all of them words."""

    lines: torch.Tensor
    bumps: torch.Tensor

    def __init__(self, canvas: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(BUCKETS, WIDTH, mode="sum")
        self.read = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.see = nn.Sequential(nn.LayerNorm(CHANNELS, elementwise_affine=False), nn.Linear(CHANNELS, WIDTH))
        self.place = nn.Parameter(0.02 * torch.randn(CELLS * CELLS, WIDTH))
        self.search = nn.ModuleList(_Search() for _ in range(2))
        self.slot = nn.Embedding(4, WIDTH)
        self.before = nn.Linear(3 * CELLS, WIDTH)
        self.look = _Look()
        self.edge = nn.Linear(WIDTH, 2 * WIDTH)
        self.adjust = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, KNOTS))
        steps, knots = torch.arange(canvas + 1.0), (torch.arange(KNOTS) + 0.5) * canvas / KNOTS
        gap = canvas / KNOTS
        inside = steps.clamp(float(knots[0]), float(knots[-1]))
        self.register_buffer("lines", (1 - (inside[None] - knots[:, None]).abs() / gap).clamp(min=0), False)
        self.register_buffer("bumps", (torch.arange(CELLS) + 0.5) * canvas / CELLS, False)

    def seen(self, features: torch.Tensor, questions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Read questions and search their pictures.

        Args:
            features: (n, CELLS * CELLS, CHANNELS) float.
            questions: of each.

        Returns:
            cells (n, CELLS * CELLS, WIDTH) and what was asked (n, WIDTH).
        """
        hashed = [torch.tensor(buckets(question, BUCKETS)) for question in questions]
        lengths = torch.tensor([len(row) for row in hashed])
        asked = self.read(self.words(torch.cat(hashed), lengths.cumsum(0) - lengths))
        cells = self.see(features) + self.place
        for search in self.search:
            cells = search(cells, asked)
        return cells, asked

    def forward(
        self, cells: torch.Tensor, asked: torch.Tensor, slots: torch.Tensor, before: torch.Tensor
    ) -> torch.Tensor:
        """Return the logits of numbers, (n, k, canvas + 1).

        Args:
            cells, asked: from `seen`, for n questions.
            slots: (k,) long, which numbers of the box: 0 to 3 for x_min, y_min, x_max, y_max.
            before: (n, k, 3) float, the box's first three numbers; those from its slot on are not looked at.
        """
        known = torch.arange(3) < slots[:, None]
        bump = torch.exp(-(((before[..., None] - self.bumps) / self.bumps[0]) ** 2) / 8) * known[..., None]
        state = asked[:, None] + self.slot(slots) + self.before(bump.flatten(2))
        state = self.look(state, cells)
        halves = self.edge(state).unflatten(-1, (2, WIDTH)).flatten(1, 2)
        maps = (halves @ cells.transpose(1, 2) / WIDTH**0.5).unflatten(2, (CELLS, CELLS))
        maps = maps.unflatten(1, (len(slots), 2))  # (n, k, halves of a cell, rows, columns)
        across, down = maps.logsumexp(-2), maps.logsumexp(-1)
        profile = torch.where((slots % 2 == 0)[:, None, None], across, down)
        return (profile.transpose(2, 3).flatten(2) + self.adjust(state)) @ self.lines


class _Search(nn.Module):
    """Let the question, and the picture as a whole, decide what counts in each cell."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.steer = nn.Linear(2 * WIDTH, 2 * WIDTH)
        self.step = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(WIDTH, WIDTH))

    def forward(self, cells: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        gain, shift = self.steer(torch.cat([asked, cells.mean(1)], 1))[:, None].chunk(2, -1)
        found: torch.Tensor = cells + self.step(self.norm(cells) * (1 + gain) + shift)
        return found


class _Look(nn.Module):
    """Attention from the numbers to be written to the cells."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key_value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.step = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, state: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        key, value = self.key_value(cells).chunk(2, -1)
        query, key, value = (v.unflatten(2, (HEADS, -1)).transpose(1, 2) for v in (self.query(state), key, value))
        state = state + F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        found: torch.Tensor = state + self.step(state)
        return found
