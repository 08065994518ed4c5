"""Where a suite's models and data sets lie, and whether they are whole: looked at before any work begins.

    paths = AssetPaths(Path("~/data").expanduser(), suite_folder("sdxl-v1"))
    for asset in list_assets(suite, "sdxl-v1"):
        print(locate_asset(asset, paths))
    found = require_assets(suite, "sdxl-v1", "styles", paths)      # name -> AssetStatus; raises if one is not usable

What a definition names by hub id is looked for under the data root FOLDER, where `FOLDER/data.toml` says
(`"google/dreambooth" = "/datasets/dreambooth"`) or as `FOLDER/dreambooth`; then in the hub's cache, at the pinned
commit. The rest is bundled, or lies beside the definition. `clbench.data.download` gets what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clbench.data.images import check_photo
from clbench.errors import ClbenchError, did_you_mean
from clbench.metrics import ENCODER_OF
from clbench.suite import Dataset, Suite, Track, Weights
from clbench.utils.files import file_sha256

ALTERNATIVE = " | "
"""Between the names of a needed file, where any of several will do."""
DATASET_FOLDERS = ("", "dataset", "data")
"""Below which a data set's files may lie: its checkout and its hub repository put them into `dataset`."""


@dataclass(frozen=True)
class AssetPaths:
    """Where to look."""

    root: Path
    """The data root."""
    beside: Path
    """The folder of the definition."""

    def chosen(self, hub_id: str) -> Path | None:
        """The user's own copy of a hub repository, if there is one.

        Raises:
            ClbenchError: `data.toml` cannot be read.
        """
        settings = self.root / "data.toml"
        if settings.exists():
            try:
                named = tomllib.loads(settings.read_text(encoding="utf-8")).get(hub_id)
            except (OSError, ValueError) as error:
                raise ClbenchError(f"cannot read {settings}: {error}") from None
            if named is not None:
                if not isinstance(named, str):
                    raise ClbenchError(f"{settings}: field {hub_id!r}: expected a path in quotes, not {named!r}")
                return self.root / Path(named).expanduser()
        own = self.own(hub_id)
        return own if own.exists() else None

    def own(self, hub_id: str) -> Path:
        """Where a copy belongs under the data root."""
        return self.root / hub_id.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Asset:
    """One model or data set that a suite needs."""

    name: str
    """`backbone`, `vae`, an encoder's or a data set's name."""
    spec: Weights | Dataset
    files: tuple[str, ...] | None
    """What is needed of it; None: all there is."""
    suite: str
    """What `--suite` takes to mean the suite that needs it."""

    @property
    def place(self) -> str:
        """How the definition names it."""
        return self.spec.source.removeprefix("hub:")

    @property
    def from_hub(self) -> bool:
        return self.spec.source.startswith("hub:")

    @property
    def remedy(self) -> str:
        if self.from_hub:
            suite = "" if self.suite == "mini-v2" else f" --suite {self.suite}"
            return f"get it with `clbench data fetch{suite} --item {self.name}`, or give a whole copy with --data-root"
        if self.spec.source.startswith("bundled:"):
            return f"restore it, e.g. with `git checkout -- {_bundled(self.spec.source)}`"
        return "mend it, or name another place with --data-root"


@dataclass(frozen=True)
class AssetStatus:
    """What there is of an item."""

    item: Asset
    folder: Path | None
    """Where its files are; None where nothing was found."""
    origin: str = ""
    """`data root`, `bundled`, `hub cache` or `definition`."""
    problem: str | None = None
    """What is wrong with it, in one sentence with its remedy."""
    files: int = 0
    size: int = 0
    """Bytes."""
    compared: int = 0
    """How many files have a checksum on record, which fits."""
    sha256: str = ""
    """Of its files, names included."""


class _Wrong(Exception):
    """What is wrong with an item, without its name and its remedy."""


