"""Whatever happens to a command, to its workers or to its disk: what was finished is kept, and the scores are the same.

Everything here happens for real: processes are shot, a disk is full, a byte on it turns.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import warm
from builders import light_suite
from commands import CLBENCH, execute

from clbench.results.io import load_result

MOMENTS = 20
PATIENCE = 1800.0
"""Seconds in which a command must come to what is waited for."""


TOLD = ("task_order", "scores", "leak", "drift", "state_bytes", "regime")


def numbers(path: Path) -> str:
    """All numbers of a result that time and memory do not change, as text."""
    result = load_result(path).model_dump(mode="json")
    told = [{name: run[name] for name in TOLD} for run in result["runs"]]
    return json.dumps([told, result["controls"], result["summary"]])


# --- shot at any moment ---


class Life:
    """Of a command: from its start until it ends or is shot."""

    def __init__(self, command: list, output: Path) -> None:
        output.mkdir(exist_ok=True)
        self.store, self._events, self.errors = output / "store", output / "events.jsonl", output / "stderr"
        self._before = half_written(self.store)
        for path in (self._events, self.errors):
            path.unlink(missing_ok=True)
        options = ["--output", output, "--events", self._events, "--tracker", "none"]
        words = [str(word) for word in (*command[1:], *options)]
        self.process = warm.start(words, os.environ, Path.cwd(), output)

    def ends_well(self) -> bool:
        """Whether it ends with exit code 0; waits for that."""
        return self.process.wait(PATIENCE) == 0 or pytest.fail(self.errors.read_text())

    def goes_on_for(self, seconds: float) -> bool:
        """Whether it is still alive after so long."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.returncode is None

    def tells_of(self, kind: str) -> bool:
        """Whether it tells of such an event before it ends; waits for either."""
        return self._comes_to(lambda: any(event["event"] == kind for event in self._told()), 0.05)

    def works_at(self, *kinds: str) -> bool:
        """Whether it makes a training step, or draws a cell, of such units before it ends; waits for either."""
        seen = len(self._told())
        return self._comes_to(lambda: any(is_work(event, kinds) for event in self._told()[seen:]), 0.05)

    def writes(self) -> bool:
        """Whether it is stopped with a file half written; waits for that without a pause, or until it ends."""
        before = half_written(self.store)
        while self._comes_to(lambda: not half_written(self.store) <= before, 0):
            everyone = self._everyone()
            send(everyone, "suspend")
            if not half_written(self.store) <= before:
                return True
            send(everyone, "resume")
        return False

    def _comes_to(self, moment: Callable[[], bool], pause: float) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not moment():
            assert time.monotonic() < deadline, self.errors.read_text()
            if not self.goes_on_for(pause):
                return False
        return True

    def begun(self, kind: str) -> set[str]:
        """Units of a kind that were begun."""
        return {one["unit"] for one in self._told() if one["event"] == "begin" and one["kind"] == kind}

    def at_work(self) -> dict[str, int]:
        """Kinds of the units that are being done, of which something was told, and their workers."""
        busy = {}
        for event in self._told():
            if is_work(event, KINDS):
                busy[event["unit"]] = event
            elif event["event"] in ("begin", "end"):
                busy.pop(event["unit"], None)
        return {event["kind"]: event["worker"] for event in busy.values()}

    def _told(self) -> list[dict]:
        lines = self._events.read_text().splitlines(keepends=True) if self._events.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _everyone(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            command = psutil.Process(self.process.pid)
            return [command, *command.children(recursive=True)]
        return []

    def shoot(self, victim: str, aim: str) -> set[str]:
        """Kill the command, the worker at such a unit, or all; says what was done: kinds of units, and ``write``."""
        busy, (command, *workers) = self.at_work(), self._everyone()
        if victim == "worker":
            busy_at_it = [one for one in workers if one.pid == busy.get(aim)]
            send(busy_at_it or workers[:1], "kill")
            send([command, *workers], "resume")
            return set(busy)
        send(self._everyone() if victim == "all" else [command], "kill")
        self.process.wait()
        send(workers, "resume")  # who was stopped sees only then that the command is gone
        assert psutil.wait_procs(workers, timeout=PATIENCE)[1] == [], "workers outlive their command"
        return set(busy) | (set() if half_written(self.store) <= self._before else {"write"})


KINDS = ("base", "fit", "train", "score")


def is_work(event: dict, kinds: Sequence[str]) -> bool:
    """Whether an event tells of a training step, or of a cell that was drawn, of such a unit."""
    return event["event"] in ("loss", "cell") and event["kind"] in kinds and not event.get("found")


def send(processes: list[psutil.Process], what: str) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            getattr(process, what)()


def half_written(store: Path) -> set[str]:
    """Names of temporary files."""
    kinds = [kind for kind in os.scandir(store) if kind.is_dir() and kind.name != "locks"] if store.exists() else []
    return {name for kind in kinds for folder in os.scandir(kind) for name in os.listdir(folder) if name[-4:] == ".tmp"}


def lose_a_part(store: Path, dice: random.Random) -> None:
    """Delete a third of what is there."""
    files = sorted(path for path in store.glob("*/*/*") if path.suffix in (".json", ".safetensors"))
    for path in dice.sample(files, len(files) // 3):
        path.unlink()


@pytest.fixture
def live() -> Iterator[Callable[[list, Path], Life]]:
    """Begin a life; none outlives the test."""
    lives: list[Life] = []

    def begin(command: list, output: Path) -> Life:
        lives.append(Life(command, output))
        return lives[-1]

    yield begin
    for life in lives:
        life.process.kill()
        life.process.wait()


@pytest.mark.long
def test_a_run_shot_at_twenty_moments_ends_with_the_scores_of_an_undisturbed_one(live, tmp_path):
    suite = light_suite(tmp_path / "light", tasks=4)
    command = [CLBENCH, "run", "--method", "merge_ortho", "--track", "styles", "--suite", suite]
    command += ["--device", "cpu", "--workers", "2"]
    output, dice, shots, hit = tmp_path / "runs", random.Random(20), 0, set()
    life = live(command, output)
    while shots < MOMENTS or not {"train", "score", "write"} <= hit:
        assert shots < 3 * MOMENTS, f"of so many shots none met more than {hit}"
        # at most two workers of one command: a unit that killed three would rightly be given up
        victim = ("worker", "command", "worker", "all", "worker")[shots % 5]
        aim = ("train", "score", "write")[shots // 5 % 3]
        if aim == "write":
            met = life.works_at(*KINDS) and life.writes()
        else:
            met = life.works_at(aim) and life.goes_on_for(dice.uniform(0, 1))
        if not met:
            assert life.ends_well()
            lose_a_part(life.store, dice)  # it was through before it could be shot
            life = live(command, output)
            continue
        hit |= life.shoot(victim, aim)
        shots += 1
        if victim != "worker":
            life = live(command, output)
    assert life.ends_well()
    execute(*command, "--output", tmp_path / "calm", "--tracker", "none")
    shot, calm = (numbers(folder / "light/styles/merge_ortho.json") for folder in (output, tmp_path / "calm"))
    assert shot == calm


# --- asked to stop ---

SWEEP = [CLBENCH, "sweep", "--methods", "naive,merge_ortho", "--tracks", "styles", "--quick", "--device", "cpu"]
SWEEP += ["--workers", "2", "--tracker", "none"]


@pytest.fixture(scope="session")
def calm(mock_folder, tmp_path_factory) -> Path:
    """The output folder of a sweep that nothing happened to."""
    folder = tmp_path_factory.mktemp("calm")
    execute(*SWEEP, "--suite", mock_folder, "--keep", "states", "--output", folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_asked_to_stop_says_how_to_go_on_and_goes_on(mock_folder, calm, live, tmp_path, how):
    command, output = [*SWEEP, "--suite", mock_folder], tmp_path / "runs"
    life = live(command, output)
    assert life.works_at("train")
    workers = psutil.Process(life.process.pid).children()
    life.process.send_signal(how)
    assert life.process.wait(PATIENCE) == 130
    told = life.errors.read_text()
    assert "stopped; the same command goes on from here" in told
    assert "Traceback" not in told
    assert psutil.wait_procs(workers, timeout=PATIENCE)[1] == []
    assert not half_written(life.store)
    assert live(command, output).ends_well()
    assert same_numbers(output, calm)


# --- disks ---


def same_numbers(one: Path, other: Path) -> bool:
    paths = [f"mock/styles/{name}.partial.json" for name in ("naive", "merge_ortho")]
    return all(numbers(one / path) == numbers(other / path) for path in paths)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own, for a while."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Take all of a disk but so many bytes, by the file that is returned."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - leave)
    return ballast


@pytest.mark.long
def test_a_sweep_whose_disk_is_full_says_so_keeps_what_it_has_and_goes_on_when_there_is_space(
    mock_folder, calm, live, tmp_path
):
    store, output, dice = tmp_path / "small", tmp_path / "runs", random.Random(0)
    command = [*SWEEP, "--suite", mock_folder, "--keep", "states", "--store", store]
    with small_disk(store, "20m"):
        shutil.copytree(calm / "store", store, dirs_exist_ok=True)
        states = sorted(store.glob("state/*/*.safetensors"))
        room = min(path.stat().st_size for path in states) // 2  # for rows and costs, but for no state
        lost = dice.sample(states, len(states) // 2)  # these are made again, and else nothing but rows and costs
        for path in (*store.glob("row/*/*.json"), *lost):
            path.unlink()
        life = live(command, output)
        assert life.tells_of("plan")  # it found the disk large enough; its workers start now
        ballast = fill(store, room)
        assert life.process.wait(PATIENCE) == 1
        told = life.errors.read_text()
        assert "Traceback" not in told
        (error,) = [line for line in told.splitlines() if line.startswith("error: ")]
        assert f"cannot write {store}/state/" in error
        assert "No space left on device" in error
        assert "finished work is kept, so fix this and run the same command again" in error
        ballast.unlink()
        checked = json.loads(execute(CLBENCH, "store", "check", store, "--json").stdout)
        assert checked["artifacts"] > 0
        assert not half_written(store)
        kept = {path for path in states if path.exists()}
        assert kept == set(states) - set(lost)
        again = live(command, output)
        assert again.ends_well()
        assert again.begun("train") == {f"state-{path.stem}" for path in lost}
    assert same_numbers(output, calm)


@pytest.mark.long
def test_a_flipped_byte_in_a_stored_state_is_found_and_repaired(mock_folder, calm, tmp_path):
    output = tmp_path / "runs"
    shutil.copytree(calm, output)
    for path in output.rglob("row/*/*.json"):
        path.unlink()
    state = random.Random(0).choice(sorted(output.rglob("state/*/*.safetensors")))
    whole = state.read_bytes()
    state.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = execute(*SWEEP, "--suite", mock_folder, "--keep", "states", "--output", output)
    assert f"warning: {state} does not fit its checksum: set aside as {state.name}.damaged" in done.stderr
    assert state.read_bytes() == whole
    assert same_numbers(output, calm)
