"""A suite whose tasks are a user's own photos: a folder of photos a task, as the library `datasets` reads such folders.

    photos/
      metadata.jsonl      optional: {"file_name": "my_cat/1.jpg", "token": "sks", "class": "cat"} a line
      my_cat/1.jpg ...
      old_teapot/a.png ...

A column of `metadata.jsonl` is a field of the prompts, such as the token; what it does not say comes from the folder's
name, and tokens from the suite that is copied. A column `label` names the task of photos that are in no folder.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

import yaml

from clbench.data.suite_template import check_suite_name, load_written
from clbench.errors import ClbenchError
from clbench.suite import Track, load_suite, suite_folder
from clbench.utils.files import write_text
from clbench.utils.yaml_files import read_yaml

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
DATASET, FOLDER = "mine", "photos"
"""The data set's name in the suite, and its folder beside `suite.yaml`."""
FROM_NAME = ("class", "style")
"""Fields that are the task's name, unless `metadata.jsonl` says otherwise."""
HEADER = """\
# A suite of your own photos, which is {like} otherwise. Run it with `clbench run --suite {folder} ...`.
# {track}.yaml has the tasks: generated images are compared with the photos that are trained on, unless you name others
# under `reference`. `orders` are permutations of the tasks' numbers, from 0.
"""


@dataclass
class PhotoTask:
    """One object or style in a user's photos."""

    name: str
    files: list[str] = field(default_factory=list)
    """Relative to the folder of photos, in order."""
    fields: dict[str, str] = field(default_factory=dict)
    """What `metadata.jsonl` says of its prompts' fields."""


def write_photo_suite(folder: Path, like: str, photos: Path, track: str | None = None) -> list[Path]:
    """Write a suite with one track, whose tasks are a user's photos, which are copied; returns its files.

    Args:
        like: the suite that everything else comes from.
        track: the track of it with the prompts and metrics; default its first.

    Raises:
        ClbenchError: there is no such suite or track, `folder` holds a suite or has no valid name, or the photos do not
            say what prompts need.
    """
    check_suite_name(folder)
    definition = load_suite(like)
    chosen = definition.track(track or next(iter(definition.tracks)))
    found = read_photos(photos)
    tasks = [
        {
            "name": task.name,
            "fields": fields,
            **{part: {"dataset": DATASET, "files": task.files} for part in ("train", "reference")},
        }
        for task, fields in zip(found, _fields(found, chosen, photos), strict=True)
    ]
    raw: dict[str, Any] = read_yaml(suite_folder(like) / "suite.yaml")
    own = raw["tracks"][chosen.name] | {"tasks": f"{chosen.name}.yaml", "orders": _orders(chosen.orders, len(tasks))}
    if "seeds" in own:
        own["seeds"] = {order: own["seeds"][order] for order in own["orders"]}
    raw |= {"name": folder.resolve().name, "version": "1", "version_reason": f"like {like}, with other tasks"}
    raw |= {"datasets": {DATASET: {"source": FOLDER}}, "tracks": {chosen.name: own}}
    for task in found:
        for file in task.files:
            copy = folder / FOLDER / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photos / file, copy)
    files = [folder / f"{chosen.name}.yaml", folder / "suite.yaml"]
    write_text(files[0], _text({"tasks": tasks}))
    write_text(files[1], HEADER.format(like=like, folder=folder, track=chosen.name) + _text(raw))
    load_written(folder)
    return files


def read_photos(photos: Path) -> list[PhotoTask]:
    """The tasks in a folder of photos, by their names.

    Raises:
        ClbenchError: there are no photos, `metadata.jsonl` cannot be read, or a photo belongs to no task.
    """
    if not photos.is_dir():
        raise ClbenchError(f"there is no folder of photos {photos}")
    paths = (path for path in sorted(photos.rglob("*")) if path.is_file() and path.suffix.lower() in SUFFIXES)
    files = [path.relative_to(photos).as_posix() for path in paths]
    if not files:
        raise ClbenchError(f"{photos} has no photos; give a folder for each task, with files such as my_cat/1.jpg")
    said, tasks = _metadata(photos, files), {}
    for file in files:
        fields = dict(said.get(file, {}))
        name = fields.pop("label", PurePosixPath(file).parts[0] if "/" in file else "")
        if not name:
            raise ClbenchError(
                f"{photos / file} belongs to no task: put it into a folder, or give its line of metadata.jsonl a label"
            )
        task = tasks.setdefault(name, PhotoTask(name))
        task.files.append(file)
        for key, value in fields.items():
            if task.fields.setdefault(key, value) != value:
                other = f"{task.fields[key]!r} and {value!r}"
                raise ClbenchError(f"{photos / 'metadata.jsonl'}: {key} of task {name!r} is {other}; a task has one")
    return [tasks[name] for name in sorted(tasks)]


def _metadata(photos: Path, files: Sequence[str]) -> dict[str, dict[str, str]]:
    """File -> what `metadata.jsonl` says of it; captions of single photos (`text`) are none of a task's fields."""
    path = photos / "metadata.jsonl"
    if not path.exists():
        return {}
    said = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ClbenchError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            file = row.pop("file_name")
        except (ValueError, AttributeError, KeyError, TypeError):
            raise ClbenchError(f"{path}, line {number}: expected an object in JSON with a file_name") from None
        if file not in files:
            raise ClbenchError(f"{path}, line {number}: there is no photo {file!r} in {photos}")
        said[file] = {key: value for key, value in row.items() if isinstance(value, str) and key != "text"}
    return said


def _fields(tasks: Sequence[PhotoTask], track: Track, photos: Path) -> list[dict[str, str]]:
    """The fields of each task's prompts, and no others.

    Raises:
        ClbenchError: nothing says what a field is.
    """
    templates = (track.train_prompt_template, *track.eval_prompt_templates, *track.content_prompt_templates)
    templates += track.leak_prompt_templates or ()
    needed = dict.fromkeys(name for text in templates for _, name, *_ in Formatter().parse(text) if name)
    taken = {task.fields["token"] for task in tasks if "token" in task.fields}
    tokens = iter([token for one in track.tasks if (token := one.fields.get("token")) and token not in taken])
    found = []
    for task in tasks:
        fields = {}
        for name in needed:
            value = task.fields.get(name)
            if value is None and name in FROM_NAME:
                value = task.name.replace("_", " ").replace("-", " ")
            if value is None and name == "token":
                value = next(tokens, None)
            if value is None:
                raise ClbenchError(
                    f"the prompts of track {track.name} need a {name!r} of task {task.name!r}; give it in "
                    f"{photos / 'metadata.jsonl'}: {json.dumps({'file_name': task.files[0], name: '...'})}"
                )
            fields[name] = value
        found.append(fields)
    return found


def _orders(orders: Mapping[str, Sequence[int]], count: int) -> dict[str, list[int]]:
    """As many different permutations of so many tasks, as the names shuffle them."""
    found: dict[str, list[int]] = {}
    for name in orders:
        order = list(range(count))
        random.Random(int(name) if name.isdecimal() else name).shuffle(order)
        if order not in found.values():
            found[name] = order
    return found


def _text(content: dict[str, Any]) -> str:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(content, Dumper=Plain, sort_keys=False, allow_unicode=True, width=110)
