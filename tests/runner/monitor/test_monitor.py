"""What is told while it happens: events for machines, and experiment trackers."""

import io
import json
import os
import re
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from builders import outcome
from commands import CLBENCH, execute
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner
from watching import sentence

from clbench.cli import app
from clbench.errors import ClbenchError
from clbench.results.io import load_result
from clbench.runner import harness
from clbench.runner.config import RunConfig
from clbench.runner.engine import Unit
from clbench.runner.monitor import trackers
from clbench.runner.monitor.events import event_file
from clbench.runner.monitor.progress import Display
from clbench.runner.prepare import prepare
from clbench.variants import Variant

TASKS, STEPS = 3, 2
CELLS = TASKS * (TASKS + 1) // 2
"""Of the mock suite, in one run."""


@pytest.fixture
def command(mock_folder, tmp_path):
    """`clbench run` in this process, on the mock suite."""
    options = ["--suite", mock_folder, "--method", "naive", "--track", "styles", "--quick", "--device", "cpu"]

    def run(*more: object):
        return CliRunner().invoke(
            app, ["run", *options, "--workers", "1", "--output", str(tmp_path / "runs"), *map(str, more)]
        )

    return run


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- events ---


def check_story(events: list[dict], result: Path) -> None:
    """A whole run, as its events tell it."""
    count = Counter(event["event"] for event in events)
    planned = next(event["units"] for event in events if event["event"] == "plan")
    ends = [event for event in events if event["event"] == "end"]
    assert [event["how"] for event in ends] == ["done"] * planned
    assert count["begin"] == planned
    opened = set()
    for event in events:
        if event["event"] == "begin":
            opened.add(event["unit"])
        elif "unit" in event:
            assert event["unit"] in opened
        if event["event"] == "end":
            opened.remove(event["unit"])
    assert not opened
    losses = {(event["position"], event["step"]) for event in events if event["event"] == "loss"}
    assert losses == {(position, step) for position in range(TASKS) for step in range(STEPS)}
    assert count["loss"] == len(losses)
    assert count["cell"] == TASKS + CELLS
    for event in events:
        if event["event"] in ("loss", "cell"):
            assert (event["suite"], event["track"], event["method"]) == ("mock", "styles", "naive")
        if event["event"] == "cell":
            assert set(event["scores"]) == {"csd", "dino", "clip_t"}
    (told,) = [event for event in events if event["event"] == "result"]
    assert Path(told["path"]) == result
    assert result.is_file()
    times = [event["time"] for event in events]
    assert times == sorted(times)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 2])
def test_events_tell_the_whole_run_in_lines_of_json(mock_folder, run, tmp_path, workers):
    options = ["--suite", mock_folder, "--method", "naive", "--track", "styles", "--quick", "--device", "cpu"]
    places = ["--output", tmp_path / "runs", "--events", tmp_path / "new" / "events.jsonl"]
    execute(CLBENCH, "run", *options, *places, "--workers", workers, "--tracker", "none")
    events = lines(tmp_path / "new" / "events.jsonl")
    path = tmp_path / "runs" / "mock" / "styles" / "naive.partial.json"
    check_story(events, path)
    assert any("worker" in event for event in events) == (workers > 1)
    assert outcome(load_result(path)) == outcome(run("naive", output=tmp_path / "here"))


@pytest.mark.long
def test_events_are_appended_to_those_of_earlier_commands(command, tmp_path):
    path = tmp_path / "events.jsonl"
    assert command("--tracker", "none", "--events", path).exit_code == 0
    first = lines(path)
    assert command("--tracker", "none", "--events", path).exit_code == 0
    both = lines(path)
    assert both[: len(first)] == first
    assert [event["event"] for event in both[len(first) :]] == ["plan", "result"]


@pytest.mark.parametrize("place", ["file/events.jsonl", "."])
def test_events_that_cannot_be_written_are_one_sentence_before_any_work(command, tmp_path, place):
    (tmp_path / "file").touch()
    done = command("--events", tmp_path / place)
    assert isinstance(done.exception, ClbenchError)
    assert done.exception.exit_code == 1
    assert str(done.exception).startswith(f"cannot write {tmp_path / place}: ")
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_events_on_a_full_disk_are_one_sentence():
    with pytest.raises(ClbenchError) as caught, event_file(Path("/dev/full")) as write:
        write({"event": "plan"})
    assert sentence(caught).startswith("cannot write /dev/full: No space left on device")


# --- the display ---


def test_a_narrow_terminal_shows_the_times_in_full():
    screen = io.StringIO()
    units = [Unit("a", "order 0 seed 0, task 5 of 10: blossom season: training", 10.0, params={"kind": "train"})]
    with Display(units, Console(file=screen, force_terminal=True, width=80)) as display:
        display.on_event({"event": "begin", "unit": "a", "label": units[0].label, "kind": "train"})
        display.on_event({"event": "work", "unit": "a", "made": 2.0})
    shown = [line for line in Text.from_ansi(screen.getvalue()).plain.splitlines() if "order 0" in line]
    assert re.search(r"order 0 .*… .* 20% \d:\d\d:\d\d (-|\d):", shown[-1])


