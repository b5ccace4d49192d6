"""Fixtures that the tests of batched passes share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import SIDE, make_model


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1)) / 255
