"""SDXL's training and sampling beside straightforward loops and the arithmetic floor, with random weights.

    python perf/sdxl_speed.py                     # small, on the CPU: ratios only
    python perf/sdxl_speed.py --full              # SDXL's own size, on a GPU (14 GB of temporary disk)

Speed and memory do not depend on the weights' values. "Plain" is, for sampling, what the paper's code does: one load of
the whole pipeline a state, the pipeline's call in fp32 on batches of 5, images through disk, CLIP loaded for every
cell; for training, a loop that encodes picture and prompt at every step, at our precision. The floor counts the
operations of the U-Net's graph, at the rate of matrix products measured on the same device.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig
from PIL import Image
from safetensors.torch import save_file
from tabulate import tabulate
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from clbench.backbones.sdxl import Backbone
from clbench.encoders import load_encoder
from clbench.lora import Adapter
from clbench.method import Example
from clbench.protocol.device import LOW_MEMORY_BATCH, default_device
from clbench.protocol.sampling import draw_cell
from clbench.protocol.trainer import TaskDataset
from clbench.runner.estimate import matmul_rate
from clbench.runner.footprint import count
from clbench.suite import load_suite
from clbench.utils.formatting import format_time
from clbench.utils.images import to_pil
from clbench.utils.seeding import generator

STATES, CELLS, RUNS = 10, 55, 64
"""Tasks and cells of a run; runs of the whole protocol."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="SDXL's own size")
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--steps", type=int, default=10, help="training steps to time")
    parser.add_argument("--memory", choices=("low", "high"), default="high")
    chosen = parser.parse_args()
    if chosen.device == "cpu":
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        torch.manual_seed(0)
        Trial(Path(folder), chosen.full, chosen.device, chosen.steps, chosen.memory == "low").report()


