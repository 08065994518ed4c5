"""Make the task lists and orders of mini-v2 and mini-v2-dev: `python -m clbench.runner.mini_suites tasks/`.

A task takes a name that the base model knows and gives it a new look: nine tenths of the factors of the name's look are
replaced. So its prompt means something to the base model, as a style's name does to SDXL, but the model has never seen
the task's look and cannot draw it.

Looks are chosen by a rule that depends on the base model but not on any method: of a seeded list of candidates, the
first for which the base model's score is at most `MOST_KNOWN` of real images' score, in each headline metric.

The files in `tasks/` are the definition; this module only shows how they were made.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from clbench.data.images import load_images
from clbench.metrics import METRICS
from clbench.miniworld.world import (
    OBJECT_FACTORS,
    STYLE_FACTORS,
    STYLE_NAMES,
    TOKENS,
    alter_look,
    named_styles,
    token_looks,
)
from clbench.protocol.sampling import draw_cell
from clbench.protocol.track_runtime import TrackRuntime
from clbench.storage.store import Store
from clbench.suite import Suite, Task, content_root
from clbench.utils.images import to_pil

ALTERED_SHARE = 0.9
"""Share of the factors of a name's look that its task replaces."""
LEAST_KNOWN, MOST_KNOWN = -0.05, 0.15
"""Bounds of the base model's score on a task, as a share of the score of real images."""
CANDIDATES = 400
"""Number of candidate looks for a task."""
IMAGES_PER_PROMPT = 2

STYLE_TRAIN_SHAPES = ("tree", "star", "cup", "rocket", "boat")
STYLE_EVAL_SHAPES = ("boot", "fish", "umbrella", "house", "cat")
STYLE_REFERENCE_SHAPES = ("key", "car", "bird", "bottle", "flower", "hat", "mushroom", "lamp", "heart", "crown")
OBJECT_TRAIN_SCENES = ("wood", "studio", "brick", "city", "meadow")
OBJECT_EVAL_SCENES = ("snow", "night", "beach", "desert", "sea")


@dataclass(frozen=True)
class SuiteSource:
    """The names and the seed of one suite."""

    styles: tuple[str, ...]
    objects: dict[str, str]
    """Identifier token -> class."""
    seed: int
    """Seed of looks and pictures."""


_CLASSES = ("car", "boot", "umbrella", "cat", "lamp", "bottle", "hat", "cup", "bird", "house")
_DEV_CLASSES = ("key", "star", "fish", "tree", "rocket", "flower", "mushroom", "boat", "heart", "crown")
SOURCES = {
    "mini-v2": SuiteSource(STYLE_NAMES[:10], dict(zip(TOKENS[:10], _CLASSES, strict=True)), seed=0),
    "mini-v2-dev": SuiteSource(STYLE_NAMES[10:20], dict(zip(TOKENS[10:20], _DEV_CLASSES, strict=True)), seed=1_000_000),
}


def style_task(source: SuiteSource, index: int, candidate: int) -> dict[str, Any]:
    style = source.styles[index]
    seed, shape = source.seed + 1000 * index, STYLE_TRAIN_SHAPES[index % len(STYLE_TRAIN_SHAPES)]
    look = alter_look(named_styles()[style], ALTERED_SHARE, STYLE_FACTORS, seed=seed + candidate)
    return {
        "name": style,
        "fields": {"style": style, "object": shape},
        "train": _drawn(look, [shape] * 5, [], seed + 500),
        "reference": _drawn(look, STYLE_REFERENCE_SHAPES, [], seed + 501),
        "real": _drawn(look, _repeated(STYLE_EVAL_SHAPES), [], seed + 502),
    }


def object_task(source: SuiteSource, index: int, candidate: int) -> dict[str, Any]:
    token, shape = list(source.objects.items())[index]
    seed = source.seed + 100_000 + 1000 * index
    look = alter_look(token_looks()[token], ALTERED_SHARE, OBJECT_FACTORS, seed=seed + candidate)
    train = _drawn(look, [shape] * 5, OBJECT_TRAIN_SCENES, seed + 500)
    return {
        "name": f"{token} {shape}",
        "fields": {"token": token, "class": shape},
        "train": train,
        "reference": train,  # as in DreamBooth's evaluation, generated images are compared with training images
        "real": _drawn(look, [shape] * 5 * IMAGES_PER_PROMPT, _repeated(OBJECT_EVAL_SCENES), seed + 502),
    }


