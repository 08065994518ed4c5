"""Several processes on one store: the same bits as one, whoever dies."""

import threading
import time
import warnings

import pytest
from test_harness import outcome, watch

import clbench
from clbench import harness
from clbench import sequence as engine
from clbench.assets import gather
from clbench.data import Places
from clbench.result import Result
from clbench.store import Store
from clbench.workers import Job, helpers, open_job, units, work_off


@pytest.fixture
def job(mock_suite, tmp_path):
    return Job(
        suite=mock_suite,
        track="styles",
        method="merge_init",
        settings={},
        plugins=(),
        orders=("forward", "backward"),
        seeds=(0,),
        store=tmp_path / "runs" / "store",
        device="cpu",
        precision="fp32",
        assets=gather(mock_suite, "mock", "styles", Places(tmp_path, tmp_path)),
    )


def run(job: Job, method: str = "merge_init", **options) -> Result:
    output = job.store.parent
    return harness.run(method, "styles", "mock", seeds=(0,), output=output, device="cpu", **options)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_helpers_do_the_whole_job_with_the_bits_of_one_process(shared_models, job, tmp_path, monkeypatch):
    bench, sequences = open_job(job)
    with helpers(job, 2):
        wait_for(lambda: all(unit.done() for unit in units(bench, sequences, together=True)))
    fits = watch(monkeypatch, engine, "fit")
    together = run(job)
    assert fits == []
    alone = run(job.model_copy(update={"store": tmp_path / "alone" / "store"}), workers=1)
    assert len(fits) == 6
    assert outcome(together) == outcome(alone)


@pytest.mark.slow
def test_a_helper_that_is_shot_leaves_no_trace(shared_models, job, tmp_path, monkeypatch):
    with warnings.catch_warnings(record=True) as told, helpers(job, 1) as started:
        wait_for(lambda: list(job.store.glob("row/*/*.json")))
        started[0].kill()
        started[0].wait()
    assert [str(one.message) for one in told] == ["1 of 1 helping processes stopped early: it was killed"]
    alone = run(job.model_copy(update={"store": tmp_path / "alone" / "store"}), workers=1)
    assert outcome(run(job, workers=1)) == outcome(alone)


@pytest.mark.slow
def test_a_helper_that_cannot_load_the_method_says_so_and_is_not_needed(job):
    job = job.model_copy(update={"method": "lives_in_a_notebook"})
    with warnings.catch_warnings(record=True) as told, helpers(job, 1) as started:
        started[0].wait()
    assert "stopped early: there is no method 'lives_in_a_notebook'" in str(told[0].message)


def test_work_in_anothers_hands_is_waited_for(shared_models, job):
    bench, sequences = open_job(job)
    pieces = units(bench, sequences[:1], together=False)
    held, release = threading.Event(), threading.Event()

    def hold_the_first_training() -> None:
        with Store(job.store).try_lock(pieces[2].key) as mine:
            assert mine
            held.set()
            release.wait()

    other = threading.Thread(target=hold_the_first_training)
    other.start()
    held.wait()
    seen = []

    def report(done: float, what: str) -> None:
        seen.append(what)
        if what.startswith("waiting"):
            release.set()

    work_off(bench, pieces, report)
    other.join()
    assert "waiting for the other workers" in seen
    assert all(unit.done() for unit in pieces)


def test_orders_that_begin_alike_share_the_beginning_and_leave_nothing_undone(shared_models, job, monkeypatch):
    track = job.suite.track("styles").model_copy(update={"orders": {"one": (0, 1, 2), "two": (0, 2, 1)}})
    suite = job.suite.model_copy(update={"tracks": {"styles": track}})
    bench, sequences = open_job(job.model_copy(update={"suite": suite, "orders": ("one", "two")}))
    fits, seen = watch(monkeypatch, engine, "fit"), []
    pieces = units(bench, sequences, together=True)
    work_off(bench, pieces, lambda done, what: seen.append((done, what)))
    assert seen[-1] == (sum(unit.work for unit in pieces), "done")
    assert len(fits) == 3 + 2
    for sequence in sequences:
        sequence.run()
    assert len(fits) == 5


@pytest.mark.parametrize(("workers", "options"), [(0, {}), (2, {"resume": False})])
def test_impossible_numbers_of_workers_are_refused(shared_models, job, workers, options):
    with pytest.raises(clbench.errors.ClbenchError, match="workers"):
        run(job, workers=workers, **options)
