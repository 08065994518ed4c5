"""All methods of the project, as parameters of tests."""

from __future__ import annotations

from typing import Any

import pytest
from paths import ROOT

FILES = sorted((ROOT / "methods").glob("*.py"))
NAMES = [path.stem for path in FILES]
ALWAYS = ("ewc", "magmax", "merge_init", "merge_ortho", "self_replay")
"""In the default run, as one of each way to work; a new method, which has no results yet, is too."""


def most_long() -> list[Any]:
    """Their names, of which those that have results are `long`, but for a few."""
    have_results = {path.stem for path in (ROOT / "submissions" / "mini-v2" / "styles").glob("*.json")}
    long = have_results.difference(ALWAYS)
    return [pytest.param(name, marks=[pytest.mark.long] if name in long else []) for name in NAMES]
