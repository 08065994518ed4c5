"""Where the files lie that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
SHARED = ROOT.parent / "shared"
"""Reference data that is not part of the repository; tests that need it skip where it is missing."""
SUPPORT = ROOT / "tests" / "support"
"""Modules that tests share. Worker processes find them when it is on their PYTHONPATH."""
PLUGINS = SUPPORT / "plugins"
FILES = (PLUGINS / "ewc.py", PLUGINS / "self_replay.py")
"""Plugins that every run of the mock suite knows."""
