"""CSD: a CLIP image tower without its projection, followed by a linear style head (Somepalli et al. 2024).

folder = convert_checkpoint(Path("csd_checkpoint.pth"), cache)      # once; never unpickles anything but tensors
CSDEncoder(folder).embed(images)
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, CLIPTextCfg, CLIPVisionCfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clbench.encoders import Encoder
from clbench.utils.files import file_sha256, write_atomic, write_text


class CSD(nn.Module):
    """The style embedding is the tower's feature times `last_layer_style`; the content head is kept, but not used."""

    def __init__(self, vision_cfg: dict, embed_dim: int, quick_gelu: bool = False) -> None:
        super().__init__()
        # open_clip's public classes build a tower as a part of CLIP; the text tower is thrown away, so it is tiny.
        text_cfg = CLIPTextCfg(context_length=1, vocab_size=1, width=1, heads=1, layers=1)
        tower: Any = CLIP(embed_dim, CLIPVisionCfg(**vision_cfg), text_cfg, quick_gelu=quick_gelu).visual
        width = tower.proj.shape[0]
        tower.proj = None
        self.backbone = tower
        self.last_layer_style = nn.Parameter(torch.zeros(width, embed_dim))
        self.last_layer_content = nn.Parameter(torch.zeros(width, embed_dim), requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Style embeddings of [N, 3, H, W]: [N, D], not normalised."""
        return self.backbone(pixels) @ self.last_layer_style


class CSDEncoder(Encoder):
    """CSD from a folder with `model.safetensors` and `config.json` (tower and preprocessing in open_clip's terms)."""

    def __init__(self, source: Path, device: str = "cpu") -> None:
        config = json.loads((source / "config.json").read_text())
        model = CSD(config["vision_cfg"], config["embed_dim"], config.get("quick_gelu", False))
        model.load_state_dict(load_file(source / "model.safetensors"))
        size = config["vision_cfg"]["image_size"]
        preprocess: Any = image_transform_v2(PreprocessCfg(size=size, **config["preprocess_cfg"]), is_train=False)
        super().__init__(model, preprocess, device)


def convert_checkpoint(source: Path, cache: Path) -> Path:
    """A folder that `CSDEncoder` can load: `source` itself, or one under `cache` with the converted checkpoint.

    Args:
        source: a folder in `CSDEncoder`'s format, a published checkpoint, or a folder that holds one.

    Raises:
        ValueError: the weights are not those of a CSD model on OpenAI's CLIP. OSError: they cannot be read or written.
    """
    if source.is_dir():
        settings = source / "config.json"
        if settings.exists() and "vision_cfg" in json.loads(settings.read_text()):
            return source
        names = ("model.safetensors", "pytorch_model.bin", "checkpoint.pth", "csd-vit-l.pth", "csd_checkpoint.pth")
        source = next((source / name for name in names if (source / name).is_file()), source / names[0])
    folder = cache / "converted" / f"csd-{file_sha256(source)[:16]}"
    if not (folder / "config.json").exists():
        state = _published_weights(source)
        width, _, patch, _ = state["backbone.conv1.weight"].shape
        patches = state["backbone.positional_embedding"].shape[0] - 1
        config = {
            "embed_dim": state["last_layer_style"].shape[1],
            "quick_gelu": True,  # as in OpenAI's CLIP, from which CSD was fine-tuned
            "vision_cfg": {
                "image_size": patch * math.isqrt(patches),
                "layers": sum(name.endswith(".ln_1.weight") for name in state),
                "width": width,
                "patch_size": patch,
            },
            "preprocess_cfg": {
                "mean": list(OPENAI_DATASET_MEAN),
                "std": list(OPENAI_DATASET_STD),
                "interpolation": "bicubic",
                "resize_mode": "shortest",
            },
        }
        wrong = CSD(config["vision_cfg"], config["embed_dim"], True).load_state_dict(state, strict=False)
        if wrong.missing_keys or wrong.unexpected_keys:
            raise ValueError(f"missing tensors: {wrong.missing_keys[:2]}, unexpected ones: {wrong.unexpected_keys[:2]}")
        write_atomic(folder / "model.safetensors", lambda path: save_file(state, path))
        write_text(folder / "config.json", json.dumps(config, indent=1) + "\n")
    return folder


def _published_weights(path: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors under `CSD`'s names, in fp32; raises ValueError if it holds anything but tensors."""
    if path.suffix == ".safetensors":
        loaded: Any = load_file(path)
    else:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch reports a bad file by many types of error
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"{path.name} is not a file of tensors: {reason}") from None
    for wrapper in ("model_state_dict", "state_dict"):
        loaded = loaded.get(wrapper, loaded)
    tensors = {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
    state = {name.removeprefix("module.").removeprefix("model."): value for name, value in tensors.items()}
    state.pop("backbone.proj", None)  # CLIP's projection, which CSD replaces; some copies keep it
    needed = ("backbone.conv1.weight", "backbone.positional_embedding", "last_layer_style", "last_layer_content")
    for name in needed:
        if name not in state:
            raise ValueError(f"{path.name} has no tensor {name!r}")
    return {name: value.float().contiguous() for name, value in state.items()}
