"""What a test does where a program that it needs is not installed."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Fail in CI, which installs everything; elsewhere skip, and say how to get it."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
        f"{what} is not installed: bash scripts/install_system_packages.sh"
    )
    raise AssertionError  # neither of them returns
