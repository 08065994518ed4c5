"""`sdxl-v1` on small untrained models in their real file formats: the whole path, and shortcuts beside plain loops."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from builders import signed
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from PIL import Image
from tiny_sdxl import RESOLUTION, write_suite, write_world
from torchvision import transforms

from clbench import harness, prepare
from clbench.again import open_again
from clbench.assets import gather
from clbench.bench import Bench
from clbench.cost import count
from clbench.data import Places
from clbench.encoders import load_encoder, mean_pairwise_cosine
from clbench.encoders.csd import converted
from clbench.errors import ClbenchError, WorkFailed
from clbench.evaluate import mean_of_different
from clbench.export import export_model
from clbench.job import one_thread
from clbench.leaderboard.published import load_published
from clbench.method import Batch, get_method
from clbench.result import Result, load_result
from clbench.rng import generator
from clbench.sample import shared_noise
from clbench.sequence import Sequence
from clbench.store import Store
from clbench.suite import Photos, load_suite
from clbench.train import Task, fit, make_examples
from clbench.validation import check_result
from clbench.verify import read_verified, record, run_again, score_images, status, write_images

SHARED = Path(__file__).parent.parent.parent / "shared"
PHOTOS = SHARED / "data" / "dreambooth_small"
SDXL_V1 = "ecfdd62928fe0290ef2bb59f176c5db0e8e2d3962121a358521f36c63a09a1d7"
"""If this differs, sdxl-v1 was edited. Once it has results, make a new version instead."""
METHODS = ("naive", "merge_init", "merge_ortho", "magmax")
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-5}

sdxl = load_suite("sdxl-v1")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A data root: models, random DreamBooth-shaped photos and an UnlearnCanvas-shaped tree."""
    root = tmp_path_factory.mktemp("world")
    write_world(root, None)
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of a cut-down sdxl-v1."""
    return write_suite(tmp_path_factory.mktemp("suites") / "tiny-sdxl")


@pytest.fixture(scope="session")
def bench(world, tiny, tmp_path_factory):
    """Its objects, loaded once."""
    suite = load_suite(str(tiny))
    assets = gather(suite, str(tiny), "objects", Places(world, tiny))
    return Bench(suite, "objects", Store(tmp_path_factory.mktemp("store")), assets=assets)


# --- the definition ---


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
        assert task.train == task.reference == Photos(dataset="dreambooth", files=names)
        assert track.train_prompt(task) == fact["train_prompt"]
        assert track.eval_prompts(task) == fact["eval_prompts"]


def test_styles_are_the_papers(facts):
    track, styles = sdxl.track("styles"), facts["styles"]
    assert len(track.tasks) == len(styles["tasks"]) == 10
    for task, fact in zip(track.tasks, styles["tasks"], strict=True):
        own = [f"{fact['folder']}/{fact['train_object_folder']}/{number}.jpg" for number in fact["train_image_ids"]]
        judged = [f"{fact['folder']}/{name.replace('_', '/')}" for name in styles["metric_images"]]
        assert task.train == Photos(dataset="unlearncanvas", files=tuple(own))
        assert task.reference == Photos(dataset="unlearncanvas", files=tuple(judged))
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
    assert list(sdxl.seeds) == facts["orders"]["seeds"]["training"]


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


# --- the whole path ---


@pytest.mark.slow
@pytest.mark.parametrize("track", ["objects", "styles"])
@pytest.mark.parametrize("method", METHODS)
def test_the_whole_path_runs_from_photos_to_a_valid_result(method, track, tiny, real_world, tmp_path_factory):
    output = tmp_path_factory.getbasetemp() / "sdxl-runs"  # what methods share is made once
    options = {"quick": True, "device": "cpu", "workers": 1, "data_root": real_world}
    result = harness.run(method, track, str(tiny), output=output, **options)
    suite = load_suite(str(tiny))
    assert check_result(load_result(harness.result_path(output, result)), suite, allow_partial=True) == []
    for metric in suite.track(track).metrics:
        matrix = result.runs[0].matrix(metric)
        assert matrix.shape == (11, 10)
        assert (np.isfinite(matrix[1:]) == np.tril(np.ones((10, 10), bool))).all()
        real = result.controls.real_against_real[metric]
        assert max(real) < 1  # no picture was compared with itself
    assert result.runs[0].regime == ("adapter" if method in ("naive", "merge_ortho") else "model")


@pytest.fixture(scope="session")
def real_world(tmp_path_factory):
    """The data root with the real DreamBooth photos."""
    if not PHOTOS.is_dir():
        pytest.skip("shared/data/dreambooth_small is not here")
    root = tmp_path_factory.mktemp("real-world")
    write_world(root, PHOTOS)
    return root


# --- each shortcut beside a plain, obvious loop ---


def plain_pipeline(world: Path) -> Any:
    vae = diffusers.AutoencoderKL.from_pretrained(world / "sdxl-vae-fp16-fix")
    pipeline: Any = diffusers.StableDiffusionXLPipeline.from_pretrained(world / "stable-diffusion-xl-base-1.0", vae=vae)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def plain_adapter(pipeline, rank: int, state: dict[str, torch.Tensor]) -> None:
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    pipeline.unet.requires_grad_(False)
    pipeline.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
    set_peft_model_state_dict(pipeline.unet, state)


def random_adapter(bench: Bench, seed: int = 3):
    """An adapter whose both factors say something, and the same under PEFT's names."""
    source = torch.Generator().manual_seed(seed)
    from clbench.lora import Adapter

    rank = bench.suite.training.rank
    A = {name: torch.randn(rank, size, generator=source) / rank for name, (_, size) in bench.backbone.shapes.items()}
    B = {name: torch.randn(size, rank, generator=source) / 10 for name, (size, _) in bench.backbone.shapes.items()}
    state = {f"{name}.lora_A.weight": value for name, value in A.items()}
    return Adapter(A, B, 1.0), state | {f"{name}.lora_B.weight": value for name, value in B.items()}


