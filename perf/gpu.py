"""SDXL's training and sampling beside straightforward loops and the device's own rate of matrix products.

    python perf/gpu.py                      # on a GPU SDXL's own size, in nine minutes; needs 14 GB of temporary disk
    python perf/gpu.py                      # without a GPU a small size: ratios only
    python perf/gpu.py --json figures.json  # for machines too

Weights are random: speed and memory do not depend on their values. "Plain" is, for sampling, what the paper's code
does: one load of the whole pipeline a state, the pipeline's call in fp32 on batches of 5, of which one is timed, images
through disk, CLIP loaded for every cell; for training, a loop that encodes picture and prompt at every step, at our
precision. "Of the floor" is the share of the rate of matrix products, measured on the same device, that the operations
of the U-Net's graph have at that speed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from peft import LoraConfig
from PIL import Image
from random_models import write_clip, write_pipeline
from tabulate import tabulate
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from clbench.backbones.architecture import DTYPES
from clbench.backbones.sdxl import Backbone
from clbench.encoders import load_encoder
from clbench.lora import Adapter
from clbench.method import Example, Method
from clbench.protocol.captured_step import WARM_UP, Repeat
from clbench.protocol.device import LOW_MEMORY_BATCH, DeviceConfig, default_device
from clbench.protocol.sampling import draw_cell, shared_noise
from clbench.protocol.trainer import TaskDataset, fit
from clbench.runner.estimate import device_memory, matmul_rate
from clbench.runner.footprint import count
from clbench.suite import load_suite
from clbench.utils.formatting import format_bytes, format_time
from clbench.utils.images import to_pil

STATES, CELLS, RUNS = 10, 55, 64
"""Tasks and cells of a run; runs of the whole protocol."""
PLAIN_BATCH = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--small", action="store_true", help="the small size on a GPU too")
    parser.add_argument("--steps", type=int, default=10, help="training steps to time")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default bf16 on a GPU")
    parser.add_argument("--memory", choices=("low", "high"), default="high")
    parser.add_argument("--seconds", type=float, default=500.0, help="begin no further measurement after so long")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    chosen = parser.parse_args()
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # before CUDA starts, for the deterministic measurement
    if chosen.device == "cpu":
        torch.set_num_threads(1)
    precision = chosen.precision or ("bf16" if chosen.device.startswith("cuda") else "fp32")
    full = chosen.device.startswith("cuda") and not chosen.small
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        torch.manual_seed(0)
        trial = Trial(Path(folder), full, chosen.device, precision, chosen.steps, chosen.memory == "low")
        figures = trial.measure(until=time.monotonic() + chosen.seconds)
    show(figures)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


class Trial:
    """One size on one device."""

    def __init__(self, folder: Path, full: bool, device: str, precision: str, steps: int, low_memory: bool) -> None:
        self.folder, self.device, self.steps, self.low_memory = folder, device, steps, low_memory
        self.suite = suite = load_suite("sdxl-v1")
        self.training_steps = suite.training.steps
        self.precision = precision
        self.resolution = 1024 if full else 256
        training = (
            suite.training
            if full
            else suite.training.model_copy(
                update={"rank": 8, "alpha": 8, "adapted_layers": None, "adapter_parameters": None}
            )
        )
        sampling = {} if full else {"steps": 4, "images_per_prompt": 2}
        self.sampling, self.training = suite.sampling.model_copy(update=sampling), training
        self.prompts = suite.track("objects").eval_prompts(suite.track("objects").tasks[0])
        unet = write_pipeline(folder / "pipeline", full)
        write_clip(folder / "clip", full)
        self.footprint = count(unet, training, self.resolution // 8, self.precision)
        self.backbone = Backbone.load(
            folder / "pipeline",
            training,
            device,
            self.precision,
            gradient_checkpointing=low_memory,
            sample_batch_size=LOW_MEMORY_BATCH if low_memory else None,
        )
        self.encoder = load_encoder("clip", folder / "clip", device)
        self.picture = Image.new("RGB", (self.resolution, self.resolution), "red")
        shapes, rank = self.backbone.shapes, training.rank
        self.adapter = Adapter(
            {name: torch.randn(rank, size) / rank for name, (_, size) in shapes.items()},
            {name: torch.zeros(size, rank) for name, (size, _) in shapes.items()},
        )

    @property
    def images(self) -> int:
        return len(self.prompts) * self.sampling.images_per_prompt

    # --- ours ---

    @cached_property
    def data(self) -> TaskDataset:
        pixels = torch.zeros(3, self.resolution, self.resolution)
        return TaskDataset(self.backbone, [Example(pixels, "a photo of sks sneaker")], self.resolution)

    def train(self, steps: int, repeat: Repeat | None = None) -> float:
        """Seconds a step of `clbench run`'s own training, after those that are not repetitions of a CUDA graph."""
        training = self.training.model_copy(update={"steps": WARM_UP + 1 + steps})
        ctx: Any = SimpleNamespace(position=0, task="timed", training=training)
        ends: list[float] = []
        fit(
            self.backbone,
            Method(),
            ctx,
            self.data,
            self.adapter,
            0,
            lambda *_: ends.append(time.perf_counter()),
            repeat,
        )
        self.backbone.use_adapter(None)
        return (ends[-1] - ends[WARM_UP]) / steps

    def cell(self) -> Tensor:
        """All images of a task, drawn and scored: float [N, 3, H, W]."""
        images = draw_cell(self.backbone, self.prompts, self.sampling, self.resolution)
        self.encoder.embed(to_pil(images))
        return images

    def passes(self, until: float) -> dict[str, float]:
        """What a pass of the sampler might be made of -> seconds of one; what the device lacks is left out."""
        unet, size = self.backbone.unet, min(self.images, self.backbone.sample_batch_size or self.images)
        hidden, pooled = self.backbone.encode_prompts([self.prompts[0]] * size)
        noise = shared_noise(self.backbone, size, 0, self.resolution).to(self.device)
        ids = torch.zeros(size, 6, device=self.device)
        self.backbone.use_adapter(None)

        @torch.no_grad()
        def seconds() -> float:
            def predict() -> Tensor:
                return self.backbone.predict(noise, torch.tensor(500), hidden, pooled, ids)

            predict()  # chooses kernels, or compiles
            return self.timed(predict)[0]

        found = {"as it is": seconds()}
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
            with suppress(RuntimeError), sdpa_kernel(backend):  # there is no such kernel here
                found[f"{backend.name.lower().replace('_', ' ')} alone"] = seconds()
        unet.to(memory_format=torch.channels_last)
        found["channels last"] = seconds()
        if self.device.startswith("cuda") and time.monotonic() < until:
            unet.compile_repeated_blocks(fullgraph=True)
            found["channels last, compiled blocks"] = seconds()
        unet.to(memory_format=torch.contiguous_format)
        return found

    # --- the straightforward loops ---

    def plain_pipeline(self) -> Any:
        pipeline: Any = StableDiffusionXLPipeline.from_pretrained(self.folder / "pipeline").to(self.device)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def plain_train(self, pipeline: Any, steps: int) -> None:
        pipeline.unet.requires_grad_(False)
        rank, targets = self.training.rank, list(self.training.targets)
        pipeline.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), "timed")
        parameters = [value for value in pipeline.unet.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-5)
        scheduler: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
        size = self.resolution
        for _ in range(steps):
            pixels = torch.zeros(1, 3, size, size, device=self.device)
            latents = pipeline.vae.encode(pixels).latent_dist.sample() * pipeline.vae.config.scaling_factor
            with torch.no_grad():
                hidden, _, pooled, _ = pipeline.encode_prompt("a sks sneaker", do_classifier_free_guidance=False)
            noise, timestep = torch.randn_like(latents), torch.randint(1000, (1,), device=self.device)
            noisy = scheduler.add_noise(latents, noise, timestep)
            ids = torch.tensor([[size, size, 0, 0, size, size]], device=self.device)
            with torch.autocast(
                torch.device(self.device).type, DTYPES[self.precision], enabled=self.precision != "fp32"
            ):
                conditions = {"text_embeds": pooled, "time_ids": ids}
                predicted = pipeline.unet(noisy, timestep, hidden, added_cond_kwargs=conditions).sample
            loss = F.mse_loss(predicted.float(), noise)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            loss.item()
        pipeline.unet.delete_adapters("timed")

    def plain_batch(self, pipeline: Any) -> None:
        """One batch of a cell, and the encoder's load, which is once a cell."""
        out = self.folder / "images"
        out.mkdir(exist_ok=True)
        images = pipeline(
            (self.prompts * PLAIN_BATCH)[:PLAIN_BATCH],
            num_inference_steps=self.sampling.steps,
            guidance_scale=self.sampling.guidance_scale,
            height=self.resolution,
            width=self.resolution,
        ).images
        for number, image in enumerate(images):
            image.save(out / f"{number}.png")
        encoder = load_encoder("clip", self.folder / "clip", self.device)
        encoder.embed([Image.open(path).convert("RGB") for path in sorted(out.glob("*.png"))])

    # --- the figures ---

    def measure(self, until: float) -> dict[str, Any]:
        """All figures; those that there was no time left for are missing.

        Args:
            until: begin nothing after that time of the monotonic clock.
        """
        rate = matmul_rate(self.device, self.precision)
        found: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if self.device.startswith("cuda") else "CPU, one thread",
            "precision": self.precision,
            "resolution": self.resolution,
            "rank": self.training.rank,
            "matmul_flops_a_second": rate,
            "pass_flops": self.footprint.pass_flops,
            "expected_memory_bytes": self.expected_memory(),
        }
        _ = self.data
        steps: list[float] = []
        _, found["train_peak_bytes"] = self.timed(lambda: steps.append(self.train(self.steps)))
        step = steps[0]
        self.backbone.deploy({})
        before = self.cell()
        cell, found["sample_peak_bytes"] = self.timed(lambda: found.update(noise=difference(before, self.cell())))
        floor_cell = self.images * self.sampling.passes_a_step * self.sampling.steps * self.footprint.pass_flops / rate
        found |= {
            "steps_a_second": 1 / step,
            "train_share_of_matmul": 3 * self.footprint.pass_flops / rate / step,  # a backward pass counts as two
            "images_a_second": self.images / cell,
            "sample_share_of_matmul": floor_cell / cell,
            "run_seconds": STATES * self.training_steps * step + (CELLS + STATES) * cell,
        }
        if time.monotonic() < until and self.device.startswith("cuda"):
            found["graph_speedup"] = self.train(self.steps, lambda work: work) / step
            torch.use_deterministic_algorithms(True)
            found["deterministic_cost"] = self.train(self.steps) / step
            torch.use_deterministic_algorithms(False)
        if time.monotonic() < until:
            found["pass_seconds"] = self.passes(until)
        if time.monotonic() < until:
            self.backbone.pipeline.to("cpu")  # its turn is over
            load, _ = self.timed(self.plain_pipeline)
            pipeline = self.plain_pipeline()
            self.plain_train(pipeline, 2)
            plain_step, found["plain_train_peak_bytes"] = self.timed(
                lambda: self.plain_train(pipeline, self.steps), self.steps
            )
            found |= {"plain_steps_a_second": 1 / plain_step, "train_speedup": plain_step / step}
            if time.monotonic() < until:
                batch, found["plain_sample_peak_bytes"] = self.timed(lambda: self.plain_batch(pipeline))
                plain_cell = batch * self.images / PLAIN_BATCH + load * STATES / CELLS
                found |= {"plain_images_a_second": self.images / plain_cell, "sample_speedup": plain_cell / cell}
        return found

    def expected_memory(self) -> int:
        """What `clbench run` would expect to need."""
        config = DeviceConfig(
            device=self.device,
            precision=self.precision,
            gradient_checkpointing=self.low_memory,
            sample_batch_size=self.backbone.sample_batch_size,
        )
        return device_memory(self.footprint, self.suite, config)

    def timed(self, work: Callable[[], object], count: int = 1) -> tuple[float, int | None]:
        """Seconds a piece of work, and the peak of the device's memory in bytes, if it has its own."""
        cuda = self.device.startswith("cuda")
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count, torch.cuda.max_memory_allocated() if cuda else None


