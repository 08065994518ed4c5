"""What one model takes, counted on the U-Net's graph without computing anything: operations, and memory.

    footprint = model_footprint(suite, folders, "bf16")
    footprint.pass_flops, footprint.saved, footprint.sampled

Shapes and types are enough for that: the graph runs on PyTorch's fake tensors, with fused attention kernels as devices
have them. Of a large U-Net that takes seconds, so a file in the user's cache folder keeps what was counted.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from clbench.backbones import architecture
from clbench.backbones.architecture import DTYPES, adapted_unet, adapter_parameters
from clbench.errors import ClbenchError
from clbench.suite import Suite, Training
from clbench.utils.files import cache_folder, write_atomic

_FLOPS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
        query, key, value
    )
}
"""The counter knows the kernels of GPUs alone, which make the same operations."""


_BESIDE = ("text_encoder", "text_encoder_2", "vae")


@dataclass(frozen=True)
class ModelFootprint:
    """What one U-Net takes at a precision."""

    parameters: int
    """Number of the U-Net's values."""
    adapter: int
    """Number of one adapter's values."""
    adapted: int
    """Number of values of the weights that an adapter changes."""
    pass_flops: float
    """FLOP of one forward pass for one image; a backward pass counts as two."""
    saved: int
    """Bytes kept for a backward pass of one image."""
    saved_low: int
    """The same with gradient checkpointing."""
    sampled: int
    """Bytes of activations at the peak of a forward pass without gradient, for one image."""
    encoders: int = 0
    """Bytes of the encoders' weights."""
    beside: int = 0
    """Bytes of the text encoders' and the VAE's weights, as far as they are here."""
    decode: int = 0
    """fp32 bytes that decoding one image needs, about: four of the VAE's largest feature maps."""


_FOOTPRINT = TypeAdapter(ModelFootprint)


def count(config: Mapping[str, Any], training: Training, latent_side: int, precision: str = "fp32") -> ModelFootprint:
    """Count a U-Net of SDXL's class.

    Args:
        config: its `config.json`.
        latent_side: of one image.
        precision: `fp32`, `fp16` or `bf16`.

    Raises:
        ClbenchError: it is not the architecture that the definition names.
    """
    unet, parameters, shapes = adapted_unet(config, training)
    dtype = DTYPES[precision]
    with FakeTensorMode():
        _materialize(unet, dtype)
        blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock | ResnetBlock2D)]
        inputs = (
            torch.empty(1, unet.config.in_channels, latent_side, latent_side, dtype=dtype),
            torch.zeros(1),
            torch.empty(1, 77, unet.config.cross_attention_dim, dtype=dtype),
        )
        conditions = {
            "text_embeds": torch.empty(1, _pooled_width(unet.config), dtype=dtype),
            "time_ids": torch.empty(1, 6),
        }
        counter = FlopCounterMode(display=False, custom_mapping=_FLOPS)
        with saved_bytes(unet, blocks) as (total, inside), counter:
            unet(*inputs, added_cond_kwargs=conditions)
        unet.disable_adapters()  # as sampling does
        with torch.no_grad(), LiveBytes(unet) as live:
            unet(*inputs, added_cond_kwargs=conditions)
    return ModelFootprint(
        parameters=parameters,
        adapter=adapter_parameters(shapes, training.rank),
        adapted=sum(out * inputs for out, inputs in shapes.values()),
        pass_flops=float(counter.get_total_flops()),
        saved=total[0],
        saved_low=total[0] - sum(inside) + max(inside, default=0),
        sampled=live.peak,
    )


def _counted_once(config: Mapping[str, Any], training: Training, latent_side: int, precision: str) -> ModelFootprint:
    """As `count`, but once on this machine, as long as the software stays the same."""
    software = [version(name) for name in ("torch", "diffusers", "peft")]
    code = [Path(file).read_text(encoding="utf-8") for file in (__file__, architecture.__file__)]
    recipe = training.model_dump(mode="json")
    known = json.dumps([config, recipe, latent_side, precision, software, code], sort_keys=True)
    name = f"footprints/{hashlib.sha256(known.encode()).hexdigest()}.json"
    with suppress(ClbenchError, OSError, ValueError):  # there is no such file, or it is damaged
        return _FOOTPRINT.validate_json((cache_folder() / name).read_bytes())
    footprint = count(config, training, latent_side, precision)
    content = _FOOTPRINT.dump_json(footprint)
    with suppress(ClbenchError):  # it cannot be kept, and is counted again next time
        write_atomic(cache_folder() / name, lambda temporary: temporary.write_bytes(content), sync=False)
    return footprint


def _materialize(unet: nn.Module, dtype: torch.dtype) -> None:
    """Give a U-Net of the meta device fake weights of the type that it computes with."""
    for module in unet.modules():
        for field, value in list(module.named_parameters(recurse=False)):
            fake = torch.empty(value.shape, dtype=dtype)
            setattr(module, field, nn.Parameter(fake, requires_grad=value.requires_grad))


def _pooled_width(config: Any) -> int:
    return config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim


@contextmanager
def saved_bytes(unet: nn.Module, blocks: list[Any]) -> Iterator[tuple[list[int], list[int]]]:
    """Bytes that autograd keeps during a forward pass: in all, and within each of `blocks`, the parameters left out."""
    total, inside, seen = [0], [], {id(value.untyped_storage()) for value in unet.parameters()}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if id(storage) not in seen:
            seen.add(id(storage))
            alive.append(storage)
            total[0] += storage.nbytes()
        return value

    alive, starts = [], []
    hooks = []
    for block in blocks:
        hooks.append(block.register_forward_pre_hook(lambda *_: starts.append(total[0])))
        hooks.append(block.register_forward_hook(lambda *_: inside.append(total[0] - starts.pop())))
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            yield total, inside
    finally:
        for hook in hooks:
            hook.remove()


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, while they are alive; `peak` is the most at a time.

    Args:
        unet: whose parameters do not count.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known = weakref.WeakSet(value.untyped_storage() for value in unet.parameters())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor) and (storage := value.untyped_storage()) not in self._known:
                self._known.add(storage)
                self._now += storage.nbytes()
                self.peak = max(self.peak, self._now)
                weakref.finalize(storage, self._free, storage.nbytes())
        return made

    def _free(self, size: int) -> None:
        self._now -= size


def model_footprint(suite: Suite, folders: Mapping[str, Path], precision: str) -> ModelFootprint:
    """Count a pipeline's U-Net at the suite's resolution; `folders` holds the backbone's and maybe another VAE's.

    Raises:
        ClbenchError: a configuration is missing, or not of such a pipeline.
    """
    backbone = folders["backbone"]
    try:
        config = json.loads((backbone / "unet" / "config.json").read_text())
        vae = json.loads((folders.get("vae", backbone / "vae") / "config.json").read_text())
        channels = vae["block_out_channels"]
        footprint = _counted_once(config, suite.training, suite.resolution // 2 ** (len(channels) - 1), precision)
        encoders = [path for name in suite.encoders if name in folders for path in folders[name].iterdir()]
        return replace(
            footprint,
            encoders=sum(path.stat().st_size for path in encoders),
            beside=sum(path.stat().st_size for part in _BESIDE for path in (backbone / part).glob("*.safetensors")),
            decode=4 * 4 * suite.resolution**2 * max(channels[:2]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClbenchError(f"{backbone} holds no pipeline of Stable Diffusion XL's class: {error}") from error
