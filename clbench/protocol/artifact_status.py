"""Which artifacts of a method's sequences are in the store, and which states are no longer needed."""

from __future__ import annotations

from collections.abc import Sequence

from clbench.protocol.task_sequence import TaskSequence


class ArtifactStatus:
    """The states and rows of all sequences of one method on one track.

    Orders may begin alike and share a state, so that it is done with only when all of them are.

    Args:
        keep_states: whether the states of all tasks are kept, not only of the last.
        last_row_only: whether only the last state of a sequence is scored.
    """

    def __init__(self, sequences: Sequence[TaskSequence], keep_states: bool, last_row_only: bool = False) -> None:
        self._sequences, self.keep_states, self._last_row_only = sequences, keep_states, last_row_only

    def is_scored(self, sequence: TaskSequence, position: int) -> bool:
        """Whether the state after the task at `position` is one of those that are scored."""
        return not self._last_row_only or position == len(sequence.tasks) - 1

    def training_not_needed(self, sequence: TaskSequence, position: int) -> bool:
        """True if the state after the task at `position` exists, or is not needed any more."""
        if self._state_exists(sequence, position):
            return True
        if self.keep_states:
            return False
        return all(self._is_passed(one, position) for one in self._sharing(sequence, position))

    def delete_unneeded(self, sequence: TaskSequence, position: int) -> None:
        """Delete the state at `position` and the one before, each if it is no longer needed."""
        if self.keep_states:
            return
        for earlier in range(max(0, position - 1), position + 1):
            if all(self._can_delete(one, earlier) for one in self._sharing(sequence, earlier)):
                sequence.runtime.store.drop(sequence.keys.state(earlier), ".safetensors")

    def _sharing(self, sequence: TaskSequence, position: int) -> list[TaskSequence]:
        """The sequences that share the state at `position`."""
        return [one for one in self._sequences if one.keys.state(position) == sequence.keys.state(position)]

    def _state_exists(self, sequence: TaskSequence, position: int) -> bool:
        return sequence.runtime.store.has(sequence.keys.state(position), ".safetensors")

    def _row_exists(self, sequence: TaskSequence, position: int) -> bool:
        return sequence.runtime.store.has(sequence.keys.row(position), ".json")

    def _is_done_with(self, sequence: TaskSequence, position: int) -> bool:
        """Whether the state has been scored, or need not be."""
        return not self.is_scored(sequence, position) or self._row_exists(sequence, position)

    def _is_passed(self, sequence: TaskSequence, position: int) -> bool:
        """Whether the state exists, or this sequence has scored it and needs it for no further task.

        An order that begins alike may have deleted a state that this one still needs.
        """
        last = position == len(sequence.tasks) - 1
        return self._state_exists(sequence, position) or (
            self._is_done_with(sequence, position) and (last or self._is_passed(sequence, position + 1))
        )

    def _can_delete(self, sequence: TaskSequence, position: int) -> bool:
        """Whether this sequence has scored the state and trained on from it; the last state is never deleted."""
        last = position == len(sequence.tasks) - 1
        return (
            not last
            and self._is_done_with(sequence, position)
            and (self._state_exists(sequence, position + 1) or self._row_exists(sequence, position + 1))
        )
