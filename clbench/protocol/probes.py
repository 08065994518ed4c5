"""Leak and drift: what a model makes of prompts that do not ask for any look that it learned.

Both are measured once a run, after its last task, and once a track with the untouched model, from the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from torch import Tensor

from clbench.lora import Delta
from clbench.metrics import METRICS
from clbench.state import digest
from clbench.suite import Task, Track
from clbench.tokens import Tokens

if TYPE_CHECKING:
    from clbench.protocol.track_runtime import TrackRuntime

Prompts = Callable[[Track, Task], list[str]]
"""Gives the prompts that do not ask for a task's look."""


def leak(
    runtime: TrackRuntime,
    tasks: list[Task],
    weights: Delta,
    weights_digest: str,
    prompts: Prompts = Track.leak_prompts,
    tokens: Callable[[Task], Tokens] = lambda task: {},
) -> dict[str, list[float]] | None:
    """Headline metric -> for each task, the score of images that do not ask for its look; None if not measured.

    Tasks whose prompts are the same share their images.

    Args:
        tokens: gives the learned tokens that a task's prompts may contain.
    """
    metrics, evaluator = runtime.track.headline_metrics, runtime.models.evaluator(runtime.track.name)
    if not runtime.track.leak_prompt_templates:
        return None
    drawn: dict[tuple[str, ...], Mapping[str, Tensor]] = {}
    scores = []
    for task in tasks:
        asked = prompts(runtime.track, task)
        if tuple(asked) not in drawn:
            images = runtime.draw(asked, weights, weights_digest, f"what {task.name!r} leaks into", tokens(task))
            drawn[tuple(asked)] = evaluator.embed(images, metrics)
        scores.append(evaluator.compare(task, drawn[tuple(asked)], metrics))
    return {metric: [own[metric] for own in scores] for metric in metrics}


def drift(runtime: TrackRuntime, weights: Delta, weights_digest: str) -> dict[str, list[float]] | None:
    """Metric -> for each unrelated prompt, the mean cosine of its images with the untouched model's own from the same
    noise, by the metric's encoder; None if it is not measured.
    """
    if not (wanted := runtime.track.drift):
        return None
    before, after = untouched(runtime), _embedded(runtime, list(wanted.prompts), weights, weights_digest)
    cosines = {encoder: (after[encoder] * before[encoder]).sum(dim=1) for encoder in before}
    each = runtime.suite.sampling.images_per_prompt
    return {metric: cosines[METRICS[metric].encoder].view(-1, each).mean(dim=1).tolist() for metric in wanted.metrics}


def untouched(runtime: TrackRuntime) -> dict[str, Tensor]:
    """Encoder -> the untouched model's images of the unrelated prompts, unit rows [P * N, D]; made once a track.

    Raises:
        ValueError: the track does not measure drift.
    """
    key, wanted = runtime.keys.drift, runtime.track.drift
    if wanted is None:
        raise ValueError(f"track {runtime.track.name} does not measure drift")
    path = runtime.store.get(key, ".safetensors")
    if path is None:
        embedded = _embedded(runtime, list(wanted.prompts), Delta(), digest(Delta()))
        path = runtime.store.put(key, ".safetensors", lambda target: save_file(embedded, target))
    return load_file(path)


def leak_passes(runtime: TrackRuntime) -> float:
    """U-Net passes of one image that `leak` takes."""
    sets = {tuple(runtime.track.leak_prompts(task)) for task in runtime.track.tasks}
    return sum(runtime.drawing_work(len(prompts)) for prompts in sets)


def drift_passes(runtime: TrackRuntime) -> float:
    """U-Net passes of one image that `drift` takes."""
    return runtime.drawing_work(len(runtime.track.drift.prompts)) if runtime.track.drift else 0.0


def _embedded(runtime: TrackRuntime, prompts: list[str], weights: Delta, weights_digest: str) -> dict[str, Tensor]:
    assert runtime.track.drift is not None
    images = runtime.draw(prompts, weights, weights_digest, "unrelated prompts")
    return runtime.models.evaluator(runtime.track.name).embed(images, runtime.track.drift.metrics)
