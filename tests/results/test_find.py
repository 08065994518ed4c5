"""Results by their variants' names."""

import re
from pathlib import Path

import pytest

from clbench.errors import ClbenchError
from clbench.results.find import find_result, result_files


@pytest.fixture
def places(tmp_path):
    """Two folders of results, beside what runs write too."""
    for name in (
        "runs/mini-v2/styles/mine.json",
        "runs/mini-v2/styles/mine.partial.json",
        "runs/mini-v2/styles/early.partial.json",
        "runs/mini-v2/styles/both.json",
        "runs/mini-v2/objects/both.json",
        "runs/store/cell/mine.json",
        "runs/leaderboard/mini-v2/mine.json",
        "submissions/mini-v2/styles/mine.json",
        "submissions/mini-v2/styles/theirs.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path / "runs", tmp_path / "submissions"


def test_ones_own_result_comes_before_a_submitted_one_and_a_complete_before_a_partial_one(places):
    assert find_result("mine", places=places) == places[0] / "mini-v2/styles/mine.json"
    assert find_result("theirs", places=places) == places[1] / "mini-v2/styles/theirs.json"
    assert find_result("early", places=places) == places[0] / "mini-v2/styles/early.partial.json"


def test_a_path_is_itself(places):
    assert find_result("x/y.json", places=places) == Path("x/y.json")


def test_a_name_on_two_tracks_needs_the_track(places):
    with pytest.raises(ClbenchError, match=r"objects/both\.json, .*styles/both\.json\); give --track"):
        find_result("both", places=places)
    assert find_result("both", "objects", places=places) == places[0] / "mini-v2/objects/both.json"


def test_an_unknown_name_is_answered_with_the_nearest(places):
    with pytest.raises(ClbenchError, match=re.escape("there is no result 'minne' on styles in ")) as refused:
        find_result("minne", "styles", places=places)
    assert "did you mean 'mine'" in str(refused.value)


def test_what_is_kept_beside_the_results_is_none(places):
    assert {path.parent.name for path in result_files(places[0])} == {"styles", "objects"}
