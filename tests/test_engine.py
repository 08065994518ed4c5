"""Units of work: nothing is done twice or too early, and whoever dies, the bits are those of one process."""

import json
import os
import re
import signal
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shops import open_shop, open_slow_shop
from test_harness import outcome
from watching import watch

from clbench.data.assets import TrackAssets
from clbench.errors import WorkFailed
from clbench.plugins import get_method
from clbench.protocol import task_sequence as sequences
from clbench.protocol.task_sequence import Sequence
from clbench.protocol.track_runtime import Bench
from clbench.results.io import load_result
from clbench.runner import harness
from clbench.runner import prepare as preparing
from clbench.runner.config import Options
from clbench.runner.engine import Failed, Schedule, Unit, WorkerDied, needed, work_off
from clbench.runner.engine.inline import Inline
from clbench.runner.engine.local import local
from clbench.runner.engine.slots import Places
from clbench.runner.prepare import Prepared, prepare
from clbench.runner.units import open_workshop, setup_of
from clbench.storage.store import Store

NOTHING = TrackAssets(folders={}, sha256={})
METHODS = ("naive", "merge_init", "merge_ortho", "magmax")


# --- the graph ---


@st.composite
def graphs(draw) -> list[Unit]:
    """Units, each after those that it needs, whose results are also those of what they need."""
    count = draw(st.integers(1, 12))
    needs = [draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set() for number in range(count)]
    groups = [draw(st.sets(st.sampled_from("ABC"), min_size=1)) for _ in range(count)]
    for number in reversed(range(count)):
        for need in needs[number]:
            groups[need] |= groups[number]
    goals = [draw(st.booleans()) for _ in range(count)]
    return [
        Unit(str(n), f"unit {n}", 1.0, tuple(map(str, needs[n])), tuple(sorted(groups[n])), goals[n])
        for n in range(count)
    ]


class Pretence:
    """A crew of some workers, of which some units fail, some kill their worker, and some are in others' hands."""

    def __init__(self, workers: int, ends: dict[str, list]) -> None:
        self.workers, self.ends = workers, {key: list(value) for key, value in ends.items()}
        self.hands: list[Unit] = []
        self.given: list[str] = []

    def free(self) -> int:
        return self.workers - len(self.hands)

    def give(self, unit: Unit) -> None:
        self.hands.append(unit)
        self.given.append(unit.key)

    def hear(self, seconds, watch):
        unit = self.hands.pop(0)
        left = self.ends.get(unit.key)
        yield unit, left.pop(0) if left else True


@given(graphs(), st.integers(1, 3), st.data())
def test_every_unit_is_done_once_and_after_what_it_needs(units, workers, data):
    mishaps = data.draw(
        st.dictionaries(st.sampled_from([u.key for u in units]), st.lists(st.just(WorkerDied("")), max_size=2))
    )
    crew, done = Pretence(workers, mishaps), []
    by_key = {unit.key: unit for unit in units}

    def seen(event):
        if event["event"] == "end":
            assert set(by_key[event["unit"]].needs) <= set(done)
            done.append(event["unit"])

    assert work_off(units, crew, seen) == {}
    assert sorted(done) == sorted(by_key)
    assert Counter(crew.given) == Counter({u.key: 1 + len(mishaps.get(u.key, [])) for u in units})


@given(graphs(), st.integers(1, 3), st.data())
def test_a_failure_costs_the_results_that_it_is_for_and_no_other(units, workers, data):
    bad = data.draw(st.sampled_from(units))
    crew, done = Pretence(workers, {bad.key: [Failed("no")]}), []
    failures = work_off(units, crew, lambda event: done.append(event["unit"]) if event["event"] == "end" else None)
    assert set(failures) == set(bad.groups)
    for unit in units:
        if not set(unit.groups) <= set(bad.groups):
            assert unit.key in done


@given(graphs(), st.data())
def test_what_is_done_or_not_wanted_is_left_out(units, data):
    done = data.draw(st.sets(st.sampled_from([unit.key for unit in units])))
    kept = {unit.key for unit in needed(units, lambda unit: unit.key in done)}
    for unit in units:
        wanted = unit.goal or any(unit.key in other.needs and other.key in kept for other in units)
        assert (unit.key in kept) == (wanted and unit.key not in done)


