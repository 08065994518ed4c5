"""A data root that a test may spoil, and a suite that runs on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_sdxl import write_suite


@pytest.fixture
def world(world, tmp_path) -> Path:
    """A copy of the session's data root."""
    return Path(shutil.copytree(world, tmp_path / "world"))


@pytest.fixture
def tiny(tmp_path) -> Path:
    return write_suite(tmp_path / "tiny")
