"""Random pictures of the mini world with captions: the training data of every pretraining stage."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from clbench.miniworld.render import PictureBatch
from clbench.miniworld.world import (
    COLOURS,
    EFFECTS,
    LINES,
    OBJECT_FACTORS,
    PATTERNS,
    SCENES,
    SHAPES,
    STYLE_FACTORS,
    STYLE_NAMES,
    TOKENS,
    named_styles,
    random_look,
    token_looks,
)

Look = dict[str, str]


@lru_cache
def look_pool(kind: str, seed: int = 77, count: int = 20_000) -> list[Look]:
    """Random visible looks of one kind ("object" or "style"), cached because drawing them costs more than rendering."""
    rng = random.Random(f"{kind}-{seed}")
    return [random_look(rng, STYLE_FACTORS if kind == "style" else OBJECT_FACTORS) for _ in range(count)]


def vocabulary() -> list[str]:
    """Every word that can appear in a caption."""
    names = " ".join([*STYLE_NAMES, *TOKENS, *SHAPES, *SCENES, *COLOURS, *PATTERNS, *LINES, *EFFECTS])
    others = "a an photo image of in the and on with trim wearing looking into"
    return sorted({*names.split(), *others.split()})


@dataclass(frozen=True)
class CaptionMix:
    """Shares of the kinds of pictures; the rest are pictures in random styles, captioned by their attributes."""

    named: float = 0.38
    """Pictures in a named style, captioned by the style's name."""
    marked: float = 0.29
    """Photos of objects with the look of an identifier token, captioned by the token."""
    photos: float = 0.22
    """Photos of objects with a random look, captioned by some of its attributes."""
    detail: float = 0.5
    """Probability that a caption names an attribute."""
    scenes: float = 0.65
    """Probability that the caption of a photo with a random look names the scene."""


def _object_phrase(rng: random.Random, look: Look, shape: str, detail: float) -> str:
    """For example `bold dotted red blue boot white trim`; each attribute is named with probability `detail`."""
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


def _photo_caption(rng: random.Random, look: Look, shape: str, scene: str, mix: CaptionMix) -> str:
    phrase = _object_phrase(rng, look, shape, mix.detail)
    if rng.random() >= mix.scenes:
        return f"a photo of a {phrase}"
    return f"{'a photo of a' if rng.random() < 0.25 else 'a'} {phrase} in the {scene}"


def _style_caption(rng: random.Random, look: Look, shape: str, detail: float) -> str:
    words = [look["effect"]] if rng.random() < detail else []
    words += ["image of", _object_phrase(rng, look, shape, detail * 0.8)]
    if rng.random() < detail:
        words.append("on")
        if look["ground_pattern"] != "plain":
            words += [look["ground_pattern"], look["ground_a"], look["ground_b"]]
        else:
            words.append(look["ground_a"])
    return " ".join(words)


def _draw_picture(rng: random.Random, shape: str, mix: CaptionMix) -> tuple[str | None, Look, str]:
    """Scene, look and caption of a random picture of a shape."""
    kind, scene = rng.random(), rng.choice(SCENES)
    if kind < mix.named:
        style = rng.choice(STYLE_NAMES)
        return None, named_styles()[style], f"{style} image of {'a ' if rng.random() < 0.5 else ''}{shape}"
    if kind < mix.named + mix.marked:
        token = rng.choice(TOKENS)
        caption = f"a photo of {token} {shape}" if rng.random() < 0.4 else f"a {token} {shape} in the {scene}"
        return scene, token_looks()[token], caption
    if kind < mix.named + mix.marked + mix.photos:
        look = rng.choice(look_pool("object"))
        return scene, look, _photo_caption(rng, look, shape, scene, mix)
    look = rng.choice(look_pool("style"))
    return None, look, _style_caption(rng, look, shape, mix.detail)


DEFAULT_MIX = CaptionMix()


def captioned_pictures(
    count: int, rng: random.Random, mix: CaptionMix = DEFAULT_MIX, group: int = 1, differ: str = "shape"
) -> tuple[PictureBatch, list[str]]:
    """Random pictures with captions.

    Args:
        group: size of groups of pictures that differ only in `differ`, so that a contrastive encoder must learn it.
        differ: "shape": a group has one look and scene and many shapes; "look": one shape and many looks and scenes.
    """
    shapes, rest = [], []
    while len(shapes) < count:
        seed, group_shape = rng.getrandbits(32), rng.choice(SHAPES)
        for shape in rng.sample(SHAPES, group):
            own = random.Random(seed) if differ == "shape" else rng
            shapes.append(shape if differ == "shape" else group_shape)
            rest.append(_draw_picture(own, shapes[-1], mix))
    scenes, looks, captions = zip(*rest[:count], strict=True)
    return PictureBatch.from_names(shapes[:count], scenes, looks), list(captions)


def name_captions(rng: random.Random) -> tuple[list[str], list[int]]:
    """One caption for each name; captions of the same kind of name (style or identifier) differ in nothing else.

    Returns:
        The captions, styles first, and the position of each name's last token (the start token's is 0).
    """
    shape, scene = rng.choice(SHAPES), rng.choice(SCENES)
    article = rng.choice(("", "a "))
    before, after = rng.choice((("a photo of", shape), ("a", f"{shape} in the {scene}")))
    captions = [f"{style} image of {article}{shape}" for style in STYLE_NAMES]
    captions += [f"{before} {token} {after}" for token in TOKENS]
    last = [len(style.split()) for style in STYLE_NAMES] + [len(before.split()) + 1] * len(TOKENS)
    return captions, last


def style_pairs(count: int, rng: random.Random) -> tuple[PictureBatch, PictureBatch]:
    """Pairs of pictures in the same style, of independent shapes (for CSD)."""
    looks = [rng.choice(look_pool("style")) for _ in range(count)]
    views = [PictureBatch.from_names(rng.choices(SHAPES, k=count), [None] * count, looks) for _ in range(2)]
    return views[0], views[1]


def view_pairs(count: int, rng: random.Random) -> tuple[PictureBatch, PictureBatch]:
    """Pairs for DINO: the same object in two scenes, or the same style with the same or two independent shapes."""
    first, second, looks = [], [], []
    for _ in range(count):
        shape, is_object = rng.choice(SHAPES), rng.random() < 0.55
        looks.append(rng.choice(look_pool("object" if is_object else "style")))
        if is_object:
            first.append((shape, rng.choice(SCENES)))
            second.append((shape, rng.choice(SCENES)))
        else:
            first.append((shape, None))
            second.append((shape if rng.random() < 0.5 else rng.choice(SHAPES), None))
    (shapes, scenes), (other_shapes, other_scenes) = (zip(*views, strict=True) for views in (first, second))
    return (PictureBatch.from_names(shapes, scenes, looks), PictureBatch.from_names(other_shapes, other_scenes, looks))
