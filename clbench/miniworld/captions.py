"""Captioned pictures of the mini world, drawn at random: what every pretraining stage sees."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from clbench.miniworld.render import PictureBatch
from clbench.miniworld.world import (
    COLOURS,
    EFFECTS,
    LINES,
    NAMED_STYLES,
    OBJECT_FACTORS,
    PATTERNS,
    SCENES,
    SHAPES,
    STYLE_FACTORS,
    STYLE_NAMES,
    TOKEN_LOOKS,
    TOKENS,
    random_look,
)

Look = dict[str, str]


@lru_cache
def look_pool(kind: str, seed: int = 77, count: int = 20_000) -> list[Look]:
    """Random visible looks ("object" or "style"), drawn once a process: afresh they would cost more than rendering."""
    rng = random.Random(f"{kind}-{seed}")
    return [random_look(rng, STYLE_FACTORS if kind == "style" else OBJECT_FACTORS) for _ in range(count)]


def vocabulary() -> list[str]:
    """Every word a caption can hold."""
    names = " ".join([*STYLE_NAMES, *TOKENS, *SHAPES, *SCENES, *COLOURS, *PATTERNS, *LINES, *EFFECTS])
    return sorted(
        {
            *names.split(),
            *[
                "a",
                "an",
                "photo",
                "image",
                "of",
                "in",
                "the",
                "and",
                "on",
                "with",
                "trim",
                "wearing",
                "looking",
                "into",
            ],
        }
    )


@dataclass(frozen=True)
class CaptionMix:
    """Shares of the kinds of pictures; what is left are pictures in random styles, captioned by their attributes."""

    named: float = 0.38
    """Stylised pictures captioned by their style's name."""
    marked: float = 0.29
    """Photos of objects with an identifier token's look, captioned by the token."""
    photos: float = 0.22
    """Photos of objects with a random look, captioned by some of its attributes."""
    detail: float = 0.5
    """How likely each attribute is named."""
    scenes: float = 0.65
    """How likely the caption of a photo with a random look names the scene."""


def _described(rng: random.Random, look: Look, shape: str, detail: float) -> str:
    """`bold dotted red blue boot white trim`, each attribute named with probability `detail`."""
    words = [look["line"]] if look["line"] != "none" and rng.random() < detail else []
    patterned = look["pattern"] != "plain"
    if patterned and rng.random() < detail:
        words.append(look["pattern"])
    if rng.random() < detail:
        words.append(look["fill_a"])
        if patterned and rng.random() < detail:
            words.append(look["fill_b"])
    words.append(shape)
    if rng.random() < detail * 0.7:
        words += [look["trim"], "trim"]
    return " ".join(words)


def _photo(rng: random.Random, look: Look, shape: str, scene: str, mix: CaptionMix) -> str:
    thing = _described(rng, look, shape, mix.detail)
    if rng.random() >= mix.scenes:
        return f"a photo of a {thing}"
    return f"{'a photo of a' if rng.random() < 0.25 else 'a'} {thing} in the {scene}"


def _described_style(rng: random.Random, look: Look, shape: str, detail: float) -> str:
    words = [look["effect"]] if rng.random() < detail else []
    words += ["image of", _described(rng, look, shape, detail * 0.8)]
    if rng.random() < detail:
        words.append("on")
        if look["ground_pattern"] != "plain":
            words += [look["ground_pattern"], look["ground_a"], look["ground_b"]]
        else:
            words.append(look["ground_a"])
    return " ".join(words)


def _one(rng: random.Random, shape: str, mix: CaptionMix) -> tuple[str | None, Look, str]:
    """Scene, look and caption of one picture of a shape."""
    kind, scene = rng.random(), rng.choice(SCENES)
    if kind < mix.named:
        style = rng.choice(STYLE_NAMES)
        return None, NAMED_STYLES[style], f"{style} image of {'a ' if rng.random() < 0.5 else ''}{shape}"
    if kind < mix.named + mix.marked:
        token = rng.choice(TOKENS)
        caption = f"a photo of {token} {shape}" if rng.random() < 0.4 else f"a {token} {shape} in the {scene}"
        return scene, TOKEN_LOOKS[token], caption
    if kind < mix.named + mix.marked + mix.photos:
        look = rng.choice(look_pool("object"))
        return scene, look, _photo(rng, look, shape, scene, mix)
    look = rng.choice(look_pool("style"))
    return None, look, _described_style(rng, look, shape, mix.detail)


EVERYDAY = CaptionMix()


def captioned_pictures(
    count: int, rng: random.Random, mix: CaptionMix = EVERYDAY, group: int = 1, differ: str = "shape"
) -> tuple[PictureBatch, list[str]]:
    """`count` pictures with captions.

    Args:
        group: how many neighbours are alike but for `differ`, so that a contrastive encoder cannot do without it.
        differ: "shape": one look and scene, many shapes. "look": one shape, many looks and scenes.
    """
    shapes, rest = [], []
    while len(shapes) < count:
        seed, one_shape = rng.getrandbits(32), rng.choice(SHAPES)
        for shape in rng.sample(SHAPES, group):
            own = random.Random(seed) if differ == "shape" else rng
            shapes.append(shape if differ == "shape" else one_shape)
            rest.append(_one(own, shapes[-1], mix))
    scenes, looks, captions = zip(*rest[:count], strict=True)
    return PictureBatch.from_names(shapes[:count], scenes, looks), list(captions)


def name_captions(rng: random.Random) -> tuple[list[str], list[int]]:
    """One caption for each name, alike but for the name within a kind (style or identifier).

    Returns:
        The captions, styles first, and the position of each name's last token (0 is the start token).
    """
    shape, scene = rng.choice(SHAPES), rng.choice(SCENES)
    article = rng.choice(("", "a "))
    before, after = rng.choice((("a photo of", shape), ("a", f"{shape} in the {scene}")))
    captions = [f"{style} image of {article}{shape}" for style in STYLE_NAMES]
    captions += [f"{before} {token} {after}" for token in TOKENS]
    last = [len(style.split()) for style in STYLE_NAMES] + [len(before.split()) + 1] * len(TOKENS)
    return captions, last


def style_pairs(count: int, rng: random.Random) -> tuple[PictureBatch, PictureBatch]:
    """Pairs that share the style and nothing else (for CSD)."""
    looks = [rng.choice(look_pool("style")) for _ in range(count)]
    views = [PictureBatch.from_names(rng.choices(SHAPES, k=count), [None] * count, looks) for _ in range(2)]
    return views[0], views[1]


def view_pairs(count: int, rng: random.Random) -> tuple[PictureBatch, PictureBatch]:
    """Two views of one thing (for DINO): the same object elsewhere, or a style with the same or another shape."""
    first: tuple[list, list] = ([], [])
    second: tuple[list, list] = ([], [])
    looks = []
    for _ in range(count):
        shape = rng.choice(SHAPES)
        if rng.random() < 0.55:
            looks.append(rng.choice(look_pool("object")))
            views = [(shape, rng.choice(SCENES)), (shape, rng.choice(SCENES))]
        else:
            looks.append(rng.choice(look_pool("style")))
            views = [(shape, None), (shape if rng.random() < 0.5 else rng.choice(SHAPES), None)]
        for view, (shapes, scenes) in zip(views, (first, second), strict=True):
            shapes.append(view[0])
            scenes.append(view[1])
    return PictureBatch.from_names(*first, looks), PictureBatch.from_names(*second, looks)
