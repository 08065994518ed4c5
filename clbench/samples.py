"""One run as a picture, from the strips in the store: a column a task, a row after each task, so forgetting is seen."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from clbench.assets import gather
from clbench.bench import STRIP, Bench, default_device, smaller
from clbench.data import Places, default_root
from clbench.errors import ClbenchError
from clbench.files import write_atomic
from clbench.job import one_thread
from clbench.method import get_method
from clbench.pictures import load_images
from clbench.sequence import Sequence
from clbench.store import Store
from clbench.suite import Task, load_suite, suite_folder

TILE, LABEL, HEADER = 64, 92, 30


def draw_grid(
    method: str,
    track: str,
    suite: str,
    store: str | Path,
    to: Path,
    plugins: tuple[Path, ...] = (),
    device: str | None = None,
    data_root: Path | None = None,
    prompt: int = 0,
) -> Path:
    """Write `<to>/<suite>/<track>/<method>.png` for the protocol's first order and seed.

    Args:
        store: the folder or URL of the run's.
        device: where the run was made; default as for a run.
        data_root: as for the run.
        prompt: which evaluation prompt is shown.

    Raises:
        ClbenchError: that run is not in the store.
    """
    definition, device = load_suite(suite), device or default_device()
    assets = gather(definition, suite, track, Places(data_root or default_root(), suite_folder(suite)))
    with one_thread(device):  # as the run was, whose keys this looks up
        bench = Bench(definition, track, Store.at(store), device, definition.precision or "fp32", assets)
        rows, tasks = _rows(bench, method, store, plugins, prompt)
    grid = _paint(rows, [task.name for task in tasks])
    path = to / definition.name / track / f"{method}.png"
    write_atomic(path, lambda target: grid.save(target, format="PNG", optimize=True))
    return path


def _rows(
    bench: Bench, method: str, store: str | Path, plugins: tuple[Path, ...], prompt: int
) -> tuple[list[tuple[str, list[Image.Image]]], list[Task]]:
    """A label and a tile a task for each row of the grid, and the tasks of its columns."""
    definition, size = bench.suite, min(bench.suite.resolution, STRIP)
    order = next(iter(bench.track.orders))
    sequence = Sequence(bench, get_method(method, None, plugins), order, definition.seeds[0])
    stored = [bench.store.get_json(f"row-{name}") for name in sequence.hashes]
    if None in stored:
        raise ClbenchError(
            f"{store} does not hold the run of {method} on {bench.track.name} with order {order} and seed "
            f"{definition.seeds[0]}; first run: clbench run --method {method} --track {bench.track.name} "
            f"--suite {definition.name} --quick --store {store}"
        )
    rows = [("real", [_real(bench, task, prompt) for task in sequence.tasks])]
    base = bench.base_row()
    rows.append(("base", [_tile(bench, base[task.name]["cell"], prompt, size) for task in sequence.tasks]))
    for task, row in zip(sequence.tasks, stored, strict=True):
        tiles = [_tile(bench, key, prompt, size) for key in row["cells"]]  # type: ignore[index]
        rows.append((f"after {task.name}", tiles))
    return rows, sequence.tasks


def _real(bench: Bench, task: Task, prompt: int) -> Image.Image:
    """A real image of that prompt where there is one, else of the task."""
    images = load_images(task.real or task.reference, bench.suite.resolution, bench.assets.folders)
    return smaller(images[prompt * bench.suite.sampling.images_per_prompt if task.real else prompt % len(images)])


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


def _tile(bench: Bench, key: str, prompt: int, size: int) -> Image.Image:
    path = bench.store.get(key, ".png")
    if path is None:
        return Image.new("RGB", (size, size), "gray")
    return Image.open(path).crop((prompt * size, 0, (prompt + 1) * size, size))
