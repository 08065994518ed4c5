"""Locate a suite's models and data sets, and check that their files are complete, before any work begins.

    paths = AssetPaths(Path("~/data").expanduser(), suite_folder("sdxl-v1"))
    for asset in list_assets(suite, "sdxl-v1"):
        print(locate_asset(asset, paths))
    found = require_assets(suite, "sdxl-v1", "styles", paths)      # name -> AssetStatus; raises if one is not usable

A hub repository is looked for under the data root FOLDER, at the path that `FOLDER/data.toml` gives
(`"google/dreambooth" = "/datasets/dreambooth"`) or as `FOLDER/dreambooth`; then in the hub's cache, at the pinned
commit. Other assets are bundled, or lie beside the definition. `clbench.data.download` fetches what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clbench.data.images import check_photo
from clbench.errors import ClbenchError, did_you_mean
from clbench.suite import Dataset, Suite, Track, Weights
from clbench.utils.files import cache_folder, expand_user, file_sha256

ALTERNATIVE = " | "
"""Separates the names of a needed file of which any one is enough."""
DATASET_FOLDERS = ("", "dataset", "data")
"""Folders that may hold a data set's files; its git checkout and its hub repository have them in `dataset`."""


@dataclass(frozen=True)
class AssetPaths:
    """The folders in which to look for assets."""

    root: Path
    """The data root: the user's own copies of hub repositories."""
    suite_folder: Path
    """The folder of the suite's definition."""

    def own_copy(self, hub_id: str) -> Path | None:
        """The user's own copy of a hub repository; None if there is none.

        Raises:
            ClbenchError: `data.toml` cannot be read.
        """
        settings = self.root / "data.toml"
        if settings.exists():
            try:
                path = tomllib.loads(settings.read_text(encoding="utf-8")).get(hub_id)
            except (OSError, ValueError) as error:
                raise ClbenchError(f"cannot read {settings}: {error}") from None
            if path is not None:
                if not isinstance(path, str):
                    raise ClbenchError(f"{settings}: field {hub_id!r}: expected a path in quotes, not {path!r}")
                return self.root / expand_user(path)
        default = self.default_folder(hub_id)
        return default if default.exists() else None

    def default_folder(self, hub_id: str) -> Path:
        """Where a copy of a hub repository belongs under the data root."""
        return self.root / hub_id.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Asset:
    """One model or data set that a suite needs."""

    name: str
    """`backbone`, `vae`, or the name of an encoder or a data set."""
    spec: Weights | Dataset
    files: tuple[str, ...] | None
    """The files that are needed; None: all files."""
    suite: str
    """The value of `--suite` for the suite that needs it."""

    @property
    def source(self) -> str:
        """The source in the definition, without `hub:`."""
        return self.spec.source.removeprefix("hub:")

    @property
    def from_hub(self) -> bool:
        return self.spec.source.startswith("hub:")

    @property
    def remedy(self) -> str:
        """What to do if the asset is missing or damaged."""
        if self.from_hub:
            suite = "" if self.suite == "mini-v2" else f" --suite {self.suite}"
            fetch = f"`clbench data fetch{suite} --item {self.name}`"
            return f"get it with {fetch}, or give a complete copy with --data-root"
        if self.spec.source.startswith("bundled:"):
            return f"restore it, e.g. with `git checkout -- {bundled_folder(self.spec.source)}`"
        return "repair it, or change its `source` in suite.yaml"


@dataclass(frozen=True)
class AssetStatus:
    """The outcome of locating one asset."""

    asset: Asset
    folder: Path | None
    """Where its files are; None if nothing was found."""
    origin: str = ""
    """`data root`, `bundled`, `hub cache` or `definition`."""
    problem: str | None = None
    """Why it cannot be used, in one sentence with the remedy."""
    files: int = 0
    """Number of files."""
    size: int = 0
    """Size of all files in bytes."""
    verified: int = 0
    """Number of files that match a checksum in the definition or the hub's cache."""
    sha256: str = ""
    """Checksum of the files and their names."""


class _Problem(Exception):
    """Why an asset cannot be used, without its name and the remedy."""


