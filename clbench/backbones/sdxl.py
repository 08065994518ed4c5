"""An SDXL-class pipeline on a device: encode prompts and images, deploy weight changes, carry one live adapter.

PEFT injects the adapter once. Training switches it on; sampling switches it off and adds dense changes to the base
weights instead, so that a deployed model costs what the base model costs. On an accelerator only the U-Net stays: the
VAE and the text encoders come for as long as they are needed, and the fp32 base weights, which merges start from, are
on the CPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLPipeline
from torch import Tensor, nn

from clbench.backbones.architecture import add_adapter, check_architecture
from clbench.errors import ClbenchError
from clbench.lora import Adapter
from clbench.suite import Training

LOW_MEMORY_SAMPLE_BATCH = 4
"""How many images are drawn at a time to begin with where memory is short."""


class Backbone:
    """A pipeline with one adapter slot.

    Attributes:
        layers: adapted layer -> PEFT's layer.
        shapes: adapted layer -> (out, in).
        noise_scheduler: the forward process that training uses.
    """

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        training: Training,
        device: str,
        precision: str,
        low_memory: bool = False,
    ) -> None:
        self.pipeline: Any = pipeline  # diffusers annotates its outputs as unions of all its forms
        self.device = torch.device(device)
        self.precision = precision
        self.sample_batch_size = LOW_MEMORY_SAMPLE_BATCH if low_memory else None
        for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            module.eval().requires_grad_(False)
        self.unet = pipeline.unet
        self.layers = add_adapter(self.unet, training)
        self.rank, self.scale = training.rank, training.alpha / training.rank
        self._base = {name: layer.base_layer.weight.detach().clone() for name, layer in self.layers.items()}
        self.shapes = {name: (weight.shape[0], weight.shape[1]) for name, weight in self._base.items()}
        check_architecture(self.shapes, training)
        if precision == "bf16":
            _cast_like_autocast(self.unet)
        if low_memory:
            self.unet.enable_gradient_checkpointing()
        self.unet.to(self.device)
        self.noise_scheduler: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
        self._deployed: Mapping[str, Tensor] = {}
        self._digest: str | None = None
        self._adapter_enabled = True
        self._encoded_prompts: dict[str, tuple[Tensor, Tensor]] = {}

    @classmethod
    def load(
        cls,
        folder: Path,
        training: Training,
        device: str = "cpu",
        precision: str = "fp32",
        *,
        vae: Path | None = None,
        scheduler: str | None = None,
        low_memory: bool = False,
    ) -> Backbone:
        """From a diffusers folder, in fp32.

        Args:
            vae: folder of the VAE that takes the place of the folder's own.
            scheduler: class of the sampler, if not the folder's own.
            low_memory: checkpoint gradients, and draw few images at a time.

        Raises:
            ClbenchError: the folder does not hold a pipeline of this class, or not the architecture that is trained.
        """
        with torch.random.fork_rng(devices=[]):  # building modules draws weights that are replaced at once
            try:
                other = {"vae": AutoencoderKL.from_pretrained(vae, local_files_only=True)} if vae else {}
                pipeline: Any = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, **other)
            except (OSError, ValueError, TypeError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:300]
                raise ClbenchError(f"{folder} holds no pipeline of Stable Diffusion XL's class: {reason}") from error
            if scheduler:
                pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
            return cls(pipeline.to(torch.float32), training, device, precision, low_memory)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    # --- weights ---

    def deploy(self, delta: Mapping[str, Tensor], digest: str | None = None) -> None:
        """Set the weights to base + delta, added in fp32; nothing to do where `digest` says that they are there."""
        if digest is not None and digest == self._digest:
            return
        self._digest = None  # until all weights are there
        with torch.no_grad():
            for name, layer in self.layers.items():
                weight = self._base[name]
                changed = weight + delta[name].to(weight) if name in delta else weight
                layer.base_layer.weight.copy_(changed)
        self._deployed, self._digest = delta, digest

    @contextmanager
    def temporary_weights(self, delta: Mapping[str, Tensor]) -> Iterator[None]:
        """Deploy another model without the adapter for a while; then what was deployed and live is so again."""
        deployed, live = self._deployed, self._adapter_enabled
        self.use_adapter(None)
        self.deploy(delta)
        try:
            yield
        finally:
            self.deploy(deployed)
            if live:
                self._set_adapter_enabled(True)

    def use_adapter(self, adapter: Adapter | None) -> Adapter | None:
        """Load an adapter into the slot and switch it on; returns the live one, whose tensors are the parameters.

        They have no gradient yet. None switches the slot off.
        """
        self._set_adapter_enabled(adapter is not None)
        if adapter is None:
            return None
        with torch.no_grad():
            for name, layer in self.layers.items():
                for factor, values in ((layer.lora_A, adapter.A), (layer.lora_B, adapter.B)):
                    factor["default"].weight.copy_(values[name])
                    factor["default"].weight.grad = None
        return Adapter(
            {name: layer.lora_A["default"].weight for name, layer in self.layers.items()},
            {name: layer.lora_B["default"].weight for name, layer in self.layers.items()},
            self.scale,
        )

    def _set_adapter_enabled(self, on: bool) -> None:
        if on and not self._adapter_enabled:
            self.unet.enable_adapters()
        elif self._adapter_enabled and not on:  # PEFT walks through all modules, which costs as much as a small cell
            self.unet.disable_adapters()
        self._adapter_enabled = on

    # --- encoding ---

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Hidden states [N, L, D] and pooled embeddings [N, P]; each prompt is encoded once a backbone's lifetime."""
        unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._encoded_prompts]
        if unknown:
            with self._on_device(self.pipeline.text_encoder, self.pipeline.text_encoder_2):
                for prompt in unknown:
                    hidden, _, pooled, _ = self.pipeline.encode_prompt(
                        prompt, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
                    )
                    self._encoded_prompts[prompt] = (hidden[0], pooled[0])
        encoded = [self._encoded_prompts[prompt] for prompt in prompts]
        return torch.stack([hidden for hidden, _ in encoded]), torch.stack([pooled for _, pooled in encoded])

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the normalised latents of [N, 3, H, W] in [-1, 1]."""
        with self._on_device(self.pipeline.vae):
            # One at a time where pictures are large; a small world's are one batch.
            parts = pixels.to(self.device).split(self._vae_batch_size(len(pixels)))
            moments = [(posterior.mean, posterior.std) for posterior in map(self._posterior, parts)]
        mean, std = (torch.cat(values) for values in zip(*moments, strict=True))
        config = self.pipeline.vae.config
        shift, spread = 0.0, 1.0
        if getattr(config, "latents_mean", None) is not None:
            shift = torch.tensor(config.latents_mean, device=self.device).view(1, -1, 1, 1)
            spread = torch.tensor(config.latents_std, device=self.device).view(1, -1, 1, 1)
        factor = config.scaling_factor
        return (mean - shift) * factor / spread, std * factor / spread

    def _posterior(self, pixels: Tensor) -> Any:
        return self.pipeline.vae.encode(pixels).latent_dist

    def _vae_batch_size(self, count: int) -> int:
        return count if self.device.type == "cpu" else 1

    @contextmanager
    def _on_device(self, *modules: nn.Module) -> Iterator[None]:
        """Some of the pipeline's parts on the device for a while."""
        try:
            for module in modules:
                module.to(self.device)
            yield
        finally:
            if self.device.type != "cpu":
                for module in modules:
                    module.to("cpu")

    # --- running ---

    def predict(self, noisy: Tensor, timesteps: Tensor, hidden: Tensor, pooled: Tensor, time_ids: Tensor) -> Tensor:
        """The U-Net's prediction for noisy latents [N, C, h, w]."""
        conditions = {"text_embeds": pooled, "time_ids": time_ids}
        with self.autocast():
            return self.unet(noisy, timesteps, hidden, added_cond_kwargs=conditions).sample

    @torch.no_grad()
    def generate(self, prompts: list[str], latents: Tensor, steps: int, guidance_scale: float) -> Tensor:
        """One image a prompt from given noise [N, C, h, w]: float [N, 3, H, W] in [0, 1], on the CPU.

        All are drawn in one batch, or in as large ones as the device's memory turned out to hold.
        """
        hidden, pooled = self.encode_prompts(prompts)
        while True:
            size = min(self.sample_batch_size or len(prompts), len(prompts))
            try:
                parts = zip(hidden.split(size), pooled.split(size), latents.split(size), strict=True)
                clean = torch.cat([self._sample_latents(*part, steps, guidance_scale) for part in parts])
                return self._decode_latents(clean)
            except torch.OutOfMemoryError:
                if size == 1 or torch.are_deterministic_algorithms_enabled():  # smaller batches have other bits
                    raise
                self.sample_batch_size = size // 2
            torch.cuda.empty_cache()  # here the failed attempt's tensors are gone

    def _sample_latents(
        self, hidden: Tensor, pooled: Tensor, latents: Tensor, steps: int, guidance_scale: float
    ) -> Tensor:
        """Latents after all steps of the sampler, which are fp32 whatever the U-Net's precision."""
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(steps, device=self.device)
        own = {"generator": torch.Generator().manual_seed(0)}  # samplers that add noise: the same for every cell
        own = own if "generator" in inspect.signature(scheduler.step).parameters else {}
        size = latents.shape[-1] * self.pipeline.vae_scale_factor
        time_ids = torch.tensor([[size, size, 0, 0, size, size]], dtype=hidden.dtype, device=self.device)
        halves = 2 if guidance_scale > 1 else 1
        if halves == 2:  # no negative prompt: SDXL's is all zeros
            hidden, pooled = (torch.cat([torch.zeros_like(value), value]) for value in (hidden, pooled))
        latents = latents.to(self.device) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            noisy = scheduler.scale_model_input(latents.repeat(halves, 1, 1, 1), timestep)
            predicted = self.predict(noisy, timestep, hidden, pooled, time_ids.expand(len(noisy), -1)).float()
            if halves == 2:
                without, prompted = predicted.chunk(2)
                predicted = without + guidance_scale * (prompted - without)
            latents = scheduler.step(predicted, timestep, latents, **own).prev_sample
        return latents

    def _decode_latents(self, latents: Tensor) -> Tensor:
        """Images of clean latents, by the fp32 VAE."""
        config = self.pipeline.vae.config
        if getattr(config, "latents_mean", None) is not None:
            mean = torch.tensor(config.latents_mean, device=self.device).view(1, -1, 1, 1)
            std = torch.tensor(config.latents_std, device=self.device).view(1, -1, 1, 1)
            latents = latents * std / config.scaling_factor + mean
        else:
            latents = latents / config.scaling_factor
        with self._on_device(self.pipeline.vae):
            parts = latents.split(self._vae_batch_size(len(latents)))
            images = [self.pipeline.vae.decode(part).sample.cpu() for part in parts]
        return self.pipeline.image_processor.postprocess(torch.cat(images), output_type="pt").float()


def _cast_like_autocast(unet: nn.Module) -> None:
    """Keep in bf16 what bf16 autocast would turn into it at every call: the weights of linear and convolution layers.

    The adapter's factors and the normalisation layers stay fp32, as autocast uses them.
    """
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and "lora_" not in name:
            module.to(torch.bfloat16)
