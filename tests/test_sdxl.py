"""`sdxl-v1` on small untrained models in their real file formats: the whole path, and shortcuts beside plain loops."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from PIL import Image
from tiny_sdxl import RESOLUTION, plain_pipeline, write_world
from torchvision import transforms

from clbench.data.assets import resolve_assets
from clbench.data.locate import AssetPaths
from clbench.errors import ClbenchError, WorkFailed
from clbench.method import Batch
from clbench.plugins import get_method
from clbench.protocol.sampling import shared_noise
from clbench.protocol.track_runtime import Bench
from clbench.protocol.trainer import Task, fit, make_examples
from clbench.results.checks import check_result
from clbench.results.io import load_result
from clbench.runner import harness, prepare
from clbench.storage.store import Store
from clbench.suite import load_suite
from clbench.utils.seeding import generator

SHARED = Path(__file__).parent.parent.parent / "shared"
PHOTOS = SHARED / "data" / "dreambooth_small"
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="session")
def bench(world, tiny, tmp_path_factory):
    """The objects of the cut-down sdxl-v1, loaded once."""
    suite = load_suite(str(tiny))
    assets = resolve_assets(suite, str(tiny), "objects", AssetPaths(world, tiny))
    return Bench(suite, "objects", Store(tmp_path_factory.mktemp("store")), assets=assets)


# --- the whole path ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "track"),
    [
        ("naive", "objects"),
        ("merge_init", "styles"),
        ("merge_ortho", "styles"),
        ("magmax", "objects"),
        pytest.param("naive", "styles", marks=pytest.mark.long),
        pytest.param("merge_init", "objects", marks=pytest.mark.long),
        pytest.param("merge_ortho", "objects", marks=pytest.mark.long),
        pytest.param("magmax", "styles", marks=pytest.mark.long),
    ],
)
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
    real, sizes = backbone.predict, []

    def short_of_memory(noisy, *rest):
        sizes.append(len(noisy))
        if len(noisy) > 2:  # two guidance halves of one image
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(noisy, *rest)

    monkeypatch.setattr(backbone, "predict", short_of_memory)
    monkeypatch.setattr(backbone, "sample_batch_size", None)
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
        data.loss(next(data.batches(1, bench.suite.training, generator(1)))).backward()
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
    first, second = data.batches(2, bench.suite.training, generator(2))
    assert isinstance(first, Batch)
    assert not torch.equal(first.latents, second.latents)


# --- memory, disk, devices ---


def test_too_little_memory_is_told_before_any_work(tiny, world, tmp_path, monkeypatch):
    options = {"quick": True, "device": "cpu", "workers": 1, "data_root": world, "output": tmp_path}
    monkeypatch.setattr("clbench.runner.estimate.free_memory", lambda device: 1_000_000)
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
        patch.setattr("clbench.protocol.task_sequence.fit", out_of_memory)
        with pytest.raises(WorkFailed, match=r"ran out of memory.*--memory low") as caught:
            harness.run("naive", "objects", str(tiny), **options)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "store" / "base").rglob("*.json"))


def test_sdxl_on_a_cpu_is_refused_unless_insisted_on(tiny, world, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "default_device", lambda: "cpu")
    monkeypatch.setattr("clbench.runner.estimate.matmul_rate", lambda device, precision: 1.0)
    with pytest.raises(ClbenchError, match="there is no GPU here"):
        harness.run("naive", "objects", str(tiny), quick=True, data_root=world, output=tmp_path, workers=1)


def test_a_disk_that_cannot_hold_the_run_is_told_before_any_work(tiny, world, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(10, 10, 0))
    with pytest.raises(ClbenchError, match=r"0 B free.*make space"):
        harness.run("naive", "objects", str(tiny), quick=True, device="cpu", data_root=world, output=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
