"""Shapes of objects: functions from coordinates x and y [N, H, W] to the signed distances of a body and a trim.

Distances are in the units of the coordinates, and negative inside. The trim has a colour of its own: wheels, eyes, a
handle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def _circle(x: Tensor, y: Tensor, cx: float, cy: float, r: float) -> Tensor:
    return torch.sqrt((x - cx) ** 2 + (y - cy) ** 2 + 1e-9) - r


def _ellipse(x: Tensor, y: Tensor, cx: float, cy: float, a: float, b: float) -> Tensor:
    return (torch.sqrt(((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + 1e-9) - 1) * min(a, b)


def _box(x: Tensor, y: Tensor, cx: float, cy: float, hx: float, hy: float, r: float = 0.0) -> Tensor:
    dx, dy = (x - cx).abs() - hx + r, (y - cy).abs() - hy + r
    outside = torch.sqrt(dx.clamp(min=0) ** 2 + dy.clamp(min=0) ** 2 + 1e-9)
    return outside + torch.maximum(dx, dy).clamp(max=0) - r


def _line(x: Tensor, y: Tensor, ax: float, ay: float, bx: float, by: float, r: float) -> Tensor:
    dx, dy = bx - ax, by - ay
    t = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return torch.sqrt((x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2 + 1e-9) - r


def _polygon(x: Tensor, y: Tensor, points: Sequence[tuple[float, float]]) -> Tensor:
    """Exact signed distance to a simple polygon."""
    nearest = torch.full_like(x, 1e9)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
        nearest = torch.minimum(nearest, _line(x, y, ax, ay, bx, by, 0.0))
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return torch.where(inside, -nearest, nearest)


def _union(*parts: Tensor) -> Tensor:
    out = parts[0]
    for part in parts[1:]:
        out = torch.minimum(out, part)
    return out


def _minus(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a, -b)


def tree(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    top = _polygon(x, y, [(0, -0.8), (0.38, -0.2), (-0.38, -0.2)])
    low = _polygon(x, y, [(0, -0.5), (0.6, 0.42), (-0.6, 0.42)])
    return _union(top, low), _box(x, y, 0, 0.6, 0.12, 0.2)


def key(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    ring = _minus(_circle(x, y, -0.42, 0, 0.34), _circle(x, y, -0.42, 0, 0.15))
    return _union(ring, _box(x, y, 0.3, 0, 0.45, 0.09)), _union(
        _box(x, y, 0.45, 0.2, 0.07, 0.14), _box(x, y, 0.68, 0.2, 0.07, 0.14)
    )


def star(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    radii = [0.78, 0.33] * 5
    points = [(r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)]
    return _polygon(x, y, points), _circle(x, y, 0, 0, 0.15)


def fish(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    tail = _polygon(x, y, [(0.28, 0), (0.8, -0.42), (0.8, 0.42)])
    return _union(_ellipse(x, y, -0.15, 0, 0.6, 0.38), tail), _circle(x, y, -0.45, -0.1, 0.09)


def car(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    cabin = _polygon(x, y, [(-0.42, 0), (-0.26, -0.42), (0.26, -0.42), (0.46, 0)])
    return _union(_box(x, y, 0, 0.15, 0.78, 0.2, 0.08), cabin), _union(
        _circle(x, y, -0.42, 0.38, 0.2), _circle(x, y, 0.42, 0.38, 0.2)
    )


def cat(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    ears = _union(
        _polygon(x, y, [(-0.55, -0.75), (-0.1, -0.35), (-0.52, 0)]),
        _polygon(x, y, [(0.55, -0.75), (0.1, -0.35), (0.52, 0)]),
    )
    face = _union(_circle(x, y, -0.22, 0, 0.1), _circle(x, y, 0.22, 0, 0.1), _ellipse(x, y, 0, 0.27, 0.12, 0.07))
    return _union(_ellipse(x, y, 0, 0.1, 0.6, 0.54), ears), face


def cup(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    body = _polygon(x, y, [(-0.55, -0.5), (0.35, -0.5), (0.25, 0.55), (-0.45, 0.55)])
    handle = _minus(_circle(x, y, 0.42, -0.05, 0.32), _circle(x, y, 0.42, -0.05, 0.17))
    return body, _minus(handle, body)


def boot(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    body = _polygon(x, y, [(-0.45, -0.7), (0.05, -0.7), (0.08, 0.0), (0.6, 0.15), (0.68, 0.45), (-0.45, 0.45)])
    return body, _box(x, y, 0.1, 0.55, 0.6, 0.1, 0.03)


def bird(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    body = _union(_ellipse(x, y, 0.05, 0.12, 0.5, 0.34), _circle(x, y, -0.36, -0.28, 0.27))
    tail = _polygon(x, y, [(0.35, 0.05), (0.85, -0.25), (0.8, 0.2)])
    trim = _union(
        _polygon(x, y, [(-0.58, -0.4), (-0.88, -0.24), (-0.58, -0.14)]), _line(x, y, 0.0, 0.45, 0.0, 0.7, 0.05)
    )
    return _union(body, tail), _union(trim, _line(x, y, 0.2, 0.45, 0.2, 0.7, 0.05))


def umbrella(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    dome = torch.maximum(_circle(x, y, 0, 0.05, 0.74), y - 0.0)
    hook = _minus(_circle(x, y, 0.13, 0.6, 0.19), _circle(x, y, 0.13, 0.6, 0.08))
    return dome, _union(_box(x, y, 0, 0.3, 0.055, 0.3), torch.maximum(hook, 0.6 - y))


def bottle(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return _union(_box(x, y, 0, 0.25, 0.33, 0.5, 0.12), _box(x, y, 0, -0.35, 0.13, 0.25)), _box(
        x, y, 0, -0.7, 0.17, 0.12, 0.03
    )


def rocket(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    body = _union(_polygon(x, y, [(0, -0.85), (0.26, -0.3), (-0.26, -0.3)]), _box(x, y, 0, 0.08, 0.26, 0.42))
    fins = _union(
        _polygon(x, y, [(-0.26, 0.1), (-0.58, 0.68), (-0.26, 0.5)]),
        _polygon(x, y, [(0.26, 0.1), (0.58, 0.68), (0.26, 0.5)]),
    )
    return _union(body, fins), _union(
        _circle(x, y, 0, -0.15, 0.14), _polygon(x, y, [(-0.14, 0.52), (0.14, 0.52), (0, 0.85)])
    )


def flower(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    petals = [
        _circle(x, y, 0.38 * math.sin(k * math.pi / 3), -0.2 - 0.38 * math.cos(k * math.pi / 3), 0.23) for k in range(6)
    ]
    return _union(*petals), _union(_circle(x, y, 0, -0.2, 0.2), _box(x, y, 0, 0.6, 0.06, 0.25))


def house(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    roof = _polygon(x, y, [(0, -0.75), (0.72, -0.12), (-0.72, -0.12)])
    return _union(_box(x, y, 0, 0.25, 0.52, 0.42), roof), _union(
        _box(x, y, -0.18, 0.42, 0.13, 0.25), _box(x, y, 0.24, 0.2, 0.12, 0.12)
    )


def hat(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    crown = _box(x, y, 0, -0.15, 0.38, 0.45, 0.06)
    return _union(crown, _ellipse(x, y, 0, 0.38, 0.78, 0.17)), _box(x, y, 0, 0.13, 0.385, 0.1)


def mushroom(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    cap = torch.maximum(_ellipse(x, y, 0, 0.05, 0.7, 0.68), y - 0.05)
    return cap, _box(x, y, 0, 0.38, 0.2, 0.34, 0.08)


def lamp(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    shade = _polygon(x, y, [(-0.28, -0.75), (0.28, -0.75), (0.58, -0.05), (-0.58, -0.05)])
    return shade, _union(_box(x, y, 0, 0.3, 0.06, 0.36), _ellipse(x, y, 0, 0.68, 0.36, 0.1))


def boat(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    sail = _polygon(x, y, [(0.06, -0.8), (0.62, 0.1), (0.06, 0.1)])
    jib = _polygon(x, y, [(-0.08, -0.55), (-0.08, 0.1), (-0.48, 0.1)])
    return _union(sail, jib), _polygon(x, y, [(-0.78, 0.24), (0.78, 0.24), (0.5, 0.64), (-0.5, 0.64)])


def heart(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    lobes = _union(_circle(x, y, -0.31, -0.25, 0.36), _circle(x, y, 0.31, -0.25, 0.36))
    return _union(lobes, _polygon(x, y, [(-0.63, -0.1), (0, -0.32), (0.63, -0.1), (0, 0.7)])), _circle(
        x, y, -0.33, -0.3, 0.11
    )


def crown(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    points = [(-0.65, 0.35), (-0.7, -0.5), (-0.33, -0.1), (0, -0.65), (0.33, -0.1), (0.7, -0.5), (0.65, 0.35)]
    return _polygon(x, y, points), _box(x, y, 0, 0.45, 0.65, 0.13)


SHAPE_FUNCTIONS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    function.__name__: function
    for function in (
        tree, key, star, fish, car, cat, cup, boot, bird, umbrella, bottle, rocket,
        flower, house, hat, mushroom, lamp, boat, heart, crown,
    )
}  # fmt: skip
