from clbench import Method


class FrozenBase(Method):
    """Learn nothing: the model stays the base model. What other methods learn and keep is measured against this row."""

    name = "frozen_base"

    def begin_task(self, ctx, state):
        return None

    def end_task(self, ctx, state, adapter):
        return state
