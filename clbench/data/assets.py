"""What a run needs of `clbench.data.locate`: found, whole, and in the form that the engine loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clbench.data.locate import Places, ready
from clbench.errors import ClbenchError
from clbench.suite import Frozen, Suite


class Assets(Frozen):
    """Where the models and data sets of one track lie."""

    folders: dict[str, Path]
    """Item -> folder, for processes with whatever working folder."""
    sha256: dict[str, str]
    """Item -> checksum of its files, as they were found."""


def gather(
    suite: Suite, name: str, track: str, places: Places, report: Callable[[str], None] = lambda item: None
) -> Assets:
    """All that a track needs.

    Args:
        name: what `--suite` takes.

    Raises:
        ClbenchError: as `clbench.data.locate.ready`, or a CSD checkpoint that cannot be converted.
    """
    found = ready(suite, name, track, places, report)
    folders = {key: one.folder.absolute() for key, one in found.items() if one.folder is not None}
    if "csd" in folders:
        folders["csd"] = loadable_csd(folders["csd"], places)
    return Assets(folders=folders, sha256={key: one.sha256 for key, one in found.items()})


def loadable_csd(source: Path, places: Places) -> Path:
    """The folder that `CSDEncoder` loads; a published checkpoint is converted once, under the data root.

    Raises:
        ClbenchError: it is not a CSD checkpoint.
    """
    from clbench.encoders.csd import converted

    try:
        return converted(source, places.root)
    except (OSError, ValueError) as error:
        raise ClbenchError(f"{source} is not a CSD checkpoint: {error}; put the published one in its place") from None
