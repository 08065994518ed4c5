"""Small definitions and valid results for tests, made from a global_seed generator."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import yaml

from clbench.results.baselines import on_record
from clbench.results.schema import (
    BackboneRef,
    Controls,
    Environment,
    MethodRef,
    Result,
    Run,
    SuiteRef,
    content_sha256,
    to_rows,
)
from clbench.results.summary import summarize
from clbench.suite import DrawnImages, Drift, Sampling, Suite, Task, Track, Training, Weights, load_suite


def tiny_suite(name: str = "tiny") -> Suite:
    """3 tasks, 2 orders, 2 seeds, on one track of each kind."""
    weights = Weights(source="bundled:none", sha256="0" * 64)
    drawn = DrawnImages(look={"fill": "red"}, shapes=("boot",), seed=0)

    def track(track_name: str, tasks: tuple[str, ...], metrics: tuple[str, ...]) -> Track:
        return Track(
            name=track_name,
            tasks=tuple(
                Task(name=task, fields={"style": task}, train=drawn, reference=drawn, real=drawn) for task in tasks
            ),
            orders={"0": (2, 0, 1), "5": (0, 1, 2)},
            train_prompt_template="{style} image",
            eval_prompt_templates=("{style} image of a cat",),
            content_prompt_templates=("image of a cat",),
            metrics=metrics,
        )

    return Suite(
        name=name,
        version="1",
        version_reason="test",
        resolution=32,
        backbone=weights,
        encoders={"clip": weights, "csd": weights, "dino": weights},
        training=Training(
            rank=2,
            alpha=2,
            targets=("to_q",),
            steps=1,
            batch_size=1,
            learning_rate=1e-3,
            weight_decay=0,
            max_grad_norm=1,
        ),
        sampling=Sampling(steps=2, guidance_scale=1, images_per_prompt=1, noise_seed=0),
        seeds=(0, 5),
        tracks={
            "styles": track("styles", ("byzantine", "ink art", "winter"), ("csd", "dino", "clip_t")),
            "objects": track("objects", ("boot", "can", "teapot"), ("clip_i", "dino", "clip_t")),
        },
    )


def probing(suite: Suite) -> Suite:
    """The same, with leak, drift and the next task's score measured on every track."""
    more = {
        "score_next_task": True,
        "leak_prompt_templates": ("image of a cat", "gothic image of a cat"),
        "drift": Drift(prompts=("a photo of a key", "a heart"), metrics=("clip_i", "dino")),
    }
    tracks = {name: track.model_copy(update=more) for name, track in suite.tracks.items()}
    return suite.model_copy(update={"tracks": tracks})


def light_suite(folder: Path, tasks: int) -> str:
    """The folder of a suite that is the bundled one with so many of its styles in one order, and less work for each."""
    content = load_suite("mini-v2").model_dump(mode="json", exclude_none=True)
    styles = content["tracks"]["styles"]
    styles |= {"tasks": styles["tasks"][:tasks], "orders": {"0": [*reversed(range(tasks))]}, "seeds": {"0": 0}}
    content["training"]["steps"], content["sampling"]["images_per_prompt"] = 15, 1
    return save_suite(Suite.model_validate(content | {"name": "light", "tracks": {"styles": styles}}), folder)


