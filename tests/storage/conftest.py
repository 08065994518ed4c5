"""Stores in a folder and behind a URL, and sweeps of the mock suite that keep their work there."""

from functools import partial
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from clbench.results.schema import Result
from clbench.runner import harness
from clbench.storage.open import open_store
from clbench.storage.store import Store


@pytest.fixture
def url():
    """A place in this process's memory, which fsspec opens."""
    yield "memory://bucket/store"
    MemoryFileSystem.store.clear()


@pytest.fixture(params=["folder", "url"])
def store(request, tmp_path, url) -> Store:
    return open_store(tmp_path / "store" if request.param == "folder" else url)


def swept(suite: str, models, store: Path | str, output: Path, methods=("merge_init",), **options) -> list[Result]:
    options = {"quick": True, "device": "cpu", "workers": 1, "models": models, **options}
    return harness.sweep(methods, ["styles"], suite, output=output, store=str(store), **options)


@pytest.fixture
def sweep(mock_folder, models):
    """Sweep the mock suite with a store."""
    return partial(swept, mock_folder, models)


@pytest.fixture(scope="session")
def finished(mock_folder, models, tmp_path_factory) -> Path:
    """The store of a finished run, for tests to copy."""
    folder = tmp_path_factory.mktemp("finished")
    swept(mock_folder, models, folder / "store", folder / "runs")
    return folder / "store"
