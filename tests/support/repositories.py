"""Git repositories like the project's, with a few submissions, and pull requests to them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from paths import ROOT

KEPT = (
    "submissions/VERIFIED.json",
    "submissions/mini-v2/styles/naive.json",
    "submissions/mini-v2/styles/merge_init.json",
    "docs/samples/mini-v2/styles/naive.png",
    "docs/samples/mini-v2/styles/merge_init.png",
    "leaderboard/mini-v2/styles.md",
    ".github/workflows/submissions.yml",
    ".gitignore",
    "methods/naive.py",
)
"""What a request to the project may try to change."""
IDENTITY = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "PATH": "/usr/bin:/bin"} | {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "A"), ("EMAIL", "a@example.org"))
}


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True, env=IDENTITY)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_project(folder: Path) -> Path:
    """A repository with a part of the project's files on its branch `main`."""
    for name in KEPT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q", "-b", "main")
    commit(folder)
    return folder


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "-q", "-m", "a change")


def request(repository: Path, files: Mapping[str, bytes | str | Path | None], start: str = "main") -> None:
    """Commit changes to the branch `request`: content, the target of a link, or None to remove a file."""
    git(repository, "switch", "-q", "-C", "request", start)
    for name, content in files.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
        elif content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    commit(repository)
    git(repository, "switch", "-q", "main")