def test_units_are_taken_in_the_order_in_which_they_were_planned():
    units = [Unit("a", "", 1), Unit("b", "", 1, ("a",)), Unit("c", "", 1)]
    schedule = Schedule(units)
    first = schedule.take()
    assert first
    assert first.key == "a"
    assert [unit.key for unit in iter(schedule.take, None)] == ["c"]
    schedule.finish(first)
    assert [unit.key for unit in iter(schedule.take, None)] == ["b"]


def test_a_unit_that_kills_its_workers_is_given_up(recwarn):
    units = [Unit("a", "the unit", 1, (), ("A",)), Unit("b", "", 1, (), ("B",))]
    seen = []
    failures = work_off(units, Pretence(1, {"a": [WorkerDied("by signal 9")] * 9}), seen.append)
    assert failures == {"A": Failed("the unit: 3 workers died of it, the last: by signal 9")}
    assert [event["unit"] for event in seen if event["event"] == "end" and event["how"] == "done"] == ["b"]


def test_what_can_never_be_ready_is_an_error_not_a_wait():
    with pytest.raises(RuntimeError, match="none of those left"):
        work_off([Unit("a", "", 1, ("b",)), Unit("b", "", 1, ("a",))], Pretence(1, {}), lambda event: None)


# --- sweeps ---


@pytest.fixture
def ready(shared_models, tmp_path):
    """`prepare` for the mock suite, on the first order and seed unless the caller chooses."""

    def make(methods=("merge_init",), tracks=("styles",), settings=None, **options) -> Prepared:
        given = {"quick": True, "output": tmp_path / "runs", "device": "cpu", "workers": 1, **options}
        return prepare(methods, tracks, "mock", settings or {}, Options(**given))

    return make


def sweep(ready, *arguments, **options):
    return harness.carry_out(ready(*arguments, **options))


def test_a_sweep_trains_what_methods_share_once_and_does_as_many_units_as_it_planned(ready, monkeypatch):
    fits = watch(monkeypatch, sequences, "fit")
    prepared, seen = ready(METHODS, quick=False, seeds=[0]), []
    harness.carry_out(prepared, seen.append)
    runs, tasks = 2, 3
    assert prepared.plan.count("fit") == (runs, runs)  # not 4 methods' times runs
    assert prepared.plan.shared == (len(METHODS) - 1) * (runs + 2)  # and the base row, and the controls
    assert len(fits) == runs + len(METHODS) * runs * (tasks - 1)
    ended = Counter(event["unit"] for event in seen if event["event"] == "end")
    assert ended == Counter({unit.key: 1 for unit in prepared.plan.units})
    cells = [event["cell"] for event in seen if event["event"] == "cell" and not event["found"]]
    assert len(cells) == len(set(cells))
    expected = tasks + runs * (1 + len(METHODS) * (2 + 3))  # the first cell of each run is one for all methods
    assert len(cells) == expected
    everything = tasks + len(METHODS) * runs * 6
    assert everything - prepared.plan.repeated_cells == expected


def test_a_sweep_gives_the_results_of_single_runs(ready, tmp_path):
    together = sweep(ready, ("naive", "magmax"), ("styles", "objects"))
    names = [(result.method.name, result.track) for result in together]
    assert names == [("naive", "styles"), ("magmax", "styles"), ("naive", "objects"), ("magmax", "objects")]
    for result in together:
        alone = harness.run(
            result.method.name, result.track, "mock", quick=True, device="cpu", output=tmp_path / "alone"
        )
        assert outcome(alone) == outcome(result)
        assert alone.command == result.command
    assert len(list((tmp_path / "runs" / "mock").rglob("*.json"))) == 4


def test_a_second_sweep_finds_all_that_the_first_did(ready, monkeypatch):
    first = sweep(ready, METHODS)
    fits = watch(monkeypatch, sequences, "fit")
    again = ready(METHODS)
    assert again.plan.units == []
    assert [outcome(result) for result in harness.carry_out(again)] == [outcome(result) for result in first]
    assert not fits


def test_a_sweep_that_was_planned_before_another_did_its_work_trains_nothing_again(ready, monkeypatch):
    first, second = ready(), ready()
    results = harness.carry_out(first)
    state = next(
        unit for unit in first.plan.everything if unit.where["kind"] == "train" and unit.where["position"] == 1
    )
    assert not first.workshop.store.has(state.key, ".safetensors"), "it was dropped, being spent"
    fits = watch(monkeypatch, sequences, "fit")
    assert [outcome(result) for result in harness.carry_out(second)] == [outcome(result) for result in results]
    assert not fits


