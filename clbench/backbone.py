"""An SDXL-class pipeline on a device: encode prompts and images, deploy weight changes, carry one live adapter.

PEFT injects the adapter once. Training switches it on; sampling switches it off and adds dense changes to the base
weights instead, so that a deployed model costs what the base model costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor

from clbench.lora import Adapter
from clbench.suite import Training


class Backbone:
    """A pipeline with one adapter slot.

    Attributes:
        layers: adapted layer -> PEFT's layer.
        shapes: adapted layer -> (out, in).
        noise_scheduler: the forward process that training uses.
    """

    def __init__(self, pipeline: StableDiffusionXLPipeline, training: Training, device: str, precision: str) -> None:
        self.pipeline: Any = pipeline  # diffusers annotates its outputs as unions of all its forms
        self.device = torch.device(device)
        self.precision = precision
        self.pipeline.set_progress_bar_config(disable=True)
        for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            module.to(self.device).eval().requires_grad_(False)
        self.unet = pipeline.unet
        self.unet.add_adapter(
            LoraConfig(
                r=training.rank,
                lora_alpha=training.alpha,  # type: ignore[arg-type]  # PEFT scales by any number
                target_modules=list(training.targets),
                init_lora_weights=False,
            )
        )
        self.rank, self.scale = training.rank, training.alpha / training.rank
        self.layers: dict[str, Any] = {n: m for n, m in self.unet.named_modules() if isinstance(m, LoraLayer)}
        self._base = {name: layer.base_layer.weight.detach().clone() for name, layer in self.layers.items()}
        self.shapes = {name: (weight.shape[0], weight.shape[1]) for name, weight in self._base.items()}
        self.noise_scheduler: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
        self._deployed: Mapping[str, Tensor] = {}
        self._live = True
        self._prompts: dict[str, tuple[Tensor, Tensor]] = {}

    @classmethod
    def load(cls, folder: Path, training: Training, device: str = "cpu", precision: str = "fp32") -> Backbone:
        """From a diffusers folder, in fp32."""
        with torch.random.fork_rng(devices=[]):  # building modules draws weights that are replaced at once
            pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
            return cls(pipeline.to(torch.float32), training, device, precision)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    # --- weights ---

    def deploy(self, delta: Mapping[str, Tensor]) -> None:
        """Set the weights to base + delta, added in fp32."""
        with torch.no_grad():
            for name, layer in self.layers.items():
                weight = self._base[name]
                changed = weight + delta[name].to(weight) if name in delta else weight
                layer.base_layer.weight.copy_(changed)
        self._deployed = delta

    @contextmanager
    def other_weights(self, delta: Mapping[str, Tensor]) -> Iterator[None]:
        """Deploy another model without the adapter for a while; then what was deployed and live is so again."""
        deployed, live = self._deployed, self._live
        self.use_adapter(None)
        self.deploy(delta)
        try:
            yield
        finally:
            self.deploy(deployed)
            if live:
                self._switch(True)

    def use_adapter(self, adapter: Adapter | None) -> Adapter | None:
        """Load an adapter into the slot and switch it on; returns the live one, whose tensors are the parameters.

        They have no gradient yet. None switches the slot off.
        """
        self._switch(adapter is not None)
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

    def _switch(self, on: bool) -> None:
        if on and not self._live:
            self.unet.enable_adapters()
        elif self._live and not on:  # PEFT walks through all modules, which costs as much as a small cell
            self.unet.disable_adapters()
        self._live = on

    # --- encoding ---

    @torch.no_grad()
    def encode_prompt(self, prompt: str) -> tuple[Tensor, Tensor]:
        """One prompt's hidden states [L, D] and pooled embedding [P]; kept for the backbone's lifetime."""
        if prompt not in self._prompts:
            hidden, _, pooled, _ = self.pipeline.encode_prompt(
                prompt, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
            self._prompts[prompt] = (hidden[0], pooled[0])
        return self._prompts[prompt]

    def encode_prompts(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Hidden states [N, L, D] and pooled embeddings [N, P]."""
        encoded = [self.encode_prompt(prompt) for prompt in prompts]
        return torch.stack([hidden for hidden, _ in encoded]), torch.stack([pooled for _, pooled in encoded])

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the normalised latents of [N, 3, H, W] in [-1, 1]."""
        posterior = self.pipeline.vae.encode(pixels.to(self.device)).latent_dist
        config = self.pipeline.vae.config
        shift, spread = 0.0, 1.0
        if getattr(config, "latents_mean", None) is not None:
            shift = torch.tensor(config.latents_mean, device=self.device).view(1, -1, 1, 1)
            spread = torch.tensor(config.latents_std, device=self.device).view(1, -1, 1, 1)
        factor = config.scaling_factor
        return (posterior.mean - shift) * factor / spread, posterior.std * factor / spread

    # --- running ---

    def denoise(self, noisy: Tensor, timesteps: Tensor, hidden: Tensor, pooled: Tensor, time_ids: Tensor) -> Tensor:
        """The U-Net's prediction for noisy latents [N, C, h, w]."""
        conditions = {"text_embeds": pooled, "time_ids": time_ids}
        with self.autocast():
            return self.unet(noisy, timesteps, hidden, added_cond_kwargs=conditions).sample

    @torch.no_grad()
    def generate(self, prompts: list[str], latents: Tensor, steps: int, guidance_scale: float) -> Tensor:
        """One image a prompt from given noise [N, C, h, w]: float [N, 3, H, W] in [0, 1], on the CPU."""
        hidden, pooled = self.encode_prompts(prompts)
        size = latents.shape[-1] * self.pipeline.vae_scale_factor
        with self.autocast():
            images = self.pipeline(
                prompt_embeds=hidden,
                pooled_prompt_embeds=pooled,
                negative_prompt_embeds=torch.zeros_like(hidden),  # no negative prompt: SDXL's is all zeros
                negative_pooled_prompt_embeds=torch.zeros_like(pooled),
                latents=latents.to(self.device),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                height=size,
                width=size,
                output_type="pt",
            ).images
        return images.float().cpu()