def list_assets(suite: Suite, name: str, track: str | None = None) -> list[Asset]:
    """What a suite needs, or one track of it; `name` is what `--suite` takes."""
    tracks = suite.tracks.values() if track is None else [suite.track(track)]
    encoders = {ENCODER_OF[metric] for chosen in tracks for metric in chosen.metrics}
    models = {"backbone": suite.backbone} | ({"vae": suite.vae} if suite.vae else {})
    models |= {encoder: suite.encoders[encoder] for encoder in sorted(encoders)}
    found = [Asset(key, weights, weights.files, name) for key, weights in models.items()]
    for key, dataset in (suite.datasets or {}).items():
        files = sorted({file for chosen in tracks for file in photo_files(chosen, key)})
        if key in models:
            raise ClbenchError(f"the data set {key!r} of suite {suite.name} needs another name: a model has this one")
        if files:
            found.append(Asset(key, dataset, tuple(files), name))
    return found


def photo_files(track: Track, dataset: str) -> Iterator[str]:
    """All files that a track's tasks name in a data set."""
    for task in track.tasks:
        for photos in task.photos:
            if photos.dataset == dataset:
                yield from photos.files


def select_assets(known: list[Asset], names: Iterable[str] | None) -> list[Asset]:
    """The items of those names; all by default."""
    if names is None:
        return known
    by_name = {item.name: item for item in known}
    for name in names:
        if name not in by_name:
            raise ClbenchError(f"there is no item {name!r}{did_you_mean(name, list(by_name))}")
    return [by_name[name] for name in names]


def require_assets(
    suite: Suite, name: str, track: str, places: AssetPaths, report: Callable[[str], None] = lambda item: None
) -> dict[str, AssetStatus]:
    """Asset -> where it is, for all that a track needs, every file looked at.

    Raises:
        ClbenchError: an item is missing, incomplete, damaged or another one (says which, and what to do).
    """
    found = {}
    for item in list_assets(suite, name, track):
        report(item.name)
        found[item.name] = locate_asset(item, places)
    wrong = [one.problem for one in found.values() if one.problem]
    if wrong:
        more = f" (and {len(wrong) - 1} more: see `clbench data status --suite {name}`)" if len(wrong) > 1 else ""
        raise ClbenchError(f"{wrong[0]}{more}")
    return found


def locate_asset(item: Asset, places: AssetPaths) -> AssetStatus:
    """Find an item and look at each file that is needed: there, whole, the right one?"""
    folder, origin = None, ""
    try:
        folder, origin = _find(item, places)
        folder, paths = _needed(item, folder)
        with ThreadPoolExecutor() as pool:  # checksums and decoding leave Python's lock
            sums = list(pool.map(lambda pair: _check_file(item, *pair), paths.items()))
        sha = hashlib.sha256()
        for file, (value, _) in zip(paths, sums, strict=True):
            sha.update(f"{file} {value}\n".encode())
        compared = sum(known for _, known in sums)
        if isinstance(item.spec, Weights) and item.spec.sha256:
            if sha.hexdigest() != item.spec.sha256:
                expected = f"its sha256 is {sha.hexdigest()[:12]}..., expected {item.spec.sha256[:12]}..."
                raise _Wrong(f"is not the model that the definition names: {expected}")
            compared = len(paths)
    except _Wrong as error:
        where = f" in {folder}" if folder is not None else ""
        what = "data set" if isinstance(item.spec, Dataset) else "model"
        return AssetStatus(item, folder, origin, f"the {what} {item.name} ({item.place}){where} {error}; {item.remedy}")
    size = sum(path.stat().st_size for path in paths.values())
    return AssetStatus(item, folder, origin, None, len(paths), size, compared, sha.hexdigest())


def _find(item: Asset, places: AssetPaths) -> tuple[Path, str]:
    chosen = places.chosen(item.place) if item.from_hub else None
    if chosen is not None:
        if not chosen.exists():
            raise _Wrong(f"should be at {chosen}, says {places.root / 'data.toml'}, but there is nothing")
        return chosen, "data root"
    source = item.spec.source
    if source.startswith("bundled:"):
        folder, origin = _bundled(source), "bundled"
    elif item.from_hub:
        return _in_hub_cache(item), "hub cache"
    else:
        folder, origin = places.beside / source, "definition"
    if not folder.is_dir():
        raise _Wrong(f"is missing: there is no folder {folder}")
    return folder, origin


def _bundled(source: str) -> Path:
    return Path(__file__).parent.parent / "miniworld" / "weights" / source.removeprefix("bundled:")


def hub_repo_type(item: Asset) -> str:
    """What the hub calls this kind of repository."""
    return "dataset" if isinstance(item.spec, Dataset) else "model"