def test_a_training_step_is_that_of_a_plain_diffusers_and_peft_loop(world, bench):
    task = bench.track.tasks[2]
    adapter, state = random_adapter(bench)
    one_step = bench.suite.training.model_copy(update={"steps": 1})
    data = Task(bench.backbone, bench.examples(task, generator(0, "crop", 0)), RESOLUTION)
    ctx: Any = SimpleNamespace(position=0, task=task.name)
    losses: list[float] = []
    bench.backbone.deploy({})
    trained = fit(
        bench.backbone, get_method("naive"), ctx, data, adapter, one_step, 0, lambda step, loss: losses.append(loss)
    )
    assert ctx.adapter.A["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"].grad is not None

    # Plain: the photo, its latent, its prompt, its sizes, one noisy copy, the loss, the step.
    pipeline = plain_pipeline(world)
    plain_adapter(pipeline, one_step.rank, state)
    source = generator(0, "train", 0)
    number = int(torch.randint(len(task.train.files), (1,), generator=source))
    image = Image.open(bench.assets.folders["dreambooth"] / task.train.files[number]).convert("RGB")
    resized = transforms.Resize(RESOLUTION, interpolation=transforms.InterpolationMode.BILINEAR)(image)
    pixels = transforms.Normalize([0.5], [0.5])(transforms.ToTensor()(resized))[None]
    posterior = pipeline.vae.encode(pixels).latent_dist
    jitter, noise = torch.randn(2, *posterior.mean.shape, generator=source)
    timestep = torch.randint(1000, (1,), generator=source)
    latents = (posterior.mean + posterior.std * jitter) * pipeline.vae.config.scaling_factor
    prompt = f"a photo of {task.fields['token']} {task.fields['class']}"
    hidden, _, pooled, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
    scheduler: Any = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    noisy = scheduler.add_noise(latents, noise, timestep)
    sizes = torch.tensor([[image.height, image.width, 0, 0, RESOLUTION, RESOLUTION]], dtype=torch.float32)
    conditions = {"text_embeds": pooled, "time_ids": sizes}
    expected = F.mse_loss(pipeline.unet(noisy, timestep, hidden, added_cond_kwargs=conditions).sample, noise)
    expected.backward()
    parameters = [value for value in pipeline.unet.parameters() if value.requires_grad]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    gradients = {name: value.grad for name, value in pipeline.unet.named_parameters() if value.requires_grad}
    torch.optim.AdamW(parameters, lr=one_step.learning_rate, betas=(0.9, 0.999), weight_decay=1e-4).step()

    assert losses == pytest.approx([expected.item()], rel=1e-4)
    after = get_peft_model_state_dict(pipeline.unet)
    for factor, ours in (("A", trained.A), ("B", trained.B)):
        for name, value in ours.items():
            assert relative(value, after[f"{name}.lora_{factor}.weight"]) < 1e-4
            assert not torch.equal(value, getattr(adapter, factor)[name])
            live = getattr(ctx.adapter, factor)[name].grad
            assert relative(live, gradients[f"{name}.lora_{factor}.default.weight"]) < 1e-4


