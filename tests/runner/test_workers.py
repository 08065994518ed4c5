"""Runs in several worker processes: whoever dies, the bits are those of one process."""

import json
import os
import re
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
import warm
from builders import outcome

from clbench.errors import WorkFailed
from clbench.results.io import load_result
from clbench.runner import harness
from clbench.runner.engine import execute
from clbench.runner.engine.local import LocalPool
from clbench.runner.executor import executor_setup, open_executor

OPEN = "clbench.runner.executor:open_executor"


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


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"sign": "sign-00"}, r"does not see the store .*; give --store a folder or URL that all share$"),
        ({"software": {"torch": "1.0"}}, r"has other software \(torch .*\) than the caller \(torch 1.0\)$"),
    ],
)
def test_an_executor_opens_only_where_the_store_and_the_software_are_the_callers(ready, wrong, says):
    with executor_setup(ready().executor) as setup, pytest.raises(WorkFailed, match=says):
        open_executor(json.dumps({**json.loads(setup), **wrong}))


@pytest.mark.long
def test_workers_that_cannot_open_their_executor_say_why(ready):
    prepared = ready()
    with executor_setup(prepared.executor) as setup:
        wrong = json.dumps({**json.loads(setup), "sign": "sign-00"})
        with (
            closing(LocalPool(OPEN, wrong, [{}])) as pool,
            pytest.raises(WorkFailed, match=r"cannot start: .* does not see the store .* give --store"),
        ):
            execute(prepared.graph.units, pool, lambda event: None)


@pytest.mark.long
def test_two_commands_of_two_workers_do_each_unit_once_with_the_bits_of_one_process(mock_folder, sweep, tmp_path):
    """Each unit leaves one artifact; two that were made would show as two events."""
    methods, output = ("naive", "magmax"), tmp_path / "together"
    words = ["sweep", "--methods", ",".join(methods), "--tracks", "styles", "--suite", mock_folder, "--quick"]
    words += ["--device", "cpu", "--workers", "2", "--tracker", "none", "--output", str(output)]
    told = [tmp_path / name / "events.jsonl" for name in ("one", "other")]
    for path in told:
        path.parent.mkdir()
    both = [warm.start([*words, "--events", str(path)], os.environ, Path.cwd(), path.parent) for path in told]
    assert [one.wait(600) for one in both] == [0, 0]
    seen = [json.loads(line) for path in told for line in path.read_text().splitlines()]
    drawn = Counter(event["cell"] for event in seen if event["event"] == "cell" and not event["found"])
    trained = Counter((event["unit"], event["step"]) for event in seen if event["event"] == "loss")
    assert set(drawn.values()) == {1}
    assert set(trained.values()) == {1}
    assert len(drawn) == 3 + 1 + 2 * 5
    assert len(trained) == (1 + 2 * 2) * 2
    together = [load_result(output / f"mock/styles/{name}.partial.json") for name in methods]
    assert [outcome(one) for one in together] == [outcome(one) for one in sweep(methods, output=tmp_path / "alone")]
    assert {one.settings["workers"] for one in together} == {2}
