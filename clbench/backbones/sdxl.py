"""An SDXL-class pipeline on a device: encode prompts and images, deploy weight changes, train one adapter.

PEFT injects the LoRA adapter once. Training enables it; sampling disables it and adds dense changes to the base weights
instead, so that a deployed model costs as much as the base model. An adapter of another kind is built when it is used:
its layers then lie between LoRA's, which are disabled, and the linear layers. On an accelerator only the U-Net stays in
memory: the VAE and the text encoders are moved there while they are in use, and the fp32 base weights, to which changes
are added, stay on the CPU unless there is room.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.func import functional_call
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from clbench.backbones import peft_layers
from clbench.backbones.architecture import DTYPES, add_adapter, check_architecture, lora_factors
from clbench.backbones.half_precision import HalfPrecision
from clbench.backbones.text_tokens import encode_with_tokens
from clbench.backbones.vae import decode, on_device
from clbench.errors import ClbenchError, WorkFailed
from clbench.lora import Adapter, AnyAdapter, PeftAdapter
from clbench.suite import Training
from clbench.tokens import Tokens, tokens_in
from clbench.utils.pretrained import load_whole


class Backbone:
    """A pipeline with one adapter.

    Attributes:
        layers: adapted layer -> PEFT's layer.
        shapes: adapted layer -> (out, in).
        noise_scheduler: the forward process of training.
        sample_batch_size: images in a sampling batch; None = all.
        passes: whether with a gradient -> U-Net passes of one image so far.
    """

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        training: Training,
        device: str,
        precision: str,
        gradient_checkpointing: bool = False,
        sample_batch_size: int | None = None,
        base_on_device: bool = False,
    ) -> None:
        self.pipeline: Any = pipeline  # diffusers annotates its outputs as unions of all variants
        self.device = torch.device(device)
        self.precision = precision
        self.sample_batch_size = sample_batch_size
        for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            module.eval().requires_grad_(False)
        self.unet = pipeline.unet
        self.layers = add_adapter(self.unet, training)
        self.rank, self.scale = training.rank, training.alpha / training.rank
        base = {name: layer.base_layer.weight.detach() for name, layer in self.layers.items()}
        self._base = {name: weight.to(device if base_on_device else "cpu", copy=True) for name, weight in base.items()}
        self.shapes = {name: (weight.shape[0], weight.shape[1]) for name, weight in self._base.items()}
        check_architecture(self.shapes, training)
        self._half = (
            None if precision == "fp32" else HalfPrecision(self.unet, DTYPES[precision], gradient_checkpointing)
        )
        if gradient_checkpointing and self._half is None:
            self.unet.enable_gradient_checkpointing()
        self.unet.to(self.device)
        self.noise_scheduler: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
        self._deployed: Mapping[str, Tensor] = {}
        self._digest: str | None = None
        self._adapter_enabled = True
        self._inserted: dict[str, Any] = {}
        self.passes: Counter[bool] = Counter()
        self._encoded_prompts: dict[str, tuple[Tensor, Tensor]] = {}
        self._other: tuple[Mapping[str, Tensor], dict[str, Tensor]] | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        training: Training,
        device: str = "cpu",
        precision: str = "fp32",
        *,
        vae: Path | None = None,
        scheduler: str | None = None,
        gradient_checkpointing: bool = False,
        sample_batch_size: int | None = None,
        base_on_device: bool = False,
    ) -> Backbone:
        """Load a diffusers folder, in fp32.

        Args:
            vae: folder of a VAE that replaces the folder's own.
            scheduler: class of the sampler, if not the folder's own.
            gradient_checkpointing: recompute activations in the backward pass, to save memory.
            sample_batch_size: the most images that are drawn at a time; default all that are asked for.
            base_on_device: keep the fp32 base weights, to which changes are added, on the device too.

        Raises:
            ClbenchError: the folder holds no pipeline of this class, or one of another architecture.
        """
        with torch.random.fork_rng(devices=[]):  # new modules draw initial weights, which are then replaced
            try:
                models = {
                    "unet": load_whole(UNet2DConditionModel, folder / "unet"),
                    "vae": load_whole(AutoencoderKL, vae or folder / "vae"),
                    "text_encoder": load_whole(CLIPTextModel, folder / "text_encoder"),
                    "text_encoder_2": load_whole(CLIPTextModelWithProjection, folder / "text_encoder_2"),
                }
                pipeline: Any = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, **models)
            except (OSError, ValueError, TypeError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:300]
                raise ClbenchError(f"{folder} holds no pipeline of Stable Diffusion XL's class: {reason}") from error
            if scheduler:
                pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
            options = (gradient_checkpointing, sample_batch_size, base_on_device)
            return cls(pipeline.to(torch.float32), training, device, precision, *options)

    def move(self, device: str) -> None:
        """Go on with another device; what was encoded before is taken along."""
        self.device = torch.device(device)
        self.unet.to(self.device)
        encoded = self._encoded_prompts.items()
        self._encoded_prompts = {prompt: (one.to(device), other.to(device)) for prompt, (one, other) in encoded}

    # --- weights ---

    def deploy(self, delta: Mapping[str, Tensor], digest: str | None = None) -> None:
        """Set the weights to base + delta, added in fp32; does nothing if `digest` is that of the deployed delta."""
        if digest is not None and digest == self._digest:
            return
        self._digest = self._other = None  # until all weights are set
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.base_layer.weight.copy_(self._changed(name, delta))
        self._deployed, self._digest = delta, digest

    @contextmanager
    def temporary_weights(self, delta: Mapping[str, Tensor]) -> Iterator[None]:
        """Deploy other weights, with the adapter disabled, inside a `with` block; then restore both."""
        deployed, enabled, inserted = self._deployed, self._adapter_enabled, self._inserted
        self.use_adapter(None)
        self.deploy(delta)
        try:
            yield
        finally:
            self.deploy(deployed)
            if enabled:
                self._set_adapter_enabled(True)
            self._insert(inserted)

    def _changed(self, name: str, delta: Mapping[str, Tensor]) -> Tensor:
        """A layer's weight with a change, fp32."""
        weight = self._base[name]
        return weight + delta[name].to(weight) if name in delta else weight

    def use_adapter(self, adapter: AnyAdapter | None) -> AnyAdapter | None:
        """Copy an adapter's values into the model and enable it; None disables the adapter.

        A `PeftAdapter` without values gets those that PEFT gives it over the deployed weights.

        Returns:
            The live adapter, whose tensors are the model's parameters, without gradients; None if disabled.
        """
        self._insert({})
        self._set_adapter_enabled(isinstance(adapter, Adapter))
        if adapter is None:
            return None
        if isinstance(adapter, PeftAdapter):
            if self.precision == "fp16":  # whose gradients are scaled for LoRA's factors alone
                raise WorkFailed(f"at fp16 no {adapter.kind} adapter is trained, only LoRA; give --precision bf16")
            self._insert(peft_layers.build(adapter, self._frozen_weights(adapter)))
            live = {name: {**peft_layers.parameters(layer)} for name, layer in self._inserted.items()}
            return replace(adapter, values=live)
        for name, layer in self.layers.items():  # a layer that the adapter lacks gets rank 0
            outputs, inputs = self.shapes[name]
            _set_values(layer.lora_A["default"], adapter.A.get(name, torch.empty(0, inputs)))
            _set_values(layer.lora_B["default"], adapter.B.get(name, torch.empty(outputs, 0)))
        # In the model's order, whatever the adapter's is: the norm that clips gradients depends on it in its last bits.
        own = {name: layer for name, layer in self.layers.items() if name in adapter.A}
        A = {name: layer.lora_A["default"].weight for name, layer in own.items()}
        return Adapter(A, {name: layer.lora_B["default"].weight for name, layer in own.items()}, self.scale)

    def trained(self, live: AnyAdapter) -> AnyAdapter:
        """A copy of the live adapter on the CPU, which knows its change of the deployed weights."""
        adapter = live.detach("cpu")
        if isinstance(adapter, PeftAdapter):
            return replace(adapter, change=peft_layers.change(adapter, self._frozen_weights(adapter)))
        return adapter

    def _frozen_weights(self, adapter: PeftAdapter) -> dict[str, Tensor]:
        """The weights that an adapter changes, as they are deployed, fp32, on the CPU."""
        return {name: self._changed(name, self._deployed).cpu() for name in adapter.layers}

    def _insert(self, layers: Mapping[str, Any]) -> None:
        """Put PEFT's layers of another kind around linear layers, in the place of those that are there.

        LoRA's layers stay outermost, so that forward hooks on them and the names of weights are the same for all kinds.
        """
        for name, layer in self._inserted.items():
            self.layers[name].base_layer = layer.base_layer
        for name, layer in layers.items():
            layer.base_layer = self.layers[name].base_layer
            self.layers[name].base_layer = layer.to(self.device)
        self._inserted = dict(layers)

    def _set_adapter_enabled(self, on: bool) -> None:
        if on != self._adapter_enabled:  # PEFT visits all modules, which is slow
            (self.unet.enable_adapters if on else self.unet.disable_adapters)()
        self._adapter_enabled = on

    # --- encoding ---

    def encode_prompts(self, prompts: list[str], tokens: Tokens | None = None) -> tuple[Tensor, Tensor]:
        """Hidden states [N, L, D] and pooled embeddings [N, P]; each distinct prompt is encoded once and cached.

        Args:
            tokens: learned tokens. The prompts that contain one are encoded in every call, with gradients for them.
        """
        own = {prompt: tokens_in(tokens or {}, [prompt]) for prompt in dict.fromkeys(prompts)}
        unknown = [prompt for prompt in own if own[prompt] or prompt not in self._encoded_prompts]
        with_tokens = {}
        if unknown:
            with self.text_encoders():
                for prompt in unknown:
                    if own[prompt]:
                        with_tokens[prompt] = encode_with_tokens(self.pipeline, prompt, own[prompt])
                    else:
                        self._encoded_prompts[prompt] = self._encode_prompt(prompt)
        encoded = [with_tokens.get(prompt) or self._encoded_prompts[prompt] for prompt in prompts]
        return torch.stack([hidden for hidden, _ in encoded]), torch.stack([pooled for _, pooled in encoded])

    @torch.no_grad()
    def _encode_prompt(self, prompt: str) -> tuple[Tensor, Tensor]:
        hidden, _, pooled, _ = self.pipeline.encode_prompt(
            prompt, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return hidden[0], pooled[0]

    def text_encoders(self) -> AbstractContextManager[None]:
        """Keep the text encoders on the device inside a `with` block, where more than one call needs them."""
        return on_device(self.device, self.pipeline.text_encoder, self.pipeline.text_encoder_2)

    # --- running ---

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        hidden: Tensor,
        pooled: Tensor,
        time_ids: Tensor,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The U-Net's prediction for noisy latents [N, C, h, w].

        Args:
            weights: weight changes of another model, which predicts instead, without the adapter. What is deployed, and
                the graph of an earlier prediction, stay as they are.
        """
        conditions = {"text_embeds": pooled, "time_ids": time_ids}
        self.passes[torch.is_grad_enabled()] += len(noisy)
        inputs = (noisy, timesteps, hidden)
        if weights is None:
            return self._run(inputs, conditions, {})
        inserted = self._inserted
        self._insert({})
        try:
            return self._run(inputs, conditions, self._other_parameters(weights))
        finally:
            self._insert(inserted)

    def _run(
        self, inputs: tuple[Tensor, Tensor, Tensor], conditions: dict[str, Tensor], replaced: dict[str, Tensor]
    ) -> Tensor:
        """Call the U-Net, with `replaced` in place of parameters of its own."""
        if self._half is None:
            options = {"added_cond_kwargs": conditions}
            return (
                functional_call(self.unet, replaced, inputs, options) if replaced else self.unet(*inputs, **options)
            ).sample
        factors = lora_factors(self.layers) if self._adapter_enabled and not replaced else {}
        # PEFT's other layers have fp32 parameters, which they combine with half-precision activations.
        with torch.autocast(self.device.type, self._half.dtype, enabled=bool(self._inserted)):
            return self._half(inputs, conditions, factors, replaced)

    def _other_parameters(self, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The U-Net's parameters that differ under other weight changes without the adapter; the last are kept."""
        if self._other is None or self._other[0] is not delta:
            parameters = {}
            for name, factor in lora_factors(self.layers).items():
                parameters[name] = torch.zeros_like(factor, dtype=DTYPES[self.precision])
            for name, layer in self.layers.items():
                weight = layer.base_layer.weight
                if delta is not self._deployed:
                    parameters[f"{name}.base_layer.weight"] = self._changed(name, delta).to(weight)
            self._other = delta, parameters
        return self._other[1]

    def base_weight(self, layer: str) -> Tensor:
        """A copy of an adapted layer's weight in the untouched model, fp32 [out, in], on the CPU."""
        return self._base[layer].to("cpu", copy=True)

    @torch.no_grad()
    def generate(
        self, prompts: list[str], latents: Tensor, steps: int, guidance_scale: float, tokens: Tokens | None = None
    ) -> Tensor:
        """One image for each prompt from given noise [N, C, h, w]: float [N, 3, H, W] in [0, 1], on the CPU.

        The batch size is halved whenever the device's memory is not enough.

        Args:
            tokens: learned tokens that prompts may contain.
        """
        hidden, pooled = self.encode_prompts(prompts, tokens)
        while True:
            size = min(self.sample_batch_size or len(prompts), len(prompts))
            try:
                parts = zip(hidden.split(size), pooled.split(size), latents.split(size), strict=True)
                clean = torch.cat([self._sample_latents(*part, steps, guidance_scale) for part in parts])
                return decode(self.pipeline, clean)
            except torch.OutOfMemoryError:
                if size == 1 or torch.are_deterministic_algorithms_enabled():  # the batch size changes last bits
                    raise
                self.sample_batch_size = size // 2
            torch.cuda.empty_cache()  # here, where the failed attempt's tensors are freed

    def _sample_latents(
        self, hidden: Tensor, pooled: Tensor, latents: Tensor, steps: int, guidance_scale: float
    ) -> Tensor:
        """Latents after all steps of the sampler, in fp32 whatever the U-Net's precision."""
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(steps, device=self.device)
        own = {"generator": torch.Generator().manual_seed(0)}  # samplers that add noise add the same every time
        own = own if "generator" in inspect.signature(scheduler.step).parameters else {}
        size = latents.shape[-1] * self.pipeline.vae_scale_factor
        time_ids = torch.tensor([[size, size, 0, 0, size, size]], dtype=hidden.dtype, device=self.device)
        halves = 2 if guidance_scale > 1 else 1
        if halves == 2:  # the negative prompt's embedding is all zeros in SDXL
            hidden, pooled = (torch.cat([torch.zeros_like(value), value]) for value in (hidden, pooled))
        latents = latents.to(self.device) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            noisy = scheduler.scale_model_input(latents.repeat(halves, 1, 1, 1), timestep)
            predicted = self.predict(noisy, timestep, hidden, pooled, time_ids.expand(len(noisy), -1)).float()
            if halves == 2:
                without, prompted = predicted.chunk(2)
                predicted = without + guidance_scale * (prompted - without)
            latents = scheduler.step(predicted, timestep, latents, **own).prev_sample
        return latents


@torch.no_grad()
def _set_values(linear: Any, values: Tensor) -> None:
    """Give a factor of LoRA its values, and their shape; one of rank 0 needs no gradient."""
    if values.shape != linear.weight.shape:
        linear.weight = nn.Parameter(torch.empty(values.shape, device=linear.weight.device))
    linear.weight.requires_grad_(values.numel() > 0).copy_(values)
    linear.weight.grad = None
