"""`--dry-run` answers before anything is downloaded."""

import json
import os
import sys
from pathlib import Path

import pytest
import yaml
from commands import TELL_MODULES, clbench, execute, refusal
from folders import files
from tiny_sdxl import write_suite

SDXL = ("--tracks", "styles,objects", "--suite", "sdxl-v1", "--quick")


@pytest.fixture(scope="session")
def user_cache(tmp_path_factory) -> Path:
    """The user's cache folder, which keeps from test to test what was counted of a model."""
    return tmp_path_factory.mktemp("user-cache")


@pytest.fixture
def empty(tmp_path, user_cache, monkeypatch) -> Path:
    """A machine with no model and no data; commands run in its home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(user_cache))
    monkeypatch.setenv("CLBENCH_DATA_ROOT", str(tmp_path / "cache"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.long
def test_a_plan_of_sdxl_needs_no_file_of_it_and_says_what_is_to_be_downloaded(empty, user_cache):
    options = ("run", "--method", "naive", "--track", "styles", "--suite", "sdxl-v1")
    script = f"{TELL_MODULES}from clbench.cli import main; main()"
    done = execute(sys.executable, "-c", script, *options, "--quick", "--dry-run", cwd=empty)
    assert "estimate: " in done.stderr
    modules = done.stderr.splitlines()[-1].split()
    assert "torch" in modules
    assert "open_clip" not in modules, "only workers score images, and a plan starts none"
    assert "│ train    │ 10  │ 10    │" in done.stdout
    assert "reckoned from data sheets, not measured" in done.stdout
    assert (
        "nothing downloaded yet; needs about 15.8 GB of models (backbone, vae, clip, csd, dino) and the pictures of "
        "unlearncanvas (size not on record): `clbench data fetch --suite sdxl-v1` gets them"
    ) in " ".join(done.stdout.split())
    assert not files(empty.parent)
    assert not Path(os.environ["HF_HOME"]).exists()
    assert {path.parent.name for path in files(user_cache)} == {"footprints"}
    assert "the model backbone" in refusal(*options), "a run itself needs them"


@pytest.mark.long
def test_a_plan_for_machines_lists_what_is_missing(empty):
    plan = json.loads(clbench("sweep", "--methods", "naive,magmax", *SDXL, "--dry-run", "--json", cwd=empty))
    assert {row["item"]: row["bytes"] is not None for row in plan["missing"]} == {
        "backbone": True,
        "vae": True,
        "csd": True,
        "dino": True,
        "unlearncanvas": False,
        "clip": True,
        "dreambooth": False,
    }
    assert all(counts["all"] == counts["to_do"] > 0 for counts in plan["units"].values())
    assert plan["expected_seconds"] > 0
    cards = {row["card"]: row for row in plan["cards"]}
    seconds = [cards[name]["expected_seconds"] for name in ("RTX 4090, 24 GB", "A100, 80 GB", "H100, 80 GB")]
    assert seconds == sorted(seconds, reverse=True)
    for name, row in cards.items():
        assert row["expected_memory_bytes"] < 1e9 * int(name.split()[-2]), "what does not fit has no figures"


@pytest.mark.long
def test_data_of_ones_own_that_is_missing_is_to_be_put_in_place_by_hand(empty, world):
    suite = write_suite(empty / "mine")
    definition = yaml.safe_load((suite / "suite.yaml").read_text())
    definition["datasets"]["dreambooth"] = {"source": "photos"}
    (suite / "suite.yaml").write_text(yaml.safe_dump(definition))
    options = ("run", "--method", "naive", "--track", "objects", "--suite", suite, "--data-root", world)
    told = " ".join(clbench(*options, "--quick", "--dry-run", cwd=empty).split())
    assert f"to be put in place by hand: dreambooth; `clbench data status --suite {suite}` tells where" in told
    assert "downloaded" not in told


@pytest.mark.long
def test_what_is_there_but_cannot_be_used_is_told(empty, world):
    suite = write_suite(empty / "mine")
    photo = empty.parent / "cache" / "dreambooth" / "dataset" / "can" / "00.jpg"
    photo.parent.mkdir(parents=True)
    photo.touch()
    for model in ("stable-diffusion-xl-base-1.0", "sdxl-vae-fp16-fix"):
        (empty.parent / "cache" / model).symlink_to(world / model)
    options = ("run", "--method", "naive", "--track", "objects", "--suite", suite, "--quick", "--dry-run")
    told = " ".join(clbench(*options, cwd=empty).split())
    assert "not all is downloaded yet; needs about 691.8 MB of models (clip, dino): `clbench data fetch" in told
    assert "it could not start here now: the data set dreambooth (google/dreambooth)" in told
