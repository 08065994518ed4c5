"""Three things that must be quick, as ratios of one run: `python perf/quick.py`.

`clbench --help`, over importing the packages that it cannot do without (processor seconds, the least of five); and the
closed form of the orthogonal columns of a 64 x 640 matrix, over the SVDs that it replaces; and the start of two workers
that are forks of a command, over two that are started afresh.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from clbench.lora import orthogonal_columns

NEEDED = "import numpy, pydantic, typer, rich.console, rich.table, typer.rich_utils, yaml, jinja2"
HELP = "from clbench.cli import main; main()"


def least(count: int, clock: Callable[[], float], work: Callable[[], object]) -> float:
    """The least time that some work takes, of so many times."""
    times = []
    for _ in range(count):
        began = clock()
        work()
        times.append(clock() - began)
    return min(times)


def of_children() -> float:
    """Processor seconds of the processes that this one has waited for."""
    used = os.times()
    return used.children_user + used.children_system


def start(script: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, stdout=subprocess.DEVNULL)


def decompose(A: torch.Tensor) -> list[torch.Tensor]:
    """The last right singular vector of each column, by LAPACK."""
    return [torch.linalg.svd(column[None, :])[2][-1] for column in A.T]


WORKERS = """
import sys, time
from clbench.runner import harness
from clbench.runner.engine import local, processes
if sys.argv[1] == "forked":
    processes.fork_workers()
began = time.perf_counter()
pool = local.LocalPool("clbench.runner.executor:ClbenchError", "", [{"OMP_NUM_THREADS": "1"}] * 2)
while pool.free_workers() < 2:
    list(pool.poll(0.02, print))
print(time.perf_counter() - began)
pool.close()
"""
"""Starts two workers that import all that units need, and prints how long that took."""


def start_workers(how: str) -> float:
    """Seconds until two workers could take a unit."""
    return float(subprocess.run([sys.executable, "-c", WORKERS, how], check=True, capture_output=True).stdout)


def main() -> None:
    shown = least(5, of_children, lambda: start(HELP, "--help"))
    needed = least(5, of_children, lambda: start(NEEDED))
    print(f"clbench --help: {shown / needed:.2f} times the imports that it needs ({shown:.2f} s)")
    A = torch.randn(64, 640, generator=torch.Generator().manual_seed(0))
    closed = least(200, time.perf_counter, lambda: orthogonal_columns(A))
    svd = least(3, time.perf_counter, lambda: decompose(A))
    fresh, forked = (min(start_workers(how) for _ in range(3)) for how in ("fresh", "forked"))
    print(f"two workers, forked: 1/{fresh / forked:.0f} of the time of fresh ones ({forked:.2f} s, {fresh:.2f} s)")
    print(f"orthogonal columns: 1/{svd / closed:.0f} of the SVDs' time ({1000 * closed:.2f} ms)")


if __name__ == "__main__":
    main()
