"""What a suite needs, found or missing, whole or damaged: each told in one clear sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from tiny_sdxl import random_picture

from clbench.data.locate import Asset, AssetPaths, list_assets, locate_asset, require_assets
from clbench.errors import ClbenchError
from clbench.suite import Dataset, PhotoImages, Task, load_suite


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
    assert list(require_assets(load_suite(str(tiny)), str(tiny), "styles", AssetPaths(world, tiny))) == [
        "backbone",
        "vae",
        "clip",
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


def test_the_reduced_photos_of_the_tests_are_not_taken_for_the_published_ones(world):
    """sdxl-v1 itself has checksums of two photos on record."""
    dreambooth = next(item for item in list_assets(load_suite("sdxl-v1"), "sdxl-v1") if item.name == "dreambooth")
    found = locate_asset(dreambooth, AssetPaths(world, world))
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


def test_a_data_set_cannot_hide_behind_a_models_name(tiny, world):
    suite = load_suite(str(tiny))
    photos = PhotoImages(dataset="clip", files=("a.jpg",))
    tasks = (Task(name="a", fields={"token": "a", "class": "a"}, train=photos, reference=photos),)
    track = suite.track("objects").model_copy(update={"tasks": tasks})
    own = {"datasets": {"clip": Dataset(source="photos")}, "tracks": {"objects": track}}
    with pytest.raises(ClbenchError, match="needs another name"):
        list_assets(suite.model_copy(update=own), "x")