def test_a_damaged_row_is_planned_again_and_told_if_it_is_damaged_later(ready):
    prepared = ready()
    (result,) = harness.carry_out(prepared)
    row = next(unit for unit in prepared.plan.everything if unit.where["kind"] == "score")
    path = prepared.workshop.store.path(row.key, ".json")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"scores", b"stores"))
    with pytest.warns(UserWarning, match="does not fit its checksum"):
        again = ready()
    assert row.key in [unit.key for unit in again.plan.units]
    assert outcome(harness.carry_out(again)[0]) == outcome(result)
    late = ready()
    path.unlink()
    with pytest.raises(WorkFailed, match="was removed or damaged meanwhile; run the same command again"):
        harness.carry_out(late)


def test_what_is_to_be_kept_is_made_again_where_it_was_not_kept(ready):
    (result,) = sweep(ready)
    prepared = ready(keep=("states", "images"))
    assert outcome(harness.carry_out(prepared)[0]) == outcome(result)
    store = prepared.workshop.store.root
    assert len(list(store.glob("state/*/*.safetensors"))) == 3
    assert len(list(store.glob("cell/*/*.003.png"))) == 3 + 6, "all cells of the base row and of a triangle"
    assert ready(keep=("states", "images")).plan.units == []


def test_a_worker_that_would_make_something_else_than_was_planned_says_so(ready):
    prepared = ready()
    for unit in prepared.plan.units:
        other = replace(unit, key=f"{unit.key.split('-')[0]}-{'0' * 64}")
        with pytest.raises(WorkFailed, match="would make something else than was planned: did a plugin change"):
            prepared.workshop.do(other, lambda event: None)


