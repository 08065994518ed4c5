"""Files on disk: which there are, and how old they look."""

import os
import time
from pathlib import Path

DAY = 86400.0


def aged(path: Path, days: float) -> Path:
    """A file, made if it is not there, that was last written so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}
