from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.lora import Delta
from clbench.method import SearchRange, Settings


class TIES(Method):
    """Train each task from the base model, keep its largest changes, and average those of the elected sign.

    Small changes and changes of opposite sign are what hurts when task vectors are added; both are removed.

    Each task's change scale B_t A_t is trimmed to its `density` largest magnitudes over all layers together. An
    entry's sign is that of its sum over tasks; the model is W_0 + strength * the mean of the trimmed changes of that
    sign.

    Passed on: per entry the sum and the number of the positive and of the negative trimmed changes, which is all that
    the rule needs, so that it is exact for any number of tasks (constant; three times the adapted weights' fp32
    bytes).
    Settings: `density` 0.2 and the mean, as in the paper's code (top 20 %, dis-mean); `strength` 1, which the paper
    takes where it cannot tune. fusion_bench sums and has 0.3. The trim sorts all entries: on SDXL (955 million) some
    minutes.
    """

    name = "ties"
    family = "merging"
    paper = "TIES-Merging: Resolving Interference When Merging Models"
    arxiv = "2306.01708"
    year = "2023"
    code = "https://github.com/prateeky2806/ties-merging"
    departures = "Task vectors are LoRA products, of which only the adapted layers are trimmed and merged."

    class Config(Settings):
        density: Annotated[float, SearchRange(0.1, 1)] = Field(
            0.2, gt=0, le=1, description="Share of a task's entries that is kept."
        )
        strength: Annotated[float, SearchRange(0.3, 3)] = Field(1.0, ge=0, description="Factor of the merged change.")

    def frozen(self, state):
        return Delta()

    def end_task(self, ctx, state, adapter):
        import torch

        delta, sums = adapter.delta(), dict(state.extra)
        sizes = torch.cat([value.abs().flatten() for value in delta.values()])
        least = sizes.kthvalue(max(1, len(sizes) - int(self.config.density * len(sizes)))).values
        for layer, value in delta.items():
            kept = torch.where(value.abs() >= least, value, 0.0)
            for sign, side in (("+", kept.clamp(min=0)), ("-", kept.clamp(max=0))):
                sums[f"{sign}/{layer}"] = sums.get(f"{sign}/{layer}", 0.0) + side
                sums[f"{sign}count/{layer}"] = sums.get(f"{sign}count/{layer}", 0) + (side != 0).short()
        return state.with_extra(**sums)

    def weights(self, state):
        import torch

        layers = [name.removeprefix("+/") for name in state.extra if name.startswith("+/")]
        means = {
            (sign, layer): state.extra[f"{sign}/{layer}"] / state.extra[f"{sign}count/{layer}"].clamp(min=1)
            for sign in "+-"
            for layer in layers
        }
        signs = {layer: torch.sign(state.extra[f"+/{layer}"] + state.extra[f"-/{layer}"]) for layer in layers}
        majority = sum(sign.sum() for sign in signs.values())  # decides entries whose sum is 0, as in the paper's code
        return self.config.strength * Delta(
            {
                layer: torch.where(torch.where(sign == 0, majority, sign) > 0, means["+", layer], means["-", layer])
                for layer, sign in signs.items()
            }
        )
