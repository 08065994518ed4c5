"""Write a commented copy of a suite, for users to change and run with `--suite FOLDER`."""

from __future__ import annotations

import re
from pathlib import Path

from clbench.errors import ClbenchError
from clbench.suite import Suite, content_root, load_suite, suite_folder
from clbench.utils.files import write_text

HEADER = """\
# A suite of your own, which starts as a copy of {like}. Run it with `clbench run --suite {folder} ...`. Its results
# contain its own checksum, so they are not mixed up with those of {like} and cannot be submitted to its leaderboard.
#
# - Your photos as tasks: `clbench new-suite FOLDER --photos YOURS` writes such a suite. By hand: put them into a folder
#   beside this file, for example photos/my_cat/, add
#       mine: {{source: photos}}
#   under `datasets`, and name them in the task lists: `train: {{dataset: mine, files: [my_cat/1.jpg]}}`
# - Another checkpoint of the same class, such as a fine-tuned one: `backbone: {{source: "hub:owner/name", revision:
#   ...}}`, or `backbone: {{source: models/mine}}` for a diffusers folder beside this file. Without a checksum or a
#   commit it is identified by its content: results record that, and stored work is used only with the same content.
# - `orders` are permutations of the tasks' numbers, from 0. If you add or remove tasks, change them accordingly.
#   Training seeds are either one list for the whole suite, each used with every order, or `seeds` of a track, one for
#   each order.
"""


def write_suite_template(folder: Path, like: str) -> list[Path]:
    """Write `folder/suite.yaml` and its task lists as a copy of the suite `like`; returns the files.

    Raises:
        ClbenchError: there is no suite `like`, `folder` already holds a suite, or its name is not a valid suite name.
    """
    name = check_suite_name(folder)
    definition = load_suite(like)
    text = (suite_folder(like) / "suite.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\A(#.*\n)+", "", text)
    text = re.sub(r"^name: .*$", f"name: {name}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^version: .*$", 'version: "1"', text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^version_reason: .*$", f'version_reason: "like {like}, changed"', text, count=1, flags=re.MULTILINE)
    files = [folder / "suite.yaml"]
    for track in definition.tracks:
        source = re.search(rf"^  {re.escape(track)}:\n    tasks: (\S+)$", text, re.MULTILINE)
        assert source, "in the bundled suites, a track's first field is its task list"
        text = text.replace(f"tasks: {source[1]}", f"tasks: {track}.yaml")
        write_text(folder / f"{track}.yaml", (content_root() / "tasks" / source[1]).read_text(encoding="utf-8"))
        files.append(folder / f"{track}.yaml")
    write_text(folder / "suite.yaml", HEADER.format(like=like, folder=folder) + text)
    load_written(folder)
    return files


def check_suite_name(folder: Path) -> str:
    """The name of the suite that a folder is to hold.

    Raises:
        ClbenchError: it holds one already, or its name is not a valid suite name.
    """
    if (folder / "suite.yaml").exists():
        raise ClbenchError(f"{folder / 'suite.yaml'} exists; give another folder")
    name = folder.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ClbenchError(f"{name!r} is not a valid suite name: use letters, digits, '.', '_' and '-'")
    return name


def load_written(folder: Path) -> Suite:
    """The suite that was just written to a folder, which may have a bundled suite's name."""
    return load_suite(str(folder) if folder.parent != Path() else f"./{folder}")
