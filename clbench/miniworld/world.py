"""What there is in the mini world: shapes, scenes, colours, and looks with names.

A picture is a shape with a *look*. A photo shows the shape in a scene, and its look is the object's own (two fill
colours, a pattern, a trim, an outline). A stylised picture has no scene: its look also sets the ground and an effect.
Names mean looks: 40 style names, and 40 identifier tokens that work like a maker's mark on any object. All of it is
deterministic: `NAMED_STYLES["byzantine"]` is the same on every machine.
"""

from __future__ import annotations

import random

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
"""Factors of an object's look -> their values."""
STYLE_FACTORS: dict[str, tuple[str, ...]] = {
    **OBJECT_FACTORS,
    "ground_a": COLOUR_NAMES,
    "ground_b": COLOUR_NAMES,
    "ground_pattern": PATTERNS,
    "effect": EFFECTS,
}
"""Factors of a style's look -> their values."""

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


def _distance(a: str, b: str) -> float:
    return sum((x - y) ** 2 for x, y in zip(COLOURS[a], COLOURS[b], strict=True)) ** 0.5


def is_visible(look: dict[str, str]) -> bool:
    """Whether a shape in that look can be told from its ground, and its pattern and trim be seen."""
    fills = (look["fill_a"], look["fill_b"])
    if _distance(*fills) < 0.45 or min(_distance(look["trim"], fill) for fill in fills) < 0.35:
        return False
    if "ground_a" not in look:
        return True
    grounds = (look["ground_a"], look["ground_b"])
    apart = min(_distance(fill, ground) for fill in fills for ground in grounds) >= 0.45
    return apart and _distance(*grounds) >= 0.30


def random_look(rng: random.Random, factors: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """A visible look, drawn uniformly."""
    while True:
        look = {factor: rng.choice(values) for factor, values in factors.items()}
        if is_visible(look):
            return look


def count_differences(a: dict[str, str], b: dict[str, str]) -> int:
    """How many factors differ."""
    return sum(a[factor] != b[factor] for factor in a)


def spread_looks(names: tuple[str, ...], factors: dict[str, tuple[str, ...]], seed: int) -> dict[str, dict[str, str]]:
    """A look for each name, each the farthest of 200 random ones from those before it."""
    rng = random.Random(seed)
    looks: dict[str, dict[str, str]] = {}
    for name in names:
        candidates = [random_look(rng, factors) for _ in range(200)]
        looks[name] = max(
            candidates, key=lambda c: min((count_differences(c, look) for look in looks.values()), default=0)
        )
    return looks


def alter_look(look: dict[str, str], share: float, factors: dict[str, tuple[str, ...]], seed: int) -> dict[str, str]:
    """Another rendition of a look: round(share * factors) of its factors replaced by other values, still visible."""
    rng = random.Random(seed)
    count = round(share * len(look))
    while True:
        changed = dict(look)
        for factor in rng.sample(sorted(look), count):
            changed[factor] = rng.choice([value for value in factors[factor] if value != look[factor]])
        if is_visible(changed):
            return changed


NAMED_STYLES = spread_looks(STYLE_NAMES, STYLE_FACTORS, seed=2024)
TOKEN_LOOKS = spread_looks(TOKENS, OBJECT_FACTORS, seed=4048)
