"""Fit one task: DreamBooth with LoRA, plus a method's hooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from clbench.backbones.sdxl import Backbone
from clbench.errors import WorkFailed
from clbench.lora import Adapter
from clbench.method import Batch, Context, Example, Method
from clbench.protocol.hook_runner import KEPT
from clbench.suite import Training
from clbench.utils.seeding import generator


def make_examples(images: list[Image.Image], prompt: str, resolution: int, source: torch.Generator) -> list[Example]:
    """Pictures as training examples: the shorter side resized (PIL, bilinear) to `resolution`, a random square of it.

    The squares are drawn once a task. Pictures of that size are taken as they are.
    """
    examples, cut = [], v2.functional
    for picture in images:
        image: Any = picture  # torchvision's annotations know tensors alone
        original, corner = (image.height, image.width), (0, 0)
        if original != (resolution, resolution):
            image = cut.resize(image, [resolution], v2.InterpolationMode.BILINEAR)
            spare = (image.height - resolution, image.width - resolution)
            top, left = (int(torch.randint(room + 1, (), generator=source)) for room in spare)
            image, corner = cut.crop(image, top, left, resolution, resolution), (top, left)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
        examples.append(Example(pixels, prompt, original, corner))
    return examples


class TaskDataset:
    """The training data of one task, encoded once, and the diffusion loss on it."""

    def __init__(self, backbone: Backbone, examples: list[Example], resolution: int) -> None:
        self.backbone = backbone
        pixels = torch.stack([example.pixels for example in examples])
        self.mean, self.std = backbone.encode_images(pixels)
        self.hidden, self.pooled = backbone.encode_prompts([example.prompt for example in examples])
        # SDXL's micro-conditioning: original size, crop corner, target size.
        target = (resolution, resolution)
        ids = [(*(example.original_size or target), *example.corner, *target) for example in examples]
        self.time_ids = torch.tensor(ids, dtype=torch.float32, device=backbone.device)

    def batches(self, count: int, training: Training, source: torch.Generator) -> Iterator[Batch]:
        """`count` batches, with fresh latents, noise and time steps.

        Examples and time steps are drawn uniformly, or as evenly as `training` asks for.
        """
        steps, size = self.backbone.noise_scheduler.config.num_train_timesteps, training.batch_size
        for number in range(count):
            if training.balanced_batches:
                examples = torch.arange(number * size, (number + 1) * size) % len(self.mean)
            else:
                examples = torch.randint(len(self.mean), (size,), generator=source)
            shape = (size, *self.mean.shape[1:])
            jitter, noise = torch.randn((2, *shape), generator=source).to(self.backbone.device)
            if training.stratified_timesteps:
                strata = torch.randperm(size, generator=source) + torch.rand(size, generator=source)
                timesteps = (strata * steps / size).long().clamp(max=steps - 1)
            else:
                timesteps = torch.randint(steps, (size,), generator=source)
            timesteps = timesteps.to(self.backbone.device)
            yield Batch(self.mean[examples] + self.std[examples] * jitter, noise, timesteps, examples)

    def loss(self, batch: Batch) -> Tensor:
        """As `Context.denoising_loss`."""
        return self.error(self.prediction(batch), batch)

    def prediction(self, batch: Batch) -> Tensor:
        """The U-Net's prediction under the live weights, float [N, C, h, w], with its gradient."""
        return self._predicted(batch, self._own_prompts(batch)).float()

    def error(self, predicted: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of a prediction (noise or velocity, as the backbone was trained)."""
        scheduler, target = self.backbone.noise_scheduler, batch.noise
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(batch.latents, batch.noise, batch.timesteps)
        return F.mse_loss(predicted, target)

    @torch.no_grad()
    def predict(
        self, batch: Batch, prompts: Sequence[str] | None = None, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """As `Context.predict`."""
        if prompts is not None and len(prompts) != len(batch.latents):
            raise ValueError(f"predict() got {len(prompts)} prompts for a batch of {len(batch.latents)}")
        encoded = self._own_prompts(batch) if prompts is None else self.backbone.encode_prompts(list(prompts))
        return self._predicted(batch, encoded, weights).float()

    def _own_prompts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The encoded prompts of a batch's examples."""
        return self.hidden[batch.examples], self.pooled[batch.examples]

    def _predicted(
        self, batch: Batch, encoded: tuple[Tensor, Tensor], weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        noisy = self.backbone.noise_scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
        return self.backbone.predict(noisy, batch.timesteps, *encoded, self.time_ids[batch.examples], weights)


def fit(
    backbone: Backbone,
    method: Method,
    ctx: Context,
    dataset: TaskDataset,
    start: Adapter,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Adapter:
    """Train the adapter from `start` over the weights that are deployed; returns it detached, on the CPU.

    Raises:
        WorkFailed: the loss is not finite (says which task and step).
    """
    adapter, training = backbone.use_adapter(start), ctx.training
    assert adapter is not None
    ctx.adapter = adapter
    parameters = [*adapter.A.values(), *adapter.B.values()]
    optimizer = method.optimizer(ctx, parameters)
    batches = dataset.batches(training.steps, training, generator(seed, "train", ctx.position))
    for step, batch in enumerate(batches):
        ctx.step = step
        ctx.predicted = dataset.prediction(batch)
        loss = dataset.error(ctx.predicted, batch) + method.loss(ctx, batch)
        value = loss.item()
        if not math.isfinite(value):
            raise WorkFailed(
                f"the loss became {value} in task {ctx.task!r} (position {ctx.position + 1}) at step {step + 1} of "
                f"{training.steps}{KEPT}"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        method.on_gradients(ctx)
        torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
        optimizer.step()
        method.after_step(ctx)
        on_step(step, value)
    return Adapter(
        {name: value.detach().cpu().clone() for name, value in adapter.A.items()},
        {name: value.detach().cpu().clone() for name, value in adapter.B.items()},
        adapter.scale,
    )
