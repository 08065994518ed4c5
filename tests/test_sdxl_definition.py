"""`sdxl-v1` is what the paper says, and what was locked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clbench.errors import ClbenchError
from clbench.leaderboard.published import load_published
from clbench.runner.estimate import count
from clbench.suite import PhotoImages, load_suite

SHARED = Path(__file__).parent.parent.parent / "shared"
SDXL_V1 = "ecfdd62928fe0290ef2bb59f176c5db0e8e2d3962121a358521f36c63a09a1d7"
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


def test_the_board_shows_what_the_paper_printed():
    path = SHARED / "reference" / "published_results.json"
    if not path.is_file():
        pytest.skip("shared/reference is not here")
    facts, ours = json.loads(path.read_text()), load_published()["sdxl-v1"].model_dump(mode="json")
    assert ours["tracks"] == facts["tracks"]
    assert ours["prompt_study"]["rows"] == facts["prompt_study"]["rows"]


SDXL_UNET = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def test_at_full_size_the_adapter_and_the_cost_are_the_published_ones():
    price = count(SDXL_UNET, sdxl.training, 128)  # compares the 560 layers and 92,897,280 parameters itself
    assert price.adapter == 64 * 1_451_520
    assert price.adapted == pytest.approx(955e6, rel=1e-3)
    lora = 2 * 4096 * 0.04e12 / 4096  # the adapter's own products, about 2 %
    assert price.pass_flops == pytest.approx(6.76e12 + lora, rel=0.02)


def test_another_architecture_is_refused():
    with pytest.raises(ClbenchError, match="not the definition's 560"):
        count(SDXL_UNET | {"transformer_layers_per_block": (1, 2, 9)}, sdxl.training, 128)
