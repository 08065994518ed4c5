"""Draw the patterns and effects of looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from clbench.miniworld.world import EFFECTS, PATTERNS


def pattern_mix(pattern: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Share of the second colour at each point, [N, H, W] in [0, 1]; `pattern` indexes `PATTERNS`, [N]."""
    waves = {
        "plain": lambda x, y: torch.full_like(x, -9.0),
        "striped": lambda x, y: torch.sin(16 * y),
        "barred": lambda x, y: torch.sin(16 * x),
        "diagonal": lambda x, y: torch.sin(11.5 * (x + y)),
        "dotted": lambda x, y: torch.sin(11 * x) * torch.sin(11 * y) * 2.2 - 0.9,
        "checked": lambda x, y: torch.sin(9 * x) * torch.sin(9 * y) * 2,
        "wavy": lambda x, y: torch.sin(14 * y + 2.2 * torch.sin(8 * x)),
        "ringed": lambda x, y: torch.sin(16 * torch.sqrt(x * x + y * y + 1e-6)),
    }
    return (_by_row(pattern, PATTERNS, waves, x, y) * 2 + 0.5).clamp(0, 1)


def _blur(image: Tensor) -> Tensor:
    kernel = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])).div(16).expand(3, 1, 3, 3)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    return torch.nn.functional.conv2d(padded, kernel, groups=3)


def apply_effect(effect: Tensor, image: Tensor, distance: Tensor, grain: Tensor) -> Tensor:
    """Images with their effects applied; `effect` indexes `EFFECTS`, [N].

    Args:
        image: [N, 3, H, W].
        distance: signed distance to the whole shape, [N, H, W].
        grain: Gaussian noise, [N, 1, H, W].
    """

    def emboss(i: Tensor, distance: Tensor, grain: Tensor) -> Tensor:
        gray = i.mean(1, keepdim=True)
        return i * 0.75 + 0.12 + (gray - torch.roll(gray, (1, 1), (2, 3))) * 0.9

    def pixelate(i: Tensor, distance: Tensor, grain: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(i, i.shape[-1] // 16)
        return torch.nn.functional.interpolate(small, size=i.shape[-2:], mode="nearest")

    effects = {
        "clear": lambda i, d, g: i,
        "blurred": lambda i, d, g: _blur(_blur(i)),
        "embossed": emboss,
        "pixelated": pixelate,
        "grainy": lambda i, d, g: i + 0.12 * g,
        "glowing": lambda i, d, g: i + 0.55 * torch.exp(-5 * d.clamp(min=0)).unsqueeze(1) * (d > 0).unsqueeze(1),
        "warped": lambda i, d, g: i,  # `draw` has warped the coordinates
        "faded": lambda i, d, g: 0.5 * i + 0.42,
    }
    return _by_row(effect, EFFECTS, effects, image, distance, grain)


def _by_row(
    index: Tensor, names: Sequence[str], functions: Mapping[str, Callable[..., Tensor]], *inputs: Tensor
) -> Tensor:
    """Apply to each row of the inputs the function named by the row's index."""
    out = torch.empty_like(inputs[0])
    for value in map(int, index.unique()):
        rows = index == value
        out[rows] = functions[names[value]](*(values[rows] for values in inputs))
    return out
