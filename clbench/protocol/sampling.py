"""Draw one cell's images: N for each prompt, from noise that every prompt, task, model and method shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from clbench.backbones.sdxl import Backbone
from clbench.suite import Sampling
from clbench.tokens import Tokens


def shared_noise(backbone: Backbone, count: int, seed: int, resolution: int) -> Tensor:
    """Unit Gaussian latents [count, C, h, w] of pictures of `resolution` pixels, drawn on the CPU so that every device
    sees the same.
    """
    side = resolution // backbone.pipeline.vae_scale_factor
    shape = (count, backbone.unet.config.in_channels, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw_cell(
    backbone: Backbone, prompts: list[str], sampling: Sampling, resolution: int, tokens: Tokens | None = None
) -> Tensor:
    """Images of the deployed weights and of learned tokens, prompt by prompt: float [P * N, 3, H, W] in [0, 1].

    A cell is one batch, whatever else is to be drawn, so that its bits do not depend on what is already in the store.
    """
    noise = shared_noise(backbone, sampling.images_per_prompt, sampling.noise_seed, resolution)
    repeated = [prompt for prompt in prompts for _ in range(sampling.images_per_prompt)]
    latents = noise.repeat(len(prompts), 1, 1, 1)
    return backbone.generate(repeated, latents, sampling.steps, sampling.guidance_scale, tokens)


def draw_for_method(
    backbone: Backbone,
    prompts: Iterable[str],
    images_each: int,
    weights: Mapping[str, Tensor],
    source: torch.Generator,
    sampling: Sampling,
    resolution: int,
    tokens: Tokens | None = None,
) -> Tensor:
    """Images of any model, for methods that replay: float [N, 3, H, W] in [-1, 1]; what is deployed stays so.

    Args:
        source: draws the noise's seed, instead of the sampling's own.
    """
    noise_seed = int(torch.randint(2**62, (), generator=source))
    own = sampling.model_copy(update={"images_per_prompt": images_each, "noise_seed": noise_seed})
    with backbone.temporary_weights(weights):
        return draw_cell(backbone, list(prompts), own, resolution, tokens) * 2 - 1
