"""How mini-v1's settings are chosen: naive and the controls alone, on an order and a seed outside the protocol.

    python benchmark/studies/mini_v1_settings.py --track styles --share 0.3 0.6 --learning-rate 4e-4 7e-4 --steps 60

Prints, for each setting and metric: the base model, right after learning, the past tasks at the end, the last-task
floor, real against real; and three shares. *Learned*: of the way from base to real against real, right after learning
(aim: at least 0.60). *Memory*: what past tasks keep above the last-task floor, of what was learned above it (aim: 0.20
to 0.75, and clearly above 0). *Gain kept*: the same above the base model. Looking at other methods here would choose
the winner; `--method` exists to measure cost, and to try a setting after it has been chosen.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from clbench.bench import Bench
from clbench.files import folder_sha256
from clbench.method import get_method
from clbench.miniworld.define import object_tasks, style_tasks
from clbench.scores import memory, plasticity
from clbench.sequence import Sequence
from clbench.store import Store
from clbench.suite import Suite, Task, Weights, load_suite

HEADERS = ["setting", "metric", "base", "after", "past", "floor", "real", "learned", "memory", "gain kept", "s"]


def development_order(number: int) -> list[int]:
    """Shuffles of seeds 7, 8, ...: none is an order of the protocol."""
    order = list(range(10))
    random.Random(7 + number).shuffle(order)
    return order


def variant(track: str, share: float, weights: Path | None, training: dict, sampling: dict, order: list[int]) -> Suite:
    """mini-v1 with other settings, one track and one development order."""
    suite = load_suite("mini-v1")
    make = style_tasks if track == "styles" else object_tasks
    tasks = tuple(Task.model_validate(task) for task in make(share))
    changed = suite.track(track).model_copy(update={"tasks": tasks, "orders": {"dev": tuple(order)}})
    update = {
        "tracks": {track: changed},
        "training": suite.training.model_copy(update=training),
        "sampling": suite.sampling.model_copy(update=sampling),
    }
    if weights is not None:
        local = {
            name: Weights(source=str(weights / name), sha256=folder_sha256(weights / name))
            for name in ("pipeline", *suite.encoders)
        }
        update |= {"backbone": local.pop("pipeline"), "encoders": local}
    # Validated anew, so that no cached hash of the original goes along.
    return Suite.model_validate({**suite.model_dump(), **{k: _plain(v) for k, v in update.items()}})


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value.model_dump() if hasattr(value, "model_dump") else value  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--track", default="styles", choices=("styles", "objects"))
    parser.add_argument("--method", default="naive")
    parser.add_argument("--share", type=float, nargs="+", default=[0.6])
    parser.add_argument("--learning-rate", type=float, nargs="+", default=[7e-4])
    parser.add_argument("--steps", type=int, nargs="+", default=[60])
    parser.add_argument("--batch", type=int, nargs="+", default=[4])
    parser.add_argument("--rank", type=int, nargs="+", default=[8])
    parser.add_argument("--guidance", type=float, nargs="+", default=[2.0])
    parser.add_argument("--sampling-steps", type=int, nargs="+", default=[6])
    parser.add_argument("--order", type=int, nargs="+", default=[0], help="development orders 0, 1, ...")
    parser.add_argument("--plugin", type=Path, nargs="*", default=[])
    parser.add_argument("--weights", type=Path, help="a pretraining's weights/ instead of the bundled ones")
    parser.add_argument("--output", type=Path, default=Path("runs/study"))
    chosen = parser.parse_args()
    grid = (
        chosen.share,
        chosen.learning_rate,
        chosen.steps,
        chosen.batch,
        chosen.rank,
        chosen.guidance,
        chosen.sampling_steps,
    )
    rows = []
    for share, rate, steps, batch, rank, guidance, draws, number in itertools.product(*grid, chosen.order):
        order = development_order(number)
        training = {"learning_rate": rate, "steps": steps, "batch_size": batch, "rank": rank, "alpha": float(rank)}
        sampling = {"guidance_scale": guidance, "steps": draws}
        suite = variant(chosen.track, share, chosen.weights, training, sampling, order)
        bench = Bench(suite, chosen.track, Store(chosen.output / "store"))
        torch.set_num_threads(1)  # as the workers of a run
        began = time.perf_counter()
        controls = bench.controls()
        run = Sequence(bench, get_method(chosen.method, plugins=tuple(chosen.plugin)), "dev", 77 + number).run()
        seconds = time.perf_counter() - began
        for metric in bench.track.metrics:
            R = run.matrix(metric)
            real = np.array(controls.real_against_real[metric])[order]
            learned = (plasticity(R) - R[0].mean()) / (real.mean() - R[0].mean())
            past, gained = R[-1, :-1] - R[0, :-1], np.diag(R[1:])[:-1] - R[0, :-1]
            floor = np.full(len(real), np.nan)
            if metric in controls.last_task_floor:
                floor = np.array(controls.last_task_floor[metric])[order[-1]][order]
            setting = f"{share} {rate:g} {steps}x{batch} r{rank} g{guidance:g} s{draws} o{number}"
            levels = (R[0].mean(), plasticity(R), R[-1, :-1].mean(), floor[:-1].mean(), real.mean())
            rows.append((setting, metric, *levels, learned, memory(R, floor), past.sum() / gained.sum(), seconds))
        print(tabulate(rows[-len(bench.track.metrics) :], HEADERS, floatfmt=".2f"), flush=True)
    print(f"\nall, {chosen.method} on {chosen.track}\n")
    print(tabulate(rows, HEADERS, floatfmt=".2f"))


if __name__ == "__main__":
    main()
