"""A pipeline is loaded whole or not at all: a library would draw tensors that are missing at random."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clbench.backbones.sdxl import Backbone
from clbench.data.locate import bundled_folder
from clbench.errors import ClbenchError
from clbench.suite import load_suite

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
