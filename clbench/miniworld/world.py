"""The content of the mini world: shapes, scenes, colours, and named looks.

A picture shows a shape with a *look*. A photo has a scene as its background, and its look is the object's: two fill
colours, a pattern, a trim colour, an outline. A picture in a style has no scene: its look also sets the ground and an
effect. 40 style names and 40 identifier tokens stand for one look each; a token's look applies to any shape. All of it
is deterministic: `named_styles()["byzantine"]` is the same on every machine.
"""

from __future__ import annotations

import random
from functools import cache
from operator import ne

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.14, 0.16),
    "orange": (0.96, 0.52, 0.12),
    "yellow": (0.98, 0.86, 0.20),
    "lime": (0.62, 0.86, 0.22),
    "green": (0.13, 0.55, 0.22),
    "teal": (0.07, 0.52, 0.54),
    "cyan": (0.40, 0.86, 0.92),
    "blue": (0.16, 0.38, 0.88),
    "navy": (0.10, 0.13, 0.42),
    "purple": (0.50, 0.18, 0.66),
    "pink": (0.97, 0.60, 0.74),
    "magenta": (0.86, 0.15, 0.60),
    "brown": (0.46, 0.27, 0.13),
    "black": (0.07, 0.07, 0.08),
    "white": (0.96, 0.96, 0.95),
    "gray": (0.55, 0.56, 0.58),
}
PATTERNS = ("plain", "striped", "barred", "diagonal", "dotted", "checked", "wavy", "ringed")
LINES = ("none", "thin", "bold", "pale")
EFFECTS = ("clear", "blurred", "embossed", "pixelated", "grainy", "glowing", "warped", "faded")
SHAPES = (
    "tree", "key", "star", "fish", "car", "cat", "cup", "boot", "bird", "umbrella",
    "bottle", "rocket", "flower", "house", "hat", "mushroom", "lamp", "boat", "heart", "crown",
)  # fmt: skip
SCENES = ("snow", "night", "beach", "meadow", "desert", "brick", "wood", "city", "sea", "studio")

COLOUR_NAMES = tuple(COLOURS)
OBJECT_FACTORS: dict[str, tuple[str, ...]] = {
    "fill_a": COLOUR_NAMES,
    "fill_b": COLOUR_NAMES,
    "pattern": PATTERNS,
    "trim": COLOUR_NAMES,
    "line": LINES,
}
"""Factor of an object's look -> its values."""
STYLE_FACTORS: dict[str, tuple[str, ...]] = {
    **OBJECT_FACTORS,
    "ground_a": COLOUR_NAMES,
    "ground_b": COLOUR_NAMES,
    "ground_pattern": PATTERNS,
    "effect": EFFECTS,
}
"""Factor of a style's look -> its values."""

STYLE_NAMES = (
    "byzantine", "palette knife", "ink art", "blossom season", "artist sketch", "winter", "dapple", "meteor shower",
    "pastel", "dadaism", "cubism", "mosaic", "ukiyoe", "techno", "rust", "crayon", "impasto", "fauvism", "monet",
    "neon lines", "pop art", "watercolor", "bricks", "van gogh", "stained glass", "woodcut", "charcoal", "gothic",
    "baroque", "art deco", "graffiti", "origami", "tapestry", "pointillism", "bauhaus", "vintage", "comic", "blueprint",
    "vaporwave", "surrealism",
)  # fmt: skip
TOKENS = (
    "sks", "zwz", "sbu", "uwu", "pdw", "twt", "zsn", "ofl", "psq", "cws", "qov", "bxk", "vlt", "hmz", "jrd", "kyf",
    "ngp", "wex", "dqu", "fib", "tozz", "gaj", "ixo", "lurv", "yvo", "rikk", "zep", "nuq", "moxl", "jib", "tuv", "eqi",
    "hax", "obr", "pluv", "sqi", "vem", "wyx", "kez", "dorf",
)  # fmt: skip


@cache
def _colour_distance(a: str, b: str) -> float:
    return sum((x - y) ** 2 for x, y in zip(COLOURS[a], COLOURS[b], strict=True)) ** 0.5


def is_visible(look: dict[str, str]) -> bool:
    """Whether a shape with this look is distinct from its ground, and its pattern and trim can be seen."""
    fills = (look["fill_a"], look["fill_b"])
    if _colour_distance(*fills) < 0.45 or min(_colour_distance(look["trim"], fill) for fill in fills) < 0.35:
        return False
    if "ground_a" not in look:
        return True
    grounds = (look["ground_a"], look["ground_b"])
    apart = min(_colour_distance(fill, ground) for fill in fills for ground in grounds) >= 0.45
    return apart and _colour_distance(*grounds) >= 0.30


def random_look(rng: random.Random, factors: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """A random visible look, drawn uniformly."""
    while True:
        look = {factor: rng.choice(values) for factor, values in factors.items()}
        if is_visible(look):
            return look


def count_differences(a: dict[str, str], b: dict[str, str]) -> int:
    """Number of factors in which two looks differ."""
    return sum(a[factor] != b[factor] for factor in a)


def spread_looks(names: tuple[str, ...], factors: dict[str, tuple[str, ...]], seed: int) -> dict[str, dict[str, str]]:
    """A look for each name: of 200 random ones, the one that differs most from all earlier looks."""
    rng = random.Random(seed)
    chosen: list[tuple[str, ...]] = []
    for _ in names:
        candidates = [tuple(random_look(rng, factors).values()) for _ in range(200)]
        chosen.append(max(candidates, key=lambda c: min((sum(map(ne, c, look)) for look in chosen), default=0)))
    return {name: dict(zip(factors, look, strict=True)) for name, look in zip(names, chosen, strict=True)}


def alter_look(look: dict[str, str], share: float, factors: dict[str, tuple[str, ...]], seed: int) -> dict[str, str]:
    """A copy of a look with round(share * factors) of its factors changed to other values; it is still visible."""
    rng = random.Random(seed)
    count = round(share * len(look))
    while True:
        changed = dict(look)
        for factor in rng.sample(sorted(look), count):
            changed[factor] = rng.choice([value for value in factors[factor] if value != look[factor]])
        if is_visible(changed):
            return changed


@cache
def named_styles() -> dict[str, dict[str, str]]:
    """Name -> look, of the styles that the base model knows."""
    return spread_looks(STYLE_NAMES, STYLE_FACTORS, seed=2024)


@cache
def token_looks() -> dict[str, dict[str, str]]:
    """Token -> look, of the objects that the base model knows."""
    return spread_looks(TOKENS, OBJECT_FACTORS, seed=4048)
