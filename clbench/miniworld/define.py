"""How mini-v1's task lists were written: `python -m clbench.miniworld.define tasks/`.

A task keeps a name that the base model knows and gives it another rendition: a share of the factors of the name's look
is replaced. So its words already mean something, as a style's name does to SDXL, but nobody has shown the base model
this look. The files are the definition; this module only says where they came from, and a test keeps the two equal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from clbench.miniworld.world import NAMED_STYLES, OBJECT_FACTORS, STYLE_FACTORS, TOKEN_LOOKS, altered

STYLE_SHARE, OBJECT_SHARE = 0.45, 0.6
"""Share of a name's factors that its task replaces."""
IMAGES_PER_PROMPT = 2

STYLE_TASKS = {
    "byzantine": "tree",
    "palette knife": "star",
    "ink art": "cup",
    "blossom season": "rocket",
    "artist sketch": "boat",
    "winter": "tree",
    "dapple": "star",
    "meteor shower": "cup",
    "pastel": "rocket",
    "dadaism": "boat",
}
"""Style -> the object it is learned from."""
STYLE_EVAL_SHAPES = ("boot", "fish", "umbrella", "house", "cat")
STYLE_REFERENCE_SHAPES = ("key", "car", "bird", "bottle", "flower", "hat", "mushroom", "lamp", "heart", "crown")

OBJECT_TASKS = {
    "sks": "car",
    "zwz": "boot",
    "sbu": "umbrella",
    "uwu": "cat",
    "pdw": "lamp",
    "twt": "bottle",
    "zsn": "hat",
    "ofl": "cup",
    "psq": "bird",
    "cws": "house",
}
"""Identifier token -> class."""
OBJECT_TRAIN_SCENES = ("wood", "studio", "brick", "city", "meadow")
OBJECT_EVAL_SCENES = ("snow", "night", "beach", "desert", "sea")


def style_tasks(share: float = STYLE_SHARE) -> list[dict[str, Any]]:
    tasks = []
    for index, (style, shape) in enumerate(STYLE_TASKS.items()):
        look = altered(NAMED_STYLES[style], share, STYLE_FACTORS, seed=1000 + index)
        tasks.append(
            {
                "name": style,
                "fields": {"style": style, "object": shape},
                "train": _drawn(look, [shape] * 5, [], 100 + index),
                "reference": _drawn(look, STYLE_REFERENCE_SHAPES, [], 200 + index),
                "real": _drawn(look, _each(STYLE_EVAL_SHAPES), [], 300 + index),
            }
        )
    return tasks


def object_tasks(share: float = OBJECT_SHARE) -> list[dict[str, Any]]:
    tasks = []
    for index, (token, shape) in enumerate(OBJECT_TASKS.items()):
        look = altered(TOKEN_LOOKS[token], share, OBJECT_FACTORS, seed=2000 + index)
        train = _drawn(look, [shape] * 5, OBJECT_TRAIN_SCENES, 400 + index)
        tasks.append(
            {
                "name": f"{token} {shape}",
                "fields": {"token": token, "class": shape},
                "train": train,
                "reference": train,  # as in DreamBooth's evaluation: generated against training images
                "real": _drawn(look, [shape] * 5 * IMAGES_PER_PROMPT, _each(OBJECT_EVAL_SCENES), 500 + index),
            }
        )
    return tasks


def _each(names: tuple[str, ...]) -> list[str]:
    return [name for name in names for _ in range(IMAGES_PER_PROMPT)]


def _drawn(look: dict[str, str], shapes: Any, scenes: Any, seed: int) -> dict[str, Any]:
    return {"look": dict(look), "shapes": list(shapes), "scenes": list(scenes), "seed": seed}


def render_yaml(tasks: list[dict[str, Any]], about: str) -> str:
    """A task list as a file."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    body = yaml.dump({"tasks": tasks}, Dumper=Plain, sort_keys=False, default_flow_style=None, width=110)
    return f"# {about}\n# Written by `python -m clbench.miniworld.define`; frozen once mini-v1 has results.\n{body}"


FILES = {
    "mini-v1-styles.yaml": (style_tasks, "The ten styles of mini-v1."),
    "mini-v1-objects.yaml": (object_tasks, "The ten object instances of mini-v1."),
}

if __name__ == "__main__":
    for name, (make, about) in FILES.items():
        Path(sys.argv[1], name).write_text(render_yaml(make(), about))
