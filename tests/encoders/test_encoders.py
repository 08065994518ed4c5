"""CLIP, DINO and CSD on small untrained towers in their real file formats, beside the same by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from paths import SHARED
from PIL import Image
from safetensors.torch import load_file, save_file

from clbench.data.locate import bundled_folder
from clbench.encoders import load_encoder, mean_pairwise_cosine
from clbench.encoders.csd import convert_checkpoint
from clbench.errors import ClbenchError
from clbench.metrics import METRICS
from clbench.utils.seeding import generator

CLOSE: Any = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def photo():
    path = SHARED / "data" / "dreambooth_originals" / "teapot_03.jpg"
    if not path.is_file():
        pytest.skip("shared/data/dreambooth_originals is not here")
    return Image.open(path).convert("RGB")


def by_hand(image: Image.Image, shorter: int, mean, std) -> np.ndarray:
    """Resize the shorter side (PIL, bicubic), cut 224 out of the centre, scale, normalise: [3, 224, 224]."""
    scale = shorter / min(image.size)
    resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    cut = np.array(resized.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    return ((cut - np.array(mean)) / np.array(std)).transpose(2, 0, 1).astype(np.float32)


CLIP_NORM = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "shorter", "norm"), [("clip", 224, CLIP_NORM), ("csd", 224, CLIP_NORM), ("dino", 256, IMAGENET_NORM)]
)
def test_preprocessing_is_pils_at_the_pinned_sizes(name, shorter, norm, world, photo, tmp_path):
    folders = {
        "clip": world / "vit_base_patch32_clip_224.openai",
        "dino": world / "dino-vits16",
        "csd": convert_checkpoint(world / "CSD", tmp_path),
    }
    settings: Any = {"resize": 256} if name == "dino" else {}
    encoder = load_encoder(name, folders[name], **settings)
    np.testing.assert_allclose(encoder.preprocess(photo).numpy(), by_hand(photo, shorter, *norm), atol=1e-5)
    rows = encoder.embed([photo, photo.rotate(90)])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


def test_dino_is_the_class_token_of_the_last_hidden_state(world, photo):
    from transformers import ViTModel

    model = ViTModel.from_pretrained(world / "dino-vits16", add_pooling_layer=False).eval()
    pixels = torch.from_numpy(by_hand(photo, 256, *IMAGENET_NORM))[None]
    expected = F.normalize(model(pixels).last_hidden_state[:, 0], dim=-1)
    torch.testing.assert_close(
        load_encoder("dino", world / "dino-vits16", resize=256).embed([photo]), expected, **CLOSE
    )


def test_a_published_csd_checkpoint_is_converted_once_and_gives_the_style_heads_feature(world, photo, tmp_path):
    source = world / "CSD" / "csd_checkpoint.pth"
    folder = convert_checkpoint(source, tmp_path)
    assert convert_checkpoint(source, tmp_path) == convert_checkpoint(folder, tmp_path) == folder
    saved = torch.load(source, weights_only=True)["model_state_dict"]
    from tiny_sdxl import csd_tower

    tower = csd_tower()
    tower.proj = None  # type: ignore[assignment]
    tower.load_state_dict({k.removeprefix("module.backbone."): v for k, v in saved.items() if "backbone" in k})
    pixels = torch.from_numpy(by_hand(photo, 224, *CLIP_NORM))[None]
    expected = F.normalize(tower.eval()(pixels) @ saved["module.last_layer_style"], dim=-1)
    torch.testing.assert_close(load_encoder("csd", folder).embed([photo]), expected, **CLOSE)


def test_copies_of_that_checkpoint_that_name_a_model_and_keep_clips_projection_give_the_same(world, photo, tmp_path):
    saved = torch.load(world / "CSD" / "csd_checkpoint.pth", weights_only=True)["model_state_dict"]
    copied = {name.replace("module.", "model.", 1): value for name, value in saved.items()}
    copied["model.backbone.proj"] = torch.ones(1)
    (tmp_path / "copy").mkdir()
    save_file(copied, tmp_path / "copy" / "model.safetensors")
    folders = [
        convert_checkpoint(source, tmp_path) for source in (world / "CSD" / "csd_checkpoint.pth", tmp_path / "copy")
    ]
    one, other = (load_encoder("csd", folder).embed([photo]) for folder in folders)
    assert torch.equal(one, other)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


@pytest.mark.parametrize(
    "content", [{"model_state_dict": Evil()}, {"model_state_dict": {"a": torch.ones(1)}}, "garbage"]
)
def test_what_is_no_csd_checkpoint_is_refused_and_nothing_in_it_runs(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "csd.pth"
    path.write_text(content) if isinstance(content, str) else torch.save(content, path)
    with pytest.raises(ValueError, match=r"csd\.pth"):
        convert_checkpoint(path, tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_clip_weights_under_another_activation_are_refused(world, tmp_path):
    from tiny_sdxl import write_clip

    write_clip(tmp_path / "clip", quick_gelu=False)
    with pytest.raises(ClbenchError, match="quick_gelu"):
        load_encoder("clip", tmp_path / "clip", quick_gelu=True)


def test_pairs_of_one_picture_are_left_out_of_the_mean():
    rows = F.normalize(torch.randn(4, 8, generator=generator(1)), dim=1)
    others = [[float(a @ b) for j, b in enumerate(rows) if i != j] for i, a in enumerate(rows)]
    assert METRICS["csd"].score(rows, rows, torch.eye(4, dtype=torch.bool)) == pytest.approx(np.mean(others), abs=1e-6)
    none = torch.zeros(4, 4, dtype=torch.bool)
    assert METRICS["csd"].score(rows, rows, none) == pytest.approx(mean_pairwise_cosine(rows, rows), abs=1e-6)


def spoiled(source: Path, folder: Path, how: str) -> Path:
    """A copy of a folder of a model, whose weights lack all or one of their tensors, or are pickled."""
    shutil.copytree(source, folder)
    [weights] = folder.glob("*.safetensors")
    if how == "pickled":
        weights.unlink()
        names = {"clip": "open_clip_pytorch_model.bin"}
        torch.save(Evil(), folder / names.get(source.name, "pytorch_model.bin"))
    else:
        tensors = load_file(weights)
        save_file(dict(list(tensors.items())[1:]) if how == "one" else {}, weights)
    return folder


@pytest.mark.parametrize("how", ["all", "one", "pickled"])
@pytest.mark.parametrize("name", ["clip", "csd", "dino"])
def test_an_encoder_without_all_its_tensors_is_refused(name, how, tmp_path, monkeypatch):
    """A library would draw those that are missing at random."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ClbenchError, match=f"does not hold a {name} encoder"):
        load_encoder(name, spoiled(bundled_folder(name), tmp_path / name, how))
    assert not (tmp_path / "pwned").exists()