def list_assets(suite: Suite, name: str, track: str | None = None) -> list[Asset]:
    """The assets that a suite, or one of its tracks, needs; `name` is the value of `--suite`."""
    tracks = suite.tracks.values() if track is None else [suite.track(track)]
    encoders = {encoder for chosen in tracks for encoder in chosen.encoders}
    models = {"backbone": suite.backbone} | ({"vae": suite.vae} if suite.vae else {})
    models |= {encoder: suite.encoders[encoder] for encoder in sorted(encoders)}
    assets = [Asset(key, weights, weights.files, name) for key, weights in models.items()]
    for key, dataset in (suite.datasets or {}).items():
        files = sorted({file for chosen in tracks for file in _photo_files(chosen, key)})
        if key in models:
            raise ClbenchError(f"the data set {key!r} of suite {suite.name} needs another name: a model has this one")
        if files:
            assets.append(Asset(key, dataset, tuple(files), name))
    return assets


def _photo_files(track: Track, dataset: str) -> Iterator[str]:
    """The files of a data set that a track's tasks use."""
    for task in track.tasks:
        for photos in task.photos:
            if photos.dataset == dataset:
                yield from photos.files


def select_assets(assets: list[Asset], names: Iterable[str] | None) -> list[Asset]:
    """The assets with the given names; None selects all."""
    if names is None:
        return assets
    by_name = {asset.name: asset for asset in assets}
    for name in names:
        if name not in by_name:
            raise ClbenchError(f"there is no item {name!r}{did_you_mean(name, list(by_name))}")
    return [by_name[name] for name in names]


def require_assets(suite: Suite, name: str, track: str, paths: AssetPaths) -> dict[str, AssetStatus]:
    """Locate and check all assets of a track, by name.

    Raises:
        ClbenchError: an asset is missing, incomplete, damaged or a different one (says which, and the remedy).
    """
    found = {asset.name: locate_asset(asset, paths) for asset in list_assets(suite, name, track)}
    problems = [status.problem for status in found.values() if status.problem]
    if problems:
        count = len(problems) - 1
        more = f" (and {count} more: see `clbench data status --suite {name}`)" if count else ""
        raise ClbenchError(f"{problems[0]}{more}")
    return found


def locate_asset(asset: Asset, paths: AssetPaths) -> AssetStatus:
    """Find an asset, and check each needed file: it exists, can be read, and matches its checksum if one is known."""
    folder, origin = None, ""
    try:
        folder, origin = _find_folder(asset, paths)
        folder, files = _find_files(asset, folder)
        with ThreadPoolExecutor() as pool:  # checksums and decoding release the interpreter's lock
            checks = list(pool.map(lambda pair: _check_file(asset, *pair), files.items()))
        sha = hashlib.sha256()
        for file, (value, _) in zip(files, checks, strict=True):
            sha.update(f"{file} {value}\n".encode())
        verified = sum(known for _, known in checks)
        if isinstance(asset.spec, Weights) and asset.spec.sha256:
            if sha.hexdigest() != asset.spec.sha256:
                expected = f"its sha256 is {sha.hexdigest()[:12]}..., expected {asset.spec.sha256[:12]}..."
                raise _Problem(f"is not the model that the definition names: {expected}")
            verified = len(files)
    except _Problem as error:
        where = f" in {folder}" if folder is not None else ""
        kind = "data set" if isinstance(asset.spec, Dataset) else "model"
        sentence = f"the {kind} {asset.name} ({asset.source}){where} {error}; {asset.remedy}"
        return AssetStatus(asset, folder, origin, sentence)
    size = sum(path.stat().st_size for path in files.values())
    return AssetStatus(asset, folder, origin, None, len(files), size, verified, sha.hexdigest())


def _find_folder(asset: Asset, paths: AssetPaths) -> tuple[Path, str]:
    """The asset's folder, and its origin."""
    copy = paths.own_copy(asset.source) if asset.from_hub else None
    if copy is not None:
        if not copy.exists():
            raise _Problem(f"is missing: {paths.root / 'data.toml'} names {copy}, which does not exist")
        return copy, "data root"
    source = asset.spec.source
    if source.startswith("bundled:"):
        folder, origin = bundled_folder(source), "bundled"
    elif asset.from_hub:
        return _in_hub_cache(asset), "hub cache"
    else:
        folder, origin = paths.suite_folder / source, "definition"
    if not folder.is_dir():
        raise _Problem(f"is missing: there is no folder {folder}")
    return folder, origin


def bundled_folder(source: str) -> Path:
    """The folder of a bundled model, named with or without `bundled:`."""
    return Path(__file__).parent.parent / "miniworld" / "weights" / source.removeprefix("bundled:")


