"""Sweeps: what methods share is done once, what was done before is found, and a failure costs only its own method."""

import shutil
import threading
from collections import Counter
from dataclasses import replace

import pytest
from builders import outcome, save_suite
from watching import Events

from clbench.errors import WorkFailed
from clbench.results.io import load_result
from clbench.runner import harness
from clbench.runner.config import RunConfig
from clbench.runner.engine import execute
from clbench.runner.engine.inline import InlinePool
from clbench.runner.prepare import prepare
from clbench.storage.store import Store
from clbench.suite import Drift
from clbench.variants import Variant

METHODS = ("naive", "merge_init", "merge_ortho", "magmax")


@pytest.mark.long
def test_a_sweep_trains_what_methods_share_once_and_does_as_many_units_as_it_planned(ready):
    prepared, seen = ready(METHODS, quick=False, seeds=[0]), Events()
    harness.carry_out(prepared, seen.append)
    runs, tasks = 2, 3
    assert prepared.graph.count("fit") == {"all": runs, "to_do": runs}  # not 4 methods' times runs
    assert prepared.graph.shared == (len(METHODS) - 1) * (runs + 2)  # and the base row, and the controls
    assert seen.trainings == runs + len(METHODS) * runs * (tasks - 1)
    ended = Counter(event["unit"] for event in seen if event["event"] == "end")
    assert ended == Counter({unit.key: 1 for unit in prepared.graph.units})
    cells = seen.drawn
    assert len(cells) == len(set(cells))
    expected = tasks + runs * (1 + len(METHODS) * (2 + 3))  # the first cell of each run is one for all methods
    assert len(cells) == expected
    everything = tasks + len(METHODS) * runs * 6
    assert everything - prepared.graph.repeated_cells == expected


@pytest.mark.long
def test_a_sweep_gives_the_results_of_single_runs(sweep, mock_folder, tmp_path):
    together = sweep(("naive", "magmax"), ("styles", "objects"))
    names = [(result.method.name, result.track) for result in together]
    assert names == [("naive", "styles"), ("magmax", "styles"), ("naive", "objects"), ("magmax", "objects")]
    for result in together:
        alone = harness.run(
            result.method.name, result.track, mock_folder, quick=True, device="cpu", output=tmp_path / "alone"
        )
        assert outcome(alone) == outcome(result)
        assert alone.command == result.command
    assert len(list((tmp_path / "runs" / "mock").rglob("*.json"))) == 4


@pytest.mark.long
def test_a_second_sweep_finds_all_that_the_first_did(ready, sweep):
    first, seen = sweep(METHODS), Events()
    again = ready(METHODS)
    assert again.graph.units == []
    assert [outcome(result) for result in harness.carry_out(again, seen.append)] == [
        outcome(result) for result in first
    ]
    assert not seen.trainings


@pytest.mark.long
def test_a_sweep_that_was_planned_before_another_did_its_work_trains_nothing_again(ready):
    first, second = ready(), ready()
    results = harness.carry_out(first)
    state = next(
        unit for unit in first.graph.everything if unit.params["kind"] == "train" and unit.params["position"] == 1
    )
    assert not first.executor.store.has(state.key, ".safetensors"), "it was dropped, being spent"
    seen = Events()
    again = harness.carry_out(second, seen.append)
    assert [outcome(result) for result in again] == [outcome(result) for result in results]
    assert not seen.trainings


@pytest.mark.long
def test_a_damaged_row_is_planned_again_and_told_if_it_is_damaged_later(ready):
    prepared = ready()
    (result,) = harness.carry_out(prepared)
    row = next(unit for unit in prepared.graph.everything if unit.params["kind"] == "score")
    path = prepared.executor.store.path(row.key, ".json")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"scores", b"stores"))
    with pytest.warns(UserWarning, match="does not fit its checksum"):
        again = ready()
    assert row.key in [unit.key for unit in again.graph.units]
    assert outcome(harness.carry_out(again)[0]) == outcome(result)
    late = ready()
    path.unlink()
    with pytest.raises(WorkFailed, match="was removed or damaged meanwhile; run the same command again"):
        harness.carry_out(late)


@pytest.mark.long
def test_what_is_to_be_kept_is_made_again_where_it_was_not_kept(ready, sweep):
    (result,) = sweep()
    prepared = ready(keep=("states", "images"))
    assert outcome(harness.carry_out(prepared)[0]) == outcome(result)
    store = prepared.executor.store.root
    assert len(list(store.glob("state/*/*.safetensors"))) == 3
    assert len(list(store.glob("cell/*/*.003.png"))) == 3 + 6, "all cells of the base row and of a triangle"
    assert ready(keep=("states", "images")).graph.units == []


def test_a_worker_that_would_make_something_else_than_was_planned_says_so(ready):
    prepared = ready()
    for unit in prepared.graph.units:
        other = replace(unit, key=f"{unit.key.split('-')[0]}-{'0' * 64}")
        with pytest.raises(WorkFailed, match="would make something else than was planned: did a plugin change"):
            prepared.executor.do(other, lambda event: None)


