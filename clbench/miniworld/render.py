"""The renderer: signed distances in torch, a whole batch at once, about 0.2 ms an image at 32 x 32.

    pictures = draw(Pictures.photos(shapes, scenes, looks), generator, size=32)   # [N, 3, H, W] in [0, 1]
    images = draw_set(drawn, size=32)                                              # what a suite's task describes

Coordinates run from -1 to 1, x to the right and y down. A shape is two regions: a body, filled with the look's
pattern, and a trim (wheels, eyes, a handle) in the look's trim colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from PIL import Image
from torch import Tensor

from clbench.miniworld.world import COLOURS, EFFECTS, LINES, PATTERNS, SCENES, SHAPES, STYLE_FACTORS
from clbench.suite import Drawn
from clbench.utils.images import to_pil

PALETTE = torch.tensor(list(COLOURS.values()))


@dataclass(frozen=True)
class Pictures:
    """What to draw, as index tensors of shape [N]; `scene` is -1 where the style's own ground is drawn."""

    shape: Tensor
    scene: Tensor
    fill_a: Tensor
    fill_b: Tensor
    pattern: Tensor
    trim: Tensor
    line: Tensor
    ground_a: Tensor
    ground_b: Tensor
    ground_pattern: Tensor
    effect: Tensor

    @classmethod
    def of(cls, shapes: Sequence[str], scenes: Sequence[str | None], looks: Sequence[dict[str, str]]) -> Pictures:
        """From names; factors a look lacks take their first value."""
        columns = {
            factor: torch.tensor([values.index(look.get(factor, values[0])) for look in looks])
            for factor, values in STYLE_FACTORS.items()
        }
        shape = torch.tensor([SHAPES.index(name) for name in shapes])
        scene = torch.tensor([-1 if name is None else SCENES.index(name) for name in scenes])
        return cls(shape=shape, scene=scene, **columns)

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Tensor | slice) -> Pictures:
        return Pictures(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def draw(pictures: Pictures, generator: torch.Generator, size: int = 32) -> Tensor:
    """Pictures in random poses: float32 [N, 3, size, size] in [0, 1]."""
    n = len(pictures)
    pose = torch.rand(n, 4, 1, 1, generator=generator) * 2 - 1
    grain = torch.randn(n, 1, size, size, generator=generator)
    jitter = torch.rand(n, 1, 1, 1, generator=generator) * 0.12 - 0.06
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    x, y = x.expand(n, -1, -1), y.expand(n, -1, -1)

    warp = (pictures.effect == EFFECTS.index("warped")).view(-1, 1, 1) * 0.06
    x, y = x + warp * torch.sin(7 * y), y + warp * torch.sin(7 * x)

    angle, scale = pose[:, 0] * 0.10, 1.0 / (1.05 + pose[:, 1] * 0.10)
    shifted_x, shifted_y = x - pose[:, 2] * 0.07, y - pose[:, 3] * 0.07
    u = (torch.cos(angle) * shifted_x + torch.sin(angle) * shifted_y) * scale * 1.12
    v = (torch.cos(angle) * shifted_y - torch.sin(angle) * shifted_x) * scale * 1.12

    body, trim = torch.empty_like(u), torch.empty_like(u)
    for index in pictures.shape.unique().tolist():
        rows = pictures.shape == index
        body[rows], trim[rows] = _SHAPES[SHAPES[index]](u[rows], v[rows])

    pixel = 2.0 / size
    ground = _two_tone(pictures.ground_a, pictures.ground_b, _pattern(pictures.ground_pattern, x, y))
    for index in pictures.scene.unique().tolist():
        if index >= 0:
            rows = pictures.scene == index
            ground[rows] = _SCENES[SCENES[index]](x[rows], y[rows]) + jitter[rows]
    image = ground
    outline = _outline_width(pictures.line).view(-1, 1, 1)
    pale = (pictures.line == LINES.index("pale")).view(-1, 1, 1, 1)
    ink = torch.where(pale, torch.tensor(0.98), torch.tensor(0.05))
    whole = torch.minimum(body, trim)
    image = _over(image, ink, _cover(whole - outline, pixel) * (outline > 0))
    fill = _two_tone(pictures.fill_a, pictures.fill_b, _pattern(pictures.pattern, u, v))
    image = _over(image, fill, _cover(body, pixel))
    image = _over(image, _colour(pictures.trim), _cover(trim, pixel))
    return _apply_effect(image, pictures.effect, whole, grain).clamp(0, 1)


def draw_set(drawn: Drawn, size: int = 32) -> list[Image.Image]:
    """The images of one entry of a task list, always the same for the same entry."""
    pictures = Pictures.of(drawn.shapes, drawn.scenes or (None,) * len(drawn.shapes), [drawn.look] * len(drawn.shapes))
    return to_pil(draw(pictures, torch.Generator().manual_seed(drawn.seed), size))


# --- colours, patterns, effects -------------------------------------------------------------------------------------


def _colour(index: Tensor) -> Tensor:
    return PALETTE[index].view(-1, 3, 1, 1)


def _cover(distance: Tensor, pixel: float) -> Tensor:
    """Anti-aliased coverage in [0, 1] of the region where the distance is negative."""
    return (0.5 - distance / pixel).clamp(0, 1)


def _over(image: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    return image + (colour - image) * cover.unsqueeze(1)


def _two_tone(a: Tensor, b: Tensor, mix: Tensor) -> Tensor:
    return _colour(a) + (_colour(b) - _colour(a)) * mix.unsqueeze(1)


def _outline_width(line: Tensor) -> Tensor:
    return torch.tensor([0.0, 0.055, 0.12, 0.10])[line]  # in the order of LINES


def _pattern(pattern: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Share of the second colour at each point, [N, H, W] in [0, 1]."""
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
    mix = torch.empty_like(x)
    for index in pattern.unique().tolist():
        rows = pattern == index
        mix[rows] = (waves[PATTERNS[index]](x[rows], y[rows]) * 2 + 0.5).clamp(0, 1)
    return mix


def _blur(image: Tensor) -> Tensor:
    kernel = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])).div(16).expand(3, 1, 3, 3)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    return torch.nn.functional.conv2d(padded, kernel, groups=3)


def _apply_effect(image: Tensor, effect: Tensor, whole: Tensor, grain: Tensor) -> Tensor:
    def emboss(i: Tensor, whole: Tensor, grain: Tensor) -> Tensor:
        gray = i.mean(1, keepdim=True)
        return i * 0.75 + 0.12 + (gray - torch.roll(gray, (1, 1), (2, 3))) * 0.9

    def pixelate(i: Tensor, whole: Tensor, grain: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(i, i.shape[-1] // 16)
        return torch.nn.functional.interpolate(small, size=i.shape[-2:], mode="nearest")

    effects = {
        "clear": lambda i, w, g: i,
        "blurred": lambda i, w, g: _blur(_blur(i)),
        "embossed": emboss,
        "pixelated": pixelate,
        "grainy": lambda i, w, g: i + 0.12 * g,
        "glowing": lambda i, w, g: i + 0.55 * torch.exp(-5 * w.clamp(min=0)).unsqueeze(1) * (w > 0).unsqueeze(1),
        "warped": lambda i, w, g: i,  # already in the coordinates
        "faded": lambda i, w, g: 0.5 * i + 0.42,
    }
    out = torch.empty_like(image)
    for index in effect.unique().tolist():
        rows = effect == index
        out[rows] = effects[EFFECTS[index]](image[rows], whole[rows], grain[rows])
    return out


# --- scenes: (x, y) -> [N, 3, H, W] ---------------------------------------------------------------------------------


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
    return _blend(_rgb(0.72, 0.80, 0.86), _rgb(0.0, 0.0, 0.0), torch.zeros_like(x)) * (y < top).unsqueeze(
        1
    ) + towers * (y >= top).unsqueeze(1)


_SCENES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
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


# --- shapes: (x, y) -> (body, trim) signed distances ----------------------------------------------------------------


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


def _tree(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    top = _polygon(x, y, [(0, -0.8), (0.38, -0.2), (-0.38, -0.2)])
    low = _polygon(x, y, [(0, -0.5), (0.6, 0.42), (-0.6, 0.42)])
    return _union(top, low), _box(x, y, 0, 0.6, 0.12, 0.2)


def _key(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    ring = _minus(_circle(x, y, -0.42, 0, 0.34), _circle(x, y, -0.42, 0, 0.15))
    return _union(ring, _box(x, y, 0.3, 0, 0.45, 0.09)), _union(
        _box(x, y, 0.45, 0.2, 0.07, 0.14), _box(x, y, 0.68, 0.2, 0.07, 0.14)
    )


def _star(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    points = [
        (
            (0.78 if i % 2 == 0 else 0.33) * math.sin(i * math.pi / 5),
            -(0.78 if i % 2 == 0 else 0.33) * math.cos(i * math.pi / 5),
        )
        for i in range(10)
    ]
    return _polygon(x, y, points), _circle(x, y, 0, 0, 0.15)


def _fish(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    tail = _polygon(x, y, [(0.28, 0), (0.8, -0.42), (0.8, 0.42)])
    return _union(_ellipse(x, y, -0.15, 0, 0.6, 0.38), tail), _circle(x, y, -0.45, -0.1, 0.09)


def _car(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    cabin = _polygon(x, y, [(-0.42, 0), (-0.26, -0.42), (0.26, -0.42), (0.46, 0)])
    return _union(_box(x, y, 0, 0.15, 0.78, 0.2, 0.08), cabin), _union(
        _circle(x, y, -0.42, 0.38, 0.2), _circle(x, y, 0.42, 0.38, 0.2)
    )


def _cat(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    ears = _union(
        _polygon(x, y, [(-0.55, -0.75), (-0.1, -0.35), (-0.52, 0)]),
        _polygon(x, y, [(0.55, -0.75), (0.1, -0.35), (0.52, 0)]),
    )
    face = _union(_circle(x, y, -0.22, 0, 0.1), _circle(x, y, 0.22, 0, 0.1), _ellipse(x, y, 0, 0.27, 0.12, 0.07))
    return _union(_ellipse(x, y, 0, 0.1, 0.6, 0.54), ears), face


def _cup(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    body = _polygon(x, y, [(-0.55, -0.5), (0.35, -0.5), (0.25, 0.55), (-0.45, 0.55)])
    handle = _minus(_circle(x, y, 0.42, -0.05, 0.32), _circle(x, y, 0.42, -0.05, 0.17))
    return body, _minus(handle, body)


def _boot(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    body = _polygon(x, y, [(-0.45, -0.7), (0.05, -0.7), (0.08, 0.0), (0.6, 0.15), (0.68, 0.45), (-0.45, 0.45)])
    return body, _box(x, y, 0.1, 0.55, 0.6, 0.1, 0.03)


def _bird(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    body = _union(_ellipse(x, y, 0.05, 0.12, 0.5, 0.34), _circle(x, y, -0.36, -0.28, 0.27))
    tail = _polygon(x, y, [(0.35, 0.05), (0.85, -0.25), (0.8, 0.2)])
    trim = _union(
        _polygon(x, y, [(-0.58, -0.4), (-0.88, -0.24), (-0.58, -0.14)]), _line(x, y, 0.0, 0.45, 0.0, 0.7, 0.05)
    )
    return _union(body, tail), _union(trim, _line(x, y, 0.2, 0.45, 0.2, 0.7, 0.05))


def _umbrella(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    dome = torch.maximum(_circle(x, y, 0, 0.05, 0.74), y - 0.0)
    hook = _minus(_circle(x, y, 0.13, 0.6, 0.19), _circle(x, y, 0.13, 0.6, 0.08))
    return dome, _union(_box(x, y, 0, 0.3, 0.055, 0.3), torch.maximum(hook, 0.6 - y))


def _bottle(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return _union(_box(x, y, 0, 0.25, 0.33, 0.5, 0.12), _box(x, y, 0, -0.35, 0.13, 0.25)), _box(
        x, y, 0, -0.7, 0.17, 0.12, 0.03
    )


def _rocket(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    body = _union(_polygon(x, y, [(0, -0.85), (0.26, -0.3), (-0.26, -0.3)]), _box(x, y, 0, 0.08, 0.26, 0.42))
    fins = _union(
        _polygon(x, y, [(-0.26, 0.1), (-0.58, 0.68), (-0.26, 0.5)]),
        _polygon(x, y, [(0.26, 0.1), (0.58, 0.68), (0.26, 0.5)]),
    )
    return _union(body, fins), _union(
        _circle(x, y, 0, -0.15, 0.14), _polygon(x, y, [(-0.14, 0.52), (0.14, 0.52), (0, 0.85)])
    )


def _flower(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    petals = [
        _circle(x, y, 0.38 * math.sin(k * math.pi / 3), -0.2 - 0.38 * math.cos(k * math.pi / 3), 0.23) for k in range(6)
    ]
    return _union(*petals), _union(_circle(x, y, 0, -0.2, 0.2), _box(x, y, 0, 0.6, 0.06, 0.25))


def _house(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    roof = _polygon(x, y, [(0, -0.75), (0.72, -0.12), (-0.72, -0.12)])
    return _union(_box(x, y, 0, 0.25, 0.52, 0.42), roof), _union(
        _box(x, y, -0.18, 0.42, 0.13, 0.25), _box(x, y, 0.24, 0.2, 0.12, 0.12)
    )


def _hat(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    crown = _box(x, y, 0, -0.15, 0.38, 0.45, 0.06)
    return _union(crown, _ellipse(x, y, 0, 0.38, 0.78, 0.17)), _box(x, y, 0, 0.13, 0.385, 0.1)


def _mushroom(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    cap = torch.maximum(_ellipse(x, y, 0, 0.05, 0.7, 0.68), y - 0.05)
    return cap, _box(x, y, 0, 0.38, 0.2, 0.34, 0.08)


def _lamp(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    shade = _polygon(x, y, [(-0.28, -0.75), (0.28, -0.75), (0.58, -0.05), (-0.58, -0.05)])
    return shade, _union(_box(x, y, 0, 0.3, 0.06, 0.36), _ellipse(x, y, 0, 0.68, 0.36, 0.1))


def _boat(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    sail = _polygon(x, y, [(0.06, -0.8), (0.62, 0.1), (0.06, 0.1)])
    jib = _polygon(x, y, [(-0.08, -0.55), (-0.08, 0.1), (-0.48, 0.1)])
    return _union(sail, jib), _polygon(x, y, [(-0.78, 0.24), (0.78, 0.24), (0.5, 0.64), (-0.5, 0.64)])


def _heart(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    lobes = _union(_circle(x, y, -0.31, -0.25, 0.36), _circle(x, y, 0.31, -0.25, 0.36))
    return _union(lobes, _polygon(x, y, [(-0.63, -0.1), (0, -0.32), (0.63, -0.1), (0, 0.7)])), _circle(
        x, y, -0.33, -0.3, 0.11
    )


def _crown(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    points = [(-0.65, 0.35), (-0.7, -0.5), (-0.33, -0.1), (0, -0.65), (0.33, -0.1), (0.7, -0.5), (0.65, 0.35)]
    return _polygon(x, y, points), _box(x, y, 0, 0.45, 0.65, 0.13)


_SHAPES: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "tree": _tree,
    "key": _key,
    "star": _star,
    "fish": _fish,
    "car": _car,
    "cat": _cat,
    "cup": _cup,
    "boot": _boot,
    "bird": _bird,
    "umbrella": _umbrella,
    "bottle": _bottle,
    "rocket": _rocket,
    "flower": _flower,
    "house": _house,
    "hat": _hat,
    "mushroom": _mushroom,
    "lamp": _lamp,
    "boat": _boat,
    "heart": _heart,
    "crown": _crown,
}