def save_suite(suite: Suite, folder: Path) -> str:
    """Write a definition into a folder of its own; returns what `--suite` takes."""
    content = suite.model_dump(mode="json", exclude_none=True)
    folder.mkdir(parents=True)
    for name, track in content["tracks"].items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"tasks": track["tasks"]}))
        track["tasks"] = f"{name}.yaml"
    (folder / "suite.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return str(folder)


def make_result(
    suite: Suite,
    track_name: str = "styles",
    method: str = "naive",
    seed: int = 0,
    level: float = 0.4,
    quick: bool = False,
    variant: str | None = None,
    settings: dict[str, float] | None = None,
) -> Result:
    """A valid result with random scores, about `level` right after learning.

    Args:
        quick: the first run only.
        settings: hyper-parameters that differ from the method's defaults.
    """
    shared, rng = np.random.default_rng(0), np.random.default_rng(seed)  # base and controls are the suite's
    track = suite.track(track_name)
    T = len(track.tasks)
    base = {metric: shared.uniform(0.1, 0.15, T) for metric in track.metrics}
    known = on_record(suite.name)
    if known and known.suite_sha256 == suite.sha256:
        base = {
            metric: np.array([tasks[name] for name in track.task_names])
            for metric, tasks in known.base[track_name].items()
        }
    real = {metric: shared.uniform(0.8, 0.9, T) for metric in track.metrics}
    floor = {metric: shared.uniform(0.15, 0.2, (T, T)) for metric in track.metrics}
    for metric in track.metrics:
        np.fill_diagonal(floor[metric], real[metric])
    controls = Controls(
        real_against_real={metric: tuple(values.tolist()) for metric, values in real.items()},
        last_task_floor={metric: tuple(map(tuple, values.tolist())) for metric, values in floor.items()},
    )
    if known and known.suite_sha256 == suite.sha256 and known.controls:
        controls = known.controls[track_name]

    def matrix(metric: str, order: tuple[int, ...]) -> np.ndarray:
        R = np.full((T + 1, T), np.nan)
        R[0] = base[metric][list(order)]
        for j in range(T):
            if j and track.score_next_task:
                R[j, j] = R[0, j] + 0.01
            R[j + 1 :, j] = level + rng.uniform(0, 0.05) - 0.03 * np.arange(T - j) + rng.uniform(-0.01, 0.01, T - j)
        return R

    def leak(order: tuple[int, ...]) -> dict | None:
        if not track.leak_prompt_templates:
            return None
        own = {metric: base[metric][list(order)] for metric in track.headline_metrics}
        return {metric: (tuple(row.tolist()), tuple((row + 0.05).tolist())) for metric, row in own.items()}

    def drift() -> dict | None:
        wanted = track.drift
        return wanted and {name: tuple(rng.uniform(0.6, 0.8, len(wanted.prompts)).tolist()) for name in wanted.metrics}

    grid = suite.runs(track_name)
    runs = tuple(
        Run(
            order=order,
            task_order=tuple(task.name for task in track.ordered(order)),
            seed=run_seed,
            scores={metric: to_rows(matrix(metric, track.orders[order])) for metric in track.metrics},
            state_bytes=(12_000,) * T,
            regime="adapter",
            train_seconds=10.5,
            eval_seconds=6.25,
            peak_memory_bytes=None,
            trainable_parameters=3000,
            leak=leak(track.orders[order]),
            drift=drift(),
        )
        for order, run_seed in (grid[:1] if quick else grid)
    )
    suite_reference = SuiteRef(name=suite.name, version=suite.version, sha256=suite.sha256)
    reference = MethodRef(
        name=method,
        version="1",
        config={"scale": 1.0, "betas": [0.9, 0.999], **(settings or {})},
        changed=tuple(settings or {}),
        source_sha256="a" * 64,
        distribution=None,
    )
    return Result(
        schema_version="2",
        suite=suite_reference,
        track=track_name,
        variant=variant or method,
        method=reference,
        backbone=BackboneRef(id="bundled:none", revision="0" * 64),
        runs=runs,
        controls=controls,
        summary=summarize(runs, controls, track),
        checksum=content_sha256(suite_reference, track_name, variant or method, reference, runs, controls),
        partial=quick,
        environment=Environment(python="3.11", packages={"torch": "2.4", "accelerate": None}),
        settings={"precision": "fp32", "device": "cpu", "steps": None, "scale": 1, "factor": 1.0, "resume": True},
        command=f"clbench run --method {method} --track {track_name} --suite {suite.name}",
        created_at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def signed(result: Result) -> Result:
    """The same with a checksum that fits, as its maker would write it."""
    parts = result.suite, result.track, result.variant, result.method, result.runs, result.controls
    return result.model_copy(update={"checksum": content_sha256(*parts)})


def outcome(result: Result) -> tuple:
    """Everything of a result that time and memory do not change."""
    runs = [
        (run.order, run.seed, run.task_order, run.scores, run.leak, run.drift, run.state_bytes, run.regime)
        for run in result.runs
    ]
    return runs, result.controls, result.summary, result.method
