"""What a run needs of `clbench.data.locate`: found, whole, and in the form that the engine loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clbench.data.locate import AssetPaths, require_assets
from clbench.errors import ClbenchError
from clbench.suite import FrozenModel, Suite


class TrackAssets(FrozenModel):
    """Where the models and data sets of one track lie."""

    folders: dict[str, Path]
    """Item -> folder, for processes with whatever working folder."""
    sha256: dict[str, str]
    """Item -> checksum of its files, as they were found."""


def resolve_assets(
    suite: Suite, name: str, track: str, places: AssetPaths, report: Callable[[str], None] = lambda item: None
) -> TrackAssets:
    """All that a track needs.

    Args:
        name: what `--suite` takes.

    Raises:
        ClbenchError: as `clbench.data.locate.require_assets`, or a CSD checkpoint that cannot be converted.
    """
    found = require_assets(suite, name, track, places, report)
    folders = {key: one.folder.absolute() for key, one in found.items() if one.folder is not None}
    if "csd" in folders:
        folders["csd"] = convert_csd(folders["csd"], places)
    return TrackAssets(folders=folders, sha256={key: one.sha256 for key, one in found.items()})


def convert_csd(source: Path, places: AssetPaths) -> Path:
    """The folder that `CSDEncoder` loads; a published checkpoint is converted once, under the data root.

    Raises:
        ClbenchError: it is not a CSD checkpoint.
    """
    from clbench.encoders.csd import convert_checkpoint

    try:
        return convert_checkpoint(source, places.root)
    except (OSError, ValueError) as error:
        raise ClbenchError(f"{source} is not a CSD checkpoint: {error}; put the published one in its place") from None
