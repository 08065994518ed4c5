"""The assets of a track: located, complete, and in the form that models are loaded from."""

from __future__ import annotations

from pathlib import Path

from clbench.data.locate import AssetPaths, require_assets
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
    found = require_assets(suite, name, track, paths)
    folders = {key: status.folder.absolute() for key, status in found.items() if status.folder is not None}
    if "csd" in folders:
        folders["csd"] = convert_csd(folders["csd"], paths)
    return TrackAssets(folders=folders, sha256={key: status.sha256 for key, status in found.items()})


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
