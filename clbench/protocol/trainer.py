"""Fit one task: DreamBooth with LoRA, plus a method's hooks.

Where no code of the method runs within a step, a GPU gets the whole step as one CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from clbench.backbones.sdxl import Backbone
from clbench.backbones.vae import encode
from clbench.errors import MethodFailed
from clbench.lora import Adapter, AnyAdapter
from clbench.method import Batch, Context, Example, Method
from clbench.protocol.captured_step import CapturedStep, CudaGraph, Repeat
from clbench.protocol.hook_runner import KEPT
from clbench.suite import Training
from clbench.tokens import Tokens, tokens_in
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
    """The training data of one task, encoded once, and the diffusion loss on it.

    Args:
        tokens: gives the learned tokens, with their present vectors. Prompts that contain one whose vectors are trained
            are encoded whenever they are used.

    Attributes:
        parameters: the tokens' vectors that are trained.
    """

    def __init__(
        self, backbone: Backbone, examples: list[Example], resolution: int, tokens: Callable[[], Tokens] = dict
    ) -> None:
        self.backbone, self.tokens = backbone, tokens
        pixels = torch.stack([example.pixels for example in examples])
        self.mean, self.std = encode(backbone.pipeline, pixels, backbone.device)
        self.prompts = [example.prompt for example in examples]
        with torch.no_grad():
            self.hidden, self.pooled = backbone.encode_prompts(self.prompts, tokens())
        trained = {word: own for word, own in tokens().items() if any(vector.requires_grad for vector in own)}
        self.parameters = [vector for own in trained.values() for vector in own]
        self._changing = {number for number, prompt in enumerate(self.prompts) if tokens_in(trained, [prompt])}
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
        return self.backbone.predict(*self._inputs(batch, self._encoded(batch.examples))).float()

    def error(self, predicted: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of a prediction."""
        return F.mse_loss(predicted, self._target(batch))

    def recordable(self, batch: Batch) -> tuple[Tensor, ...]:
        """All that `loss_of` needs of a batch: what it should predict, and what the U-Net gets."""
        return self._target(batch), *self._inputs(batch, self._encoded(batch.examples))

    def loss_of(self, target: Tensor, *inputs: Any) -> Tensor:
        """As `loss`, of what `recordable` gives."""
        return F.mse_loss(self.backbone.predict(*inputs).float(), target)

    def _target(self, batch: Batch) -> Tensor:
        """What a batch's prediction should be: noise or velocity, as the backbone was trained."""
        scheduler = self.backbone.noise_scheduler
        if scheduler.config.prediction_type == "v_prediction":
            return scheduler.get_velocity(batch.latents, batch.noise, batch.timesteps)
        return batch.noise

    @torch.no_grad()
    def predict(
        self, batch: Batch, prompts: Sequence[str] | None = None, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """As `Context.predict`."""
        if prompts is not None and len(prompts) != len(batch.latents):
            raise ValueError(f"predict() got {len(prompts)} prompts for a batch of {len(batch.latents)}")
        if prompts is None:
            encoded = self._encoded(batch.examples)
        else:
            encoded = self.backbone.encode_prompts(list(prompts), self.tokens())
        return self.backbone.predict(*self._inputs(batch, encoded), weights).float()

    def _encoded(self, examples: Tensor) -> tuple[Tensor, Tensor]:
        """The encoded prompts of examples, with the present vectors of the tokens that are trained."""
        hidden, pooled = self.hidden[examples], self.pooled[examples]
        changing = [row for row, example in enumerate(examples.tolist()) if example in self._changing]
        if not changing:
            return hidden, pooled
        prompts = [self.prompts[int(examples[row])] for row in changing]
        rows = torch.tensor(changing, device=hidden.device)
        own_hidden, own_pooled = self.backbone.encode_prompts(prompts, self.tokens())
        return hidden.index_copy(0, rows, own_hidden), pooled.index_copy(0, rows, own_pooled)

    def _inputs(self, batch: Batch, encoded: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the U-Net gets for a batch, with encoded prompts."""
        noisy = self.backbone.noise_scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
        return noisy, batch.timesteps, *encoded, self.time_ids[batch.examples]


def fit(
    backbone: Backbone,
    method: Method,
    ctx: Context,
    dataset: TaskDataset,
    start: AnyAdapter | None,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    repeat: Repeat | None = None,
) -> AnyAdapter | None:
    """Train the data's tokens, and the adapter from `start` over the weights that are deployed.

    Args:
        repeat: repeats steps that no code of the method is in; default a CUDA graph where there is CUDA.

    Returns:
        The adapter, detached, on the CPU; None without a start.

    Raises:
        MethodFailed: the loss is not finite (says which task and step).
    """
    adapter, training = backbone.use_adapter(start), ctx.training
    parameters = dataset.parameters
    if adapter is not None:
        ctx.adapter = adapter
        parameters = [*adapter.parameters(), *parameters]
    optimizer = method.optimizer(ctx, parameters)
    batches = dataset.batches(training.steps, training, generator(seed, "train", ctx.position))
    if repeat is None and backbone.device.type == "cuda":
        repeat = partial(CudaGraph, device=backbone.device)
    captured = None
    if repeat and _is_captured(dataset, adapter, method):
        captured = CapturedStep(dataset.loss_of, parameters, optimizer, training.max_grad_norm, repeat)

    def take(batch: Batch) -> float:
        """Take a step; returns the loss before it."""
        if captured:
            before = backbone.passes[True]
            value = captured(*dataset.recordable(batch))
            backbone.passes[True] = before + len(batch.latents)  # repetitions are counted too, and the recording is not
            return value
        ctx.predicted = dataset.prediction(batch)
        loss = dataset.error(ctx.predicted, batch) + method.loss(ctx, batch)
        value = loss.item()
        if math.isfinite(value):  # hooks get no gradients of another
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            method.on_gradients(ctx)
            torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
            optimizer.step()
            method.after_step(ctx)
        return value

    for step, batch in enumerate(batches):
        ctx.step = step
        value = take(batch)
        if not math.isfinite(value):
            raise MethodFailed(
                f"the loss became {value} in task {ctx.task!r} (position {ctx.position + 1}) at step {step + 1} of "
                f"{training.steps}{KEPT}"
            )
        on_step(step, value)
    return None if adapter is None else backbone.trained(adapter)


_INSIDE = ("optimizer", "loss", "on_gradients", "after_step", "shapes_training")
"""Hooks that run within steps, or say that other code of the method does, such as its forward hooks."""


def _is_captured(dataset: TaskDataset, adapter: AnyAdapter | None, method: Method) -> bool:
    """Whether a step is the same work every time.

    What a method does is not known. Learned tokens are encoded in each step, adapters of PEFT's other kinds convert as
    they go, and checkpointing reads the state of random numbers.
    """
    return (
        isinstance(adapter, Adapter)
        and not dataset.parameters
        and not dataset.backbone.unet.is_gradient_checkpointing
        and all(getattr(type(method), hook) is getattr(Method, hook) for hook in _INSIDE)
    )
