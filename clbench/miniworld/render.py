"""Draw pictures of the mini world from signed distances, in batches: about 0.2 ms for an image of 32 x 32 pixels.

    images = draw(PictureBatch.from_names(shapes, scenes, looks), generator, size=32)   # [N, 3, H, W] in [0, 1]
    images = draw_set(drawn, size=32)                                     # the images of an entry in a task list

Coordinates run from -1 to 1, x to the right and y down. A shape has two regions: a body, filled with the look's
pattern, and a trim (wheels, eyes, a handle) in the look's trim colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from clbench.miniworld.looks import apply_effect, pattern_mix
from clbench.miniworld.scenes import SCENE_FUNCTIONS
from clbench.miniworld.shapes import SHAPE_FUNCTIONS
from clbench.miniworld.world import COLOURS, EFFECTS, LINES, SCENES, SHAPES, STYLE_FACTORS
from clbench.suite import DrawnImages
from clbench.utils.images import to_pil

PALETTE = torch.tensor(list(COLOURS.values()))


@dataclass(frozen=True)
class PictureBatch:
    """The pictures to draw, as index tensors [N]; `scene` is -1 for a picture with its look's own ground."""

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
    def from_names(
        cls, shapes: Sequence[str], scenes: Sequence[str | None], looks: Sequence[dict[str, str]]
    ) -> PictureBatch:
        """Pictures from names; without a scene the look's ground is drawn, and a missing factor has its first value."""
        columns = {
            factor: torch.tensor([values.index(look.get(factor, values[0])) for look in looks])
            for factor, values in STYLE_FACTORS.items()
        }
        shape = torch.tensor([SHAPES.index(name) for name in shapes])
        scene = torch.tensor([-1 if name is None else SCENES.index(name) for name in scenes])
        return cls(shape=shape, scene=scene, **columns)


def draw(pictures: PictureBatch, generator: torch.Generator, size: int = 32) -> Tensor:
    """Draw pictures in random poses: float32 [N, 3, size, size] in [0, 1]."""
    n = len(pictures.shape)
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
        body[rows], trim[rows] = SHAPE_FUNCTIONS[SHAPES[index]](u[rows], v[rows])

    pixel = 2.0 / size
    ground = _two_tone(pictures.ground_a, pictures.ground_b, pattern_mix(pictures.ground_pattern, x, y))
    for index in pictures.scene.unique().tolist():
        if index >= 0:
            rows = pictures.scene == index
            ground[rows] = SCENE_FUNCTIONS[SCENES[index]](x[rows], y[rows]) + jitter[rows]
    image = ground
    outline = _outline_width(pictures.line).view(-1, 1, 1)
    pale = (pictures.line == LINES.index("pale")).view(-1, 1, 1, 1)
    ink = torch.where(pale, torch.tensor(0.98), torch.tensor(0.05))
    whole = torch.minimum(body, trim)
    image = _over(image, ink, _cover(whole - outline, pixel) * (outline > 0))
    fill = _two_tone(pictures.fill_a, pictures.fill_b, pattern_mix(pictures.pattern, u, v))
    image = _over(image, fill, _cover(body, pixel))
    image = _over(image, _colour(pictures.trim), _cover(trim, pixel))
    return apply_effect(pictures.effect, image, whole, grain).clamp(0, 1)


def draw_set(drawn: DrawnImages, size: int = 32) -> list[Image.Image]:
    """The images of an entry in a task list; the same entry always gives the same images."""
    pictures = PictureBatch.from_names(
        drawn.shapes, drawn.scenes or (None,) * len(drawn.shapes), [drawn.look] * len(drawn.shapes)
    )
    return to_pil(draw(pictures, torch.Generator().manual_seed(drawn.seed), size))


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