def hub_repo_type(asset: Asset) -> str:
    """The type of the asset's hub repository."""
    return "dataset" if isinstance(asset.spec, Dataset) else "model"


def _in_hub_cache(asset: Asset) -> Path:
    from huggingface_hub import scan_cache_dir, snapshot_download
    from huggingface_hub.errors import CacheNotFound, LocalEntryNotFoundError

    kind, revision = hub_repo_type(asset), asset.spec.revision
    with suppress(LocalEntryNotFoundError):
        return Path(snapshot_download(asset.source, repo_type=kind, revision=revision, local_files_only=True))
    with suppress(CacheNotFound):
        copies = [repo for repo in scan_cache_dir().repos if (repo.repo_type, repo.repo_id) == (kind, asset.source)]
        others = sorted(snapshot.commit_hash[:12] for repo in copies for snapshot in repo.revisions)
        if others and revision:
            raise _Problem(f"is in the hub's cache at revision {', '.join(others)}, but {revision[:12]} is needed")
    raise _Problem("is missing: it is neither under the data root nor in the hub's cache")


def _find_files(asset: Asset, folder: Path) -> tuple[Path, dict[str, Path]]:
    """The folder to which the names of the needed files are relative, and name -> path.

    Raises:
        _Problem: some files are missing.
    """
    if folder.is_file():  # a single file of weights
        return folder, {folder.name: folder}
    if asset.files is None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return folder, {path.relative_to(folder).as_posix(): path for path in files}
    bases = DATASET_FOLDERS if isinstance(asset.spec, Dataset) else ("",)
    candidates = {folder / base: _existing_files(folder / base, asset.files) for base in bases}
    base, found = max(candidates.items(), key=lambda pair: len(pair[1]))
    missing = [file for file in asset.files if file not in found]
    if missing:
        raise _Problem(_describe_missing(asset.files, missing))
    paths = [found[file] for file in asset.files]
    return base, {path.relative_to(base).as_posix(): path for path in paths}


def _existing_files(base: Path, files: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for file in files:
        present = [base / name for name in file.split(ALTERNATIVE) if (base / name).is_file()]
        if present:
            found[file] = present[0]
    return found


def _describe_missing(files: tuple[str, ...], missing: list[str]) -> str:
    """How many files are missing, with examples from the first folder that lacks some."""
    folder = Path(missing[0]).parent
    needed = [file for file in files if Path(file).parent == folder]
    lacking = [file for file in needed if file in missing]
    elsewhere = f", and {len(missing) - len(lacking)} elsewhere" if len(missing) > len(lacking) else ""
    place = "" if folder == Path() else f" of {folder.as_posix()}/"
    names = ", ".join(file if folder == Path() else Path(file).name for file in lacking[:3])
    return f"has {len(needed) - len(lacking)} of {len(needed)} needed files{place}: missing {names}{elsewhere}"


def _check_file(asset: Asset, file: str, path: Path) -> tuple[str, bool]:
    """A file's sha256, and whether it matches a known one.

    Raises:
        _Problem: the file is damaged or a different one.
    """
    try:
        if isinstance(asset.spec, Dataset):
            check_photo(path, upright_rgb=asset.from_hub)
        elif path.suffix == ".safetensors":
            _check_safetensors(path)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        value = file_sha256(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _Problem(f"is damaged: {file}: {reason}") from None
    if expected := (asset.spec.checksums or {}).get(file):
        if value != expected:
            sums = f"sha256 {value[:12]}..., expected {expected[:12]}..."
            raise _Problem(f"is not the one that the definition names: {file} has {sums}")
    elif (expected := _hub_checksum(path)) and expected != (value if len(expected) == 64 else _git_sha1(path)):
        raise _Problem(f"is damaged: {file} is not what the hub's cache says it is")
    return value, bool(expected)


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            pass
    except SafetensorError as error:
        raise ValueError(f"it is cut short or no safetensors file ({error})") from None


def _hub_checksum(path: Path) -> str | None:
    """The checksum in a file name of the hub's cache, where files link to their content: sha256, or git's sha1."""
    target = path.resolve()
    return target.name if target.parent.name == "blobs" and len(target.name) in (40, 64) else None


def _git_sha1(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def default_data_root() -> Path:
    """`$CLBENCH_DATA_ROOT`, else the folder `clbench` in the user's cache folder."""
    chosen = os.environ.get("CLBENCH_DATA_ROOT")
    return expand_user(chosen) if chosen else cache_folder()
