"""What a suite needs, found or missing, whole or damaged, at home or on the hub: each told in one clear sentence."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_sdxl import random_picture, write_suite, write_world

from clbench.data.download import extract_images
from clbench.data.locate import Asset, AssetPaths, list_assets, locate_asset, require_assets
from clbench.data.suite_template import write_suite_template
from clbench.errors import ClbenchError
from clbench.suite import Dataset, PhotoImages, Suite, Task, Weights, load_suite

CLBENCH = [sys.executable, "-c", "from clbench.cli import main; main()"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original")
    write_world(root, None)
    return root


@pytest.fixture
def world(original, tmp_path):
    """A data root that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "world"))


@pytest.fixture
def tiny(tmp_path):
    return write_suite(tmp_path / "tiny")


def problem(tiny: Path, world: Path, track: str = "objects") -> str:
    """What stops a run."""
    with pytest.raises(ClbenchError) as caught:
        require_assets(load_suite(str(tiny)), str(tiny), track, AssetPaths(world, tiny))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_world_is_ready_and_known_by_its_content(tiny, world):
    found = require_assets(load_suite(str(tiny)), str(tiny), "objects", AssetPaths(world, tiny))
    assert list(found) == ["backbone", "vae", "clip", "dino", "dreambooth"]
    assert found["dreambooth"].files == 54
    again = require_assets(load_suite(str(tiny)), str(tiny), "objects", AssetPaths(world, tiny))
    assert found == again
    (world / "dino-vits16" / "config.json").write_text((world / "dino-vits16" / "config.json").read_text() + "\n")
    changed = require_assets(load_suite(str(tiny)), str(tiny), "objects", AssetPaths(world, tiny))
    assert {name for name in found if found[name].sha256 != changed[name].sha256} == {"dino"}


def test_a_track_needs_only_its_own(tiny, world):
    shutil.rmtree(world / "dreambooth")
    shutil.rmtree(world / "vit_base_patch32_clip_224.openai")
    assert list(require_assets(load_suite(str(tiny)), str(tiny), "styles", AssetPaths(world, tiny))) == [
        "backbone",
        "vae",
        "csd",
        "dino",
        "unlearncanvas",
    ]


def remove_one_photo(world: Path) -> None:
    (world / "dreambooth" / "dataset" / "candle" / "02.jpg").unlink()


def cut_weights_short(world: Path) -> None:
    path = next((world / "stable-diffusion-xl-base-1.0" / "unet").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1000])


def cut_a_photo_short(world: Path) -> None:
    path = world / "dreambooth" / "dataset" / "can" / "00.jpg"
    path.write_bytes(path.read_bytes()[:-500])


def turn_grey(world: Path) -> None:
    random_picture(1).convert("L").save(world / "dreambooth" / "dataset" / "can" / "00.jpg")


def print_colours(world: Path) -> None:
    random_picture(1).convert("CMYK").save(world / "dreambooth" / "dataset" / "can" / "00.jpg")


