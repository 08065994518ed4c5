"""All units of a sweep in one graph: what is equal is planned once, what the store holds is left out.

plan = make_plan(executor, together=True)
plan.units          # to be done, each after those that it needs
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from clbench.protocol.task_sequence import TaskSequence
from clbench.runner.config import RunSpec
from clbench.runner.engine import Unit, needed
from clbench.runner.executor import UnitExecutor
from clbench.runner.unit_kinds import TASK_KINDS, TRACK_KINDS, TaskUnit, TrainUnit, UnitWork


@dataclass(frozen=True)
class Plan:
    """What a sweep will do."""

    everything: list[Unit]
    """All units of the sweep, each once."""
    units: list[Unit]
    """Those that are still to be done."""
    asked: int
    """Units before equal ones were merged."""
    repeated_cells: int
    """First cells that are drawn once if methods that share the first training also end it with the same weights."""

    @property
    def work(self) -> float:
        """U-Net passes of one image that are to be made."""
        return sum(unit.work for unit in self.units)

    @property
    def training_work(self) -> float:
        """Those of them that train."""
        kinds = TRACK_KINDS | TASK_KINDS
        return sum(unit.work for unit in self.units if kinds[unit.params["kind"]].trains)

    @property
    def shared(self) -> int:
        """Units that were asked for more than once."""
        return self.asked - len(self.everything)

    def count(self, kind: str) -> dict[str, int]:
        """How many units of a kind there are, and how many are to be done."""
        counts = {"all": self.everything, "to_do": self.units}
        return {name: sum(unit.params["kind"] == kind for unit in units) for name, units in counts.items()}


def make_plan(executor: UnitExecutor, together: bool) -> Plan:
    """Plan a whole sweep.

    Args:
        together: whether several workers share the work. Alone, a state is scored before the next is trained, and few
            are kept at a time; together, training goes ahead, since all scoring waits for it.
    """
    found: dict[str, Unit] = {}
    work_by_key: dict[str, UnitWork] = {}
    asked = 0
    first_trainings: Counter[str] = Counter()
    for number, spec in enumerate(executor.sweep.specs):
        common = {
            "spec": number,
            "suite": executor.sweep.suite.name,
            "track": spec.track,
            "method": spec.variant.method,
            "variant": spec.variant.name,
        }
        for work in _work_of(executor, spec, together):
            asked += 1
            if isinstance(work, TrainUnit) and work.position == 0:
                first_trainings.update(work.needs)
            known = found.get(work.key)
            groups = (spec.name,) if known is None else tuple(dict.fromkeys([*known.groups, spec.name]))
            found[work.key] = replace(known or _unit(work, common), groups=groups)
            work_by_key.setdefault(work.key, work)
    everything = list(found.values())
    left = needed(everything, lambda unit: work_by_key[unit.key].is_done())
    return Plan(everything, left, asked, sum(count - 1 for count in first_trainings.values()))


def _unit(work: UnitWork, common: dict[str, Any]) -> Unit:
    params = {**common, **work.params, "kind": work.kind}
    return Unit(work.key, work.label, work.work, work.needs, (), work.wanted, params)


def _work_of(executor: UnitExecutor, spec: RunSpec, together: bool) -> Iterator[UnitWork]:
    """One variant's units on one track, the most wanted first."""
    for kind in TRACK_KINDS.values():
        yield kind(executor.runtime(spec.track))
    for sequence in executor.sequences(spec):
        yield from _work_of_sequence(executor, spec, sequence, together)


def _work_of_sequence(
    executor: UnitExecutor, spec: RunSpec, sequence: TaskSequence, together: bool
) -> Iterator[TaskUnit]:
    places = [executor.place(spec, sequence, position) for position in range(len(sequence.tasks))]
    if together:  # all trainings before the first scoring
        return (unit for kind in TASK_KINDS.values() for place in places for unit in kind.of(place))
    return (unit for place in places for kind in TASK_KINDS.values() for unit in kind.of(place))
