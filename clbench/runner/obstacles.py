"""What stands in the way of a run: it is refused, but a dry run only tells of it.

obstacles = Obstacles(tell=dry_run)
with obstacles.noted():
    check_disk(...)     # its ClbenchError is raised or, in a dry run, noted
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clbench.data.assets import TrackAssets, assets_to_plan, resolve_assets
from clbench.data.locate import AssetPaths, AssetStatus
from clbench.data.published import SIZES
from clbench.errors import ClbenchError
from clbench.suite import Suite
from clbench.utils.formatting import format_bytes


class Obstacles:
    """Why the work could not begin here and now.

    Args:
        tell: whether they are noted; else the first is raised.
    """

    def __init__(self, tell: bool) -> None:
        self._tell, self._suite = tell, ""
        self._downloaded = False
        """Whether something that is needed is here."""
        self._missing: dict[str, AssetStatus] = {}
        self._refusals: list[str] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a ClbenchError in a dry run, and go on after the block."""
        try:
            yield
        except ClbenchError as error:
            if not self._tell:
                raise
            self._refusals.append(str(error))

    def assets(self, suite: Suite, name: str, tracks: Sequence[str], paths: AssetPaths) -> dict[str, TrackAssets]:
        """Each track's assets; in a dry run, what is missing is noted.

        Args:
            name: the value of `--suite`.

        Raises:
            ClbenchError: as `resolve_assets` or, in a dry run, as `assets_to_plan`.
        """
        if not self._tell:
            return {track: resolve_assets(suite, name, track, paths) for track in tracks}
        found = {}
        for track in tracks:
            found[track], missing = assets_to_plan(suite, name, track, paths)
            self._missing |= {status.asset.name: status for status in missing}
            self._downloaded |= len(missing) < len(found[track].sha256)
        self._suite = name
        return found

    def summary(self) -> dict[str, Any]:
        """For machines."""
        assets = [status.asset for status in self._missing.values()]
        return {
            "missing": [
                {"item": asset.name, "source": asset.source, "bytes": SIZES.get(asset.source)} for asset in assets
            ],
            "obstacles": self._refusals,
        }

    def sentences(self) -> list[str]:
        """For people."""
        absent = [status.asset for status in self._missing.values() if status.folder is None]
        unusable = [status.problem or "" for status in self._missing.values() if status.folder is not None]
        by_hand = [asset.name for asset in absent if not asset.from_hub]
        told = []
        if wanted := [asset for asset in absent if asset.from_hub]:
            sized = [asset for asset in wanted if asset.source in SIZES]
            unsized = [asset.name for asset in wanted if asset not in sized]
            what = "not all is downloaded yet" if self._downloaded else "nothing downloaded yet"
            needs = []
            if sized:
                total = format_bytes(sum(SIZES[asset.source] for asset in sized))
                needs.append(f"about {total} of models ({', '.join(asset.name for asset in sized)})")
            if unsized:
                needs.append(f"the pictures of {', '.join(unsized)} (size not on record)")
            fetch = f"`clbench data fetch --suite {self._suite}`"
            told.append(f"{what}; needs {' and '.join(needs)}: {fetch} gets them")
        if by_hand:
            status = f"`clbench data status --suite {self._suite}` tells where"
            told.append(f"to be put in place by hand: {', '.join(by_hand)}; {status}")
        return told + [f"it could not start here now: {reason}" for reason in (*unusable, *self._refusals)]
