"""Verify a result at three levels; the level reached is kept in a maintainers' file, never in the result.

recomputed   the summary is what the matrices give, and every other check of `clbench validate` passes
artifacts    the scores are what the submitted images give (`write_images` makes the folder)
rerun        chosen cells, trained and scored again, are what the result says, within the noise on record
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clbench.errors import ClbenchError
from clbench.results.schema import Result
from clbench.results.verification import Checked
from clbench.utils.files import file_sha256, read_limited, write_atomic, write_text

if TYPE_CHECKING:  # the first level needs no torch
    from PIL import Image

    from clbench.protocol.task_sequence import TaskSequence
    from clbench.protocol.track_runtime import TrackRuntime


# --- images ---

MAX_MANIFEST = 20_000_000
"""Bytes of a manifest; it has about a hundred for each image."""


def write_images(runtime: TrackRuntime, sequences: list[TaskSequence], to: Path) -> Path:
    """The images of every cell of a result's runs, with a manifest of their sha256 sums.

    They are `<to>/run-<number>/<row>/<task number>/<image>.png`, all numbers as in the result's matrices.

    Raises:
        ClbenchError: the store does not hold them.
    """
    from clbench.data.images import image_suffix
    from clbench.protocol.rows import Row

    each = len(runtime.track.eval_prompt_templates) * runtime.suite.sampling.images_per_prompt
    manifest: dict[str, str] = {}
    for number, sequence in enumerate(sequences, start=1):
        for row in range(1, len(sequence.tasks) + 1):
            stored = Row.read(runtime, sequence.keys.row(row - 1), row - 1)
            if stored is None:
                raise ClbenchError(
                    f"{runtime.store.location} does not hold run {number} of this result; give the --output or "
                    f"--store of that run, or run it again"
                )
            for column, cell in enumerate(stored.cells):
                for image in range(each):
                    source = runtime.store.get(cell, image_suffix(image))
                    if source is None:
                        raise ClbenchError(
                            f"{runtime.store.location} does not hold the images of run {number}: they are kept where a "
                            f"run is given --keep images"
                        )
                    file = f"run-{number}/{row:02d}/{column:02d}/{image:03d}.png"
                    content = source.read_bytes()
                    write_atomic(to / file, lambda path, content=content: path.write_bytes(content))
                    manifest[file] = file_sha256(to / file)
    write_text(to / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return to / "manifest.json"


def score_images(result: Result, runtime: TrackRuntime, folder: Path) -> Iterator[Checked]:
    """Every cell of a result, scored from its submitted images.

    Raises:
        ClbenchError: an image is missing, not the one that the manifest names, or none of the suite's size.
    """
    side = runtime.suite.resolution
    manifest, evaluator = _read_manifest(folder), runtime.models.evaluator(runtime.track.name)
    for number, run in enumerate(result.runs, start=1):
        tasks = runtime.track.ordered(run.order)
        for row in range(1, len(tasks) + 1):
            for column, task in enumerate(tasks[:row]):
                start = f"run-{number}/{row:02d}/{column:02d}/"
                files = sorted(file for file in manifest if file.startswith(start))
                expected = len(runtime.track.eval_prompt_templates) * runtime.suite.sampling.images_per_prompt
                if len(files) != expected:
                    raise ClbenchError(f"{folder}: {start} has {len(files)} images in the manifest, needs {expected}")
                for file in files:
                    path = folder / file
                    if not path.is_file() or file_sha256(path) != manifest[file]:
                        raise ClbenchError(f"{path} is missing, or is not the image that the manifest names")
                found = evaluator.score(task, [_open_image(folder / file, side) for file in files])
                for metric, value in found.items():
                    yield _checked(result, number, row, column, metric, value)


def _open_image(path: Path, side: int) -> Image.Image:
    from clbench.data.images import open_photo

    try:
        return open_photo(path, (side, side))
    except (OSError, ValueError) as error:
        raise ClbenchError(f"{path} is no image of this suite: {error}") from None


def _read_manifest(folder: Path) -> dict[str, str]:
    try:
        manifest = json.loads(read_limited(folder / "manifest.json", MAX_MANIFEST))
    except (OSError, ValueError, RecursionError) as error:
        raise ClbenchError(f"cannot read {folder / 'manifest.json'}: {error}") from None
    if not isinstance(manifest, dict) or any(".." in Path(file).parts or Path(file).is_absolute() for file in manifest):
        raise ClbenchError(f"{folder / 'manifest.json'} is not a manifest of files below that folder")
    return manifest


# --- running again ---


def run_again(
    result: Result, sequences: list[TaskSequence], cells: int, seed: int, report: Callable[[str], None]
) -> Iterator[Checked]:
    """Some cells of trained models, chosen at random, trained and scored again.

    Args:
        sequences: one a run, in the result's order.
    """
    tasks = len(result.runs[0].task_order)
    everywhere = [
        (number, row, column)
        for number in range(1, len(result.runs) + 1)
        for row in range(1, tasks + 1)
        for column in range(row)
    ]
    for number, row, column in sorted(random.Random(seed).sample(everywhere, min(cells, len(everywhere)))):
        sequence = sequences[number - 1]
        report(f"run {number}, task {column + 1} after task {row}")
        for metric, value in sequence.cell_scores(row - 1, column).items():
            yield _checked(result, number, row, column, metric, value)


def _checked(result: Result, number: int, row: int, column: int, metric: str, found: float) -> Checked:
    run = result.runs[number - 1]
    return Checked(number, row, run.task_order[column], metric, float(run.matrix(metric)[row, column]), found)


# --- the maintainers' file ---
