"""Images to latents and back, by a pipeline's fp32 VAE, which is on the device only while it works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def encode(pipeline: Any, pixels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the normalised latents of images [N, 3, H, W] in [-1, 1], on the device."""
    vae = pipeline.vae
    with on_device(device, vae):
        posteriors = (vae.encode(part).latent_dist for part in _parts(pixels.to(device)))
        moments = [(posterior.mean, posterior.std) for posterior in posteriors]
    mean, std = (torch.cat(values) for values in zip(*moments, strict=True))
    shift, spread, factor = _normalisation(vae.config, device)
    return (mean - shift) * factor / spread, std * factor / spread


@torch.no_grad()
def decode(pipeline: Any, latents: Tensor) -> Tensor:
    """Images of clean latents: float [N, 3, H, W] in [0, 1], on the CPU."""
    vae = pipeline.vae
    shift, spread, factor = _normalisation(vae.config, latents.device)
    with on_device(latents.device, vae):
        images = [vae.decode(part).sample.cpu() for part in _parts(latents * spread / factor + shift)]
    return pipeline.image_processor.postprocess(torch.cat(images), output_type="pt").float()


@contextmanager
def on_device(device: torch.device, *modules: nn.Module) -> Iterator[None]:
    """Move modules to a device inside a `with` block, and after it back to the CPU those that came from there."""
    moved = [module for module in modules if next(module.parameters()).device.type != device.type]
    try:
        for module in moved:
            module.to(device)
        yield
    finally:
        for module in moved:
            module.to("cpu")


def _parts(values: Tensor) -> tuple[Tensor, ...]:
    """All at once on a CPU; one at a time on an accelerator, because the VAE needs much memory for large images."""
    return values.split(len(values) if values.device.type == "cpu" else 1)


def _normalisation(config: Any, device: torch.device) -> tuple[Tensor | float, Tensor | float, float]:
    """Mean, standard deviation and scaling factor of the VAE's latents."""
    if getattr(config, "latents_mean", None) is None:
        return 0.0, 1.0, config.scaling_factor
    mean, std = (
        torch.tensor(own, device=device).view(1, -1, 1, 1) for own in (config.latents_mean, config.latents_std)
    )
    return mean, std, config.scaling_factor
