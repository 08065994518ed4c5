"""Verify a result at three levels; the level reached is kept in a maintainers' file, never in the result.

recomputed   the summary is what the matrices give, and every other check of `clbench validate` passes
artifacts    the scores are what the submitted images give (`write_images` makes the folder)
rerun        a whole run and some cells, drawn at random, trained and scored again, are what the result says, within
             the method's reproducibility (`clbench.results.reproduction`)

`artifacts` says that the scores are those of the images, and that these are no copies of the suite's own pictures;
where the images come from, `rerun` alone can say.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clbench.errors import ClbenchError
from clbench.results.reproduction import Reproducibility, Rerun, Sample, draw_sample, judge, power
from clbench.results.schema import Result
from clbench.results.verification import Checked
from clbench.utils.files import file_sha256, read_limited, write_new

if TYPE_CHECKING:  # the first level needs no torch
    from PIL import Image

    from clbench.protocol.task_sequence import TaskSequence
    from clbench.protocol.track_runtime import TrackRuntime


# --- images ---

MAX_MANIFEST = 20_000_000
"""Bytes of a manifest; it has about a hundred for each image."""
COPIED, SMALL = 2.0, 32
"""An image is a copy of a picture up to this mean difference, of 255, at so many pixels a side."""


def write_images(runtime: TrackRuntime, sequences: list[TaskSequence], to: Path) -> Path:
    """The images of every cell of a result's runs, with a manifest of their sha256 sums.

    They are `<to>/run-<number>/<row>/<task number>/<image>.png`, all numbers as in the result's matrices.

    Raises:
        ClbenchError: the store does not hold them, or there are other files in their places.
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
                    write_new(to / file, content)
                    manifest[file] = file_sha256(to / file)
    write_new(to / "manifest.json", (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    return to / "manifest.json"


def score_images(result: Result, runtime: TrackRuntime, folder: Path) -> Iterator[Checked]:
    """Every cell of a result, scored from its submitted images.

    Raises:
        ClbenchError: an image is missing, not the one that the manifest names, none of the suite's size, or a copy of
            a picture that the suite trains on or compares with.
    """
    side, pictures = runtime.suite.resolution, _known_pictures(runtime)
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
                images = [_open_image(folder / file, side) for file in files]
                for file, image in zip(files, images, strict=True):
                    if (np.abs(pictures - _small(image)).mean(axis=1) < COPIED).any():
                        raise ClbenchError(f"{folder / file} is a copy of one of the suite's own pictures")
                found = evaluator.score(task, images)
                for metric, value in found.items():
                    yield _checked(result, number, row, column, metric, value)


def _known_pictures(runtime: TrackRuntime) -> NDArray[np.float32]:
    """What the track's tasks are trained on and compared with, and real images, each small: (pictures, values)."""
    from clbench.data.images import load_images

    sets = [one for task in runtime.track.tasks for one in (task.train, task.reference, task.real) if one is not None]
    size, folders = runtime.suite.resolution, runtime.assets.folders
    return np.array([_small(image) for one in sets for image in load_images(one, size, folders)])


def _small(image: Image.Image) -> NDArray[np.float32]:
    from PIL import ImageOps

    return np.asarray(ImageOps.fit(image, (SMALL, SMALL)), dtype=np.float32).ravel()


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


def rerun(
    result: Result,
    sequences: Sequence[TaskSequence],
    whole: int,
    cells: int,
    seed: int | None,
    report: Callable[[str], None],
) -> tuple[list[Checked], Rerun]:
    """Run a part of a result again, and judge it.

    Args:
        sequences: one a run, in the result's order.
        whole: how many runs are repeated as a whole.
        cells: how many scores in the last rows of other runs are repeated.
        seed: which ones, to repeat a verification; None: drawn from the system's randomness, now that the result is
            fixed.
    """
    drawn, tasks = secrets.randbits(53) if seed is None else seed, len(result.runs[0].task_order)
    sample, own = draw_sample(len(result.runs), tasks, drawn, whole, cells), Reproducibility.of(result)
    checked = list(run_again(result, sequences, sample, report))
    runs, single = differences(checked, sample, tasks)
    keys = [(run.order, run.seed) for run in result.runs]
    return checked, Rerun(
        seed=drawn,
        seed_given=seed is not None,
        runs=tuple(keys[number - 1] for number in sample.runs),
        cells=tuple((*keys[number - 1], result.runs[number - 1].task_order[place]) for number, place in sample.cells),
        figures=tuple(judge(runs, single, own)),
        reproducibility=own.source,
        power=power(own, len(sample.runs), tasks, len(sample.cells), len(runs)),
    )


def run_again(
    result: Result, sequences: Sequence[TaskSequence], sample: Sample, report: Callable[[str], None]
) -> Iterator[Checked]:
    """The scores of a sample of runs and cells, trained and drawn again."""
    tasks = len(result.runs[0].task_order)
    for number in sample.runs:
        report(f"run {number}")
        for metric, rows in sequences[number - 1].run().scores.items():
            for row in range(1, tasks + 1):
                for column, value in enumerate(rows[row][:row]):
                    assert value is not None, "a run measures all tasks that were learned"
                    yield _checked(result, number, row, column, metric, value)
    for number, column in sample.cells:
        report(f"run {number}, task {column + 1} after task {tasks}")
        for metric, value in sequences[number - 1].cell_scores(tasks - 1, column).items():
            yield _checked(result, number, tasks, column, metric, value)


def differences(
    checked: Sequence[Checked], sample: Sample, tasks: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Submitted minus repeated scores, as `clbench.results.reproduction.judge` takes them: whole runs, and cells."""
    runs: dict[str, NDArray[np.float64]] = {}
    cells: dict[str, list[float]] = {}
    for one in checked:
        whole = runs.setdefault(one.metric, np.full((len(sample.runs), tasks, tasks), np.nan))
        single = cells.setdefault(one.metric, [])
        if one.run in sample.runs:
            whole[sample.runs.index(one.run), one.row - 1, one.column] = one.submitted - one.found
        else:
            single.append(one.submitted - one.found)
    return runs, {metric: np.array(values) for metric, values in cells.items()}


def _checked(result: Result, number: int, row: int, column: int, metric: str, found: float) -> Checked:
    run = result.runs[number - 1]
    return Checked(number, row, column, run.task_order[column], metric, float(run.matrix(metric)[row, column]), found)
