"""One run as a picture, from the strips in the store: a column a task, a row after each task, so forgetting is seen."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from clbench.data.images import THUMBNAIL_SIZE, load_images, thumbnail
from clbench.errors import ClbenchError
from clbench.protocol.rows import Row
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.runner.reopen import run_numbered
from clbench.suite import Task
from clbench.utils.files import write_atomic

TILE, LABEL, HEADER = 64, 92, 30


def draw_grid(
    runtime: TrackRuntime, sequences: list[TaskSequence], to: Path, variant: str, run: int = 1, prompt: int = 0
) -> Path:
    """Write `<to>/<suite>/<track>/<variant>.png`.

    Args:
        runtime, sequences: as `clbench.runner.reopen.reopen` gives them.
        run: which run, from 1.
        prompt: which evaluation prompt is shown.

    Raises:
        ClbenchError: there is no such run, or it is not in the store.
    """
    sequence = run_numbered(sequences, run)
    grid = _paint(_rows(runtime, sequence, prompt), [task.name for task in sequence.tasks])
    path = to / runtime.suite.name / runtime.track.name / f"{variant}.png"
    write_atomic(path, lambda target: grid.save(target, format="PNG", optimize=True))
    return path


def _rows(runtime: TrackRuntime, sequence: TaskSequence, prompt: int) -> list[tuple[str, list[Image.Image]]]:
    """A label, and a tile a task, for each row of the grid."""
    size = min(runtime.suite.resolution, THUMBNAIL_SIZE)
    stored = [Row.read(runtime, sequence.keys.row(position), position) for position in range(len(sequence.tasks))]
    found = [row for row in stored if row is not None]
    base = runtime.stored_base_row()
    if base is None or len(found) < len(stored):
        raise ClbenchError(
            f"{runtime.store.location} does not hold the run with order {sequence.order}, seed {sequence.seed}; "
            f"give the --output or --store of that run, or run it again"
        )
    rows = [("real", [_real(runtime, task, prompt) for task in sequence.tasks])]
    rows.append(("base", [_tile(runtime, base[task.name]["cell"], prompt, size) for task in sequence.tasks]))
    for learned, (task, row) in enumerate(zip(sequence.tasks, found, strict=True), start=1):
        tiles = [_tile(runtime, key, prompt, size) for key in row.cells[:learned]]
        rows.append((f"after {task.name}", tiles))
    return rows


def _real(runtime: TrackRuntime, task: Task, prompt: int) -> Image.Image:
    """A real image of that prompt where there is one, else of the task."""
    images = load_images(task.real or task.reference, runtime.suite.resolution, runtime.assets.folders)
    return thumbnail(images[prompt * runtime.suite.sampling.images_per_prompt if task.real else prompt % len(images)])


def _paint(rows: list[tuple[str, list[Image.Image]]], tasks: list[str]) -> Image.Image:
    grid = Image.new("RGB", (LABEL + TILE * len(tasks), HEADER + TILE * len(rows)), "white")
    pen = ImageDraw.Draw(grid)
    for column, name in enumerate(tasks):
        for line, text in enumerate(name.split(" ", 1)):
            pen.text((LABEL + column * TILE + 2, 2 + 12 * line), text[:10], fill="black")
    for index, (label, tiles) in enumerate(rows):
        top = HEADER + index * TILE
        for line, text in enumerate(label.split(" ", 1)):
            pen.text((2, top + 18 + 12 * line), text, fill="black")
        for column, tile in enumerate(tiles):
            grid.paste(tile.resize((TILE - 2, TILE - 2), Image.Resampling.NEAREST), (LABEL + column * TILE, top))
    return grid


def _tile(runtime: TrackRuntime, key: str, prompt: int, size: int) -> Image.Image:
    path = runtime.store.get(key, ".png")
    if path is None:
        return Image.new("RGB", (size, size), "gray")
    return Image.open(path).crop((prompt * size, 0, (prompt + 1) * size, size))
