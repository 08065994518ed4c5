"""Rows that a paper printed."""

from __future__ import annotations

import json

import pytest
from paths import SHARED

from clbench.leaderboard.published import load_published


def test_the_board_shows_what_the_paper_printed():
    path = SHARED / "reference" / "published_results.json"
    if not path.is_file():
        pytest.skip("shared/reference is not here")
    facts, ours = json.loads(path.read_text()), load_published()["sdxl-v1"].model_dump(mode="json")
    assert ours["tracks"] == facts["tracks"]
    assert ours["prompt_study"]["rows"] == facts["prompt_study"]["rows"]
