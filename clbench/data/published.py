"""What is known of published models that are not here yet: what a plan needs of them, and how large they are.

`published/<hub id>/` has the configurations of the models that a plan counts with, and no weights.
"""

from __future__ import annotations

from pathlib import Path

SIZES = {
    "stabilityai/stable-diffusion-xl-base-1.0": 13_544_000_000,
    "segmind/SSD-1B": 8_596_427_224,
    "madebyollin/sdxl-vae-fp16-fix": 334_643_268,
    "timm/vit_base_patch32_clip_224.openai": 605_143_284,
    "facebook/dino-vits16": 86_700_000,
    "yuxi-liu-wired/CSD": 1_219_000_000,
}
"""Hub id -> bytes of the files that a suite takes of it, one of each where formats are alternatives. Counted from the
numbers of fp32 parameters where the hub's own size is not on record (SSD-1B, DINO, CSD)."""

LICENCES = {
    "hub:stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
    "hub:segmind/SSD-1B": "apache-2.0",
    "bundled:pipeline": "apache-2.0",
}
"""Source of a base model -> the licence, as the hub names it, under which what is made of it may be published."""


def published_configuration(hub_id: str) -> Path | None:
    """A folder with the model's configurations, as its repository has them; None if they are not on record."""
    folder = Path(__file__).with_name("published") / hub_id
    return folder if folder.is_dir() else None
