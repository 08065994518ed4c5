"""Format sizes, times, shares, p values, sentences, strangers' text and text on colours for people to read."""

from collections.abc import Sequence


def format_bytes(size: int) -> str:
    """1500 -> "1.5 kB"; decimal units, as the model hubs show file sizes."""
    if size < 1000:
        return f"{size} B"
    units = ("kB", "MB", "GB", "TB")
    step = next((n for n in range(1, 4) if size / 1000**n < 999.95), 4)
    return f"{size / 1000**step:.1f} {units[step - 1]}"


def format_time(seconds: float) -> str:
    """45 -> "45 s", 7200 -> "2.0 h"."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 100 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def format_percent(share: float, deviation: float | None = None) -> str:
    """0.586 -> "59 %", with a deviation of 0.041 "59 ± 4 %"."""
    spread = "" if deviation is None else f" ± {100 * deviation:.0f}"
    return f"{100 * share:z.0f}{spread} %"  # z: "-0" becomes "0"


def format_figure(value: float, share: bool, sign: bool = False) -> str:
    """0.1334 -> "0.133", or as a share "13.3 %"; with `sign`, positive ones have theirs."""
    return f"{100 * value:{'+' if sign else ''}z.1f} %" if share else f"{value:{'+' if sign else ''}z.3f}"


def format_p_value(p: float) -> str:
    """0.0078125 -> "0.008"; below 0.001 "<0.001", because no p value is 0."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def format_chance(probability: float) -> str:
    """0.873 -> "87 %"; above 0.99 ">99 %", because nothing is certain."""
    return f"{100 * probability:.0f} %" if probability <= 0.99 else ">99 %"


def sentence(text: str) -> str:
    """ "mean over runs" -> "Mean over runs."."""
    return f"{text[0].upper()}{text[1:]}."


def counted(number: int, noun: str) -> str:
    """(1, "run") -> "1 run", (2, "run") -> "2 runs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """Text of a stranger's file, fit for one line of a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]


def text_color(background: Sequence[float]) -> str:
    """Black or white, whichever stands out more from a background of red, green and blue in 0 ... 1."""
    luminance = sum(part**2.2 * weight for part, weight in zip(background, (0.2126, 0.7152, 0.0722), strict=True))
    # The relative luminance at which black and white contrast equally (WCAG 2).
    return "#000000" if luminance > 0.179 else "#ffffff"
