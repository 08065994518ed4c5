"""Write the site's files, and remove those that an earlier build wrote and this one does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

from clbench.errors import ClbenchError
from clbench.leaderboard.board import Board
from clbench.leaderboard.board_tables import pairs_table, published_table, study_table
from clbench.leaderboard.data import FORMATS, method_csv
from clbench.leaderboard.overall import by_suite, overall, overall_table
from clbench.leaderboard.site.pages import TrackPages, empty_page
from clbench.leaderboard.tables import to_csv
from clbench.plugins import list_methods
from clbench.results.schema import Result
from clbench.scores import RANKED_BY
from clbench.utils.files import cannot_write, write_atomic, write_text
from clbench.utils.parallel import parallel_map

MANIFEST = "site-files.json"
"""Lists what the site wrote, so that a later build removes what it no longer writes, and nothing else."""


def build_site(boards: Sequence[Board], out: Path) -> list[Path]:
    """Write the leaderboard as a static site: `<out>/index.html` and a folder a track.

    It needs no server and asks nothing of any other host. The same input gives the same bytes. Files that an earlier
    build wrote and this one does not are removed; files of anybody else are left alone.

    Args:
        boards: one a track, as `make_boards` gives them.
        out: the site's folder.

    Returns:
        The files of the site.

    Raises:
        ClbenchError: the list of an earlier build's files cannot be read.
        WorkFailed: a file cannot be written.
    """
    for board in boards:
        _ = board.rankings  # computed here, since each process that writes pages would compute them again
    copies, pages = _files(boards)
    names = [*copies, *pages]
    before = _written_before(out)
    # The list comes first, so that the files of a build that is interrupted are known to the next one.
    _write_manifest(out, before.union(names))
    for name, source in copies.items():
        _write(out / name, source.read_bytes())
    parallel_map(partial(_write_page, out, pages), list(pages))
    _remove(out, sorted(before.difference(names)))
    _write_manifest(out, names)
    return [*(out / name for name in names), out / MANIFEST]


def _write_page(out: Path, pages: Mapping[str, Callable[[], str]], name: str) -> None:
    _write(out / name, pages[name]().encode())


def _write(path: Path, content: bytes) -> None:
    write_atomic(path, lambda temporary: temporary.write_bytes(content), sync=False)


def _files(boards: Sequence[Board]) -> tuple[dict[str, Path], dict[str, Callable[[], str]]]:
    """Path below the site's root -> the file that is copied there, and path -> what makes the text that is written."""
    copies = {f"static/{path.name}": path for path in sorted((Path(__file__).parent / "static").iterdir())}
    overalls = {suite[0].suite.name: overall(suite) for suite in by_suite(boards)}
    tracks = [TrackPages(board, boards, overalls[board.suite.name]) for board in boards]
    # The first board that has something measured is the front page too.
    front = next((track for track in tracks if track.board.methods), tracks[0] if tracks else None)
    pages: dict[str, Callable[[], str]] = {"index.html": partial(front.board_page, "") if front else empty_page}
    abouts = _abouts()
    for name, found in overalls.items():
        if found:
            track = next(track for track in tracks if track.board.suite.name == name)
            pages[f"{name}/overall.html"] = partial(track.overall_page, "../")
            pages[f"{name}/overall.csv"] = partial(to_csv, overall_table(found))
            pages[f"{name}/overall.pairs.csv"] = partial(to_csv, pairs_table(found.ranking, RANKED_BY))
    for track in tracks:
        board, root = track.board, "../../"
        pages[f"{board.folder}/index.html"] = partial(track.board_page, root)
        if board.published and board.printed:
            printed = published_table(board.published, board.track.name)
            pages[f"{board.folder}/published.csv"] = partial(to_csv, printed)
        if board.published:
            pages[f"{board.suite.name}/prompt-study.csv"] = partial(to_csv, study_table(board.published.prompt_study))
            pages[f"{board.suite.name}/prompt-study.html"] = partial(track.study_page, "../")
        if len(board.methods) > 1:
            pages[f"{board.folder}/compare.html"] = partial(track.compare_page, root)
        if board.methods:
            pages |= {f"{board.folder}/board{suffix}": partial(one.render, board) for suffix, one in FORMATS.items()}
        for method in board.methods:
            place = f"{board.folder}/methods/{method.variant}"
            link = f"{method.variant}.png" if method.variant in board.grids else None
            if link:
                copies[f"{place}.png"] = board.grids[method.variant]
            about = abouts.get(method.result.method.name, "")
            pages[f"{place}.html"] = partial(track.method_page, "../../../", method, about, link)
            pages[f"{place}.json"] = partial(_result_json, method.result)
            pages[f"{place}.csv"] = partial(method_csv, method)
    return copies, pages


def _result_json(result: Result) -> str:
    return result.model_dump_json(indent=1) + "\n"


def _abouts() -> dict[str, str]:
    """Method -> what it does, in the first paragraph of its class, for those that are registered here."""
    documents = {name: cls.__doc__ or "" for name, cls in list_methods().items()}
    return {name: " ".join(document.split("\n\n")[0].split()) for name, document in documents.items()}


# --- What an earlier build wrote ---


def _written_before(out: Path) -> set[str]:
    path = out / MANIFEST
    if not path.is_file():
        return set()
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["files"]
        if not all(_is_inside(name) for name in names):
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError):
        raise ClbenchError(f"{path} is not the list of a site's files; remove the folder and build it anew") from None
    return set(names)


def _is_inside(name: object) -> bool:
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    return bool(parts) and not PurePosixPath(*parts).is_absolute() and ".." not in parts


def _write_manifest(out: Path, names: Iterable[str]) -> None:
    write_text(out / MANIFEST, json.dumps({"files": sorted(names)}, indent=1) + "\n")


def _remove(out: Path, names: Sequence[str]) -> None:
    """Remove files, and the folders that this leaves empty."""
    for name in names:
        path = out / name
        if not path.resolve().is_relative_to(out.resolve()):  # somebody has put a link in its place
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        for folder in (folder for folder in path.parents if folder.is_relative_to(out) and folder != out):
            with suppress(OSError):  # not empty
                folder.rmdir()