def relative(value: torch.Tensor, expected: torch.Tensor | None) -> float:
    assert expected is not None
    return ((value - expected).norm() / expected.norm()).item()


def test_a_denoising_trajectory_is_that_of_the_pipeline_with_its_adapter_unfused(world, bench):
    adapter, state = random_adapter(bench)
    prompts, noise = ["a sks boot in a jail", "a twt can in a jail"], shared_noise(bench.backbone, 2, 42, RESOLUTION)
    bench.backbone.use_adapter(None)
    bench.backbone.deploy(adapter.delta())
    ours = bench.backbone.generate(prompts, noise, 5, 5.0)

    pipeline = plain_pipeline(world)
    plain_adapter(pipeline, bench.suite.training.rank, state)
    for image, prompt, latents in zip(ours, prompts, noise, strict=True):
        options = {"num_inference_steps": 5, "guidance_scale": 5.0, "latents": latents[None], "output_type": "pt"}
        plain = pipeline(prompt, height=RESOLUTION, width=RESOLUTION, **options).images[0]
        torch.testing.assert_close(image, plain, **CLOSE)
    bench.backbone.deploy({})
    assert not torch.allclose(ours, bench.backbone.generate(prompts, noise, 5, 5.0), atol=1e-3)


def test_small_batches_and_memory_running_out_change_no_image(bench, monkeypatch):
    backbone = bench.backbone
    backbone.use_adapter(None)
    backbone.deploy({})
    prompts, noise = ["a boot"] * 4, shared_noise(backbone, 4, 1, RESOLUTION)
    whole = backbone.generate(prompts, noise, 2, 5.0)
    real, sizes = backbone.denoise, []

    def short_of_memory(noisy, *rest):
        sizes.append(len(noisy))
        if len(noisy) > 2:  # two guidance halves of one image
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(noisy, *rest)

    monkeypatch.setattr(backbone, "denoise", short_of_memory)
    monkeypatch.setattr(backbone, "batch", None)
    torch.testing.assert_close(backbone.generate(prompts, noise, 2, 5.0), whole, **CLOSE)
    assert sizes[:3] == [8, 4, 2]
    sizes.clear()
    backbone.generate(prompts, noise, 2, 5.0)
    assert set(sizes) == {2}  # what does not fit is not tried again


def test_checkpointing_gradients_changes_no_gradient(world, bench):
    adapter, _ = random_adapter(bench)
    low = Bench(bench.suite, "objects", bench.store, assets=bench.assets, low_memory=True)
    gradients = []
    for one in (bench, low):
        data = Task(one.backbone, one.examples(one.track.tasks[0], generator(0)), RESOLUTION)
        one.backbone.deploy({})
        live = one.backbone.use_adapter(adapter)
        assert live is not None
        data.loss(next(data.batches(1, 1, generator(1)))).backward()
        gradients.append([value.grad for value in (*live.A.values(), *live.B.values())])
    assert low.backbone.unet.is_gradient_checkpointing
    assert not bench.backbone.unet.is_gradient_checkpointing
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, **CLOSE)


