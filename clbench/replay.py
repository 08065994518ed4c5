"""What replay methods share: training examples and prompts as tensors of the state, and a fair share in the batches.

state.with_extra(**pack_examples(kept))     # in `end_task`
unpack_examples(ctx.state)                  # in `data` of the next task
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clbench.method import Example

if TYPE_CHECKING:  # methods import this module, and `clbench list methods` must not load torch
    import torch
    from torch import Tensor

    from clbench.state import State


def interleave(new: Sequence[Example], old: Sequence[Example]) -> list[Example]:
    """New and old examples by turns, the shorter list repeated, so that half of what is drawn is old."""
    if not old:
        return list(new)
    count = max(len(new), len(old))
    return [one for i in range(count) for one in (new[i % len(new)], old[i % len(old)])]


def pack_text(lines: Sequence[str]) -> Tensor:
    """Lines of text as uint8 [bytes]."""
    import torch

    return torch.frombuffer(bytearray("\n".join(lines).encode()), dtype=torch.uint8)


def unpack_text(text: Tensor) -> list[str]:
    return bytes(text.tolist()).decode().split("\n")


def pack_examples(examples: Sequence[Example]) -> dict[str, Tensor]:
    """One or more examples as tensors for `State.extra`; their pixels become the 8-bit images that they come from.

    Returns:
        `images` uint8 [n, 3, H, W]; `image_prompts` uint8 [bytes]; `image_crops` int64 [n, 4], which are the height and
        width before cropping (0 if unknown) and the crop's top and left.
    """
    import torch

    pixels = torch.stack([example.pixels for example in examples])
    crops = [(*(example.original_size or (0, 0)), *example.corner) for example in examples]
    return {
        "images": ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8),
        "image_prompts": pack_text([example.prompt for example in examples]),
        "image_crops": torch.tensor(crops),
    }


def unpack_examples(state: State) -> list[Example]:
    """The examples that `pack_examples` put into a state, with the same pixels to the last bit; none if it did not."""
    if "images" not in state.extra:
        return []
    pixels = state.extra["images"].float() / 127.5 - 1
    prompts, crops = unpack_text(state.extra["image_prompts"]), state.extra["image_crops"].tolist()
    return [
        Example(image, prompt, (height, width) if height else None, (top, left))
        for image, prompt, (height, width, top, left) in zip(pixels, prompts, crops, strict=True)
    ]


def reservoir(
    kept: Sequence[Example], new: Sequence[Example], seen: int, size: int, source: torch.Generator
) -> list[Example]:
    """A uniform sample of at most `size` of all examples so far, from that of the `seen` earlier ones (Vitter 1985)."""
    import torch

    sample = list(kept)
    for number, example in enumerate(new, start=seen + 1):
        if len(sample) < size:
            sample.append(example)
        elif (place := int(torch.randint(number, (), generator=source))) < size:
            sample[place] = example
    return sample
