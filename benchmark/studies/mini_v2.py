"""How mini-v2's settings were chosen, how far it agrees with the paper, and how steady its numbers are.

    python benchmark/studies/mini_v2.py settings --set training.rank=4 --orders 0,1 --methods naive,merge_init
    python benchmark/studies/mini_v2.py drift --set training.rank=4 --orders 0,1 --methods naive,merge_init
    python benchmark/studies/mini_v2.py agreement submissions/mini-v2
    python benchmark/studies/mini_v2.py steadiness --methods naive,merge_init,magmax
    python benchmark/studies/mini_v2.py record submissions/mini-v2

`settings` runs methods on mini-v2-dev with changed settings: the frozen base, naive and the published pattern of the
paper's four methods are what the miniature is calibrated to. `drift` trains without drawing, and says how far later
tasks move what earlier ones taught. `agreement` compares measured results with the published ones: Kendall's tau over
the four methods, with its exact null distribution. `steadiness` repeats a run with two threads, with the instruction
set AVX2, and with another Python environment (another torch), and prints the differences; `record` writes them, with
the base row and the controls, into the suite's `record.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import stats
from tabulate import tabulate

from clbench.leaderboard.published import PublishedTrack, load_published
from clbench.metrics import METRICS
from clbench.results.baselines import Noise, OnRecord, on_record, record_path
from clbench.results.io import load_result
from clbench.results.schema import Controls, Result
from clbench.results.summary import statistics_of
from clbench.suite import Track, content_root, load_suite

PAPER = ("naive", "merge_init", "merge_ortho", "magmax")
PAPER_RUNS = 8
SHOWN = ("learned", "kept", "average_score", "average_forgetting", "plasticity", "base")


# --- settings ---


def changed_suite(changes: Sequence[str], folder: Path, like: str = "mini-v2-dev") -> Path:
    """A folder with that suite and changed settings, e.g. `training.rank=4`; named by the changes."""
    raw = yaml.safe_load((content_root() / "benchmark" / like / "suite.yaml").read_text())
    for change in changes:
        path, value = change.split("=", 1)
        *parents, last = path.split(".")
        target = raw
        for parent in parents:
            target = target[parent]
        target[last] = yaml.safe_load(value)
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()[:8]
    raw["name"] = f"study-{digest}"
    place = folder / raw["name"]
    place.mkdir(parents=True, exist_ok=True)
    (place / "suite.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return place


def interval(values: NDArray[np.float64]) -> str:
    """Mean and 95 % t interval over runs, each of which has an order of its own."""
    if len(values) < 2:
        return f"{values.mean():.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {half:.3f}"


def table(results: Sequence[Result], track: Track) -> str:
    """A line for each headline metric and method."""
    rows = []
    for metric in headline(track):
        for result in results:
            found = statistics_of(result.runs, result.controls, metric, track, SHOWN)
            real = np.mean(result.controls.real_against_real[metric])
            share = f"{found['base'].mean() / real:.2f}"
            rows.append([METRICS[metric].label, result.method.name, share, *(interval(found[name]) for name in SHOWN)])
    return tabulate(rows, ["metric", "method", "base / real", *(name.replace("average_", "") for name in SHOWN)])


def headline(track: Track) -> list[str]:
    return [metric for metric in track.metrics if not METRICS[metric].secondary]


def settings(chosen: argparse.Namespace) -> None:
    from clbench.runner.harness import sweep

    place = changed_suite(chosen.set, chosen.output)
    suite = load_suite(str(place))
    orders = chosen.orders.split(",") if chosen.orders else None
    for track in chosen.tracks.split(","):
        results = sweep(
            chosen.methods.split(","),
            [track],
            str(place),
            orders=orders,
            output=chosen.output,
            plugins=tuple(chosen.plugin),
            device="cpu",
        )
        seconds = {one.method.name: np.mean([r.train_seconds + r.eval_seconds for r in one.runs]) for one in results}
        spent = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
        print(f"\n{' '.join(chosen.set) or 'as mini-v2-dev'}, {track}, {len(results[0].runs)} orders; s a run: {spent}")
        print(table(results, suite.track(track)), flush=True)


# --- drift ---


TIMESTEPS = (999, 700, 400)


def drift(chosen: argparse.Namespace) -> None:
    """Train sequences, and print how the U-Net's prediction for each task's prompts changes, at the same noise.

    *learned* is the mean squared change by the end of the task, from the base model; *step* the change of an earlier
    task's prediction by one later task, and *drift* that by all later ones, as shares of what that task learned; *kept*
    is the share of the learned change (by projection) that is left after the last task.
    """
    from tempfile import TemporaryDirectory

    from clbench.protocol.track_runtime import TrackRuntime
    from clbench.storage.store import Store

    suite, rows, models = load_suite(str(changed_suite(chosen.set, chosen.output))), [], None
    for track, method in itertools.product(chosen.tracks.split(","), chosen.methods.split(",")):
        for order, seed in suite.runs(track):
            if chosen.orders is None or order in chosen.orders.split(","):
                with TemporaryDirectory() as folder:
                    runtime = TrackRuntime(suite, track, Store(Path(folder)), models=models)
                    models = runtime.models
                    rows.append([track, method, order, *changes(runtime, method, order, seed)])
    print(" ".join(chosen.set) or "as mini-v2-dev")
    print(tabulate(rows, ["track", "method", "order", "loss", "learned", "step", "drift", "kept"], floatfmt=".3f"))


def changes(runtime: Any, method: str, order: str, seed: int) -> tuple[float, float, float, float, float]:
    """Loss at the end of a task, learned, step, drift and kept of one sequence, each a mean over its tasks."""
    import torch

    from clbench.plugins import get_method
    from clbench.protocol.sampling import shared_noise
    from clbench.protocol.task_sequence import TaskSequence

    sequence, model, losses = TaskSequence(runtime, get_method(method), order, seed), runtime.backbone, []
    runtime.emit = lambda event: losses.append(event["loss"]) if event["event"] == "loss" else None
    prompts = [runtime.track.eval_prompts(task) for task in sequence.tasks]
    hidden, pooled = model.encode_prompts(list(itertools.chain.from_iterable(prompts)))
    size = runtime.suite.resolution
    noise = shared_noise(model, len(prompts[0]), 0, size).repeat(len(prompts), 1, 1, 1)
    time_ids = torch.tensor([[size, size, 0, 0, size, size]], dtype=torch.float32).expand(len(noise), -1)

    @torch.no_grad()
    def predicted(weights: Any) -> Any:
        """[time steps, tasks, values]."""
        model.use_adapter(None)
        model.deploy(weights)
        steps = [torch.full((len(noise),), timestep) for timestep in TIMESTEPS]
        drawn = torch.stack([model.predict(noise, step, hidden, pooled, time_ids) for step in steps])
        return drawn.reshape(len(steps), len(prompts), -1)

    after = [predicted({})]
    for position in range(len(prompts)):
        after.append(predicted(sequence.hooks.weights(position, sequence.state(position))))
    learned = [(after[i + 1] - after[0])[:, i] for i in range(len(prompts))]
    energy = [change.pow(2).mean() for change in learned]
    steps = [
        (after[j + 1] - after[j])[:, i].pow(2).mean() / energy[i] for j in range(1, len(prompts)) for i in range(j)
    ]
    past = range(len(prompts) - 1)
    drifts = [(after[-1] - after[i + 1])[:, i].pow(2).mean() / energy[i] for i in past]
    kept = [((after[-1] - after[0])[:, i] * learned[i]).mean() / energy[i] for i in past]
    by_task = np.array(losses).reshape(len(prompts), -1)
    means = (torch.stack(values).mean().item() for values in (energy, steps, drifts, kept))
    return (float(by_task[:, -5:].mean()), *means)  # type: ignore[return-value]  # four of them


# --- agreement ---


def tau(ours: Mapping[str, float], paper: Mapping[str, float], pairs: Sequence[tuple[str, str]]) -> float:
    """(concordant - discordant) / pairs, over the given pairs of methods."""
    signs = [np.sign(ours[a] - ours[b]) * np.sign(paper[a] - paper[b]) for a, b in pairs]
    return float(np.sum(signs) / len(signs))


def chance_of(ours: Mapping[str, float], paper: Mapping[str, float], pairs: Sequence[tuple[str, str]]) -> float:
    """How likely so high a tau is if every order of the methods is as likely: exact, over all orders."""
    observed, values = tau(ours, paper, pairs), list(ours.values())
    shuffled = [tau(dict(zip(ours, order, strict=True)), paper, pairs) for order in itertools.permutations(values)]
    return float(np.mean(np.array(shuffled) >= observed - 1e-9))


def published(printed: PublishedTrack, metric: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Statistic -> method -> mean and standard deviation over the paper's runs.

    The paper prints no plasticity; score + forgetting is a task's best score since it was learned, a bound on it.
    """
    rows = {name: printed.rows[name] for name in PAPER}
    found: dict[str, dict[str, tuple[float, float]]] = {"score": {}, "forgetting": {}, "best since learned": {}}
    for name, row in rows.items():
        assert row.average_forgetting is not None
        (score, score_sd), (forgetting, forgetting_sd) = row.average_score[metric], row.average_forgetting[metric]
        found["score"][name] = (score, score_sd or 0.0)
        found["forgetting"][name] = (forgetting, forgetting_sd or 0.0)
        found["best since learned"][name] = (score + forgetting, float(np.hypot(score_sd or 0.0, forgetting_sd or 0.0)))
    return found