def test_bf16_keeps_what_autocast_would_make_of_the_weights_and_the_adapter_in_fp32(bench):
    assets = bench.assets
    half = Bench(bench.suite, "objects", bench.store, precision="bf16", assets=assets).backbone
    name, layer = next(iter(half.layers.items()))
    assert layer.base_layer.weight.dtype == torch.bfloat16
    assert layer.lora_A["default"].weight.dtype == torch.float32
    delta = random_adapter(bench)[0].delta()
    half.deploy(delta)
    bench.backbone.deploy(delta)
    assert torch.equal(layer.base_layer.weight, bench.backbone.layers[name].base_layer.weight.to(torch.bfloat16))
    norms = [module for module in half.unet.modules() if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm)]
    assert norms
    assert all(module.weight.dtype == torch.float32 for module in norms)
    assert {value.dtype for value in half.pipeline.vae.parameters()} == {torch.float32}


def test_pictures_are_resized_and_cut_once_and_say_so_to_the_model():
    wide = Image.fromarray(np.arange(90 * 200 * 3, dtype=np.uint32).reshape(90, 200, 3).astype(np.uint8))
    one, again = (make_examples([wide, wide], "a", 64, generator(7)) for _ in range(2))
    assert [example.corner for example in one] == [example.corner for example in again]
    assert one[0].corner != one[1].corner
    for example in one:
        top, left = example.corner
        assert example.original_size == (90, 200)
        assert top == 0
        resized = np.array(wide.resize((142, 64), Image.Resampling.BILINEAR), dtype=np.float32)
        expected = resized[:, left : left + 64].transpose(2, 0, 1) / 127.5 - 1
        np.testing.assert_allclose(example.pixels.numpy(), expected, atol=1e-6)


def test_latents_are_fresh_at_every_step(bench):
    data = Task(bench.backbone, bench.examples(bench.track.tasks[0], generator(0))[:1], RESOLUTION)
    first, second = data.batches(2, 1, generator(2))
    assert isinstance(first, Batch)
    assert not torch.equal(first.latents, second.latents)


# --- encoders ---


@pytest.fixture(scope="module")
def photo():
    path = SHARED / "data" / "dreambooth_originals" / "teapot_03.jpg"
    if not path.is_file():
        pytest.skip("shared/data/dreambooth_originals is not here")
    return Image.open(path).convert("RGB")


def by_hand(image: Image.Image, shorter: int, mean, std) -> np.ndarray:
    """Resize the shorter side (PIL, bicubic), cut 224 out of the centre, scale, normalise: [3, 224, 224]."""
    scale = shorter / min(image.size)
    resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    cut = np.array(resized.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    return ((cut - np.array(mean)) / np.array(std)).transpose(2, 0, 1).astype(np.float32)


CLIP_NORM = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "shorter", "norm"), [("clip", 224, CLIP_NORM), ("csd", 224, CLIP_NORM), ("dino", 256, IMAGENET_NORM)]
)
def test_preprocessing_is_pils_at_the_pinned_sizes(name, shorter, norm, bench, world, photo, tmp_path):
    folders = {
        "clip": world / "vit_base_patch32_clip_224.openai",
        "dino": world / "dino-vits16",
        "csd": converted(world / "CSD", tmp_path),
    }
    settings: Any = {"resize": 256} if name == "dino" else {}
    encoder = load_encoder(name, folders[name], **settings)
    np.testing.assert_allclose(encoder.preprocess(photo).numpy(), by_hand(photo, shorter, *norm), atol=1e-5)
    rows = encoder.embed([photo, photo.rotate(90)])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


