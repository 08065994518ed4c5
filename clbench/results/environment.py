"""A description of the machine that made a result. What cannot be read is null: it must not fail a finished run."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clbench.results.schema import Environment
from clbench.utils.formatting import printable

PACKAGES = ("clbench", "torch", "diffusers", "transformers", "peft", "open_clip_torch", "safetensors", "numpy")


def describe(device: str) -> Environment:
    """This machine and process, with what computes on it."""
    import torch

    cuda = device.startswith("cuda")
    name = printable(torch.cuda.get_device_name(device) if cuda and torch.cuda.is_available() else device)
    return describe_machine().model_copy(update={"device": name, "threads": torch.get_num_threads()})


def describe_machine() -> Environment:
    """The same for what needs no torch and no device."""
    return Environment(
        python=platform.python_version(),
        platform=printable(platform.platform()),
        processor=printable(_processor() or "") or None,
        packages={name: _version(name) for name in PACKAGES},
        git_commit=_git_commit(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or None


def _git_commit() -> str | None:
    """The commit of the git checkout that holds this package; None if there is none."""
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, timeout=10)
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode or not commit.stdout.strip():
        return None
    return commit.stdout.strip() + ("-dirty" if status.stdout.strip() else "")
