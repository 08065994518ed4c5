"""Read YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from clbench.errors import ClbenchError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C loader, if PyYAML was built with it: it gives the same and is ten times as fast."""


def read_yaml(path: Path) -> Any:
    """The content of a file.

    Raises:
        ClbenchError: it cannot be read, or is no YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or NUL in the path
        raise ClbenchError(f"cannot read {path}: {' '.join(str(error).split())}") from None