def measured(results: Mapping[str, Result], metric: str, track: Track) -> dict[str, dict[str, float]]:
    """Statistic -> method -> mean over the runs."""
    found: dict[str, dict[str, float]] = {"score": {}, "forgetting": {}, "best since learned": {}}
    for name, result in results.items():
        names = ("average_score", "average_forgetting_ref")
        own = statistics_of(result.runs, result.controls, metric, track, names)
        score, forgetting = (float(own[one].mean()) for one in names)
        found["score"][name], found["forgetting"][name] = score, forgetting
        found["best since learned"][name] = score + forgetting
    return found


def agreement(chosen: argparse.Namespace) -> None:
    printed, rows = load_published()["sdxl-v1"], []
    for track_name, paper_track in printed.tracks.items():
        results = {}
        for name in PAPER:
            stand_in = chosen.orthogonal if name == "merge_ortho" else name
            places = [chosen.results / track_name / f"{stand_in}{partial}.json" for partial in ("", ".partial")]
            results[name] = load_result(next((place for place in places if place.exists()), places[0]))
        track = load_suite(chosen.suite or results["naive"].suite.name).track(track_name)
        for metric in paper_track.metrics:
            theirs, ours = published(paper_track, metric), measured(results, metric, track)
            for statistic, values in theirs.items():
                means = {name: mean for name, (mean, _) in values.items()}
                pairs = list(itertools.combinations(PAPER, 2))
                apart = [
                    (a, b)
                    for a, b in pairs
                    if abs(means[a] - means[b]) > 2 * np.hypot(values[a][1], values[b][1]) / PAPER_RUNS**0.5
                ]
                order = " > ".join(sorted(ours[statistic], key=lambda name: -ours[statistic][name]))
                texts = []
                for over in (pairs, apart):
                    texts += [f"{tau(ours[statistic], means, over):+.2f} of {len(over)} pairs"]
                    texts += [f"{chance_of(ours[statistic], means, over):.3f}"]
                rows.append([track_name, METRICS[metric].label, statistic, *texts, order])
    headers = ["track", "metric", "statistic", "tau", "p", "tau, pairs the paper separates", "p", "measured order"]
    print(f"merge_ortho is {chosen.orthogonal}\n")
    print(tabulate(rows, headers, tablefmt="github"))