def rotate(world: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    random_picture(1).save(world / "dreambooth" / "dataset" / "can" / "00.jpg", exif=exif)


def break_a_config(world: Path) -> None:
    (world / "sdxl-vae-fp16-fix" / "config.json").write_text('{"a": ')


def point_nowhere(world: Path) -> None:
    (world / "data.toml").write_text('"google/dreambooth" = "nowhere"')


@pytest.mark.parametrize(
    ("spoil", "item", "what"),
    [
        (lambda world: shutil.rmtree(world / "dreambooth"), "data set dreambooth", "is missing"),
        (lambda world: shutil.rmtree(world / "sdxl-vae-fp16-fix"), "model vae", "is missing"),
        (remove_one_photo, "data set dreambooth", "has 4 of 5 needed files of candle/: missing 02.jpg"),
        (cut_weights_short, "model backbone", "unet/diffusion_pytorch_model.safetensors: it is cut short"),
        (cut_a_photo_short, "data set dreambooth", "can/00.jpg: it cannot be decoded"),
        (turn_grey, "data set dreambooth", "can/00.jpg: its colour mode is L, not RGB"),
        (print_colours, "data set dreambooth", "can/00.jpg: its colour mode is CMYK, not RGB"),
        (rotate, "data set dreambooth", "can/00.jpg: its EXIF tag says that it is rotated"),
        (break_a_config, "model vae", "is damaged: config.json"),
        (point_nowhere, "data set dreambooth", "nowhere"),
    ],
)
def test_what_is_wrong_is_named_with_the_command_that_repairs_it(spoil, item, what, tiny, world):
    spoil(world)
    sentence = problem(tiny, world)
    assert item in sentence
    assert what in sentence
    assert f"`clbench data fetch --suite {tiny} --item {item.split()[-1]}`" in sentence


def test_a_file_with_a_checksum_on_record_must_fit_it(tiny, world):
    suite = load_suite(str(tiny))
    dataset = Dataset(source="hub:google/dreambooth", checksums={"can/00.jpg": "0" * 64})
    suite = suite.model_copy(update={"datasets": {**(suite.datasets or {}), "dreambooth": dataset}})
    with pytest.raises(ClbenchError, match=r"can/00.jpg has sha256 .*, expected 0000"):
        require_assets(suite, str(tiny), "objects", AssetPaths(world, tiny))


def test_the_reduced_photos_of_the_tests_are_not_taken_for_the_published_ones(original):
    """sdxl-v1 itself has checksums of two photos on record."""
    dreambooth = next(item for item in list_assets(load_suite("sdxl-v1"), "sdxl-v1") if item.name == "dreambooth")
    found = locate_asset(dreambooth, AssetPaths(original, original))
    assert found.problem is not None
    assert "backpack/00.jpg has sha256" in found.problem


def test_several_problems_are_counted(tiny, world):
    shutil.rmtree(world / "dreambooth")
    shutil.rmtree(world / "sdxl-vae-fp16-fix")
    assert "(and 1 more: see `clbench data status" in problem(tiny, world)


def test_an_own_copy_is_found_where_the_settings_file_says(tiny, world, tmp_path):
    shutil.move(world / "dreambooth", tmp_path / "photos")
    (world / "data.toml").write_text(f'"google/dreambooth" = "{tmp_path}/photos"\n')
    found = require_assets(load_suite(str(tiny)), str(tiny), "objects", AssetPaths(world, tiny))
    assert found["dreambooth"].folder == tmp_path / "photos" / "dataset"
    (world / "data.toml").write_text('"google/dreambooth" = 3')
    assert "expected a path in quotes" in problem(tiny, world)


@pytest.mark.parametrize("folder", ["", "dataset", "data"])
def test_photos_are_found_in_the_layouts_people_have(folder, tiny, world):
    moved = world / "moved"
    shutil.move(world / "dreambooth" / "dataset", moved)
    shutil.rmtree(world / "dreambooth")
    (world / "dreambooth" / folder).parent.mkdir(exist_ok=True)
    shutil.move(moved, world / "dreambooth" / folder)
    found = require_assets(load_suite(str(tiny)), str(tiny), "objects", AssetPaths(world, tiny))
    assert found["dreambooth"].folder == world / "dreambooth" / folder


@pytest.mark.parametrize("spoil", [turn_grey, print_colours, rotate])
def test_ones_own_photos_may_be_any_picture_and_are_named_in_a_warning(spoil, world, tmp_path):
    spoil(world)
    photos = world / "dreambooth" / "dataset"
    item = Asset("mine", Dataset(source="photos"), ("can/00.jpg",), "x")
    shutil.copytree(photos, tmp_path / "photos")
    with pytest.warns(UserWarning, match=r"can/00.jpg: its .*; it is used as upright RGB"):
        assert locate_asset(item, AssetPaths(world, tmp_path)).problem is None


def test_a_rotated_photo_is_seen_upright(tmp_path):
    from clbench.data.images import open_photo

    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert open_photo(tmp_path / "a.jpg").size == (20, 40)


@pytest.mark.parametrize("file", ["../x.jpg", "/etc/passwd", "a/../../x.jpg"])
def test_photos_stay_inside_their_data_set(file):
    with pytest.raises(ValueError, match="does not lie below"):
        PhotoImages(dataset="a", files=(file,))


# --- the hub ---


class Hub:
    """The part of the Hugging Face hub that its client needs to fetch a repository at a commit."""

    def __init__(self, repositories: dict[str, tuple[str, dict[str, bytes]]]) -> None:
        self.repositories, self.requests, self.breaks = repositories, [], set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                hub.answer(self, head=True)

            def do_GET(self) -> None:
                hub.answer(self, head=False)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler, head: bool) -> None:
        self.requests.append((request.command, request.path))
        path = request.path.split("?")[0]
        for name, (commit, files) in self.repositories.items():
            kind, repository = name.split(":")
            api = f"/api/{kind}s/{repository}"
            if path == f"{api}/revision/{commit}" or path == f"{api}/revision/main" or path == api:
                siblings = [{"rfilename": file} for file in files]
                return self.reply(request, json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode())
            if path.startswith((f"{api}/tree/{commit}", f"{api}/tree/main")):
                tree = [{"type": "file", "path": f, "size": len(c), "oid": sha1(c)} for f, c in files.items()]
                return self.reply(request, json.dumps(tree).encode())
            prefix = "datasets/" if kind == "dataset" else ""
            match = re.fullmatch(rf"/{prefix}{re.escape(repository)}/resolve/({commit}|main)/(.+)", path)
            if match and match[2] in files:
                return self.send(request, files[match[2]], commit, head)
            if path.startswith((f"{api}/revision/", f"{api}/tree/")):
                return self.reply(request, b'{"error": "Invalid rev id"}', 404, {"X-Error-Code": "RevisionNotFound"})
        return self.reply(request, b'{"error": "not found"}', 404, {"X-Error-Code": "RepoNotFound"})

    def reply(self, request: Any, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        request.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **(headers or {})}.items():
            request.send_header(name, str(value))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def send(self, request: Any, content: bytes, commit: str, head: bool) -> None:
        start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Content-Length": len(content) - start,
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.send_response(206 if start else 200)
        for name, value in headers.items():
            request.send_header(name, str(value))
        request.end_headers()
        if head:
            return
        if any(request.path.endswith(suffix) for suffix in self.breaks):  # the line goes dead in the middle of the file
            request.wfile.write(content[start : start + (len(content) - start) // 2])
            request.wfile.flush()
            request.close_connection = True
            request.connection.close()
            return
        request.wfile.write(content[start:])


def sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


COMMIT = "4621659840" * 4


@pytest.fixture
def hub(original) -> Iterator[Hub]:
    def folder(name: str) -> dict[str, bytes]:
        base = original / name
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

    def call(*arguments: Any, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        settings |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        variables = {**os.environ, **settings, "HF_HUB_OFFLINE": "0", "HF_HUB_DOWNLOAD_TIMEOUT": "5", **environment}
        command = [*CLBENCH, "data", *arguments, "--suite", tiny, "--data-root", tmp_path / "root"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=variables)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    suite = (tiny / "suite.yaml").read_text()
    suite = suite.replace("hub:madebyollin/sdxl-vae-fp16-fix", "hub:some/vae")
    suite = suite.replace("207b116dae70ace3637169f1ddd2434b91b3a8cd", f"'{COMMIT}'")
    (tiny / "suite.yaml").write_text(suite.replace("hub:google/dreambooth", "hub:some/dreambooth"))
    return call


@pytest.mark.slow
def test_fetch_gets_a_model_and_photos_from_the_hub_once(fetching, hub):
    told = fetching("fetch", "--item", "vae", "--item", "dreambooth")
    assert told.stdout.count("ready") == 2
    before = len(hub.requests)
    rows = json.loads(fetching("fetch", "--item", "vae", "--item", "dreambooth", "--json").stdout)
    assert [(row["ready"], row["origin"]) for row in rows] == [(True, "hub cache")] * 2
    assert rows[1]["files"] == rows[1]["checksums_on_record"] == 54  # the cache names files by their checksum
    assert len(hub.requests) == before
    assert "ready" in fetching("status", "--item", "vae", HF_HUB_OFFLINE="1").stdout


@pytest.mark.slow
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


@pytest.mark.slow
def test_damage_in_the_hubs_cache_is_found(fetching, tmp_path):
    fetching("fetch", "--item", "vae")
    blob = max(
        (tmp_path / "hf" / "hub" / "models--some--vae" / "blobs").iterdir(), key=lambda path: path.stat().st_size
    )
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert "is not what the hub's cache says" in fetching("status", "--item", "vae", code=1).stdout


@pytest.mark.slow
def test_a_wrong_revision_is_named(fetching, tiny, hub):
    fetching("fetch", "--item", "vae")
    suite = (tiny / "suite.yaml").read_text()
    (tiny / "suite.yaml").write_text(suite.replace(COMMIT, "f" * 40))
    told = fetching("status", "--item", "vae", code=1).stdout
    assert f"at revision {COMMIT[:12]}, but ffffffffffff is needed" in told
    assert "the hub has no revision ffff" in fetching("fetch", "--item", "vae", code=2).stderr


@pytest.mark.slow
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


# --- suites of one's own ---


@pytest.mark.long
def test_from_data_status_to_a_validated_result_on_the_command_line(tiny, world, tmp_path):
    def call(*words: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(word) for word in (*CLBENCH, *words)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CLBENCH_DATA_ROOT": str(world)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    status = call("data", "status", "--suite", tiny).stdout.splitlines()
    assert [line.split()[0] for line in status[:-1]] == ["ready"] * 7
    run = ("run", "--method", "naive", "--track", "objects", "--suite", tiny, "--quick", "--workers", "1", "--json")
    done = call(*run)
    assert "expects about" in done.stderr
    assert json.loads(done.stdout)["suite"]["name"] == "tiny"
    result = tmp_path / "runs" / "tiny" / "objects" / "naive.partial.json"
    assert "valid" in call("validate", "--allow-partial", "--suite", tiny, result).stdout
    assert "have a board" in call("submit", result, "--submitter", "me", code=2).stderr
    assert "wrote" in call("export", result, "--task", "glasses", "--suite", tiny).stdout
    shutil.rmtree(world / "CSD")
    assert "not ready  csd" in call("data", "status", "--suite", tiny, code=1).stdout


@pytest.mark.parametrize("like", ["sdxl-v1", "mini-v2", "mini-v2-dev"])
def test_a_new_suite_is_its_models_copy_under_its_own_name(like, tmp_path):
    write_suite_template(tmp_path / "my-cats", like)
    copy, model = load_suite(str(tmp_path / "my-cats")), load_suite(like)
    assert (copy.name, copy.version) == ("my-cats", "1")
    assert copy.sha256 != model.sha256
    same = {"name": model.name, "version": model.version, "version_reason": model.version_reason}
    assert copy.model_copy(update=same) == model
    assert (tmp_path / "my-cats" / "suite.yaml").read_text().startswith("# A suite of your own")
    with pytest.raises(ClbenchError, match="exists"):
        write_suite_template(tmp_path / "my-cats", like)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "my cats"}, "name"),
        ({"metrics": ["csd", "dyno"]}, "did you mean 'dino'"),
        ({"train_prompt_template": "a {stile} image"}, "cannot be made of"),
        ({"orders": {"0": [0]}}, "not a permutation"),
        ({"datasets": {}}, "not in datasets"),
        ({"encoders": {}}, "not in encoders"),
    ],
)
def test_a_broken_suite_of_ones_own_is_refused_with_file_and_reason(change, sentence, tmp_path):
    import yaml

    folder = write_suite(tmp_path / "mine")
    suite = yaml.safe_load((folder / "suite.yaml").read_text())
    for key, value in change.items():
        (suite if key in suite else suite["tracks"]["styles"])[key] = value
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(ClbenchError) as caught:
        load_suite(str(folder))
    assert str(folder / "suite.yaml") in str(caught.value)
    assert sentence in str(caught.value)


