"""Backgrounds of photos: functions from coordinates x and y [N, H, W] to colours [N, 3, H, W]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _rgb(*colour: float) -> Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1)


def _blend(low: Tensor, high: Tensor, mix: Tensor) -> Tensor:
    return low + (high - low) * mix.clamp(0, 1).unsqueeze(1)


def _horizon(sky: Tensor, land: Tensor, level: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: _blend(sky, land, (y - level) * 12 + 0.5)


def _snow(x: Tensor, y: Tensor) -> Tensor:
    flakes = torch.sin(9 * x + 4 * torch.sin(5 * y)) * torch.sin(10 * y + 3 * x) * 4 - 2.6
    ground = _blend(_rgb(0.62, 0.75, 0.90), _rgb(0.97, 0.98, 1.0), (y - 0.35) * 12 + 0.5)
    return _blend(ground, _rgb(1.0, 1.0, 1.0), flakes)


def _night(x: Tensor, y: Tensor) -> Tensor:
    stars = torch.sin(13 * x + 5 * y) * torch.sin(12 * y - 4 * x) * 8 - 6.2
    ground = _blend(_rgb(0.05, 0.06, 0.20), _rgb(0.10, 0.10, 0.12), (y - 0.5) * 12 + 0.5)
    return _blend(ground, _rgb(1.0, 0.97, 0.7), stars * (y < 0.45))


def _brick(x: Tensor, y: Tensor) -> Tensor:
    row = torch.floor(y * 4)
    joint = torch.minimum((y * 4 - row - 0.5).abs(), ((x * 2 + 0.5 * (row % 2)) % 1 - 0.5).abs() * 2)
    return _blend(_rgb(0.80, 0.76, 0.70), _rgb(0.66, 0.30, 0.22), (joint.mul(-1) + 0.42) * 12)


def _wood(x: Tensor, y: Tensor) -> Tensor:
    plank = ((x * 2.5) % 1 - 0.5).abs()
    veins = torch.sin(22 * x + 2 * torch.sin(3 * y)) * 0.25 + 0.5
    return _blend(_blend(_rgb(0.60, 0.40, 0.22), _rgb(0.74, 0.53, 0.31), veins), _rgb(0.3, 0.18, 0.1), plank * 20 - 9)


def _city(x: Tensor, y: Tensor) -> Tensor:
    block = torch.floor((x + 1) * 3)
    top = 0.2 * torch.sin(block * 12.9 + 1.0) - 0.35
    windows = (torch.sin(19 * x) * torch.sin(16 * y)) * 3 - 1
    towers = _blend(_rgb(0.30, 0.32, 0.38), _rgb(0.85, 0.80, 0.50), windows)
    return torch.where((y < top).unsqueeze(1), _rgb(0.72, 0.80, 0.86), towers)


SCENE_FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "snow": _snow,
    "night": _night,
    "beach": lambda x, y: _blend(
        _blend(_rgb(0.45, 0.80, 0.95), _rgb(0.10, 0.45, 0.75), (y + 0.1) * 12), _rgb(0.93, 0.84, 0.60), (y - 0.3) * 12
    ),
    "meadow": _horizon(_rgb(0.66, 0.86, 0.98), _rgb(0.36, 0.68, 0.25), 0.1),
    "desert": _horizon(_rgb(0.97, 0.66, 0.36), _rgb(0.86, 0.68, 0.42), 0.2),
    "brick": _brick,
    "wood": _wood,
    "city": _city,
    "sea": lambda x, y: _blend(
        _rgb(0.08, 0.30, 0.60), _rgb(0.25, 0.60, 0.80), torch.sin(11 * y + 1.5 * torch.sin(5 * x))
    ),
    "studio": lambda x, y: _blend(_rgb(0.86, 0.86, 0.85), _rgb(0.66, 0.66, 0.66), (y + 1) / 2),
}
