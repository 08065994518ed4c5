"""Shared by all tests: untrained models and one loaded pipeline a session, one store a test. Torch only where asked."""

import gc
import os
import signal
import warnings
from pathlib import Path

import pytest
from hypothesis import settings
from paths import FILES, SUPPORT

COLOURS = ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
for name in (*COLOURS, "COLUMNS", "LINES"):  # what tests read is plain, and as wide as usual
    os.environ.pop(name, None)
settings.register_profile("clbench", deadline=None)  # a stalled disk falsifies nothing
settings.load_profile("clbench")
for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):  # read once, when the library is imported
    os.environ[name] = "1"
os.environ["HF_HOME"] = str(SUPPORT / "no-hub-cache")  # not the user's, in which models may be
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; commands that tests start inherit it
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background, and then by all commands
gc.disable()  # while modules are imported, it finds nothing and takes a third of the time


def pytest_collection_finish():
    """Collect garbage again, but look no more at what the modules hold."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def mock_folder(tmp_path_factory) -> str:
    """The folder of a suite with three tasks, two orders and two seeds on untrained models, as `--suite` takes it."""
    from builders import save_suite
    from mocks import tiny_suite, write_models

    folder = tmp_path_factory.mktemp("mock")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return save_suite(tiny_suite(write_models(folder / "models")), folder / "suite")


@pytest.fixture(scope="session")
def mock_suite(mock_folder):
    """Its definition."""
    from clbench.suite import load_suite

    return load_suite(mock_folder)


@pytest.fixture(scope="session")
def models(mock_suite, mock_folder):
    """The suite's models, loaded once for all tests."""
    from clbench.data.assets import resolve_assets
    from clbench.data.locate import AssetPaths, default_data_root
    from clbench.protocol.device import DeviceConfig
    from clbench.protocol.models import Models

    loaded = Models(mock_suite, DeviceConfig(), {})
    for track in mock_suite.tracks:
        paths = AssetPaths(default_data_root(), Path(mock_folder))
        loaded.folders.update(resolve_assets(mock_suite, mock_folder, track, paths).folders)
    return loaded


@pytest.fixture
def backbone(models):
    """The session's pipeline, as the base model."""
    models.backbone.use_adapter(None)
    models.backbone.deploy({})
    return models.backbone


@pytest.fixture
def runtime(models, mock_suite, tmp_path):
    """The styles track with a store of its own."""
    from clbench.protocol.track_runtime import TrackRuntime
    from clbench.storage.store import Store

    return TrackRuntime(mock_suite, "styles", Store(tmp_path / "store"), models=models)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A data root: small SDXL models, random DreamBooth-shaped photos and an UnlearnCanvas-shaped tree."""
    from tiny_sdxl import write_world

    root = tmp_path_factory.mktemp("world")
    write_world(root, None)
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of a cut-down sdxl-v1."""
    from tiny_sdxl import write_suite

    return write_suite(tmp_path_factory.mktemp("suites") / "tiny-sdxl")


@pytest.fixture
def run(mock_folder, models, tmp_path):
    """`harness.run` on the mock suite: one order and one seed, unless the caller chooses."""
    from clbench.runner import harness

    def make(method: str = "merge_ortho", track: str = "styles", **options):
        usual = {"quick": True, "output": tmp_path / "runs", "plugins": FILES, "device": "cpu", "models": models}
        return harness.run(method, track, mock_folder, **{**usual, **options})

    return make