def test_what_changes_the_last_bits_is_in_the_keys_where_those_are_promised(mock_suite, tmp_path):
    def recipe(device: str, low_memory: bool = False, deterministic: bool = False) -> dict:
        where = (mock_suite, "styles", Store(tmp_path), device, "fp32", NOTHING)
        return Bench(*where, low_memory=low_memory, deterministic=deterministic).recipe

    assert recipe("cpu") != recipe("cpu", low_memory=True)
    assert recipe("cpu")["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert "instructions" not in recipe("cuda")
    assert recipe("cpu")["threads"] == torch.get_num_threads()
    assert "threads" not in recipe("cuda"), "a GPU's results do not depend on the host's cores"
    assert recipe("cuda") == recipe("cuda", low_memory=True), "within its noise"
    assert recipe("cuda", deterministic=True) != recipe("cuda", deterministic=True, low_memory=True)


def test_one_methods_failure_costs_no_other_its_result(ready, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from clbench import Method\n\n\nclass Broken(Method):\n    name = 'broken'\n\n"
        "    def weights(self, state):\n        raise ValueError('no weights')\n"
    )
    with pytest.raises(WorkFailed, match=r"method broken failed in weights\(\) at task 'byzantine'.*no weights"):
        sweep(ready, ("broken", "naive"), plugins=(plugin,))
    assert (tmp_path / "runs" / "mock" / "styles" / "naive.partial.json").exists()


def test_orders_that_begin_alike_share_the_beginning_and_drop_it_in_the_end(ready, mock_suite, monkeypatch):
    track = mock_suite.track("styles").model_copy(update={"orders": {"one": (0, 1, 2), "two": (0, 2, 1)}})
    suite = mock_suite.model_copy(update={"tracks": {"styles": track}})
    monkeypatch.setattr(preparing, "load_suite", lambda name: suite)
    fits = watch(monkeypatch, sequences, "fit")
    prepared = ready(quick=False, seeds=[0])
    harness.carry_out(prepared)
    assert len(fits) == 3 + 2
    store = prepared.workshop.store
    kept = [unit.where["position"] for unit in prepared.plan.everything if store.has(unit.key, ".safetensors")]
    assert kept == [0, 2, 2], "the shared training, and the last states"


def test_the_last_states_are_told_without_a_model_as_the_model_tells_them(ready, models):
    bench = ready().workshop.bench(0)
    assert list(bench.shapes.items()) == list(models.backbone.shapes.items())


# --- in several processes ---


@pytest.mark.long
def test_several_processes_give_the_bits_of_one(ready, tmp_path):
    together = sweep(ready, ("naive", "merge_ortho"), workers=2)
    alone = sweep(ready, ("naive", "merge_ortho"), output=tmp_path / "alone")
    assert [outcome(result) for result in together] == [outcome(result) for result in alone]
    assert together[0].settings["workers"] == 2


@pytest.mark.long
def test_a_worker_that_is_shot_is_replaced_and_leaves_no_trace(ready, tmp_path):
    prepared, shot, told = ready(), [], []
    with setup_of(prepared.workshop) as setup, local(open_workshop, setup, [{}, {}]) as crew:

        def shoot(event):
            told.append(event)
            if event["event"] == "loss" and not any(one["event"] == "warning" for one in told):
                shot.append(event["worker"])
                os.kill(event["worker"], signal.SIGKILL)

        assert work_off(prepared.plan.units, crew, shoot) == {}
        workers = {process.pid for process in crew.processes}
    assert workers.isdisjoint(shot)
    assert any("killed by signal 9" in event["message"] for event in told if event["event"] == "warning")
    assert outcome(sweep(ready)[0]) == outcome(sweep(ready, output=tmp_path / "alone")[0])


def test_workers_that_are_told_to_leave_finish_the_file_that_they_write(tmp_path):
    path, surroundings = tmp_path / "file.txt", {"PYTHONPATH": str(Path(__file__).parent)}
    with local(open_slow_shop, str(path), [surroundings]) as crew:
        crew.give(Unit("u", "unit", 1.0, (), ("result",)))
        while not any("half" in one.read_text() for one in tmp_path.iterdir()):
            assert list(crew.hear(0.02, lambda event: None)) == []
    assert [one.name for one in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "half\nwhole\n"


@pytest.mark.slow
def test_a_place_where_all_workers_die_uses_up_no_result():
    units = [Unit(f"u{number}", f"unit {number}", 1.0, (), (f"result {number}",)) for number in range(40)]
    surroundings = [{"PYTHONPATH": str(Path(__file__).parent), "BAD": bad} for bad in ("", "yes", "")]
    told = []
    with local(open_shop, "", surroundings) as crew:
        assert work_off(units, crew, told.append) == {}
    deaths = [event["message"] for event in told if event["event"] == "warning"]
    assert all(message.endswith(": RuntimeError: CUDA error: unspecified launch failure") for message in deaths)


@given(st.integers(1, 4), st.data())
def test_a_free_place_gets_work_unless_it_is_bad_and_others_work(count, data):
    places, deaths = Places(count), [0] * count
    for _ in range(data.draw(st.integers(0, 12))):
        place, dies = data.draw(st.integers(0, count - 1)), data.draw(st.booleans())
        (places.died if dies else places.did)(place)
        deaths[place] = deaths[place] + 1 if dies else 0
    free = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    assert places.ready(free, others_work=False)
    for place in free:
        assert (place in places.ready(free, others_work=True)) >= (deaths[place] < 2)


LOST = """
from pathlib import Path
import torch
from clbench import Method

class Lost(Method):
    name = "lost"

    def begin_task(self, ctx, state):
        if ctx.position == 1 and not {mark}.exists():
            {mark}.touch()
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\\nmore")
        return ctx.fresh_adapter()
"""


HOOKED = """
from clbench import Method

class Hooked(Method):
    name = "hooked"

    def shapes_training(self):
        return True

    def begin_task(self, ctx, state):
        self.handles = [module.register_forward_hook(lambda *_: 0.5 * _[-1]) for module in ctx.modules.values()]
        return ctx.fresh_adapter()

    def end_task(self, ctx, state, adapter):
        if ctx.position == 1:
            raise ValueError("before the hooks were removed")
        [handle.remove() for handle in self.handles]
        return super().end_task(ctx, state, adapter)
"""


def test_what_a_method_leaves_in_the_model_when_it_fails_goes_before_the_next(mock_suite, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "load_suite", lambda name: mock_suite)
    monkeypatch.setattr(preparing, "suite_folder", lambda name: Path())
    plugin = tmp_path / "hooked.py"
    plugin.write_text(HOOKED)
    options = {"quick": True, "device": "cpu", "plugins": (plugin,), "output": tmp_path / "runs"}
    with pytest.raises(WorkFailed, match="before the hooks were removed"):
        harness.sweep(["hooked", "naive"], ["styles"], "mock", workers=1, **options)
    beside = load_result(tmp_path / "runs" / "mock" / "styles" / "naive.partial.json")
    alone = harness.run("naive", "styles", "mock", **{**options, "output": tmp_path / "alone"})
    assert outcome(beside) == outcome(alone)


@pytest.mark.long
def test_a_gpu_that_fails_costs_its_process_and_not_the_method_its_result(ready, tmp_path):
    """As far as it can be seen without one."""
    plugin, mark, told = tmp_path / "lost.py", tmp_path / "mark", []
    plugin.write_text(LOST.format(mark=f"Path({str(mark)!r})"))
    alone = {"plugins": (plugin,), "output": tmp_path / "alone"}
    reason = r"cpu failed \(CUDA error: an illegal memory access was encountered\); what is finished is kept"
    with pytest.raises(WorkFailed, match=f"^{reason}, so run the same command again$"):
        sweep(ready, ("lost",), **alone)
    expected = sweep(ready, ("lost",), **alone)
    mark.unlink()
    results = harness.carry_out(ready(("lost",), plugins=(plugin,), workers=2), told.append)
    assert [outcome(result) for result in results] == [outcome(result) for result in expected]
    (warning,) = [event["message"] for event in told if event["event"] == "warning"]
    assert re.search(f"a worker died during order forward seed 0, task 2 of 3.*: {reason}", warning)


def test_a_state_that_another_makes_again_is_waited_for(bench, monkeypatch):
    sequence, store = Sequence(bench, get_method("merge_init"), "forward", 0), bench.store
    sequence.state(0)
    path = store.path(sequence.state_key(0), ".safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    held, asked = threading.Event(), threading.Event()

    def make_it_again() -> None:
        with Store(store.root).lock(sequence.state_key(0)):
            held.set()
            asked.wait()
            path.write_bytes(whole)

    other, fits = threading.Thread(target=make_it_again), watch(monkeypatch, sequences, "fit")
    other.start()
    held.wait()
    watch(monkeypatch, store, "try_lock", lambda count: asked.set())
    sequence.forget()
    with pytest.warns(UserWarning, match="does not fit its checksum"):
        sequence.state(0)
    other.join()
    assert not fits


@pytest.mark.long
def test_workers_that_cannot_open_the_workshop_say_why(ready):
    prepared = ready()
    with setup_of(prepared.workshop) as setup:
        for wrong, says in (
            ({"sign": "sign-00"}, r"cannot start: .* does not see the store .* give --store"),
            ({"software": {"torch": "1.0"}}, r"cannot start: .* has other software \(torch .*\) than .* \(torch 1.0\)"),
        ):
            with (
                local(open_workshop, json.dumps({**json.loads(setup), **wrong}), [{}]) as crew,
                pytest.raises(WorkFailed, match=says),
            ):
                work_off(prepared.plan.units, crew, lambda event: None)


def test_work_in_anothers_hands_is_waited_for(ready):
    prepared = ready()
    held, release, key = threading.Event(), threading.Event(), prepared.plan.units[2].key

    def hold_the_first_training() -> None:
        with Store(prepared.workshop.store.root).try_lock(key) as mine:
            assert mine
            held.set()
            release.wait()

    other = threading.Thread(target=hold_the_first_training)
    other.start()
    held.wait()
    seen = []

    def see(event):
        seen.append((event["event"], event.get("unit")))
        if seen.count(("wait", None)) == 3:
            release.set()

    assert work_off(prepared.plan.units, Inline(prepared.workshop), see) == {}
    other.join()
    assert seen.count(("wait", None)) >= 3
    assert seen.count(("begin", key)) == seen.count(("end", key)) == 1
    assert all(map(prepared.workshop.is_done, [unit for unit in prepared.plan.units if unit.goal]))


@pytest.mark.long
def test_two_sweeps_at_once_do_each_unit_once(ready, tmp_path):
    """Each unit leaves one artifact; two that were made would show as two events."""
    pair, seen = [ready(("naive", "magmax"), workers=2) for _ in range(2)], []

    def go(prepared: Prepared) -> None:
        with setup_of(prepared.workshop) as setup, local(open_workshop, setup, [{}, {}]) as crew:
            assert work_off(prepared.plan.units, crew, seen.append) == {}

    both = [threading.Thread(target=go, args=(prepared,)) for prepared in pair]
    for one in both:
        one.start()
    for one in both:
        one.join()
    drawn = Counter(event["cell"] for event in seen if event["event"] == "cell" and not event["found"])
    trained = Counter((event["unit"], event["step"]) for event in seen if event["event"] == "loss")
    assert set(drawn.values()) == {1}
    assert set(trained.values()) == {1}
    assert len(drawn) == 3 + 1 + 2 * 5
    assert len(trained) == (1 + 2 * 2) * 2
