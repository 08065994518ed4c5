"""Worker processes on this machine: how they stop, and how a bad device is avoided."""

import os
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT, SUPPORT

from clbench.runner.engine import Unit, execute
from clbench.runner.engine.local import LocalPool
from clbench.runner.engine.slots import WorkerSlots


def test_workers_that_are_told_to_leave_finish_the_file_that_they_write(tmp_path):
    path, env = tmp_path / "file.txt", {"PYTHONPATH": str(SUPPORT)}
    with closing(LocalPool("shops:open_slow_shop", str(path), [env])) as pool:
        while not pool.free_workers():
            assert list(pool.poll(0.02, lambda event: None)) == []
        pool.submit(Unit("u", "unit", 1.0, (), ("result",)))
        while not any("half" in one.read_text() for one in tmp_path.iterdir()):
            assert list(pool.poll(0.02, lambda event: None)) == []
    assert [one.name for one in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "half\nwhole\n"


def test_workers_run_no_modules_of_the_folder_that_they_are_started_in(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise SystemExit('this is not the queue that you are looking for')\n")
    monkeypatch.chdir(tmp_path)
    with closing(
        LocalPool("shops:open_shop", "", [{"PYTHONPATH": os.pathsep.join(map(str, (SUPPORT, ROOT)))}])
    ) as pool:
        while not pool.free_workers():
            assert list(pool.poll(0.02, lambda event: None)) == []


def test_a_place_where_all_workers_die_uses_up_no_result():
    units = [Unit(f"u{number}", f"unit {number}", 1.0, (), (f"result {number}",)) for number in range(40)]
    environments = [{"PYTHONPATH": str(SUPPORT), "BAD": bad} for bad in ("", "yes", "")]
    told = []
    with closing(LocalPool("shops:open_shop", "", environments)) as pool:
        assert execute(units, pool, told.append) == {}
    deaths = [event["message"] for event in told if event["event"] == "warning"]
    assert all(message.endswith(": RuntimeError: CUDA error: unspecified launch failure") for message in deaths)


def test_a_unit_whose_workers_are_killed_is_given_up_and_the_signal_is_told():
    units, told = [Unit("u", "the unit", 1.0, (), ("result",))], []
    with closing(LocalPool("shops:open_shot_shop", "", [{"PYTHONPATH": str(SUPPORT)}])) as pool:
        failures = execute(units, pool, told.append)
    how = "it was killed by signal 9 (is there enough memory?)"
    assert failures["result"].message.endswith(f"3 workers died of it, the last: {how}")
    deaths = [event["message"] for event in told if event["event"] == "warning"]
    assert deaths == [f"a worker died during the unit: {how}"] * 3


@given(st.integers(1, 4), st.data())
def test_a_free_slot_gets_work_unless_it_is_bad_and_others_work(count, data):
    slots, deaths = WorkerSlots(count), [0] * count
    for _ in range(data.draw(st.integers(0, 12))):
        slot, dies = data.draw(st.integers(0, count - 1)), data.draw(st.booleans())
        (slots.record_death if dies else slots.record_success)(slot)
        deaths[slot] = deaths[slot] + 1 if dies else 0
    free = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    assert slots.usable(free, others_work=False)
    for slot in free:
        assert (slot in slots.usable(free, others_work=True)) >= (deaths[slot] < 2)