def _in_hub_cache(item: Asset) -> Path:
    from huggingface_hub import scan_cache_dir, snapshot_download
    from huggingface_hub.errors import CacheNotFound, LocalEntryNotFoundError

    kind, revision = hub_repo_type(item), item.spec.revision
    with suppress(LocalEntryNotFoundError):
        return Path(snapshot_download(item.place, repo_type=kind, revision=revision, local_files_only=True))
    with suppress(CacheNotFound):
        copies = [repo for repo in scan_cache_dir().repos if (repo.repo_type, repo.repo_id) == (kind, item.place)]
        others = sorted(snapshot.commit_hash[:12] for repo in copies for snapshot in repo.revisions)
        if others and revision:
            raise _Wrong(f"is in the hub's cache at revision {', '.join(others)}, but {revision[:12]} is needed")
    raise _Wrong("is missing: it is neither under the data root nor in the hub's cache")


def _needed(item: Asset, folder: Path) -> tuple[Path, dict[str, Path]]:
    """The folder that the files' names start from, and where each needed file is.

    Raises:
        _Wrong: some are missing.
    """
    if folder.is_file():  # one file of weights
        return folder, {folder.name: folder}
    if item.files is None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return folder, {path.relative_to(folder).as_posix(): path for path in files}
    bases = DATASET_FOLDERS if isinstance(item.spec, Dataset) else ("",)
    there = {folder / base: _those_there(folder / base, item.files) for base in bases}
    base, found = max(there.items(), key=lambda pair: len(pair[1]))
    missing = [file for file in item.files if file not in found]
    if missing:
        raise _Wrong(_incomplete(item, found, missing))
    paths = [found[file] for file in item.files]
    return base, {path.relative_to(base).as_posix(): path for path in paths}


def _those_there(base: Path, files: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for file in files:
        present = [base / name for name in file.split(ALTERNATIVE) if (base / name).is_file()]
        if present:
            found[file] = present[0]
    return found


def _incomplete(item: Asset, found: dict[str, Path], missing: list[str]) -> str:
    """How much is missing, told by the first folder that lacks something."""
    first = Path(missing[0]).parent
    siblings = [file for file in item.files or () if Path(file).parent == first]
    lacking = [file for file in siblings if file in missing]
    more = f", and {len(missing) - len(lacking)} elsewhere" if len(missing) > len(lacking) else ""
    count = f"has {len(siblings) - len(lacking)} of {len(siblings)} needed files of {first.as_posix()}/"
    if first == Path():
        count = f"has {len(siblings) - len(lacking)} of {len(siblings)} needed files"
    return f"{count}: missing {', '.join(Path(file).name if first != Path() else file for file in lacking[:3])}{more}"


def _check_file(item: Asset, file: str, path: Path) -> tuple[str, bool]:
    """A file's sha256, and whether one is on record for it.

    Raises:
        _Wrong: it is damaged, or another one.
    """
    try:
        if isinstance(item.spec, Dataset):
            check_photo(path, upright_rgb=item.from_hub)
        elif path.suffix == ".safetensors":
            _check_safetensors(path)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        value = file_sha256(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _Wrong(f"is damaged: {file}: {reason}") from None
    on_record = (item.spec.checksums or {}).get(file)
    if on_record and value != on_record:
        sums = f"sha256 {value[:12]}..., expected {on_record[:12]}..."
        raise _Wrong(f"is not the one that the definition names: {file} has {sums}")
    if not on_record:
        on_record = _hub_name(path)
        if on_record and on_record not in (value, _git_sha1(path) if len(on_record) == 40 else value):
            raise _Wrong(f"is damaged: {file} is not what the hub's cache says it is")
    return value, bool(on_record)


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            pass
    except SafetensorError as error:
        raise ValueError(f"it is cut short or no safetensors file ({error})") from None


def _hub_name(path: Path) -> str | None:
    """In the hub's cache a file is a link to its content, which is named by its sha256 or, if small, by git's sha1."""
    target = path.resolve()
    return target.name if target.parent.name == "blobs" and len(target.name) in (40, 64) else None


def _git_sha1(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def default_data_root() -> Path:
    """`$CLBENCH_DATA_ROOT`, else `clbench` in the user's cache folder."""
    chosen = os.environ.get("CLBENCH_DATA_ROOT")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen).expanduser() if chosen else cache / "clbench"