def test_a_terminal_tells_of_workers_that_are_started():
    screen = io.StringIO()
    units = [Unit("a", "order 0 seed 0, task 5 of 10: blossom season: training", 10.0, params={"kind": "train"})]
    with Display(units, Console(file=screen, force_terminal=True, width=40)) as display:
        display.on_event({"event": "plan", "workers": 2})
        display._live.refresh()
    shown = Text.from_ansi(screen.getvalue()).plain
    assert "starting 2 workers" in shown
    assert "blossom season" not in shown


def test_a_log_gets_a_line_now_and_then():
    log = io.StringIO()
    units = [Unit(name, f"unit {name}", 5.0, params={"kind": "train"}) for name in "ab"]
    with Display(units, Console(file=log, width=80), log_interval=0.0) as display:
        for unit in units:
            for event in ({"event": "begin"}, {"event": "end", "how": "done"}):
                display.on_event({**event, "unit": unit.key, "label": unit.label, "kind": "train"})
    assert re.search(r"^50%, about .* left: unit a$", log.getvalue(), re.MULTILINE)


# --- trackers ---


@pytest.mark.long
def test_tensorboard_gets_each_loss_each_score_and_a_picture_of_each_cell(command, tmp_path):
    done = command("--events", tmp_path / "events.jsonl")
    assert done.exit_code == 0, done.output
    events = lines(tmp_path / "events.jsonl")
    folder = tmp_path / "runs" / "tensorboard" / "mock" / "styles" / "naive" / "order-forward-seed-0"
    read = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    read.Reload()
    losses = {event["position"] * STEPS + event["step"]: event["loss"] for event in events if event["event"] == "loss"}
    assert {one.step: one.value for one in read.Scalars("loss")} == pytest.approx(losses)
    assert len(read.Scalars("loss")) == TASKS * STEPS
    names = {event["task"] for event in events if event["event"] == "cell"}
    tags = {f"{metric}/{name}" for metric in ("csd", "dino", "clip_t") for name in names}
    assert set(read.Tags()["scalars"]) == tags | {"loss"}
    assert sum(len(read.Scalars(tag)) for tag in tags) == 3 * CELLS
    last = next(event for event in reversed(events) if event["event"] == "cell")
    assert read.Scalars(f"csd/{last['task']}")[-1].value == pytest.approx(last["scores"]["csd"])
    assert read.Scalars(f"csd/{last['task']}")[-1].step == TASKS * STEPS
    assert set(read.Tags()["images"]) == {f"cell/{name}" for name in names}
    assert sum(len(read.Images(tag)) for tag in read.Tags()["images"]) == CELLS


@given(st.integers(1, 200), st.integers(1, 200))
def test_a_training_of_any_length_takes_the_place_of_a_usual_one_in_a_tracker(steps, usual):
    places = [trackers.place_of(step, steps, usual) for step in range(steps)]
    kept = [place for place in places if place is not None]
    assert len(kept) == min(steps, usual)
    assert kept == sorted(set(kept))
    assert 0 <= kept[0] <= kept[-1] < usual
    assert steps != usual or places == list(range(usual))


@pytest.mark.long
def test_no_tracker_writes_nothing(command, tmp_path):
    assert command("--tracker", "none").exit_code == 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"mock", "store"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tensorbord", "there is no tracker 'tensorbord'; did you mean 'tensorboard'?"),
        ("wandb", "wandb is not installed; --tracker wandb needs `pip install wandb`"),
    ],
)
def test_a_tracker_that_is_not_there_is_one_sentence_before_any_work(command, tmp_path, monkeypatch, name, says):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    done = command("--tracker", name)
    assert isinstance(done.exception, ClbenchError)
    assert done.exception.exit_code == 2
    assert str(done.exception).startswith(says)
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


class Faulty:
    """A tracker whose server is away at some call."""

    def __init__(self, call: str) -> None:
        self.call, self.asked = call, 0

    def __getattr__(self, name: str):
        def called(*arguments, **options):
            if name == self.call:
                self.asked += 1
                raise ConnectionError("the server is away")

        return called


@pytest.mark.long
@pytest.mark.parametrize("call", ["log", "log_images", "finish"])
def test_a_tracker_that_fails_costs_one_warning_and_not_the_run(mock_folder, tmp_path, monkeypatch, call):
    faulty, options = Faulty(call), RunConfig.of(quick=True, output=tmp_path, device="cpu", workers=1)
    real = trackers.TRACKERS["tensorboard"]
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", replace(real, open=lambda *arguments: faulty))
    prepared = prepare([Variant.of("naive")], ["styles"], mock_folder, options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with trackers.trackers("tensorboard", prepared) as watch:
            harness.carry_out(prepared, watch)
    told = [str(one.message) for one in caught if "stopped tracking" in str(one.message)]
    assert told == ["tensorboard stopped tracking: the server is away"]
    assert faulty.asked == 1
    assert (tmp_path / "mock" / "styles" / "naive.partial.json").exists()


@pytest.mark.long
def test_a_tensorboard_folder_that_cannot_be_made_costs_one_warning_and_not_the_run(command, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tensorboard").touch()
    done = command("--events", tmp_path / "events.jsonl")
    assert done.exit_code == 0
    assert done.stderr.count("warning: tensorboard stopped tracking: ") == 1
    (told,) = [event for event in lines(tmp_path / "events.jsonl") if event["event"] == "warning"]
    assert told["message"].startswith("tensorboard stopped tracking: ")
    assert (tmp_path / "runs" / "mock" / "styles" / "naive.partial.json").exists()
