"""Find result files by the names of their variants."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from clbench.errors import ClbenchError, did_you_mean

FOLDER = "submissions"
"""The name of the folder of submitted results, in which files must lie where their contents say."""
PLACES = (Path("runs"), Path(FOLDER))
"""Where results are looked for: one's own first."""
NO_RESULTS = frozenset({"store", "leaderboard", "tensorboard", "wandb", "trackio"})
"""Folders beside the suites' that runs write too."""
PARTIAL = ".partial"
REPLICATE = re.compile(r"\+([1-9][0-9]{0,5})$")
"""The end of a replicate's file name without suffix, e.g. "naive+2"; names of variants have no "+"."""


def result_files(folder: Path) -> Iterator[Path]:
    """All result files below a folder, <suite>/<track>/<variant>.json; of a partial and a complete one, the latter."""
    for path in sorted(folder.glob("*/*/*.json")):
        if path.relative_to(folder).parts[0] in NO_RESULTS:
            continue
        if not (path.stem.endswith(PARTIAL) and path.with_name(f"{variant_of(path)}.json").exists()):
            yield path


def variant_of(path: Path) -> str:
    """The name of the variant that a result file is named after."""
    return path.stem.removesuffix(PARTIAL)


def replicate_number(path: Path) -> int:
    """Which submission of its variant a file is: 1, or for `<variant>+2.json` 2."""
    found = REPLICATE.search(path.stem)
    return int(found[1]) if found else 1


def replicate_place(place: str, number: int) -> str:
    """Where the submission of that number lies, for the place of the first, `<suite>/<track>/<variant>.json`."""
    return place if number == 1 else f"{place.removesuffix('.json')}+{number}.json"


def replicates_of(place: Path) -> list[Path]:
    """The submissions of a variant that there are, in the order of their numbers; `place` is the first's."""
    others = [path for path in place.parent.glob("*.json") if REPLICATE.sub("", path.stem) == place.stem]
    return sorted(others, key=replicate_number)


def find_result(name: str, track: str | None = None, suite: str | None = None, places: Sequence[Path] = PLACES) -> Path:
    """The file of a result.

    Args:
        name: a path, or the name of a variant.
        track, suite: which one, where a variant was run on several.
        places: folders of results; the first that has it counts.

    Raises:
        ClbenchError: there is none of that name (suggests one), or there are several.
    """
    if Path(name).is_file() or name.endswith(".json"):
        return Path(name)
    known = set()
    for place in places:
        files = [
            path for path in result_files(place) if track in (None, path.parts[-2]) and suite in (None, path.parts[-3])
        ]
        found = [path for path in files if variant_of(path) == name]
        if len(found) > 1:
            listed = ", ".join(map(str, found))
            raise ClbenchError(f"{name!r} is the name of several results ({listed}); give --track, or one's path")
        if found:
            return found[0]
        known |= {variant_of(path) for path in files}
    where = " or ".join(map(str, places))
    of = f" on {track}" if track else ""
    raise ClbenchError(f"there is no result {name!r}{of} in {where}{did_you_mean(name, sorted(known))}")


def known_names() -> list[str]:
    """The names of all variants with results here, for completion."""
    return sorted({variant_of(path) for place in PLACES for path in result_files(place)})