TASK_BUILDERS = {"styles": style_task, "objects": object_task}


def _repeated(names: tuple[str, ...]) -> list[str]:
    return [name for name in names for _ in range(IMAGES_PER_PROMPT)]


def _drawn(look: dict[str, str], shapes: Any, scenes: Any, seed: int) -> dict[str, Any]:
    return {"look": dict(look), "shapes": list(shapes), "scenes": list(scenes), "seed": seed}


def first_candidates(suite: str) -> Suite:
    """The suite with the look of the first candidate in every task, instead of the looks in its task lists."""
    path = content_root() / "benchmark" / suite / "suite.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, track in raw["tracks"].items():
        track |= {"name": name, "tasks": [TASK_BUILDERS[name](SOURCES[suite], index, 0) for index in range(10)]}
    return Suite.model_validate(raw)


def known_shares(runtime: TrackRuntime, source: SuiteSource, index: int) -> Iterator[dict[str, float]]:
    """For each candidate of a task: headline metric -> the base model's score as a share of real images' score.

    Args:
        runtime: a track of `first_candidates`; all candidates of a task have the same prompts, and so the base model
            draws the same images for them.
    """
    suite, track, encoder = runtime.suite, runtime.track, runtime.models.encoder
    runtime.backbone.use_adapter(None)
    prompts = track.eval_prompts(track.tasks[index])
    images = to_pil(draw_cell(runtime.backbone, prompts, suite.sampling, suite.resolution))
    headline = [METRICS[metric] for metric in track.headline_metrics]
    drawn = {metric.encoder: encoder(metric.encoder).embed(images) for metric in headline}
    for candidate in range(CANDIDATES):
        task = Task.model_validate(TASK_BUILDERS[track.name](source, index, candidate))
        assert task.real is not None
        real, reference = (load_images(one, suite.resolution, {}) for one in (task.real, task.reference))
        shares = {}
        for metric in headline:
            embed = encoder(metric.encoder).embed
            against = embed(reference)
            shares[metric.name] = metric.score(drawn[metric.encoder], against) / metric.score(embed(real), against)
        yield shares


def choose_candidate(runtime: TrackRuntime, source: SuiteSource, index: int) -> int:
    """The first candidate whose look the base model hardly draws.

    Raises:
        ValueError: there is none.
    """
    for candidate, shares in enumerate(known_shares(runtime, source, index)):
        if all(LEAST_KNOWN <= share <= MOST_KNOWN for share in shares.values()):
            return candidate
    raise ValueError(f"the base model knows every candidate of {runtime.track.tasks[index].name!r}")


def tasks_of(suite: str, track: str) -> list[dict[str, Any]]:
    """A track's ten tasks with their chosen looks."""
    source = SOURCES[suite]
    with TemporaryDirectory() as folder:
        runtime = TrackRuntime(first_candidates(suite), track, Store(Path(folder)))
        return [TASK_BUILDERS[track](source, index, choose_candidate(runtime, source, index)) for index in range(10)]


def williams_square(count: int, seed: int) -> list[list[int]]:
    """`count` orders of `count` tasks (an even number), balanced for positions and neighbours.

    Each task is once at each position, and each ordered pair of tasks is once adjacent (Williams 1949). The seed
    shuffles the tasks' numbers.

    Raises:
        ValueError: the number is odd, for which one square is not enough.
    """
    if count % 2:
        raise ValueError(f"a Williams square needs an even number of tasks, not {count}")
    first = [(-1) ** (step + 1) * ((step + 1) // 2) % count for step in range(count)]  # 0, 1, -1, 2, -2, ...
    tasks = random.Random(seed).sample(range(count), count)
    return [[tasks[(position + row) % count] for position in first] for row in range(count)]


def render_yaml(tasks: list[dict[str, Any]], about: str) -> str:
    """A task list as the content of a YAML file."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    body = yaml.dump({"tasks": tasks}, Dumper=Plain, sort_keys=False, default_flow_style=None, width=110)
    return f"# {about}\n# Written by `python -m clbench.runner.mini_suites`; frozen once the suite has results.\n{body}"


if __name__ == "__main__":
    for name in SOURCES:
        for track in TASK_BUILDERS:
            text = render_yaml(tasks_of(name, track), f"The ten {track} of {name}.")
            Path(sys.argv[1], f"{name}-{track}.yaml").write_text(text)
