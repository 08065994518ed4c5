"""The assets of a track: located, complete, and in the form that models are loaded from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clbench.data.locate import AssetPaths, AssetStatus, list_assets, locate_asset, require_assets
from clbench.data.published import published_configuration
from clbench.errors import ClbenchError
from clbench.suite import FrozenModel, Suite


class TrackAssets(FrozenModel):
    """The located models and data sets of one track."""

    folders: dict[str, Path]
    """Asset -> absolute folder."""
    sha256: dict[str, str]
    """Asset -> checksum of its files."""


def resolve_assets(suite: Suite, name: str, track: str, paths: AssetPaths) -> TrackAssets:
    """Locate all assets that a track needs.

    Args:
        name: the value of `--suite`.

    Raises:
        ClbenchError: as `require_assets`, or a CSD checkpoint cannot be converted.
    """
    return _prepared(require_assets(suite, name, track, paths), paths)


def _prepared(found: Mapping[str, AssetStatus], paths: AssetPaths) -> TrackAssets:
    folders = {key: status.folder.absolute() for key, status in found.items() if status.folder is not None}
    if "csd" in folders:
        folders["csd"] = convert_csd(folders["csd"], paths)
    return TrackAssets(folders=folders, sha256={key: status.sha256 for key, status in found.items()})


def assets_to_plan(suite: Suite, name: str, track: str, paths: AssetPaths) -> tuple[TrackAssets, list[AssetStatus]]:
    """What a plan needs of the assets that a track needs, and those that cannot be used yet.

    A model that is not here is counted by its published configuration. Its checksum is not known either, so that the
    store has nothing that was made with it.

    Args:
        name: the value of `--suite`.

    Raises:
        ClbenchError: a bundled asset cannot be used, or the backbone or VAE is neither here nor on record.
    """
    found = {asset.name: locate_asset(asset, paths) for asset in list_assets(suite, name, track)}
    missing = {key: status for key, status in found.items() if status.problem}
    assets = _prepared({key: status for key, status in found.items() if key not in missing}, paths)
    folders = {}
    for key, status in missing.items():
        configuration = published_configuration(status.asset.source) if status.asset.from_hub else None
        if configuration is not None:
            folders[key] = configuration
        elif key in ("backbone", "vae") or status.asset.spec.source.startswith("bundled:"):
            raise ClbenchError(status.problem or "")
    sha256 = dict.fromkeys(missing, "missing")
    return TrackAssets(folders=assets.folders | folders, sha256=assets.sha256 | sha256), list(missing.values())


def convert_csd(source: Path, paths: AssetPaths) -> Path:
    """The folder that `CSDEncoder` loads; a published checkpoint is converted once, under the data root.

    Raises:
        ClbenchError: it is not a CSD checkpoint.
    """
    from clbench.encoders.csd import convert_checkpoint

    try:
        return convert_checkpoint(source, paths.root)
    except (OSError, ValueError) as error:
        raise ClbenchError(f"{source} is not a CSD checkpoint: {error}; replace it by the published one") from None
