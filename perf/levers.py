"""What each lever of speed is worth on this machine: `python perf/levers.py [--compile]`.

Prints ratios of one run: how many times as long (above 1) or short (below 1) the work takes when the lever is set the
other way than the engine sets it. Give it an idle machine; `--compile` adds minutes of compilation.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate

from clbench.lora import Adapter
from clbench.protocol.sampling import draw_cell
from clbench.protocol.track_runtime import TrackRuntime
from clbench.protocol.trainer import TaskDataset
from clbench.storage.store import Store
from clbench.suite import load_suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--work", type=int, default=0, help=argparse.SUPPRESS)  # one of several processes
    chosen = parser.parse_args()
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(TrackRuntime(load_suite("mini-v2"), "styles", Store(Path(folder))))
        if chosen.work:
            lab.both(1)
            sys.stdin.readline()  # all start together
            began = time.perf_counter()
            lab.both(chosen.work)
            print(time.perf_counter() - began)
            return
        rows = processes(lab, cores) + lab.levers(chosen.compile)  # compiling last: it cannot be undone
    print(tabulate(rows, ["work", "set the other way", "ms as it is", "ms then", "ratio"], floatfmt=".2f"))


class Lab:
    """One task's training step and its cell."""

    def __init__(self, runtime: TrackRuntime) -> None:
        suite, task = runtime.suite, runtime.track.tasks[0]
        self.backbone, self.suite = runtime.backbone, suite
        self.prompts = runtime.track.eval_prompts(task)
        self.data = TaskDataset(self.backbone, runtime.examples(task, torch.Generator()), suite.resolution)
        generator = torch.Generator().manual_seed(0)
        shapes, rank = self.backbone.shapes, suite.training.rank
        self.adapter = Adapter(
            {name: torch.randn(rank, inputs, generator=generator) / rank for name, (_, inputs) in shapes.items()},
            {name: torch.randn(out, rank, generator=generator) / 100 for name, (out, _) in shapes.items()},
            self.backbone.scale,
        )
        self.backbone.deploy(self.adapter.delta())
        self.batch = next(self.data.batches(1, suite.training, generator))

    def cell(self) -> None:
        self.backbone.use_adapter(None)
        draw_cell(self.backbone, self.prompts, self.suite.sampling, self.suite.resolution)

    def cell_with_adapter(self) -> None:
        self.backbone.use_adapter(self.adapter)
        draw_cell(self.backbone, self.prompts, self.suite.sampling, self.suite.resolution)

    def cell_encoding_prompts(self) -> None:
        self.backbone._encoded_prompts.clear()
        self.cell()

    def cell_one_by_one(self) -> None:
        one_each = self.suite.sampling.model_copy(update={"images_per_prompt": 1})
        for prompt in self.prompts:
            draw_cell(self.backbone, [prompt], one_each, self.suite.resolution)
            draw_cell(self.backbone, [prompt], one_each, self.suite.resolution)

    def step(self) -> None:
        live = self.backbone.use_adapter(self.adapter) if not self.backbone._adapter_enabled else None
        if live:
            self.parameters = live.parameters()
            self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6, fused=True)
        self.optimizer.zero_grad(set_to_none=True)
        self.data.loss(self.batch).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()

    def both(self, times: int) -> None:
        """The mix of a run: as many cells as training steps take."""
        for _ in range(times):
            self.cell()
            for _ in range(4):
                self.step()

    def levers(self, compiled: bool) -> list[tuple[str, str, float, float, float]]:
        rows = [
            compare("cell", "adapter live instead of fused", self.cell, self.cell_with_adapter),
            compare("cell", "prompts encoded every time", self.cell, self.cell_encoding_prompts),
            compare("cell", "one image at a time", self.cell, self.cell_one_by_one),
        ]
        unet = self.backbone.unet
        for what, work in (("cell", self.cell), ("training step", self.step)):
            rows.append(
                compare(
                    what,
                    "channels last",
                    work,
                    work,
                    before=lambda: unet.to(memory_format=torch.contiguous_format),
                    instead=lambda: unet.to(memory_format=torch.channels_last),
                )
            )
        unet.to(memory_format=torch.contiguous_format)
        if compiled:
            plain = seconds(self.cell), seconds(self.step)
            unet.compile()
            for what, work, usual in (("cell", self.cell, plain[0]), ("training step", self.step, plain[1])):
                began = time.perf_counter()
                work()
                print(f"torch.compile, {what}: first call {time.perf_counter() - began:.0f} s", flush=True)
                now = seconds(work)
                rows.append((what, "torch.compile", 1e3 * usual, 1e3 * now, now / usual))
        return rows


def seconds(work: Callable[[], None], times: int = 7) -> float:
    """Median duration, after one call that does not count."""
    work()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def compare(
    what: str,
    lever: str,
    usual: Callable[[], None],
    other: Callable[[], None],
    before: Callable[[], object] = lambda: None,
    instead: Callable[[], object] = lambda: None,
) -> tuple[str, str, float, float, float]:
    before()
    first = seconds(usual)
    instead()
    then = seconds(other)
    before()
    usual_seconds = (first + seconds(usual)) / 2
    return what, lever, 1e3 * usual_seconds, 1e3 * then, then / usual_seconds


def processes(lab: Lab, cores: int, times: int = 6) -> list[tuple[str, str, float, float, float]]:
    """One process with a thread for every core, against one process a core (as the engine does), for equal work."""
    if cores == 1:
        return []
    command = [sys.executable, __file__, "--work", str(times)]
    pipe = subprocess.PIPE
    helpers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(cores)]
    time.sleep(30)  # while they load
    for helper in helpers:
        assert helper.stdin
        helper.stdin.write("go\n")
        helper.stdin.flush()
    many = max(float(helper.communicate()[0]) for helper in helpers) / (times * cores)
    torch.set_num_threads(cores)
    lab.both(1)
    began = time.perf_counter()
    lab.both(times)
    one = (time.perf_counter() - began) / times
    torch.set_num_threads(1)
    return [("cell and 4 steps", f"{cores} threads, not {cores} processes", 1e3 * many, 1e3 * one, one / many)]


if __name__ == "__main__":
    main()
