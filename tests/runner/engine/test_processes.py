"""Workers that are forks of a command: they do the same work as fresh ones, end as told, and need no nursery."""

from __future__ import annotations

import sys

import pytest
from commands import execute
from paths import SUPPORT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked on Linux alone")
BEGIN = f"""
import os, signal, subprocess, sys
sys.path.insert(0, {str(SUPPORT)!r})
from contextlib import closing
from clbench.runner.engine import Unit, execute, local, processes
processes.fork_workers()
nursery = processes._nursery._process

def opened(pool):
    while pool.free_workers() < len(pool.processes):
        assert list(pool.poll(0.02, print)) == []
    return pool.processes
"""


def run(body: str) -> str:
    return execute(sys.executable, "-c", BEGIN + body).stdout


def test_units_are_done_in_forks_of_the_nursery_which_leave_with_the_pool():
    out = run("""
units = [Unit(f"u{n}", f"unit {n}", 1.0, (), (f"result {n}",)) for n in range(6)]
with closing(local.LocalPool("shops:open_shop", "", [{}, {}])) as pool:
    for process in opened(pool):
        assert isinstance(process, processes.ForkedProcess)
        assert int(open(f"/proc/{process.pid}/stat").read().split()[3]) == nursery, "the nursery's children"
    assert execute(units, pool, lambda event: None) == {}
    workers = [process.pid for process in pool.processes]
print([os.path.exists(f"/proc/{pid}") for pid in workers])
""")
    assert out.splitlines()[-1] == "[False, False]", "they leave with the pool"


@pytest.mark.long
def test_a_killed_worker_is_replaced_and_a_killed_nursery_too():
    run("""
with closing(local.LocalPool("shops:open_shop", "", [{"PYTHONPATH": sys.path[0]}])) as pool:
    [first] = opened(pool)
    first.kill()
    assert first.wait(20) == -signal.SIGKILL
    while pool.processes[0] is first:
        list(pool.poll(0.02, print))
    [second] = opened(pool)
    assert isinstance(second, processes.ForkedProcess)
    os.kill(nursery, signal.SIGKILL)
    second.kill()
    assert second.wait(20) == -signal.SIGKILL
    while pool.processes[0] is second:
        list(pool.poll(0.02, print))
    [third] = opened(pool)
    assert isinstance(third, subprocess.Popen), "started afresh"
""")


@pytest.mark.long
def test_a_worker_that_cannot_start_says_why():
    out = run("""
pool = local.LocalPool("shops:no_such_function", "", [{}])
try:
    while True:
        list(pool.poll(0.02, print))
except processes.worker.ClbenchError as error:
    print(error)
""")
    assert "worker processes cannot start: AttributeError: module 'shops' has no attribute" in out


@pytest.mark.long
def test_waiting_has_a_limit():
    run("""
with closing(local.LocalPool("shops:open_shop", "", [{}])) as pool:
    [process] = opened(pool)
    try:
        process.wait(0.01)
    except subprocess.TimeoutExpired:
        pass
    else:
        raise AssertionError
""")


@pytest.mark.long
def test_workers_end_when_their_command_is_killed():
    out = run("""
import time
read, write = os.pipe()
if os.fork() == 0:
    processes.fork_workers()
    pool = local.LocalPool("shops:open_shop", "", [{}, {}])
    os.write(write, " ".join(str(process.pid) for process in opened(pool)).encode())
    os.kill(os.getpid(), signal.SIGKILL)
pids = os.read(read, 100).split()
deadline = time.monotonic() + 20
while any(os.path.exists(f"/proc/{int(pid)}") for pid in pids) and time.monotonic() < deadline:
    time.sleep(0.05)
print([os.path.exists(f"/proc/{int(pid)}") for pid in pids])
""")
    assert out.splitlines()[-1] == "[False, False]"