def test_dino_is_the_class_token_of_the_last_hidden_state(world, photo):
    from transformers import ViTModel

    model = ViTModel.from_pretrained(world / "dino-vits16", add_pooling_layer=False).eval()
    pixels = torch.from_numpy(by_hand(photo, 256, *IMAGENET_NORM))[None]
    expected = F.normalize(model(pixels).last_hidden_state[:, 0], dim=-1)
    torch.testing.assert_close(
        load_encoder("dino", world / "dino-vits16", resize=256).embed([photo]), expected, **CLOSE
    )


def test_a_published_csd_checkpoint_is_converted_once_and_gives_the_style_heads_feature(world, photo, tmp_path):
    source = world / "CSD" / "csd_checkpoint.pth"
    folder = converted(source, tmp_path)
    assert converted(source, tmp_path) == converted(folder, tmp_path) == folder
    saved = torch.load(source, weights_only=True)["model_state_dict"]
    from open_clip import CLIPVisionCfg
    from open_clip.model import _build_vision_tower

    tower = _build_vision_tower(48, CLIPVisionCfg(image_size=224, layers=2, width=64, patch_size=32), quick_gelu=True)
    tower.proj = None  # type: ignore[assignment]
    tower.load_state_dict({k.removeprefix("module.backbone."): v for k, v in saved.items() if "backbone" in k})
    pixels = torch.from_numpy(by_hand(photo, 224, *CLIP_NORM))[None]
    expected = F.normalize(tower.eval()(pixels) @ saved["module.last_layer_style"], dim=-1)
    torch.testing.assert_close(load_encoder("csd", folder).embed([photo]), expected, **CLOSE)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


