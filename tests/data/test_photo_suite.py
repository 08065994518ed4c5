"""A suite of a user's own photos: what becomes tasks, what metadata.jsonl says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import CLBENCH, execute
from PIL import Image

from clbench.data.locate import AssetPaths, list_assets, locate_asset
from clbench.data.photo_suite import read_photos, write_photo_suite
from clbench.errors import ClbenchError
from clbench.suite import PhotoImages, load_suite


def photos_in(folder: Path, *files: str) -> Path:
    for number, file in enumerate(files):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (10 * number, 0, 0)).save(path)
    return folder


def say(photos: Path, *rows: dict[str, str]) -> None:
    (photos / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def photos(tmp_path) -> Path:
    return photos_in(tmp_path / "mine", "my_cat/2.jpg", "my_cat/1.jpg", "old_teapot/front/a.PNG", "boot/x.webp")


def test_each_folder_is_a_task_with_its_name_as_class_and_the_copied_suites_tokens(photos, tmp_path):
    (photos / "my_cat" / "notes.txt").write_text("no photo")
    folder = tmp_path / "my-things"
    write_photo_suite(folder, "sdxl-v1", photos)
    suite, model = load_suite(str(folder)), load_suite("sdxl-v1")
    assert list(suite.tracks) == ["objects"]
    track = suite.track("objects")
    assert [task.name for task in track.tasks] == ["boot", "my_cat", "old_teapot"]
    assert [task.fields for task in track.tasks] == [
        {"token": "sks", "class": "boot"},
        {"token": "zwz", "class": "my cat"},
        {"token": "sbu", "class": "old teapot"},
    ]
    cat = PhotoImages(dataset="mine", files=("my_cat/1.jpg", "my_cat/2.jpg"))
    assert (track.tasks[1].train, track.tasks[1].reference) == (cat, cat)
    assert track.train_prompt(track.tasks[1]) == "a photo of zwz my cat"
    same = {"name": model.name, "version": model.version, "version_reason": model.version_reason}
    same |= {"datasets": model.datasets, "tracks": model.tracks}
    assert suite.model_copy(update=same) == model, "all else is as in the copied suite"
    [asset] = [asset for asset in list_assets(suite, str(folder)) if asset.name == "mine"]
    found = locate_asset(asset, AssetPaths(tmp_path, folder))
    assert (found.problem, found.files) == (None, 4)


def test_orders_are_different_permutations_however_few_the_tasks_are(photos, tmp_path):
    write_photo_suite(tmp_path / "three", "sdxl-v1", photos)
    orders = load_suite(str(tmp_path / "three")).track("objects").orders
    assert len(set(orders.values())) == len(orders) > 1
    assert all(sorted(order) == [0, 1, 2] for order in orders.values())
    write_photo_suite(tmp_path / "one", "sdxl-v1", photos_in(tmp_path / "alone", "cat/1.jpg"))
    assert set(load_suite(str(tmp_path / "one")).track("objects").orders.values()) == {(0,)}
    write_photo_suite(tmp_path / "mini", "mini-v2", photos, "objects")
    track = load_suite(str(tmp_path / "mini")).track("objects")
    assert track.seeds is not None
    assert set(track.seeds) == set(track.orders)


def test_metadata_names_tokens_classes_and_the_tasks_of_loose_photos(tmp_path):
    photos = photos_in(tmp_path / "mine", "a.jpg", "b.jpg", "cat/c.jpg")
    say(
        photos,
        {"file_name": "a.jpg", "label": "my mug", "class": "mug", "text": "a mug on a table"},
        {"file_name": "b.jpg", "label": "my mug"},
        {"file_name": "cat/c.jpg", "token": "sks"},
    )
    assert [(task.name, task.files, task.fields) for task in read_photos(photos)] == [
        ("cat", ["cat/c.jpg"], {"token": "sks"}),
        ("my mug", ["a.jpg", "b.jpg"], {"class": "mug"}),
    ]
    write_photo_suite(tmp_path / "suite", "sdxl-v1", photos)
    fields = [task.fields for task in load_suite(str(tmp_path / "suite")).track("objects").tasks]
    assert fields == [{"token": "sks", "class": "cat"}, {"token": "zwz", "class": "mug"}], "no token is given twice"


def test_styles_are_told_what_their_photos_show(tmp_path):
    photos = photos_in(tmp_path / "mine", "gouache/1.jpg")
    with pytest.raises(ClbenchError, match=r"need a 'object' of task 'gouache'; give it in .*metadata\.jsonl"):
        write_photo_suite(tmp_path / "suite", "sdxl-v1", photos, "styles")
    assert not (tmp_path / "suite").exists()
    say(photos, {"file_name": "gouache/1.jpg", "object": "a boat"})
    write_photo_suite(tmp_path / "suite", "sdxl-v1", photos, "styles")
    [task] = load_suite(str(tmp_path / "suite")).track("styles").tasks
    assert task.fields == {"style": "gouache", "object": "a boat"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "cat/2.jpg"}', r"metadata\.jsonl, line 1: there is no photo 'cat/2\.jpg'"),
        ('{"class": "cat"}', "line 1: expected an object in JSON with a file_name"),
        ("[1]", "line 1: expected an object"),
        ("{", "line 1: expected an object"),
        (
            '{"file_name": "cat/1.jpg", "class": "cat"}\n{"file_name": "cat/3.jpg", "class": "dog"}',
            "class of task 'cat' is 'cat' and 'dog'; a task has one",
        ),
    ],
)
def test_metadata_that_says_nothing_useful_is_refused_by_its_line(tmp_path, line, message):
    photos = photos_in(tmp_path / "mine", "cat/1.jpg", "cat/3.jpg")
    (photos / "metadata.jsonl").write_text(line)
    with pytest.raises(ClbenchError, match=message):
        write_photo_suite(tmp_path / "suite", "sdxl-v1", photos)


def test_the_command_writes_a_suite_or_says_why_not(photos, tmp_path):
    written = execute(CLBENCH, "new-suite", "my-things", "--photos", photos, cwd=tmp_path).stdout
    assert [Path(line).name for line in written.splitlines()] == ["objects.yaml", "suite.yaml"]
    again = execute(CLBENCH, "new-suite", "my-things", "--photos", photos, cwd=tmp_path, code=2).stderr
    assert "exists; give another folder" in again
    empty = execute(CLBENCH, "new-suite", "other", "--photos", tmp_path / "none", cwd=tmp_path, code=2).stderr
    assert "there is no folder of photos" in empty
    (tmp_path / "bare").mkdir()
    assert "has no photos" in execute(CLBENCH, "new-suite", "other", "--photos", "bare", cwd=tmp_path, code=2).stderr
    alone = execute(CLBENCH, "new-suite", "other", "--track", "styles", cwd=tmp_path, code=2).stderr
    assert "--track goes with --photos" in alone


@pytest.mark.long
def test_own_photos_are_trained_and_scored(photos, tiny, world, tmp_path):
    write_photo_suite(tmp_path / "suite", tiny, photos)
    environment = {"HF_HUB_OFFLINE": "1", "CLBENCH_DATA_ROOT": str(world)}
    words = ("--track", "objects", "--suite", tmp_path / "suite", "--quick", "--workers", "1", "--json")
    done = execute(CLBENCH, "run", "--method", "naive", *words, env=environment, cwd=tmp_path)
    run = json.loads(done.stdout)["runs"][0]
    assert sorted(run["task_order"]) == ["boot", "my_cat", "old_teapot"]
    assert all(len(row) == 3 for row in run["scores"]["clip_i"])
