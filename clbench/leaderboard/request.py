"""Check a pull request that submits results: it brings results and their sample grids, and nothing else.

The request is what its merge would change on the base branch: a branch that lags behind removes nothing, and nothing
that the merge brings escapes. It is read from git's objects as data; the code, the suites and the methods that judge
it are those of the installed package, which must be the base branch's.

Nothing that was submitted is changed or removed; that is for the maintainers. Whoever repeats a variant's runs adds a
replicate beside its first submission, with the same source and settings (CLB026).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from clbench.errors import ClbenchError
from clbench.leaderboard.submitted import submitted_boards, try_boards
from clbench.results.find import FOLDER
from clbench.results.io import load_result
from clbench.results.submission import SAMPLES, missing_origin, suites_with_board
from clbench.results.validation import check_file
from clbench.utils.files import is_device_name
from clbench.utils.formatting import format_bytes, printable
from clbench.utils.git import REGULAR, Entry, list_entries, merge_tree, read_blobs, resolve_commit
from clbench.utils.png import png_problem

MAX_FILE, MAX_REQUEST = 2_000_000, 10_000_000
"""In bytes. A full result of `sdxl-v1` has about 100 kB, a sample grid 250 kB."""
MOST_LISTED = 20
"""So many problems are named; a request can have as many as it has files."""
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
ALLOWED = re.compile(
    rf"({FOLDER}/{_NAME}/{_NAME}/{_NAME}(\+[1-9][0-9]{{0,5}})?\.json)|({SAMPLES}/{_NAME}/{_NAME}/{_NAME}\.png)"
)
"""What a request may bring: results, replicates and sample grids, <suite>/<track>/<variant>."""


@dataclass
class Verdict:
    """What is wrong with a request, and what it brings."""

    problems: list[str] = field(default_factory=list)
    """A sentence each; empty = it may be merged, as far as a program can tell."""
    results: list[str] = field(default_factory=list)
    """The places of the results."""


def check_request(repository: Path, base: str, head: str) -> Verdict:
    """What is wrong with merging the commit `head` into the commit `base`.

    The form comes first (paths, kinds and sizes of files); results are read only if nothing is wrong with that, and
    boards are built only if the results are valid.

    Raises:
        ClbenchError: git cannot read the commits, or they conflict.
    """
    base, head = resolve_commit(repository, base), resolve_commit(repository, head)
    before = list_entries(repository, base)
    after = list_entries(repository, merge_tree(repository, base, head))
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    problems = list(_form_problems(before, after, changed))
    verdict = Verdict(problems, [path for path in changed if path.startswith(f"{FOLDER}/")])
    if not problems:
        with TemporaryDirectory() as folder:
            new = Path(folder)
            _write(repository, after, [path for path in after if path.startswith((f"{FOLDER}/", f"{SAMPLES}/"))], new)
            problems += _content_problems(new, changed)
            if not problems:
                problems += _board_problems(new)
    return verdict


def _form_problems(before: Mapping[str, Entry], after: Mapping[str, Entry], changed: list[str]) -> Iterator[str]:
    """What can be said without reading a file."""
    if not changed:
        yield "the request changes nothing"
    folded = Counter(path.casefold() for path in after)
    for path in changed:
        name = printable(path)
        if not ALLOWED.fullmatch(path):
            yield f"{name} may not change: only results in {FOLDER}/ and sample grids in {SAMPLES}/ may"
        elif path not in after:
            yield f"{name} would be removed; only maintainers remove submissions"
        elif path in before and path.startswith(f"{FOLDER}/"):
            yield f"{name} was submitted before and may not change: `clbench submit` files a result beside it"
        elif after[path].mode != REGULAR:
            yield f"{name} is no plain file: its git mode is {after[path].mode} (a link, a program or a submodule)"
        elif after[path].size > MAX_FILE:
            yield f"{name} has {format_bytes(after[path].size)}; at most {format_bytes(MAX_FILE)} are accepted"
        elif folded[path.casefold()] > 1:
            yield f"{name} differs from another name in the case of letters alone, so that not every system has both"
        elif any(is_device_name(part) for part in path.split("/")):
            yield f"{name} has a name that Windows keeps for a device"
        elif path.startswith(f"{SAMPLES}/") and _result_of(path) not in changed:
            yield f"{name} is a sample grid without its result in the same request"
    total = sum(after[path].size for path in changed if path in after)
    if total > MAX_REQUEST:
        yield f"the request brings {format_bytes(total)}; at most {format_bytes(MAX_REQUEST)} are accepted at once"


def _result_of(grid: str) -> str:
    return f"{FOLDER}/{grid.removeprefix(f'{SAMPLES}/').removesuffix('.png')}.json"


def _write(repository: Path, entries: Mapping[str, Entry], paths: list[str], folder: Path) -> None:
    """Write files of a tree below a folder; their paths and modes were looked at, or are the base branch's."""
    for path, content in zip(paths, read_blobs(repository, [entries[path].oid for path in paths]), strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def _content_problems(new: Path, changed: list[str]) -> Iterator[str]:
    """What is wrong with the results and grids themselves."""
    for path in changed:
        if path.startswith(f"{SAMPLES}/"):
            if problem := png_problem((new / path).read_bytes()):
                yield f"{path} {problem}"
        else:
            yield from (f"{path}: {printable(problem)}" for problem in _result_problems(new / path))


def _result_problems(new: Path) -> Iterator[str]:
    if findings := check_file(new):
        yield from (f"{finding.code} {finding.message}" for finding in findings)
        return
    result = load_result(new)
    if result.suite.name not in (boards := suites_with_board()):
        yield f"suite {result.suite.name} has no board; only {', '.join(boards)} have"
    if result.submission is None:
        yield "it says nobody who submits it; file it with `clbench submit`"
    elif missing := missing_origin(result):
        options = ", ".join(f"--{name}" for name in missing)
        yield f"its method is not in methods/, so that it must say where it comes from: `clbench submit` with {options}"


def _board_problems(new: Path) -> Iterator[str]:
    try:
        try_boards(submitted_boards(new / FOLDER, new / SAMPLES))
    except ClbenchError as error:
        yield printable(str(error))