# --- steadiness ---


AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""Environment variables that keep PyTorch's libraries from using AVX-512."""


def steadiness(chosen: argparse.Namespace) -> None:
    """Run the first order of each track under several conditions, each in a process of its own."""
    conditions: dict[str, tuple[str, int, dict[str, str]]] = {
        "1 thread": (sys.executable, 1, {}),
        "2 threads": (sys.executable, 2, {}),
        "AVX2": (sys.executable, 1, AVX2),
    }
    if chosen.python:
        conditions["other environment"] = (chosen.python, 1, {})
    found: dict[str, dict[str, Any]] = {}
    for name, (python, threads, extra) in conditions.items():
        command = [python, __file__, "once", "--methods", chosen.methods, "--suite", chosen.suite]
        command += ["--threads", str(threads)]
        done = subprocess.run(command, env={**os.environ, **extra}, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: done", file=sys.stderr, flush=True)
    first, *others = found
    rows, largest_base = [], 0.0
    largest_cell: dict[str, float] = {}
    largest_score: dict[str, float] = {}
    for key, scores in found[first].items():
        method = key.split()[1]
        for other in others:
            again = found[other][key]
            score = abs(again["score"] - scores["score"])
            cells = np.abs(np.array(again["cells"], float) - np.array(scores["cells"], float))
            cell, base = float(np.nanmax(cells[1:])), float(cells[0].max())
            rows.append([key, other, score, cell, base])
            largest_base = max(largest_base, base)
            largest_cell[method] = max(largest_cell.get(method, 0.0), cell)
            largest_score[method] = max(largest_score.get(method, 0.0), score)
    noise = Noise(base=largest_base, cell=largest_cell, average_score=largest_score, measured=chosen.measured)
    headers = ["run", "against 1 thread", "average score", "largest cell", "largest base cell"]
    print(tabulate(rows, headers, tablefmt="github", floatfmt=".1e"))
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(noise.model_dump_json(indent=1))


def once(chosen: argparse.Namespace) -> None:
    """The first order of each track by each method, on this many threads, as JSON."""
    from tempfile import TemporaryDirectory

    import torch

    from clbench.plugins import get_method
    from clbench.protocol.task_sequence import TaskSequence
    from clbench.protocol.track_runtime import TrackRuntime
    from clbench.storage.store import Store

    torch.set_num_threads(chosen.threads)
    suite, found = load_suite(chosen.suite), {}
    with TemporaryDirectory() as folder:
        models = None
        for track in suite.tracks.values():
            order, seed = suite.runs(track.name)[0]
            runtime = TrackRuntime(suite, track.name, Store(Path(folder) / track.name), models=models)
            models = runtime.models
            for method in chosen.methods.split(","):
                run = TaskSequence(runtime, get_method(method), order, seed).run()
                for metric in headline(track):
                    matrix = run.matrix(metric)
                    found[f"{track.name} {method} {metric}"] = {
                        "score": float(matrix[-1].mean()),
                        "cells": [[None if np.isnan(value) else value for value in row] for row in matrix],
                    }
    print(json.dumps(found))


def record(chosen: argparse.Namespace) -> None:
    """Write a suite's `record.json`: its results' base row and controls, and the noise that `steadiness` measured."""
    suite = load_suite(chosen.suite)
    base: dict[str, dict[str, dict[str, float]]] = {}
    controls: dict[str, Controls] = {}
    for track in suite.tracks.values():
        result = load_result(chosen.results / track.name / "naive.json")
        assert result.suite.sha256 == suite.sha256, "the results are of another definition"
        controls[track.name] = result.controls
        run = result.runs[0]
        base[track.name] = {
            metric: {name: float(run.matrix(metric)[0, run.task_order.index(name)]) for name in track.task_names}
            for metric in track.metrics
        }
    noise = Noise.model_validate_json(chosen.noise.read_text())
    known = OnRecord(suite_sha256=suite.sha256, base=base, base_tolerance=0.001, noise=noise, controls=controls)
    before = on_record(suite.name)
    if before and before.suite_sha256 == suite.sha256:
        known = known.model_copy(update={"training_times": before.training_times})
    path = record_path(suite.name)
    path.write_text(json.dumps(known.model_dump(mode="json"), indent=1) + "\n")
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("settings", help="methods on mini-v2-dev with changed settings")
    one.add_argument("--plugin", type=Path, nargs="*", default=[])
    one.set_defaults(do=settings)
    two = commands.add_parser("drift", help="as settings, without drawing: how far later tasks move earlier ones")
    two.set_defaults(do=drift)
    for each, methods in (
        (one, "frozen_base,naive,merge_init,magmax,merge_ortho,merge_ortho_products"),
        (two, "naive"),
    ):
        each.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
        each.add_argument("--methods", default=methods)
        each.add_argument("--tracks", default="styles,objects")
        each.add_argument("--orders", help="e.g. 0,1; default all ten")
        each.add_argument("--output", type=Path, default=Path("runs/study"))
    one = commands.add_parser("agreement", help="Kendall's tau with the published results")
    one.add_argument("results", type=Path, help="folder of <track>/<method>.json")
    one.add_argument("--suite", help="default the one that the results name")
    one.add_argument("--orthogonal", default="merge_ortho_products", help="which method stands for merge_ortho")
    one.set_defaults(do=agreement)
    for name, do in (("steadiness", steadiness), ("once", once)):
        one = commands.add_parser(
            name, help="the first order of each track, repeated" if name != "once" else "part of it"
        )
        one.add_argument("--methods", default="naive,merge_init,magmax")
        one.add_argument("--suite", default="mini-v2")
        one.add_argument("--python", help="the python of another environment, e.g. with another torch")
        one.add_argument("--threads", type=int, default=1)
        one.add_argument("--measured", default="", help="on what, for the record")
        one.add_argument("--output", type=Path, default=Path("runs/study/noise.json"))
        one.set_defaults(do=do)
    one = commands.add_parser("record", help="write the suite's record.json")
    one.add_argument("results", type=Path, help="folder of <track>/<method>.json")
    one.add_argument("--suite", default="mini-v2")
    one.add_argument("--noise", type=Path, default=Path("runs/study/noise.json"))
    one.set_defaults(do=record)
    chosen = parser.parse_args()
    chosen.do(chosen)


if __name__ == "__main__":
    main()
