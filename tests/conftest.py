"""Shared by all tests."""

import medreasoner  # noqa: F401  it sets how OpenMP's threads wait, which counts only before torch is imported
