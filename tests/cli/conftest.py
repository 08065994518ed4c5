"""Result files of mini-v2 with random scores."""

import json
from pathlib import Path

import pytest
from builders import make_result

from clbench.results.io import save_result
from clbench.suite import load_suite

SUITE = load_suite("mini-v2")


@pytest.fixture
def saved(tmp_path):
    """Save a valid result of mini-v2 with random scores."""

    def save(name: str = "mine.json", update: dict | None = None, **options) -> Path:
        result = make_result(SUITE, **{"method": "mine", **options})
        save_result(result.model_copy(update=update or {}), tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def edited(saved):
    """A result whose base score of the first task was raised by hand."""
    path = saved("edited.json")
    raw = json.loads(path.read_text())
    raw["runs"][0]["scores"]["csd"][0][0] += 0.2
    path.write_text(json.dumps(raw))
    return path