class Trial:
    """One size on one device."""

    def __init__(self, folder: Path, full: bool, device: str, steps: int, low_memory: bool) -> None:
        self.folder, self.device, self.steps = folder, device, steps
        suite = load_suite("sdxl-v1")
        self.precision = "bf16" if device.startswith("cuda") else "fp32"
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
        self.footprint = count(unet, training, self.resolution // 8)
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

    def train(self, steps: int) -> None:
        pixels = torch.zeros(3, self.resolution, self.resolution)
        data = TaskDataset(self.backbone, [Example(pixels, "a photo of sks sneaker")], self.resolution)
        live = self.backbone.use_adapter(self.adapter)
        assert live is not None
        parameters = [*live.A.values(), *live.B.values()]
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
        for batch in data.batches(steps, self.training, generator(0)):
            loss = data.loss(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            loss.item()
        self.backbone.use_adapter(None)

    def cell(self) -> None:
        images = draw_cell(self.backbone, self.prompts, self.sampling, self.resolution)
        self.encoder.embed(to_pil(images))

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
            with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16"):
                conditions = {"text_embeds": pooled, "time_ids": ids}
                predicted = pipeline.unet(noisy, timestep, hidden, added_cond_kwargs=conditions).sample
            loss = F.mse_loss(predicted.float(), noise)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            loss.item()
        pipeline.unet.delete_adapters("timed")

    def plain_cell(self, pipeline: Any) -> None:
        out = self.folder / "images"
        out.mkdir(exist_ok=True)
        prompts = [prompt for prompt in self.prompts for _ in range(self.sampling.images_per_prompt)]
        for start in range(0, len(prompts), 5):
            images = pipeline(
                prompts[start : start + 5],
                num_inference_steps=self.sampling.steps,
                guidance_scale=self.sampling.guidance_scale,
                height=self.resolution,
                width=self.resolution,
            ).images
            for number, image in enumerate(images, start):
                image.save(out / f"{number}.png")
        encoder = load_encoder("clip", self.folder / "clip", self.device)
        encoder.embed([Image.open(path).convert("RGB") for path in sorted(out.glob("*.png"))])

    # --- the figures ---

    def report(self) -> None:
        self.train(2)
        step, train_peak = self.timed(lambda: self.train(self.steps), self.steps)
        self.backbone.deploy({})
        self.cell()
        cell, cell_peak = self.timed(self.cell)
        self.backbone.pipeline.to("cpu")  # its turn is over
        load, _ = self.timed(self.plain_pipeline)
        pipeline = self.plain_pipeline()
        self.plain_train(pipeline, 2)
        plain_step, plain_train_peak = self.timed(lambda: self.plain_train(pipeline, self.steps), self.steps)
        plain_cell, plain_cell_peak = self.timed(lambda: self.plain_cell(pipeline))
        plain_cell += load * STATES / CELLS
        rate = matmul_rate(self.device, self.precision)
        floor_step = 3 * self.footprint.pass_flops / rate  # a backward pass counts as two
        floor_cell = self.images * 2 * self.sampling.steps * self.footprint.pass_flops / rate
        rows = [
            ["training steps a second", 1 / step, 1 / plain_step, plain_step / step, f"{floor_step / step:.0%}"],
            [
                "images a second",
                self.images / cell,
                self.images / plain_cell,
                plain_cell / cell,
                f"{floor_cell / cell:.0%}",
            ],
        ]
        if self.device.startswith("cuda"):
            rows.append(["peak memory, training, GB", train_peak, plain_train_peak, plain_train_peak / train_peak, ""])
            rows.append(["peak memory, sampling, GB", cell_peak, plain_cell_peak, plain_cell_peak / cell_peak, ""])
        name = torch.cuda.get_device_name() if self.device.startswith("cuda") else "CPU, one thread"
        print(f"{name}, {self.precision}, {self.resolution} px, rank {self.training.rank}, {rate / 1e12:.2f} TFLOP/s")
        flops, values = self.footprint.pass_flops / 1e12, self.footprint.adapter
        print(f"a U-Net pass is {flops:.3f} TFLOP, an adapter {values:,} values")
        print(tabulate(rows, ["", "ours", "plain", "ours is", "of the floor"], floatfmt=".3g"))
        run = STATES * self.training.steps * step + (CELLS + STATES) * cell
        print(f"one run: {format_time(run)}; {RUNS} runs: {format_time(RUNS * run)}")

    def timed(self, work: Callable[[], object], count: int = 1) -> tuple[float, float]:
        """Seconds a piece of work, and the peak of the device's memory in GB."""
        cuda = self.device.startswith("cuda")
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count, torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0


def write_pipeline(folder: Path, full: bool) -> dict[str, Any]:
    """A pipeline with random weights; returns its U-Net's configuration."""
    widths = (320, 640, 1280) if full else (32, 64, 128)
    hidden, pooled = ((768, 12), (1280, 32)) if full else ((64, 2), (64, 2))
    text: dict[str, Any] = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
    first = CLIPTextConfig(
        hidden_size=hidden[0],
        intermediate_size=4 * hidden[0],
        num_hidden_layers=hidden[1],
        num_attention_heads=hidden[0] // 32,
        projection_dim=hidden[0],
        **text,
    )
    second = CLIPTextConfig(
        hidden_size=pooled[0],
        intermediate_size=4 * pooled[0],
        num_hidden_layers=pooled[1],
        num_attention_heads=pooled[0] // 32,
        projection_dim=pooled[0],
        hidden_act="gelu",
        **text,
    )
    config: dict[str, Any] = {
        "sample_size": 128 if full else 32,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": widths,
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 10) if full else (1, 1, 2),
        "attention_head_dim": tuple(width // 64 for width in widths) if full else (1, 2, 4),
        "norm_num_groups": 32,
        "use_linear_projection": True,
        "cross_attention_dim": hidden[0] + pooled[0],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": pooled[0] + 6 * 256,
    }
    channels = (128, 256, 512, 512) if full else (32, 32, 32, 32)
    vae: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": channels,
        "layers_per_block": 2,
        "scaling_factor": 0.13025,
        "sample_size": 1024 if full else 256,
    }
    letters = [chr(number) for number in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    vocab = {word: number for number, word in enumerate(words)} | {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(**vae),
        "text_encoder": CLIPTextModel(first),
        "text_encoder_2": CLIPTextModelWithProjection(second),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "unet": UNet2DConditionModel(**config),
        "scheduler": EulerDiscreteScheduler(**schedule, timestep_spacing="leading"),  # type: ignore[arg-type]
    }
    StableDiffusionXLPipeline(**parts, add_watermarker=False).save_pretrained(folder)
    return config


def write_clip(folder: Path, full: bool) -> None:
    """ViT-B/32 in open_clip's layout, or a small one."""
    width, layers = (768, 12) if full else (64, 2)
    config = {
        "embed_dim": 512,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": layers, "width": width, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": layers},
    }
    folder.mkdir()
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))


if __name__ == "__main__":
    main()