def difference(one: Tensor, other: Tensor) -> dict[str, float]:
    """How far two drawings of the same images are apart, in grey levels of 255."""
    apart = 255 * (one - other).abs()
    return {"largest": float(apart.max()), "root_mean_square": float(apart.square().mean().sqrt())}


def show(found: dict[str, Any]) -> None:
    """The figures as a table."""
    rate = found["matmul_flops_a_second"] / 1e12
    print(
        f"{found['device']}, {found['precision']}, {found['resolution']} px, rank {found['rank']}, {rate:.2f} TFLOP/s"
    )

    def row(name: str, ours: str, plain: str, share: str = "") -> list[Any]:
        first, second = found.get(ours), found.get(plain)
        ratio = first / second if first and second else None
        return [name, first, second, ratio, f"{found[share]:.0%}" if share else ""]

    rows = [
        row("training steps a second", "steps_a_second", "plain_steps_a_second", "train_share_of_matmul"),
        row("images a second", "images_a_second", "plain_images_a_second", "sample_share_of_matmul"),
        row("peak memory, training, bytes", "train_peak_bytes", "plain_train_peak_bytes"),
        row("peak memory, sampling, bytes", "sample_peak_bytes", "plain_sample_peak_bytes"),
    ]
    print(tabulate(rows, ["", "ours", "plain", "ratio", "of the floor"], floatfmt=".3g"))
    noise = found["noise"]
    print(f"expected memory: {format_bytes(found['expected_memory_bytes'])}")
    apart = f"at most {noise['largest']:.3g} of 255 apart, {noise['root_mean_square']:.3g} by the root mean square"
    print(f"two drawings of the same images are {apart}")
    if "graph_speedup" in found:
        print(f"a training step as a CUDA graph is {found['graph_speedup']:.2f} times as fast as one kernel by kernel")
    if "pass_seconds" in found:
        print(tabulate(found["pass_seconds"].items(), ["a pass of the sampler", "seconds"], floatfmt=".3g"))
    if "deterministic_cost" in found:
        print(f"a training step that repeats its bits takes {found['deterministic_cost']:.2f} times as long")
    if found["resolution"] == 1024:
        run = found["run_seconds"]
        print(f"one run: {format_time(run)}; {RUNS} runs: {format_time(RUNS * run)}")


if __name__ == "__main__":
    main()
