"""Load a model of diffusers or transformers from a folder, whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any


def load_whole(kind: Any, folder: Path, **options: Any) -> Any:
    """A model from a local folder, in fp32, that has all its tensors: the libraries would draw those that are missing.

    They would also round to the type that the folder's configuration names, which for SDXL's text encoders is fp16.

    Args:
        kind: the model's class.
        options: of its `from_pretrained`.

    Raises:
        ValueError: tensors are missing, or the file holds more than tensors. OSError, RuntimeError, TypeError: as the
            library raises them for another model's folder.
    """
    import torch
    from diffusers.models.modeling_utils import ModelMixin

    load: Any = kind.from_pretrained
    options["torch_dtype" if issubclass(kind, ModelMixin) else "dtype"] = torch.float32
    try:
        model, found = load(folder, local_files_only=True, output_loading_info=True, **options)
    except UnpicklingError:
        raise ValueError(f"the file of weights in {folder} holds more than tensors, and is not unpickled") from None
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} of the model's tensors, such as {missing[0]}")
    return model


@contextmanager
def quietly() -> Iterator[None]:
    """Let the libraries print neither progress bars nor advice within, and as before after it."""
    import diffusers
    import transformers

    modules: tuple[Any, ...] = (transformers.logging, diffusers.utils.logging)
    before = [(one, one.get_verbosity(), one.is_progress_bar_enabled()) for one in modules]
    for one in modules:
        one.set_verbosity_error()
        one.disable_progress_bar()
    try:
        yield
    finally:
        for one, verbosity, has_bars in before:
            one.set_verbosity(verbosity)
            if has_bars:
                one.enable_progress_bar()


def silence() -> None:
    """Let the libraries print neither progress bars nor advice, in a process of clbench's own."""
    import diffusers
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)
