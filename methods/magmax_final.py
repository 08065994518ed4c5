from typing import Annotated

from pydantic import Field

from clbench import Method
from clbench.lora import Delta, max_magnitude
from clbench.method import SearchRange, Settings


class MagMaxFinal(Method):
    """Fine-tune task after task, and deploy, for every weight, the largest change that any task ended with.

    This is MagMax as first published: training never sees the selection, which is made from the task vectors, the
    changes since the base model after each task.

    T_t = T_{t-1} + scale B_t A_t, a fresh adapter trained on W_0 + T_{t-1}; per entry M_t is that of T_1 ... T_t with
    the largest magnitude, ties to the newest, and the model is W_0 + strength * M_t.

    Passed on: T_t (merged) and M_t. The selection over all task vectors is that of M_{t-1} and T_t, so that the
    earlier ones need not be kept (constant, twice the merged model).
    Settings: `strength` 0.5, as in the paper's code (CLIP).
    """

    name = "magmax_final"
    family = "merging"
    paper = "MagMax: Leveraging Model Merging for Seamless Continual Learning"
    arxiv = "2407.06322"
    year = "2024"
    code = "https://github.com/danielm1405/magmax"
    departures = "A fresh adapter a task, merged, stands for full fine-tuning."

    class Config(Settings):
        strength: Annotated[float, SearchRange(0.3, 2)] = Field(0.5, ge=0, description="Factor of the selected change.")

    def end_task(self, ctx, state, adapter):
        latest = state.merged + adapter.delta()
        chosen = max_magnitude(_selection(state), latest)
        return state.with_merged(latest).with_extra(**{f"selection/{layer}": value for layer, value in chosen.items()})

    def weights(self, state):
        return self.config.strength * _selection(state)


def _selection(state):
    return Delta({name.removeprefix("selection/"): value for name, value in state.extra.items()})
