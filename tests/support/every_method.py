"""All methods of the project, as parameters of tests."""

from __future__ import annotations

from typing import Any

import pytest
from paths import ROOT

FILES = sorted((ROOT / "methods").glob("*.py"))
NAMES = [path.stem for path in FILES]
ALWAYS = ("ewc", "magmax", "merge_init", "merge_ortho", "self_replay")
"""In the default run, one of each way to work; the others that have results are `long`, and a new method is not."""


def most_long() -> list[Any]:
    have_results = {path.stem for path in (ROOT / "submissions" / "mini-v2" / "styles").glob("*.json")}
    return [
        pytest.param(name, marks=[pytest.mark.long] if name in have_results.difference(ALWAYS) else [])
        for name in NAMES
    ]
