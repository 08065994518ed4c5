"""`sdxl-v1` is what the paper says, and what was locked."""

from __future__ import annotations

import json

import pytest
from paths import SHARED

from clbench.suite import PhotoImages, load_suite

SDXL_V1 = "e7cfb9b6101a57bf6e08e105a6eb57dc5a9ab444114b2542de94a62a86cb04ba"
"""If this differs, sdxl-v1 was edited. Once it has results, make a new version instead."""

sdxl = load_suite("sdxl-v1")


def test_sdxl_v1_is_the_definition_that_was_locked():
    assert sdxl.sha256 == SDXL_V1


@pytest.fixture(scope="module")
def facts():
    path = SHARED / "reference" / "protocol_facts.json"
    if not path.is_file():
        pytest.skip("shared/reference is not here")
    return json.loads(path.read_text())


def test_objects_are_the_papers(facts):
    track, tasks = sdxl.track("objects"), facts["objects"]["tasks"]
    assert len(track.tasks) == len(tasks) == 10
    for task, fact in zip(track.tasks, tasks, strict=True):
        names = tuple(f"{fact['folder']}/{image}" for image in fact["images"])
        assert task.train == task.reference == PhotoImages(dataset="dreambooth", files=names)
        assert track.train_prompt(task) == fact["train_prompt"]
        assert track.eval_prompts(task) == fact["eval_prompts"]


def test_styles_are_the_papers(facts):
    track, styles = sdxl.track("styles"), facts["styles"]
    assert len(track.tasks) == len(styles["tasks"]) == 10
    for task, fact in zip(track.tasks, styles["tasks"], strict=True):
        own = [f"{fact['folder']}/{fact['train_object_folder']}/{number}.jpg" for number in fact["train_image_ids"]]
        judged = [f"{fact['folder']}/{name.replace('_', '/')}" for name in styles["metric_images"]]
        assert task.train == PhotoImages(dataset="unlearncanvas", files=tuple(own))
        assert task.reference == PhotoImages(dataset="unlearncanvas", files=tuple(judged))
        assert track.train_prompt(task) == fact["train_prompt"]
        assert track.eval_prompts(task) == fact["eval_prompts"]


def test_orders_and_seeds_are_the_papers(facts):
    for track, name in (("objects", "object"), ("styles", "style")):
        orders = facts["orders"]["values"][name]
        assert {key: list(order) for key, order in sdxl.track(track).orders.items()} == {
            key: order["index_into_config"] for key, order in orders.items()
        }
        for key, order in orders.items():
            assert [task.name for task in sdxl.track(track).ordered(key)] == order["names"]
    assert list(sdxl.seeds or ()) == facts["orders"]["seeds"]["training"]


def test_training_and_sampling_are_as_pinned(facts):
    training, sampling = facts["training"], facts["sampling"]
    assert sdxl.training.steps == training["steps"][0]
    assert sdxl.training.learning_rate == float(training["lr"][0])
    assert sdxl.training.batch_size == training["batch"][0]
    assert sdxl.training.rank == sdxl.training.alpha == training["rank"][0]
    assert sdxl.training.max_grad_norm == training["grad_clip"][0]
    assert (sdxl.training.betas, sdxl.training.weight_decay) == ((0.9, 0.999), 1e-4)
    assert sdxl.resolution == training["resolution"][0]
    assert sdxl.sampling.steps == sampling["steps"][0]
    assert sdxl.sampling.images_per_prompt == sampling["samples_per_prompt"][0]
    assert sdxl.sampling.noise_seed == sampling["generator_seed"][0]
    assert (sdxl.sampling.guidance_scale, sdxl.sampling.scheduler) == (5.0, "EulerDiscreteScheduler")
    assert sdxl.backbone.source == f"hub:{sampling['base'][0]}"
    assert sdxl.vae is not None
    assert sdxl.vae.source == f"hub:{sampling['vae'][0]}"
    assert {name: track.metrics for name, track in sdxl.tracks.items()} == {
        "objects": ("clip_i", "dino"),
        "styles": ("csd", "dino"),
    }
