"""A suite of one's own: a commented copy of a fixed one, to be changed and run with `--suite FOLDER`."""

from __future__ import annotations

import re
from pathlib import Path

from clbench.errors import ClbenchError
from clbench.suite import content_root, load_suite, suite_folder
from clbench.utils.files import write_text

ABOUT = """\
# A suite of your own, begun as a copy of {like}. Run it with `clbench run --suite {folder} ...`. Its results carry its
# own hash, so they are never taken for {like}'s, and cannot be submitted to its board.
#
# - Your photos as tasks: put them into a folder beside this file, say photos/my_cat/, add
#       mine: {{source: photos}}
#   under `datasets`, and name them in the task lists: `train: {{dataset: mine, files: [my_cat/1.jpg]}}`
# - Another checkpoint of the same class, such as a fine-tune: `backbone: {{source: "hub:owner/name", revision: ...}}`,
#   or `backbone: {{source: models/mine}}` for a diffusers folder beside this file. What is not pinned by a checksum or
#   a commit is known by its content: results say what was found, and nothing made with another is taken for it.
# - `orders` are permutations of the tasks' numbers, from 0. Add or remove tasks, and change them accordingly. Training
#   seeds are either one list for the whole suite (each is used with every order), or `seeds` of a track: one an order.
"""


def write_suite_template(folder: Path, like: str) -> list[Path]:
    """Write `folder/suite.yaml` and its task lists; returns the files.

    Raises:
        ClbenchError: there is no suite `like`, `folder` already holds one, or its name cannot be a suite's.
    """
    if (folder / "suite.yaml").exists():
        raise ClbenchError(f"{folder / 'suite.yaml'} exists; name another folder")
    definition, name = load_suite(like), folder.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ClbenchError(f"{name!r} cannot be a suite's name: letters, digits, '.', '_' and '-' can")
    text = (suite_folder(like) / "suite.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\A(#.*\n)+", "", text)
    text = re.sub(r"^name: .*$", f"name: {name}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^version: .*$", 'version: "1"', text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^version_reason: .*$", f'version_reason: "like {like}, changed"', text, count=1, flags=re.MULTILINE)
    files = [folder / "suite.yaml"]
    for track in definition.tracks:
        source = re.search(rf"^  {re.escape(track)}:\n    tasks: (\S+)$", text, re.MULTILINE)
        assert source, "a fixed suite names the task list first"
        text = text.replace(f"tasks: {source[1]}", f"tasks: {track}.yaml")
        write_text(folder / f"{track}.yaml", (content_root() / "tasks" / source[1]).read_text(encoding="utf-8"))
        files.append(folder / f"{track}.yaml")
    write_text(folder / "suite.yaml", ABOUT.format(like=like, folder=folder) + text)
    load_suite(str(folder) if folder.parent != Path() else f"./{folder}")
    return files
