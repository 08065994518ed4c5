"""`sdxl-v1` on small untrained models in their real file formats: the whole path, and shortcuts beside plain loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapters import peft_state, random_adapter
from paths import SHARED
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from PIL import Image
from tiny_sdxl import RESOLUTION, plain_pipeline, write_suite, write_world
from torchvision import transforms

from clbench.data.assets import resolve_assets
from clbench.data.locate import AssetPaths
from clbench.errors import ClbenchError, WorkFailed
from clbench.lora import Adapter
from clbench.method import Batch
from clbench.plugins import get_method
from clbench.protocol.device import DeviceConfig
from clbench.protocol.sampling import shared_noise
from clbench.protocol.track_runtime import TrackRuntime
from clbench.protocol.trainer import TaskDataset, fit, make_examples
from clbench.results.environment import describe
from clbench.results.io import load_result
from clbench.results.validation import check_result
from clbench.runner import harness
from clbench.runner.config import RunConfig
from clbench.runner.estimate import Machine
from clbench.runner.prepare import prepare
from clbench.storage.store import Store
from clbench.suite import load_suite
from clbench.utils.seeding import generator
from clbench.variants import Variant

PHOTOS = SHARED / "data" / "dreambooth_small"
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="session")
def runtime(world, tiny, tmp_path_factory):
    """The objects of the cut-down sdxl-v1, loaded once."""
    suite = load_suite(str(tiny))
    assets = resolve_assets(suite, str(tiny), "objects", AssetPaths(world, tiny))
    return TrackRuntime(suite, "objects", Store(tmp_path_factory.mktemp("store")), assets=assets)


@pytest.fixture(scope="session")
def smaller(tmp_path_factory):
    """The folder of a cut-down ssd1b-v1."""
    return write_suite(tmp_path_factory.mktemp("suites") / "tiny-ssd1b", "ssd1b-v1")


@pytest.fixture(scope="session")
def smaller_runtime(world, smaller, tmp_path_factory):
    """The objects of the cut-down ssd1b-v1, loaded once."""
    suite = load_suite(str(smaller))
    assets = resolve_assets(suite, str(smaller), "objects", AssetPaths(world, smaller))
    return TrackRuntime(suite, "objects", Store(tmp_path_factory.mktemp("store")), assets=assets)


# --- the whole path ---


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "track"),
    [("naive", "objects"), ("merge_init", "styles"), ("merge_ortho", "styles"), ("magmax", "objects")],
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


@pytest.mark.long
def test_the_whole_path_runs_on_a_model_of_ssd_1bs_arrangement(smaller, world, tmp_path):
    options = {"quick": True, "device": "cpu", "workers": 1, "data_root": world}
    result = harness.run("merge_init", "objects", str(smaller), output=tmp_path, **options)
    suite = load_suite(str(smaller))
    assert check_result(load_result(harness.result_path(tmp_path, result)), suite, allow_partial=True) == []
    assert (result.runs[0].order, result.runs[0].seed) == ("0", 0)


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


def test_a_training_step_is_that_of_a_plain_diffusers_and_peft_loop(world, runtime):
    task = runtime.track.tasks[2]
    adapter = random_adapter(runtime.backbone)
    one_step = runtime.suite.training.model_copy(update={"steps": 1})
    data = TaskDataset(runtime.backbone, runtime.examples(task, generator(0, "crop", 0)), RESOLUTION)
    ctx: Any = SimpleNamespace(position=0, task=task.name, training=one_step)
    losses: list[float] = []
    runtime.backbone.deploy({})
    trained = fit(runtime.backbone, get_method("naive"), ctx, data, adapter, 0, lambda step, loss: losses.append(loss))
    assert trained is not None
    assert ctx.adapter.A["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"].grad is not None

    # Plain: the photo, its latent, its prompt, its sizes, one noisy copy, the loss, the step.
    pipeline = plain_pipeline(world)
    plain_adapter(pipeline, one_step.rank, peft_state(adapter))
    source = generator(0, "train", 0)
    number = int(torch.randint(len(task.train.files), (1,), generator=source))
    image = Image.open(runtime.assets.folders["dreambooth"] / task.train.files[number]).convert("RGB")
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
    assert isinstance(trained, Adapter)
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


@pytest.mark.parametrize("name", ["stable-diffusion-xl-base-1.0", "SSD-1B"])
def test_a_denoising_trajectory_is_that_of_the_pipeline_with_its_adapter_unfused(name, world, request):
    runtime = request.getfixturevalue("runtime" if name != "SSD-1B" else "smaller_runtime")
    adapter = random_adapter(runtime.backbone)
    in_the_middle = [layer for layer in adapter.A if layer.startswith("mid_block")]
    assert (in_the_middle == []) == (name == "SSD-1B"), "which has no attention there"
    prompts, noise = ["a sks boot in a jail", "a twt can in a jail"], shared_noise(runtime.backbone, 2, 42, RESOLUTION)
    runtime.backbone.use_adapter(None)
    runtime.backbone.deploy(adapter.delta())
    ours = runtime.backbone.generate(prompts, noise, 5, 5.0)

    pipeline = plain_pipeline(world, name)
    plain_adapter(pipeline, runtime.suite.training.rank, peft_state(adapter))
    for image, prompt, latents in zip(ours, prompts, noise, strict=True):
        options = {"num_inference_steps": 5, "guidance_scale": 5.0, "latents": latents[None], "output_type": "pt"}
        plain = pipeline(prompt, height=RESOLUTION, width=RESOLUTION, **options).images[0]
        torch.testing.assert_close(image, plain, **CLOSE)
    runtime.backbone.deploy({})
    assert not torch.allclose(ours, runtime.backbone.generate(prompts, noise, 5, 5.0), atol=1e-3)


def test_small_batches_and_memory_running_out_change_no_image(runtime, monkeypatch):
    backbone = runtime.backbone
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


def test_checkpointing_gradients_changes_no_gradient(world, runtime):
    adapter = random_adapter(runtime.backbone)
    low = TrackRuntime(runtime.suite, "objects", runtime.store, DeviceConfig().with_low_memory(), runtime.assets)
    gradients = []
    for one in (runtime, low):
        data = TaskDataset(one.backbone, one.examples(one.track.tasks[0], generator(0)), RESOLUTION)
        one.backbone.deploy({})
        live = one.backbone.use_adapter(adapter)
        assert live is not None
        data.loss(next(data.batches(1, runtime.suite.training, generator(1)))).backward()
        gradients.append([value.grad for value in live.parameters()])
    assert low.backbone.unet.is_gradient_checkpointing
    assert not runtime.backbone.unet.is_gradient_checkpointing
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, **CLOSE)


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


def test_latents_are_fresh_at_every_step(runtime):
    data = TaskDataset(runtime.backbone, runtime.examples(runtime.track.tasks[0], generator(0))[:1], RESOLUTION)
    first, second = data.batches(2, runtime.suite.training, generator(2))
    assert isinstance(first, Batch)
    assert not torch.equal(first.latents, second.latents)


# --- memory, disk, devices ---


def machine(free: int, flops: float):
    """What `prepare` would measure on a machine like that."""
    return lambda device, precision: Machine(free, flops, 10**12, describe(device))


def test_too_little_memory_is_told_before_any_work(tiny, world, tmp_path):
    def plan(**options):
        config = RunConfig.of(quick=True, device="cpu", workers=1, data_root=world, output=tmp_path, **options)
        prepare([Variant.of("naive")], ["objects"], str(tiny), config, measure=machine(1_000_000, 1e12))

    with pytest.raises(ClbenchError, match="even with --memory low"):
        plan()
    with pytest.raises(ClbenchError, match=r"--memory low takes"):
        plan(memory="high")
    assert not list(tmp_path.rglob("*.safetensors"))


GREEDY = """
import torch
from clbench import Method

