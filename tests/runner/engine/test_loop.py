"""Units of work: each is done once and after what it needs, and a failure costs only the results that need it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clbench.runner.engine import Failed, Schedule, Unit, WorkerDied, execute, needed


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


class FakePool:
    """Some workers; some units fail, some kill their worker, and some are being done by another command."""

    def __init__(self, workers: int, ends: dict[str, list]) -> None:
        self.workers, self.ends = workers, {key: list(value) for key, value in ends.items()}
        self.running: list[Unit] = []
        self.given: list[str] = []

    def free_workers(self) -> int:
        return self.workers - len(self.running)

    def submit(self, unit: Unit) -> None:
        self.running.append(unit)
        self.given.append(unit.key)

    def poll(self, seconds, on_event):
        unit = self.running.pop(0)
        left = self.ends.get(unit.key)
        yield unit, left.pop(0) if left else True


@given(graphs(), st.integers(1, 3), st.data())
def test_every_unit_is_done_once_and_after_what_it_needs(units, workers, data):
    mishaps = data.draw(
        st.dictionaries(st.sampled_from([u.key for u in units]), st.lists(st.just(WorkerDied("")), max_size=2))
    )
    pool, done = FakePool(workers, mishaps), []
    by_key = {unit.key: unit for unit in units}

    def seen(event):
        if event["event"] == "end":
            assert set(by_key[event["unit"]].needs) <= set(done)
            done.append(event["unit"])

    assert execute(units, pool, seen) == {}
    assert sorted(done) == sorted(by_key)
    assert Counter(pool.given) == Counter({u.key: 1 + len(mishaps.get(u.key, [])) for u in units})


@given(graphs(), st.integers(1, 3), st.data())
def test_a_failure_costs_the_results_that_it_is_for_and_no_other(units, workers, data):
    bad = data.draw(st.sampled_from(units))
    pool, done = FakePool(workers, {bad.key: [Failed("no")]}), []
    failures = execute(units, pool, lambda event: done.append(event["unit"]) if event["event"] == "end" else None)
    assert set(failures) == set(bad.groups)
    for unit in units:
        if not set(unit.groups) <= set(bad.groups):
            assert unit.key in done


@given(graphs(), st.data())
def test_what_is_done_or_not_wanted_is_left_out(units, data):
    done = data.draw(st.sets(st.sampled_from([unit.key for unit in units])))
    kept = {unit.key for unit in needed(units, lambda unit: unit.key in done)}
    for unit in units:
        wanted = unit.wanted or any(unit.key in other.needs and other.key in kept for other in units)
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
    failures = execute(units, FakePool(1, {"a": [WorkerDied("by signal 9")] * 9}), seen.append)
    assert failures == {"A": Failed("the unit: 3 workers died of it, the last: by signal 9")}
    assert [event["unit"] for event in seen if event["event"] == "end" and event["how"] == "done"] == ["b"]


def test_what_can_never_be_ready_is_an_error_not_a_wait():
    with pytest.raises(RuntimeError, match="none of those left"):
        execute([Unit("a", "", 1, ("b",)), Unit("b", "", 1, ("a",))], FakePool(1, {}), lambda event: None)