@pytest.mark.parametrize(
    "content", [{"model_state_dict": Evil()}, {"model_state_dict": {"a": torch.ones(1)}}, "garbage"]
)
def test_what_is_no_csd_checkpoint_is_refused_and_nothing_in_it_runs(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "csd.pth"
    path.write_text(content) if isinstance(content, str) else torch.save(content, path)
    with pytest.raises(ValueError, match=r"csd\.pth"):
        converted(path, tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_clip_weights_under_another_activation_are_refused(world, tmp_path):
    from tiny_sdxl import write_clip

    write_clip(tmp_path / "clip", quick_gelu=False)
    with pytest.raises(ClbenchError, match="quick_gelu"):
        load_encoder("clip", tmp_path / "clip", quick_gelu=True)


def test_pairs_of_one_picture_are_left_out_of_the_mean():
    rows = F.normalize(torch.randn(4, 8, generator=generator(1)), dim=1)
    others = [[float(a @ b) for j, b in enumerate(rows) if i != j] for i, a in enumerate(rows)]
    assert mean_of_different(rows, rows, torch.eye(4, dtype=torch.bool)) == pytest.approx(np.mean(others), abs=1e-6)
    none = torch.zeros(4, 4, dtype=torch.bool)
    assert mean_of_different(rows, rows, none) == pytest.approx(mean_pairwise_cosine(rows, rows), abs=1e-6)


# --- keeping and exporting ---


@pytest.fixture(scope="session")
def kept(world, tiny, tmp_path_factory):
    """A short suite of three tasks, run by two methods with everything kept."""
    folder = tmp_path_factory.mktemp("kept")
    write_suite(folder / "short")
    suite = yaml.safe_load((folder / "short" / "suite.yaml").read_text())
    tasks = yaml.safe_load((folder / "short" / "objects.yaml").read_text())["tasks"][:3]
    (folder / "short" / "objects.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    suite["seeds"] = [0]
    suite["tracks"] = {"objects": suite["tracks"]["objects"] | {"orders": {"0": [2, 0, 1]}}}
    (folder / "short" / "suite.yaml").write_text(yaml.safe_dump(suite))
    options = {"quick": True, "device": "cpu", "workers": 1, "data_root": world, "output": folder / "runs"}
    for method in ("naive", "merge_init"):
        harness.run(method, "objects", str(folder / "short"), keep=("states", "images"), **options)
    return folder


def images_of(
    kept: Path, world: Path, method: str, position: int
) -> tuple[Bench, torch.Tensor, list[str], torch.Tensor]:
    """What the engine draws after a task, with its prompts and noise."""
    suite = load_suite(str(kept / "short"))
    assets = gather(suite, str(kept / "short"), "objects", Places(world, kept / "short"))
    with one_thread("cpu"):
        bench = Bench(suite, "objects", Store(kept / "runs" / "store"), assets=assets)
        sequence = Sequence(bench, get_method(method), "0", 0)
        state = sequence.stored_state(position)
    assert state is not None
    prompts, noise = bench.track.eval_prompts(bench.track.tasks[0])[:1], shared_noise(bench.backbone, 1, 42, RESOLUTION)
    bench.backbone.use_adapter(None)
    bench.backbone.deploy(get_method(method).weights(state))
    return bench, bench.backbone.generate(prompts, noise, 3, 5.0), prompts, noise


@pytest.mark.parametrize(("method", "task", "position"), [("naive", "2", 1), ("merge_init", "sneaker", 1)])
def test_an_exported_model_draws_in_diffusers_what_the_engine_draws(kept, world, tmp_path, method, task, position):
    result = load_result(kept / "runs" / "short" / "objects" / f"{method}.json")
    with open_again(result, str(kept / "short"), kept / "runs" / "store", data_root=world) as (bench, sequences):
        path = export_model(bench, sequences, task, tmp_path)
    _, ours, prompts, noise = images_of(kept, world, method, position)
    pipeline = plain_pipeline(world)
    if method == "naive":
        pipeline.load_lora_weights(path.parent)
    else:
        pipeline.unet = diffusers.UNet2DConditionModel.from_pretrained(path)
    options = {"num_inference_steps": 3, "guidance_scale": 5.0, "latents": noise, "output_type": "pt"}
    plain = pipeline(prompts[0], height=RESOLUTION, width=RESOLUTION, **options).images
    torch.testing.assert_close(ours, plain, **CLOSE)


def test_all_states_and_images_are_kept_where_asked(kept):
    store = kept / "runs" / "store"
    assert len(list((store / "state").rglob("*.safetensors"))) == 2 * 3
    cells = {path.name.split(".")[0] for path in (store / "cell").rglob("*.json")}
    images = sorted((store / "cell").rglob("*.000.png"))
    assert {path.name.split(".")[0] for path in images} == cells
    assert Image.open(images[0]).size == (RESOLUTION, RESOLUTION)


def test_a_state_that_was_not_kept_cannot_be_exported_and_the_sentence_says_why(kept, world, tmp_path):
    result = load_result(kept / "runs" / "short" / "objects" / "naive.json")
    with open_again(result, str(kept / "short"), tmp_path / "store", data_root=world) as (bench, sequences):
        with pytest.raises(ClbenchError, match="--keep states"):
            export_model(bench, sequences, "1", tmp_path)
        with pytest.raises(ClbenchError, match="did you mean 'sneaker'"):
            export_model(bench, sequences, "sneakers", tmp_path)


# --- verifying ---


@pytest.fixture
def naive(kept, world):
    """A kept result, and its bench and sequences."""
    result = load_result(kept / "runs" / "short" / "objects" / "naive.json")
    with open_again(result, str(kept / "short"), kept / "runs" / "store", data_root=world) as opened:
        yield result, *opened


def lie(result: Result) -> Result:
    """One score of a trained model raised."""
    run = result.runs[0]
    rows = [list(row) for row in run.scores["dino"]]
    rows[2][0] += 0.3  # type: ignore[operator]
    return result.model_copy(update={"runs": (run.model_copy(update={"scores": {**run.scores, "dino": rows}}),)})


def test_submitted_images_give_the_submitted_scores_and_a_raised_one_is_found(naive, tmp_path):
    result, bench, sequences = naive
    write_images(bench, sequences, tmp_path)
    checked = list(score_images(result, bench, tmp_path))
    assert len(checked) == 6 * 2  # cells of three tasks, two metrics
    assert max(one.difference for one in checked) < 1e-6
    [wrong] = [one for one in score_images(lie(result), bench, tmp_path) if one.difference > 0.01]
    assert (wrong.run, wrong.row, wrong.metric) == (1, 2, "dino")


def test_an_image_that_is_not_the_manifests_is_refused(naive, tmp_path):
    result, bench, sequences = naive
    write_images(bench, sequences, tmp_path)
    Image.new("RGB", (RESOLUTION, RESOLUTION)).save(tmp_path / "run-1" / "02" / "01" / "003.png")
    with pytest.raises(ClbenchError, match=r"003\.png is missing, or is not the image"):
        list(score_images(result, bench, tmp_path))
    (tmp_path / "manifest.json").write_text('{"../../secret": "0"}')
    with pytest.raises(ClbenchError, match="not a manifest of files below"):
        list(score_images(result, bench, tmp_path))


def test_running_again_gives_the_same_bits_and_finds_a_raised_score(naive, kept, world, tmp_path):
    result, *_ = naive
    with open_again(result, str(kept / "short"), tmp_path / "store", data_root=world) as (_, sequences):
        checked = list(run_again(result, sequences, 6, 0, lambda what: None))
        assert len({(one.row, one.task) for one in checked}) == 6
        assert max(one.difference for one in checked) == 0
        wrong = [one for one in run_again(lie(result), sequences, 6, 0, lambda what: None) if one.difference > 0.01]
    assert [(one.row, one.metric) for one in wrong] == [(2, "dino")]


def test_what_was_verified_holds_for_that_result_alone_and_is_never_lowered(naive, tmp_path):
    result, *_ = naive
    path = tmp_path / "VERIFIED.json"
    assert status(read_verified(path), result) == "unverified"
    record(path, result, "rerun", [])
    record(path, result, "recomputed", [])
    assert status(read_verified(path), result) == "rerun"
    assert status(read_verified(path), signed(lie(result))) == "unverified"
    path.write_text("[]")
    with pytest.raises(ClbenchError, match="not a file of verifications"):
        read_verified(path)


# --- memory, disk, devices ---


def test_too_little_memory_is_told_before_any_work(tiny, world, tmp_path, monkeypatch):
    options = {"quick": True, "device": "cpu", "workers": 1, "data_root": world, "output": tmp_path}
    monkeypatch.setattr("clbench.cost.free_memory", lambda device: 1_000_000)
    with pytest.raises(ClbenchError, match="even with --memory low"):
        harness.run("naive", "objects", str(tiny), **options)
    with pytest.raises(ClbenchError, match=r"--memory low takes"):
        harness.run("naive", "objects", str(tiny), memory="high", **options)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_memory_that_runs_out_later_is_one_sentence_and_keeps_what_is_finished(tiny, world, tmp_path, monkeypatch):
    def out_of_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    options = {"quick": True, "device": "cpu", "workers": 1, "data_root": world, "output": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr("clbench.sequence.fit", out_of_memory)
        with pytest.raises(WorkFailed, match=r"ran out of memory.*--memory low") as caught:
            harness.run("naive", "objects", str(tiny), **options)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "store" / "base").rglob("*.json"))


def test_sdxl_on_a_cpu_is_refused_unless_insisted_on(tiny, world, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "default_device", lambda: "cpu")
    monkeypatch.setattr("clbench.cost.matmul_rate", lambda device, precision: 1.0)
    with pytest.raises(ClbenchError, match="there is no GPU here"):
        harness.run("naive", "objects", str(tiny), quick=True, data_root=world, output=tmp_path, workers=1)


def test_a_disk_that_cannot_hold_the_run_is_told_before_any_work(tiny, world, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(10, 10, 0))
    with pytest.raises(ClbenchError, match=r"0 B free.*make space"):
        harness.run("naive", "objects", str(tiny), quick=True, device="cpu", data_root=world, output=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
