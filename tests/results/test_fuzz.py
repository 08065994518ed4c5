"""Ten thousand damaged result files: each is refused in a sentence, or says of every score what the original said."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_result, save_suite, tiny_suite

from clbench.results.io import load_result, save_result
from clbench.results.validation import check_file

STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    2**70,
    -0.0,
    0.5,
    "",
    "NaN",
    "../../x",
    "<script>alert(1)</script>",
    "a" * 5000,
    "\u202e\x00\ud7ff",
    [],
    {},
    [[]],
    {"a": 1},
    [None] * 50,
]
BYTES = [
    b"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b'"',
    b":",
    b"9",
    b"-",
    b"e999",
    b"NaN",
    b"Infinity",
    b"\x00",
    b"\xff",
    b"null",
]


@pytest.fixture
def suite(tmp_path) -> str:
    """What `--suite` takes."""
    return save_suite(tiny_suite(), tmp_path / "suite")


@pytest.fixture
def original(tmp_path):
    path = tmp_path / "original.json"
    save_result(make_result(tiny_suite()), path)
    return path


def judge(original: Path, damaged: bytes, path: Path, suite: str) -> bool:
    """Whether a damaged file is accepted; if so, its scores must be the original's."""
    path.unlink(missing_ok=True)  # some file systems flush a file whose content is replaced in place
    path.write_bytes(damaged)
    findings = check_file(path, suite)  # anything but a list of findings fails the test
    assert all("\n" not in finding.message and len(finding.message) < 1000 for finding in findings)
    if findings:
        return False
    before, after = scores(original), scores(path)
    assert before.keys() == after.keys()
    for key, matrix in before.items():
        np.testing.assert_allclose(after[key], matrix, rtol=0, atol=1e-7)  # the digits that a summary does not feel
    return True


def scores(path: Path) -> dict[tuple, np.ndarray]:
    """(order, seed, metric) -> score matrix."""
    runs = load_result(path).runs
    return {(run.order, run.seed, metric): run.matrix(metric) for run in runs for metric in run.scores}


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths to every value inside a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in inner for place in [(*path, key), *places(one, (*path, key))]]


def change(document: Any, place: tuple, source: random.Random) -> None:
    """Replace, remove, repeat, nudge or swap one value."""
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    key, kind = place[-1], source.randrange(5)
    if kind == 0:
        parent[key] = copy.deepcopy(source.choice(STRANGE))
    elif kind == 1:
        del parent[key]
    elif kind == 2 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif kind == 2:
        parent[f"{key}_"] = copy.deepcopy(parent[key])
    elif kind == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = parent[key] * source.choice((0.5, 1.0001, -1, 1e9)) + source.choice((0, 1e-3))
    elif isinstance(parent, list) and len(parent) > 1:
        other = source.randrange(len(parent))
        parent[key], parent[other] = parent[other], parent[key]


@pytest.mark.long
def test_five_thousand_changes_of_structure(original, suite, tmp_path):
    source, text = random.Random(1), original.read_text()
    everywhere = places(json.loads(text))
    accepted = 0
    for _ in range(5000):
        damaged = json.loads(text)
        for place in source.sample(everywhere, source.choice((1, 1, 2))):
            try:
                change(damaged, place, source)
            except (KeyError, IndexError, TypeError):  # an earlier change removed what this one was for
                continue
        accepted += judge(original, json.dumps(damaged).encode(), tmp_path / "damaged.json", suite)
    assert 0 < accepted < 2500  # times, texts and the order of runs may change; most else may not


@pytest.mark.long
def test_five_thousand_changes_of_bytes(original, suite, tmp_path):
    source, content = random.Random(2), original.read_bytes()
    accepted = 0
    for _ in range(5000):
        damaged = bytearray(content)
        for _ in range(source.choice((1, 1, 3))):
            start = source.randrange(len(damaged))
            end = start + source.choice((0, 1, 1, 5, 200))
            damaged[start:end] = source.choice((source.choice(BYTES), source.randbytes(2), b""))
        accepted += judge(original, bytes(damaged), tmp_path / "damaged.json", suite)
    assert 0 < accepted < 2500
