"""What is fetched from the hub comes whole, once, and at the revision that the suite names."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from commands import CLBENCH, execute
from hub import Hub
from tiny_sdxl import random_picture

from clbench.data.download import extract_images
from clbench.errors import ClbenchError
from clbench.suite import Dataset

COMMIT = "4621659840" * 4


@pytest.fixture
def hub(world) -> Iterator[Hub]:
    def folder(name: str) -> dict[str, bytes]:
        base = world / name
        return {path.relative_to(base).as_posix(): path.read_bytes() for path in base.rglob("*") if path.is_file()}

    dreambooth = folder("dreambooth")
    hub = Hub(
        {"model:some/vae": (COMMIT, folder("sdxl-vae-fp16-fix")), "dataset:some/dreambooth": (COMMIT, dreambooth)}
    )
    yield hub
    hub.server.shutdown()


@pytest.fixture
def fetching(hub, tmp_path, tiny):
    """`clbench data ...` in a process of its own, on a hub and a cache of its own."""

    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    settings |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    settings |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DOWNLOAD_TIMEOUT": "5"}

    def call(*arguments: Any, code: int = 0, **environment: str) -> subprocess.CompletedProcess:
        words = ("data", *arguments, "--suite", tiny, "--data-root", tmp_path / "root")
        return execute(CLBENCH, *words, code=code, env=settings | environment)

    suite = (tiny / "suite.yaml").read_text()
    suite = suite.replace("hub:madebyollin/sdxl-vae-fp16-fix", "hub:some/vae")
    for revision in ("207b116dae70ace3637169f1ddd2434b91b3a8cd", "3512f046fbf17154239ad6a63f21c7d3537f39e0"):
        suite = suite.replace(revision, f"'{COMMIT}'")
    (tiny / "suite.yaml").write_text(suite.replace("hub:google/dreambooth", "hub:some/dreambooth"))
    return call


@pytest.mark.long
def test_fetch_gets_a_model_and_photos_from_the_hub_once(fetching, hub):
    told = fetching("fetch", "--item", "vae", "--item", "dreambooth")
    assert told.stdout.count("ready") == 2
    before = len(hub.requests)
    rows = json.loads(fetching("fetch", "--item", "vae", "--item", "dreambooth", "--json").stdout)
    assert [(row["ready"], row["origin"]) for row in rows] == [(True, "hub cache")] * 2
    assert rows[1]["files"] == rows[1]["checksums_on_record"] == 54  # the cache names files by their checksum
    assert len(hub.requests) == before
    assert "ready" in fetching("status", "--item", "vae", HF_HUB_OFFLINE="1").stdout


@pytest.mark.long
def test_an_interrupted_fetch_goes_on_where_it_stopped(fetching, hub, tmp_path):
    hub.breaks.add(".safetensors")
    told = fetching("fetch", "--item", "vae", code=1)
    assert "cannot fetch vae (some/vae)" in told.stderr
    assert "goes on from there" in told.stderr
    hub.breaks.clear()
    hub.requests.clear()
    fetching("fetch", "--item", "vae")
    fetched = [path.split("/")[-1] for command, path in hub.requests if command == "GET" and "/resolve/" in path]
    assert fetched == ["diffusion_pytorch_model.safetensors"]


def test_damage_in_the_hubs_cache_is_found(fetching, tmp_path):
    fetching("fetch", "--item", "vae")
    blob = max(
        (tmp_path / "hf" / "hub" / "models--some--vae" / "blobs").iterdir(), key=lambda path: path.stat().st_size
    )
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert "is not what the hub's cache says" in fetching("status", "--item", "vae", code=1).stdout


def test_a_wrong_revision_is_named(fetching, tiny, hub):
    fetching("fetch", "--item", "vae")
    suite = (tiny / "suite.yaml").read_text()
    (tiny / "suite.yaml").write_text(suite.replace(COMMIT, "f" * 40))
    told = fetching("status", "--item", "vae", code=1).stdout
    assert f"at revision {COMMIT[:12]}, but ffffffffffff is needed" in told
    assert "the hub has no revision ffff" in fetching("fetch", "--item", "vae", code=2).stderr


def test_no_hub_is_one_sentence(fetching):
    assert "cannot fetch vae" in fetching("fetch", "--item", "vae", code=1, HF_HUB_OFFLINE="1").stderr


def test_pictures_are_taken_out_of_tables_by_what_their_rows_say(tmp_path):
    parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    wanted = ("Ink_Art/Flowers/4.jpg", "Ink_Art/Flowers/12.jpg", "Winter/Birds/4.jpg")

    def row(style: str, thing: str, name: str | None, number: int) -> dict[str, Any]:
        content = io.BytesIO()
        random_picture(number).save(content, "JPEG")
        return {"text": f"A {thing} image in {style} style", "image": {"bytes": content.getvalue(), "path": name}}

    rows = [row("Ink Art", "Flowers", f"{n}.jpg", n) for n in range(1, 21)]
    rows += [row("Winter", "Birds", f"{n}.jpg", 100 + n) for n in range(1, 21)]
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for path, part in zip(paths, (rows[:20], rows[20:]), strict=True):
        parquet.write_table(pa.Table.from_pylist(part), path, row_group_size=7)
    dataset = Dataset(source="hub:OPTML-Group/UnlearnCanvas", caption="An? {1} image in {0} style")
    with paths[0].open("rb") as one, paths[1].open("rb") as two:
        extract_images(iter([one, two]), 2, dataset, wanted, tmp_path / "tree")
    for file, number in zip(wanted, (3, 11, 23), strict=True):
        assert (tmp_path / "tree" / file).read_bytes() == rows[number]["image"]["bytes"]
    assert len(list((tmp_path / "tree").rglob("*.jpg"))) == 3
    extract_images(iter(()), 0, dataset, wanted, tmp_path / "tree")  # nothing is left to do

    parquet.write_table(pa.Table.from_pylist([row("Winter", "Birds", None, 1)]), paths[0])
    with paths[0].open("rb") as nameless, pytest.raises(ClbenchError, match="do not name 1 of the pictures"):
        extract_images(iter([nameless]), 1, dataset, ("Winter/Birds/5.jpg",), tmp_path / "tree")
