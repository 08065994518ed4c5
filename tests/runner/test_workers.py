"""Runs in several worker processes: whoever dies, the bits are those of one process."""

import json
import os
import re
import signal
import threading
from collections import Counter
from contextlib import closing

import pytest
from builders import outcome

from clbench.errors import WorkFailed
from clbench.runner import harness
from clbench.runner.engine import execute
from clbench.runner.engine.local import LocalPool
from clbench.runner.executor import executor_setup
from clbench.runner.prepare import ExecutionPlan

OPEN = "clbench.runner.executor:open_executor"


@pytest.mark.long
def test_several_processes_give_the_bits_of_one(sweep, tmp_path):
    together = sweep(("naive", "merge_ortho"), workers=2)
    alone = sweep(("naive", "merge_ortho"), output=tmp_path / "alone")
    assert [outcome(result) for result in together] == [outcome(result) for result in alone]
    assert together[0].settings["workers"] == 2


@pytest.mark.long
def test_a_worker_that_is_shot_is_replaced_and_leaves_no_trace(ready, sweep, tmp_path):
    prepared, shot, told = ready(), [], []
    with executor_setup(prepared.executor) as setup, closing(LocalPool(OPEN, setup, [{}, {}])) as pool:

        def shoot(event):
            told.append(event)
            if event["event"] == "loss" and not any(one["event"] == "warning" for one in told):
                shot.append(event["worker"])
                os.kill(event["worker"], signal.SIGKILL)

        assert execute(prepared.graph.units, pool, shoot) == {}
        workers = {process.pid for process in pool.processes}
    assert workers.isdisjoint(shot)
    assert any("killed by signal 9" in event["message"] for event in told if event["event"] == "warning")
    assert outcome(sweep()[0]) == outcome(sweep(output=tmp_path / "alone")[0])


LOST = """
from pathlib import Path
import torch
from clbench import Method

class Lost(Method):
    name = "lost"

    def begin_task(self, ctx, state):
        if ctx.position == 1 and not {mark}.exists():
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\\nmore")
        return ctx.fresh_adapter()
"""


@pytest.mark.long
def test_a_gpu_that_fails_costs_its_process_and_not_the_method_its_result(ready, sweep, tmp_path):
    """As far as it can be seen without one."""
    plugin, mark, told = tmp_path / "lost.py", tmp_path / "mark", []
    plugin.write_text(LOST.format(mark=f"Path({str(mark)!r})"))
    alone = {"plugins": (plugin,), "output": tmp_path / "alone"}
    reason = r"cpu failed \(CUDA error: an illegal memory access was encountered\); what is finished is kept"
    mark.touch()
    first, second = ready(("lost",), **alone), ready(("lost",), plugins=(plugin,), workers=2)
    mark.unlink()  # it passed the check before the work, and fails in it
    with pytest.raises(WorkFailed, match=f"^{reason}, so run the same command again$"):
        harness.carry_out(first)
    mark.touch()
    expected = sweep(("lost",), **alone)
    mark.unlink()

    def on_event(event):
        told.append(event)
        if event["event"] == "warning":  # a plugin writes no file: from now on, it does not fail
            mark.touch()

    results = harness.carry_out(second, on_event)
    assert [outcome(result) for result in results] == [outcome(result) for result in expected]
    (warning,) = [event["message"] for event in told if event["event"] == "warning"]
    assert re.search(f"a worker died during order forward seed 0, task 2 of 3.*: {reason}", warning)


@pytest.mark.long
def test_workers_that_cannot_open_their_executor_say_why(ready):
    prepared = ready()
    with executor_setup(prepared.executor) as setup:
        for wrong, says in (
            ({"sign": "sign-00"}, r"cannot start: .* does not see the store .* give --store"),
            ({"software": {"torch": "1.0"}}, r"cannot start: .* has other software \(torch .*\) than .* \(torch 1.0\)"),
        ):
            with (
                closing(LocalPool(OPEN, json.dumps({**json.loads(setup), **wrong}), [{}])) as pool,
                pytest.raises(WorkFailed, match=says),
            ):
                execute(prepared.graph.units, pool, lambda event: None)


@pytest.mark.long
def test_two_sweeps_at_once_do_each_unit_once(ready, tmp_path):
    """Each unit leaves one artifact; two that were made would show as two events."""
    pair, seen = [ready(("naive", "magmax"), workers=2) for _ in range(2)], []

    def go(prepared: ExecutionPlan) -> None:
        with executor_setup(prepared.executor) as setup, closing(LocalPool(OPEN, setup, [{}, {}])) as pool:
            assert execute(prepared.graph.units, pool, seen.append) == {}

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
