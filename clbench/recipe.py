"""How a suite trains every task and draws every image: the part of its definition that methods see too."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FrozenModel(BaseModel):
    """An immutable record that rejects unknown fields, NaN and infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Training(FrozenModel):
    """How every task is trained (DreamBooth with LoRA)."""

    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    init: Literal["gaussian"] = "gaussian"
    """Initialisation of the default adapter: PEFT's `gaussian`, A ~ N(0, (1/r)^2) and B = 0."""
    targets: tuple[str, ...]
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float | None = Field(default=None, gt=0)
    """AdamW's epsilon; None = 1e-8. A large one makes the steps of entries with small gradients smaller."""
    balanced_batches: bool | None = None
    """True: batches go through the images in turn, all equally often. Else images are drawn at random."""
    stratified_timesteps: bool | None = None
    """True: a batch of n has one timestep from each n-th of the range. Else its timesteps are independent."""
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    budget: float | None = Field(default=None, ge=1)
    """The most U-Net passes with a gradient that a method may take for a task, in multiples of `passes`; None = 2."""
    adapted_layers: int | None = None
    """Number of layers that `targets` must match, to detect another architecture."""
    adapter_parameters: int | None = None
    """Number of values that one adapter must have."""

    @property
    def passes(self) -> int:
        """U-Net passes of one image in a task's training: its steps times its batch size."""
        return self.steps * self.batch_size

    @property
    def most_passes(self) -> int:
        """The passes with a gradient that a method may take for a task, in its training and its hooks."""
        return int(self.passes * (2.0 if self.budget is None else self.budget))


class Sampling(FrozenModel):
    """How the images for the evaluation are generated."""

    steps: int = Field(gt=0)
    guidance_scale: float = Field(ge=1)
    images_per_prompt: int = Field(gt=0)
    noise_seed: int
    """Seed of the initial noise, which is the same for every prompt, task, model and method."""
    scheduler: Literal["EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"] | None = None
    """The sampler; None = the one that the model's folder names."""

    @property
    def passes_a_step(self) -> int:
        """U-Net passes of each image in a step of the sampler: with its prompt, and without where there is guidance."""
        return 2 if self.guidance_scale > 1 else 1
