"""A U-Net in half precision, beside an adapter whose factors are trained in fp32.

In every pass the U-Net computes with copies of the factors in its own type, all made at once, so that no layer converts
anything. What a pass gives is fp32, and gradients reach the fp32 factors and text embeddings through the copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from clbench.backbones.architecture import set_precision

GRADIENT_SCALE = {torch.float16: 2.0**12}
"""By what gradients are multiplied while they are in a type that rounds small ones to zero; a guess, which leaves them
as much room above as below."""


class HalfPrecision:
    """Runs a U-Net, whose own weights it converts.

    Args:
        dtype: bfloat16 or float16.
    """

    def __init__(self, unet: Any, dtype: torch.dtype, gradient_checkpointing: bool = False) -> None:
        self.unet, self.dtype, self._scale = unet, dtype, GRADIENT_SCALE.get(dtype, 1.0)
        set_precision(unet, dtype)
        self._prefixes = {module: f"{name}." for name, module in unet.named_modules()}
        self._copies: dict[str, Tensor] = {}
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing(self._recomputed)

    def __call__(
        self,
        inputs: tuple[Tensor, Tensor, Tensor],
        conditions: Mapping[str, Tensor],
        factors: Mapping[str, Tensor],
        others: Mapping[str, Tensor],
    ) -> Tensor:
        """The U-Net's prediction, fp32 [N, C, h, w].

        Args:
            inputs: noisy latents, time steps, and the prompts' hidden states.
            factors: name of a parameter -> the fp32 values that stand for it.
            others: parameters of the U-Net's own type that replace its own.
        """
        self._copies = {**dict(zip(factors, self._lowered([*factors.values()]), strict=True)), **others}
        noisy, timesteps, hidden = inputs
        hidden, pooled = self._lowered([hidden, conditions["text_embeds"]])
        lowered, options = (noisy.to(self.dtype), timesteps, hidden), {**conditions, "text_embeds": pooled}
        try:
            predicted = functional_call(
                self.unet, self._copies, lowered, {"added_cond_kwargs": options}, tie_weights=False
            ).sample
        finally:
            self._copies = {}
        predicted = predicted.float()
        if self._scale != 1 and predicted.requires_grad:
            predicted.register_hook(lambda gradient: gradient * self._scale)
        return predicted

    def _lowered(self, values: Sequence[Tensor]) -> list[Tensor]:
        """fp32 values in the U-Net's type, converted together."""
        if not values:
            return []
        joined = torch.cat([value.flatten() for value in values])
        if self._scale != 1 and joined.requires_grad:
            joined.register_hook(lambda gradient: gradient / self._scale)
        parts = joined.to(self.dtype).split([value.numel() for value in values])
        return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]

    def _recomputed(self, block: nn.Module, *inputs: Any) -> Any:
        """Run a block that the backward pass runs again, then with the same copies."""
        prefix = self._prefixes[block]
        own = {name.removeprefix(prefix): copy for name, copy in self._copies.items() if name.startswith(prefix)}
        return checkpoint(functional_call, block, own, inputs, tie_weights=False, use_reentrant=False)