BROKEN_LATER = """
from pathlib import Path
from clbench import Method

class Broken(Method):
    name = "broken"

    def weights(self, state):
        if Path(__file__).with_name("broken now").exists():
            raise ValueError("no weights")
        return super().weights(state)
"""


def test_one_methods_failure_costs_no_other_its_result(ready, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN_LATER)
    prepared = ready(("broken", "naive"), plugins=(plugin,))
    (tmp_path / "broken now").touch()
    with pytest.raises(WorkFailed, match=r"method broken failed in weights\(\) at task 'byzantine'.*no weights"):
        harness.carry_out(prepared)
    assert (tmp_path / "runs" / "mock" / "styles" / "naive.partial.json").exists()


@pytest.mark.long
def test_orders_that_begin_alike_share_the_beginning_and_drop_it_in_the_end(ready, mock_suite, tmp_path):
    track = mock_suite.track("styles").model_copy(update={"orders": {"one": (0, 1, 2), "two": (0, 2, 1)}})
    suite = mock_suite.model_copy(update={"tracks": {"styles": track}})
    own = save_suite(suite, tmp_path / "suite")
    prepared, seen = ready(suite=own, quick=False, seeds=[0]), Events()
    harness.carry_out(prepared, seen.append)
    assert seen.trainings == 3 + 2
    store = prepared.executor.store
    kept = [unit.params["position"] for unit in prepared.graph.everything if store.has(unit.key, ".safetensors")]
    assert kept == [0, 2, 2], "the shared training, and the last states"


def test_the_last_states_are_told_without_a_model_as_the_model_tells_them(ready, models):
    runtime = ready().executor.runtime("styles")
    assert list(runtime.models.shapes.items()) == list(models.backbone.shapes.items())


HOOKED = """
from pathlib import Path
from clbench import Method

class Hooked(Method):
    name = "hooked"

    def shapes_training(self):
        return True

    def begin_task(self, ctx, state):
        self.handles = [module.register_forward_hook(lambda *_: 0.5 * _[-1]) for module in ctx.modules.values()]
        return ctx.fresh_adapter()

    def end_task(self, ctx, state, adapter):
        if ctx.position == 1 and Path(__file__).with_name("fails now").exists():
            raise ValueError("before the hooks were removed")
        [handle.remove() for handle in self.handles]
        return super().end_task(ctx, state, adapter)
"""


@pytest.mark.long
def test_what_a_method_leaves_in_the_model_when_it_fails_goes_before_the_next(mock_folder, tmp_path):
    plugin = tmp_path / "hooked.py"
    plugin.write_text(HOOKED)
    options = {"quick": True, "device": "cpu", "plugins": (plugin,), "output": tmp_path / "runs"}
    config, variants = RunConfig.of(workers=1, **options), [Variant.of("hooked"), Variant.of("naive")]
    prepared = prepare(variants, ["styles"], mock_folder, config)
    (tmp_path / "fails now").touch()
    with pytest.raises(WorkFailed, match="before the hooks were removed"):
        harness.carry_out(prepared)
    beside = load_result(tmp_path / "runs" / "mock" / "styles" / "naive.partial.json")
    alone = harness.run("naive", "styles", mock_folder, **{**options, "output": tmp_path / "alone"})
    assert outcome(beside) == outcome(alone)


@pytest.mark.long
def test_work_in_anothers_hands_is_waited_for(ready):
    prepared = ready()
    held, release, key = threading.Event(), threading.Event(), prepared.graph.units[2].key

    def hold_the_first_training() -> None:
        with Store(prepared.executor.store.root).try_lock(key) as mine:
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

    assert execute(prepared.graph.units, InlinePool(prepared.executor), see) == {}
    other.join()
    assert seen.count(("wait", None)) >= 3
    assert seen.count(("begin", key)) == seen.count(("end", key)) == 1
    assert all(prepared.executor.work_of(unit).is_done() for unit in prepared.graph.units if unit.wanted)


def test_whatever_kind_of_file_is_lost_from_the_store_is_made_again(sweep, mock_suite, tmp_path):
    drift = Drift(prompts=("a photo of a key", "a heart"), metrics=("dino",))
    styles = mock_suite.track("styles").model_copy(update={"drift": drift})
    folder = save_suite(mock_suite.model_copy(update={"tracks": {"styles": styles}}), tmp_path / "drifting")
    expected = outcome(sweep(suite=folder)[0])
    kinds = {path.name for path in (tmp_path / "runs/store").iterdir()} - {"locks", "sign"}
    assert {"base", "drift", "controls", "fit", "state", "row", "cell", "cost"} <= kinds
    for kind in kinds:
        shutil.rmtree(tmp_path / "runs/store" / kind)
        assert outcome(sweep(suite=folder)[0]) == expected, kind
