"""The bundled models: they draw what they are asked for, tell names apart, see what is drawn, and can learn a task."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from clbench import get_method, load_suite
from clbench.encoders import mean_pairwise_cosine
from clbench.miniworld.fit import StepRng
from clbench.miniworld.losses import name_features, pairwise_cosines
from clbench.miniworld.quality import nearest_neighbour_accuracy
from clbench.miniworld.render import PictureBatch, draw
from clbench.miniworld.world import (
    OBJECT_FACTORS,
    SCENES,
    SHAPES,
    STYLE_FACTORS,
    STYLE_NAMES,
    named_styles,
    random_look,
)
from clbench.protocol.sampling import draw_cell
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.storage.store import Store
from clbench.utils.images import to_pil

SUITE = load_suite("mini-v2")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return TrackRuntime(SUITE, "styles", Store(tmp_path_factory.mktemp("runs")))


@pytest.mark.long
def test_a_style_prompt_draws_that_style_and_no_other(runtime):
    styles, shapes = list(named_styles())[:8], ["boot", "fish", "umbrella", "house", "cat"]
    generator = torch.Generator().manual_seed(0)
    csd = runtime.models.encoder("csd")
    real = torch.cat(
        [
            csd.embed(
                to_pil(draw(PictureBatch.from_names(SHAPES, [None] * 20, [named_styles()[style]] * 20), generator))
            ).mean(0)[None]
            for style in styles
        ]
    )
    runtime.backbone.use_adapter(None)
    runtime.backbone.deploy({})
    right = 0
    for index, style in enumerate(styles):
        one_each = SUITE.sampling.model_copy(update={"images_per_prompt": 1})
        prompts = [f"{style} image of a {shape}" for shape in shapes]
        images = to_pil(draw_cell(runtime.backbone, prompts, one_each, SUITE.resolution))
        right += int(((csd.embed(images) @ real.T).argmax(dim=1) == index).sum())
    assert right / (len(styles) * len(shapes)) >= 0.9


def test_names_are_apart(runtime):
    """What the U-Net reads of two names has nothing in common, so that learning one need not change another."""
    pipeline: Any = runtime.backbone.pipeline
    found: dict[str, list[float]] = {}
    for number in range(8):  # shapes and scenes around the names
        with torch.no_grad():
            features = name_features(pipeline, pipeline.tokenizer, StepRng.seeded("names", number))
        for place in ("name", "first end", "last end"):
            styles, identifiers = features[place][: len(STYLE_NAMES)], features[place][len(STYLE_NAMES) :]
            for kind, rows in (("styles", styles), ("identifiers", identifiers)):
                found.setdefault(f"{kind}, {place} token", []).append(float(pairwise_cosines(rows).abs().mean()))
    means = {where: sum(values) / len(values) for where, values in found.items()}
    assert len(means) == 6
    assert max(means.values()) < 0.05, means


def test_the_encoders_know_looks_they_have_never_seen(runtime):
    rng, generator = random.Random(1), torch.Generator().manual_seed(1)
    looks = [random_look(rng, STYLE_FACTORS) for _ in range(25)]
    csd = runtime.models.encoder("csd")
    assert nearest_neighbour_accuracy(csd, looks, lambda: (rng.choice(SHAPES), None), generator) >= 0.95
    instances = [random_look(rng, OBJECT_FACTORS) for _ in range(25)]
    shapes = [rng.choice(SHAPES) for _ in instances]
    for name in ("dino", "clip"):
        encoder = runtime.models.encoder(name)
        assert (
            nearest_neighbour_accuracy(encoder, instances, lambda: (None, rng.choice(SCENES)), generator, shapes)
            >= 0.95
        )


@pytest.mark.long
def test_real_images_of_a_task_are_closer_to_its_references_than_the_last_tasks_look(runtime):
    controls = runtime.controls()
    for metric in ("csd", "dino"):
        floor = torch.tensor(controls.last_task_floor[metric])
        others = (floor.sum() - floor.diag().sum()) / (floor.numel() - len(floor))
        assert floor.diag().mean() > others + 0.2


@pytest.mark.long
def test_one_task_is_learned_far_above_the_base_model(runtime):
    sequence = TaskSequence(runtime, get_method("merge_init"), "0", 0)
    base = runtime.base_row()[sequence.tasks[0].name]["scores"]
    learned = sequence.row(0)
    for metric in ("csd", "dino"):
        assert learned.scores[metric][0] >= base[metric] + 0.1


def test_identical_images_score_one(runtime):
    rows = runtime.models.encoder("dino").embed(to_pil(torch.full((2, 3, 32, 32), 0.5)))
    assert mean_pairwise_cosine(rows, rows) == pytest.approx(1.0)