def test_a_folder_without_a_suite_is_named_with_the_command_that_writes_one(tmp_path):
    with pytest.raises(ClbenchError, match="clbench new-suite"):
        load_suite(str(tmp_path))


def test_a_data_set_cannot_hide_behind_a_models_name(tiny, world):
    suite = load_suite(str(tiny))
    photos = PhotoImages(dataset="clip", files=("a.jpg",))
    tasks = (Task(name="a", fields={"token": "a", "class": "a"}, train=photos, reference=photos),)
    track = suite.track("objects").model_copy(update={"tasks": tasks})
    own = {"datasets": {"clip": Dataset(source="photos")}, "tracks": {"objects": track}}
    with pytest.raises(ClbenchError, match="needs another name"):
        list_assets(suite.model_copy(update=own), "x")


def test_weights_without_pins_are_known_by_what_was_found(tiny, world):
    """So that work done with one model is never taken for another's."""
    from clbench.data.assets import resolve_assets
    from clbench.protocol.track_runtime import Bench
    from clbench.storage.store import Store

    suite: Suite = load_suite(str(tiny))
    assert isinstance(suite.backbone, Weights)
    keys = []
    for number in range(2):
        photo = world / "dreambooth" / "dataset" / "can" / "00.jpg"
        random_picture(number).save(photo)
        assets = resolve_assets(suite, str(tiny), "objects", AssetPaths(world, tiny))
        keys.append(Bench(suite, "objects", Store(world / "store"), assets=assets).base_key)
    assert keys[0] != keys[1]
