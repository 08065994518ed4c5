"""A pipeline is loaded whole or not at all: a library would draw tensors that are missing at random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ViTModel

from clbench.backbones.sdxl import Backbone
from clbench.data.locate import bundled_folder
from clbench.errors import ClbenchError
from clbench.suite import load_suite
from clbench.utils.pretrained import load_whole

TRAINING = load_suite("mini-v2").training


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


@pytest.mark.parametrize("how", ["all", "one", "pickled"])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_part_without_all_its_tensors_is_refused(part, how, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pipeline"
    shutil.copytree(bundled_folder("pipeline"), folder)
    [weights] = (folder / part).glob("*.safetensors")
    if how == "pickled":
        weights.unlink()
        names = dict.fromkeys(("unet", "vae"), "diffusion_pytorch_model.bin")
        torch.save(Evil(), folder / part / names.get(part, "pytorch_model.bin"))
    else:
        tensors = load_file(weights)
        save_file(dict(list(tensors.items())[1:]) if how == "one" else {}, weights)
    with pytest.raises(ClbenchError, match=f"holds no pipeline .*{part}"):
        Backbone.load(folder, TRAINING)
    assert not (tmp_path / "pwned").exists()


def test_so_is_a_vae_that_replaces_the_pipelines_own(tmp_path):
    shutil.copytree(bundled_folder("pipeline") / "vae", tmp_path / "vae")
    [weights] = (tmp_path / "vae").glob("*.safetensors")
    save_file(dict(list(load_file(weights).items())[1:]), weights)
    with pytest.raises(ClbenchError, match="lacks 1 of the model's tensors"):
        Backbone.load(bundled_folder("pipeline"), TRAINING, vae=tmp_path / "vae")


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_text_encoders_whose_configuration_says_float16_are_not_rounded(part, tmp_path):
    """As SDXL's do, whose weights are fp32."""
    folder = tmp_path / "pipeline"
    shutil.copytree(bundled_folder("pipeline"), folder)
    for key in ("dtype", "torch_dtype"):
        config = json.loads((folder / part / "config.json").read_text())
        (folder / part / "config.json").write_text(json.dumps({**config, key: "float16"}))
    [weights] = (folder / part).glob("*.safetensors")
    stored = {name: value.float() + 1e-5 for name, value in load_file(weights).items()}  # too fine for fp16
    save_file(stored, weights, {"format": "pt"})
    loaded = getattr(Backbone.load(folder, TRAINING).pipeline, part).state_dict()
    assert len(stored.keys() & loaded.keys()) == len(stored)
    for name, value in stored.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], value)


def test_an_encoder_whose_configuration_says_float16_is_not_rounded(tmp_path):
    folder = tmp_path / "dino"
    shutil.copytree(bundled_folder("dino"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    model = load_whole(ViTModel, folder, add_pooling_layer=False)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