class Greedy(Method):
    name = "greedy"

    def loss(self, ctx, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\\nmore")
"""


@pytest.mark.long
def test_memory_that_runs_out_later_is_one_sentence_and_keeps_what_is_finished(tiny, world, tmp_path):
    (tmp_path / "greedy.py").write_text(GREEDY)
    options = {"quick": True, "device": "cpu", "workers": 1, "data_root": world, "output": tmp_path}
    with pytest.raises(WorkFailed, match=r"ran out of memory.*--memory low") as caught:
        harness.run("greedy", "objects", str(tiny), plugins=(tmp_path / "greedy.py",), **options)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "store" / "base").rglob("*.json"))


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_sdxl_on_a_cpu_is_refused_unless_insisted_on(tiny, world, tmp_path):
    config = RunConfig.of(quick=True, data_root=world, output=tmp_path, workers=1)
    with pytest.raises(ClbenchError, match="there is no GPU here"):
        prepare([Variant.of("naive")], ["objects"], str(tiny), config, measure=machine(10**12, 1.0))


def test_a_disk_that_cannot_hold_the_run_is_told_before_any_work(tiny, world, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(10, 10, 0))
    with pytest.raises(ClbenchError, match=r"0 B free.*make space"):
        harness.run("naive", "objects", str(tiny), quick=True, device="cpu", data_root=world, output=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
