"""Equal tuning: where trials are, how their outcomes become a file, and that a run takes what the file chose."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import psutil
import pytest
import warm
from builders import save_suite
from commands import clbench, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from clbench.errors import ClbenchError
from clbench.method import Method, SearchRange, Settings
from clbench.protocol.search_space import search_space
from clbench.results.io import load_result
from clbench.results.tuning import Search, SettingRange, load_search, save_search
from clbench.runner.tuning import trial_settings
from clbench.suite import load_suite

PLUGIN = """
from typing import Annotated
from pydantic import Field
from clbench import Method
from clbench.method import SearchRange, Settings

class Mine(Method):
    name = "mine"

    class Config(Settings):
        strength: Annotated[float, SearchRange(0.1, 10)] = Field(1.0, ge=0)
        untouched: int = 3

    def loss(self, ctx, batch):
        return sum(B.square().sum() for B in ctx.adapter.B.values()) * LOSS
"""
DECAYS, DIVERGES = "self.config.strength", "(float('nan') if self.config.strength > 1 else 1.0)"


# --- where the trials are ---


@st.composite
def ranges(draw) -> SettingRange:
    log, integer = draw(st.booleans()), draw(st.booleans())
    low = draw(st.integers(1, 1000) if integer else st.floats(1e-6, 1e3) if log else st.floats(-1e3, 1e3))
    high = low + draw(st.integers(1, 10**6) if integer else st.floats(1e-3, 1e6))
    return SettingRange(low=low, high=high, log=log, relative=False, integer=integer, default=None)


@settings(max_examples=50)
@given(st.lists(ranges(), min_size=1, max_size=5), st.integers(1, 40), st.integers(1, 40))
def test_trials_are_inside_their_ranges_short_to_type_and_those_of_a_longer_search(mock_suite, found, few, many):
    space = {f"setting{number}": one for number, one in enumerate(found)}
    tried = trial_settings(space, mock_suite.training, max(few, many))
    assert tried[0] == {}
    assert len(tried) == max(few, many)
    assert trial_settings(space, mock_suite.training, min(few, many)) == tried[: min(few, many)]
    for own in tried[1:]:
        for name, value in own.items():
            given = space[name]
            assert given.low <= value <= given.high
            assert isinstance(value, int) == given.integer
            assert given.integer or value in (given.low, given.high, float(f"{value:.3g}"))


@pytest.mark.parametrize(("log", "shares"), [(True, [1 / 3] * 3), (False, [0.009, 0.09, 0.9])])
def test_a_logarithmic_range_has_as_many_trials_in_each_decade_and_a_linear_one_in_each_interval(
    mock_suite, log, shares
):
    space = {"strength": SettingRange(low=1, high=1000, log=log, relative=False, integer=False, default=None)}
    values = [own["strength"] for own in trial_settings(space, mock_suite.training, 1025)[1:]]
    found = [sum(10**decade <= value < 10 ** (decade + 1) for value in values) / 1024 for decade in range(3)]
    assert all(math.isclose(one, share, abs_tol=0.01) for one, share in zip(found, shares, strict=True))


def test_a_relative_range_is_of_the_suites_own_value(mock_suite):
    space = search_space(Method())
    tried = [own["learning_rate"] for own in trial_settings(space, mock_suite.training, 9)[1:]]
    rate = mock_suite.training.learning_rate
    assert all(0.25 * rate <= value <= 4 * rate for value in tried)
    assert min(tried) < 0.5 * rate < 2 * rate < max(tried)


def method_with(annotation: Any, default: Any = None) -> Method:
    field = Field(1.0, ge=0) if default is None else default
    config = type("Config", (BaseModel,), {"__annotations__": {"strength": annotation}, "strength": field})
    return type("Mine", (Method,), {"Config": config})()


def test_a_description_has_the_range_of_each_setting_that_has_one():
    class Mine(Method):
        class Config(Settings):
            count: Annotated[int, SearchRange(1, 20, log=False)] = Field(4, ge=1)
            untouched: float = 2.0

    found = search_space(Mine())
    assert list(found) == ["learning_rate", "count"]
    assert found["count"] == SettingRange(low=1, high=20, log=False, relative=False, integer=True, default=4)
    assert found["learning_rate"].relative


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (lambda: method_with(Annotated[float, SearchRange(2, 1)]), "its lowest value, 2, is not below its highest, 1"),
        (lambda: method_with(Annotated[float, SearchRange(0, 1)]), "a logarithmic range begins above 0, not at 0"),
        (
            lambda: method_with(Annotated[float, SearchRange(-1, 1, log=False)]),
            "holds -1, which it does not take: Input should be greater than or equal to 0",
        ),
        (lambda: method_with(Annotated[int, SearchRange(0.5, 2)], Field(1)), "holds 0.5, which it does not take"),
        (lambda: method_with(Annotated[bool, SearchRange(0, 1, log=False)], Field(True)), "are no numbers"),
        (lambda: method_with(Annotated[float, SearchRange(1, 2, relative=True)]), "no number of that name"),
    ],
)
def test_a_range_that_cannot_be_searched_is_refused_in_one_sentence(method, says):
    with pytest.raises(ClbenchError, match=r"search range of setting 'strength'") as caught:
        search_space(method())
    assert says in str(caught.value)


# --- a real search ---


@pytest.fixture(scope="module")
def development(mock_folder, tmp_path_factory) -> Path:
    """A folder with a suite to develop on, `dev`, and one to measure on, `measured`."""
    folder = tmp_path_factory.mktemp("tuned")
    suite = load_suite(mock_folder)
    changed = {"name": "mock-dev", "for_development": True, "version_reason": "other tasks"}
    save_suite(suite.model_copy(update=changed), folder / "dev")
    (folder / "measured").symlink_to(mock_folder)
    return folder


def words(folder: Path, *more: str) -> list[str]:
    options = ["--suite", "dev", "--plugin", "mine.py", "--output", "tuning", "--tracker", "none", "--device", "cpu"]
    return ["tune", "--method", "mine", "--track", "styles", "--trials", "3", "--workers", "1", *options, *more]


def search_in(folder: Path) -> Path:
    return folder / "tuning/mock-dev/styles/mine.json"


def content(folder: Path) -> dict[str, Any]:
    """What a tuning file holds, but for the time."""
    return json.loads(search_in(folder).read_text()) | {"created_at": None}


@pytest.fixture(scope="module")
def tuned(development) -> Path:
    """The folder after a search of three trials."""
    (development / "mine.py").write_text(PLUGIN.replace("LOSS", DECAYS))
    shown = clbench(*words(development), cwd=development)
    assert "chosen" in shown
    assert "tuning/mock-dev/styles/mine.json" in shown
    return development


def test_a_search_names_its_suite_its_trials_and_the_best_of_them(tuned):
    search, suite = load_search(search_in(tuned)), load_suite(str(tuned / "dev"))
    assert (search.suite.name, search.suite.sha256) == ("mock-dev", suite.sha256)
    assert search.orders == ("forward",)
    assert list(search.space) == ["learning_rate", "strength"]
    assert [trial.settings for trial in search.trials] == trial_settings(search.space, suite.training, 3)
    values = [trial.kept for trial in search.trials if trial.kept is not None]
    assert len(values) == 3
    assert search.chosen == search.trials[values.index(max(values))].settings
    assert search.command == ("clbench tune --method mine --track styles --suite dev --trials 3 --plugin mine.py")


@pytest.mark.long
def test_a_trial_is_scored_after_its_last_task_alone_and_keeps_what_a_whole_run_does(tuned, tmp_path):
    plan = json.loads(clbench(*words(tuned, "--runs", str(tmp_path), "--dry-run", "--json"), cwd=tuned))
    tasks = len(load_suite(str(tuned / "dev")).track("styles").tasks)
    assert (plan["units"]["train"]["all"], plan["units"]["score"]["all"]) == (3 * tasks, 3)
    orders = ("--orders", "forward,backward")
    plan = json.loads(clbench(*words(tuned, *orders, "--runs", str(tmp_path), "--dry-run", "--json"), cwd=tuned))
    assert (plan["units"]["train"]["all"], plan["units"]["score"]["all"]) == (6 * tasks, 6)
    run = ["run", "--method", "mine", "--plugin", "mine.py", "--track", "styles", "--suite", "dev", "--quick"]
    clbench(*run, "--device", "cpu", "--workers", "1", "--tracker", "none", "--output", str(tmp_path), cwd=tuned)
    whole = load_result(tmp_path / "mock-dev/styles/mine.partial.json").summary["csd"]["kept"]
    assert whole
    assert whole.mean == load_search(search_in(tuned)).trials[0].kept


@pytest.mark.long
def test_a_killed_search_goes_on_and_writes_the_same_file(tuned, tmp_path):
    (tmp_path / "mine.py").write_text((tuned / "mine.py").read_text())
    (tmp_path / "dev").symlink_to(tuned / "dev")
    events = tmp_path / "events.jsonl"
    first = warm.start(list(map(str, words(tmp_path, "--events", str(events)))), os.environ, tmp_path, tmp_path)
    while not events.exists() or events.read_text().count('"loss"') < 3:
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(0.05)
    for process in [*psutil.Process(first.pid).children(recursive=True), first]:
        process.kill()
    first.wait()
    assert not search_in(tmp_path).exists()
    shown = json.loads(clbench(*words(tmp_path, "--json"), cwd=tmp_path))
    assert content(tmp_path) == content(tuned) == shown | {"created_at": None}


@pytest.mark.long
def test_a_tuned_run_gives_the_scores_of_its_settings_and_says_where_they_come_from(tuned):
    run = ["run", "--method", "mine", "--plugin", "mine.py", "--track", "styles", "--suite", "measured", "--quick"]
    run += ["--device", "cpu", "--workers", "1", "--tracker", "none"]
    clbench(*run, "--tuned", "--tuning", "tuning", cwd=tuned)
    place = tuned / "runs/mock/styles"
    found = load_result(place / "mine_tuned.partial.json")
    search = load_search(search_in(tuned))
    assert found.tuning == search.record
    given = [word for name, value in search.chosen.items() for word in ("--set", f"{name}={value}")]
    clbench(*run, *given, "--variant", "by-hand", "--output", "again", cwd=tuned)
    by_hand = load_result(tuned / "again/mock/styles/by-hand.partial.json")
    assert by_hand.tuning is None
    assert by_hand.method == found.method
    assert [run.scores for run in by_hand.runs] == [run.scores for run in found.runs]
    options = ("--allow-partial", "--suite", "measured")
    assert ": valid" in clbench("validate", place / "mine_tuned.partial.json", *options, cwd=tuned)


@pytest.mark.long
def test_a_sweep_plans_a_tuned_variant_for_each_method_and_refuses_what_does_not_fit(tuned, tmp_path):
    sweep = ["sweep", "--tracks", "styles", "--suite", "measured", "--plugin", "mine.py", "--quick", "--dry-run"]
    sweep += ["--methods", "mine", "--tuned", "--device", "cpu"]
    plan = json.loads(clbench(*sweep, "--tuning", "tuning", "--json", cwd=tuned))
    assert plan["runs"] == 1
    assert "give it, or --set, but not both" in refusal(*sweep, "--set", "strength=1", cwd=tuned)
    assert "`clbench tune --method mine --track styles --suite mock-dev` writes it" in refusal(*sweep, cwd=tuned)
    source = (tuned / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(source + "\n# edited")
    sweep[sweep.index("mine.py")] = str(tmp_path / "mine.py")
    said = refusal(*sweep, "--tuning", "tuning", cwd=tuned)
    assert "method mine has changed since it was tuned; tune again: `clbench tune --method mine" in said


@pytest.mark.long
def test_a_trial_whose_loss_becomes_nan_is_the_worst_and_ends_nothing(development, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN.replace("LOSS", DIVERGES))
    (tmp_path / "dev").symlink_to(development / "dev")
    shown = clbench(*words(tmp_path), cwd=tmp_path)
    search = load_search(search_in(tmp_path))
    failed = [trial for trial in search.trials if trial.failed]
    assert [trial.settings["strength"] > 1 for trial in failed] == [True] * len(failed)
    assert 0 < len(failed) < 3
    assert all("the loss became nan in task" in str(trial.failed) for trial in failed)
    assert "failed: the loss became nan" in shown


def test_nothing_is_tuned_on_the_tasks_that_are_measured_and_without_a_method(tuned):
    measured = [word if word != "dev" else "measured" for word in words(tuned)]
    assert "is none to tune on" in refusal(*measured, cwd=tuned)
    assert "no method was named" in refusal("tune", "--track", "styles", "--suite", "dev", cwd=tuned)
    assert "has no track 'style'" in refusal("tune", "--method", "mine", "--track", "style", cwd=tuned)


@pytest.mark.long
def test_a_dry_run_shows_the_trials_and_writes_nothing(tuned, tmp_path):
    options = [word for word in words(tuned) if word != "tuning"]
    options.remove("--output")
    plan = json.loads(clbench(*options, "--output", tmp_path, "--dry-run", "--json", cwd=tuned))
    assert plan["trials"]["mine"][0] == {}
    assert plan["expected_seconds"] >= 0
    assert "learning_rate" in clbench(*options, "--output", tmp_path, "--dry-run", cwd=tuned)
    assert not list(tmp_path.iterdir())


# --- the file ---


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"trials": [', '"trial": [', "field trials: Field required"),
        ('"high": 10.0', '"high": 0.11', "outside its search range"),
        ('"failed": null', '"failed": "it did"', "either a value of kept or a reason why it failed"),
        ('"low": 0.1', '"low": 11', "its lowest value, 11, is not below its highest, 10"),
        ("{", "[", "is not a tuning file"),
    ],
)
def test_a_tuning_file_that_was_edited_is_refused_with_the_reason(tuned, tmp_path, old, new, says):
    path = tmp_path / "mine.json"
    search = load_search(search_in(tuned))
    save_search(search, path)
    assert load_search(path) == search
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ClbenchError, match=r"mine\.json is not a tuning file") as caught:
        load_search(path)
    assert says in str(caught.value)


def test_what_is_not_the_best_trial_is_not_chosen(tuned):
    raw = json.loads(search_in(tuned).read_text())
    raw["chosen"] = next(trial["settings"] for trial in raw["trials"] if trial["settings"] != raw["chosen"])
    with pytest.raises(ValidationError, match="what was chosen is not the best trial"):
        Search.model_validate(raw)


def test_a_missing_tuning_file_is_told(tmp_path):
    with pytest.raises(ClbenchError, match="cannot read"):
        load_search(tmp_path / "none.json")


def test_the_commands_of_a_search_load_no_torch_before_they_refuse():
    script = """
import sys
from clbench.cli import main
sys.argv = ["clbench", "tune", "--method", "ewc", "--track", "styles", "--suite", "mini-v2"]
try:
    main()
except SystemExit as done:
    assert done.code == 2
assert not {"torch", "scipy"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
