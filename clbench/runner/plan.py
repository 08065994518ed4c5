"""All units of several jobs in one graph: what is equal is planned once, what the store holds is left out.

    plan = make_plan(workshop, together=True)
    plan.units          # to be done, each after those that it needs

A run is a chain of trainings; each is followed by the scoring of all tasks seen so far, which depends on that state
alone. Before the chain stand the first task's training, where several methods share it, and the base row and the
controls, one set a track.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from clbench.protocol.task_sequence import Sequence
from clbench.runner.engine import Unit, needed
from clbench.runner.units import Workshop


@dataclass(frozen=True)
class Plan:
    """What a sweep will do."""

    everything: list[Unit]
    """All units of the jobs, each once."""
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
    def shared(self) -> int:
        """Units that were asked for more than once."""
        return self.asked - len(self.everything)

    def count(self, kind: str) -> tuple[int, int]:
        """How many of a kind there are, and are to be done."""
        return tuple(sum(unit.where["kind"] == kind for unit in units) for units in (self.everything, self.units))  # type: ignore[return-value]


def make_plan(workshop: Workshop, together: bool) -> Plan:
    """Plan all jobs of a workshop.

    Args:
        together: whether several workers share the work. Alone, a state is scored before the next is trained, and few
            are kept at a time; together, training goes ahead, since all scoring waits for it.
    """
    found: dict[str, Unit] = {}
    asked = 0
    firsts: Counter[str] = Counter()
    for number in range(len(workshop.jobs)):
        for unit in _units(workshop, number, together):
            asked += 1
            if unit.where["kind"] == "train" and unit.where["position"] == 0:
                firsts.update(unit.needs)
            known = found.get(unit.key)
            groups = tuple(dict.fromkeys([*known.groups, *unit.groups])) if known else unit.groups
            found[unit.key] = replace(known or unit, groups=groups)
    everything = list(found.values())
    left = needed(everything, workshop.is_whole)
    return Plan(everything, left, asked, sum(count - 1 for count in firsts.values()))


def _units(workshop: Workshop, number: int, together: bool) -> Iterator[Unit]:
    """One job's, the most wanted first."""
    bench, job = workshop.bench(number), workshop.jobs[number]
    group = (job.name,)
    common = {"job": number, "suite": job.suite.name, "track": job.track, "method": job.method}
    base_work = len(bench.track.tasks) * bench.cell_work
    yield Unit(bench.base_key, f"{job.track}: the base model", base_work, (), group, True, {**common, "kind": "base"})
    yield Unit(bench.controls_key, f"{job.track}: controls", 0.0, (), group, True, {**common, "kind": "controls"})
    for sequence in workshop.sequences(number):
        train = list(_trainings(sequence, common, group, "states" in job.keep))
        score = list(_scorings(sequence, common, group))
        if together:
            yield from (*train, *score)
        else:
            *fit, first = train[: len(train) - len(sequence.tasks) + 1]
            yield from (*fit, first, score[0])
            for pair in zip(train[len(fit) + 1 :], score[1:], strict=True):
                yield from pair


def _trainings(sequence: Sequence, common: dict, group: tuple[str, ...], kept: bool) -> Iterator[Unit]:
    """A sequence's; states that are kept are wanted for themselves."""
    before, work = sequence.shared_fit(), sequence.bench.train_work
    if before:
        where = {**_where(sequence, common, 0), "kind": "fit"}
        yield Unit(before, f"{sequence.label(0)}: first training", work, (), group, False, where)
    for position in range(len(sequence.tasks)):
        key, label = sequence.state_key(position), f"{sequence.label(position)}: training"
        own = 0.0 if position == 0 and before else work
        where = {**_where(sequence, common, position), "kind": "train"}
        yield Unit(key, label, own, (before,) if before else (), group, kept, where)
        before = key


def _scorings(sequence: Sequence, common: dict, group: tuple[str, ...]) -> Iterator[Unit]:
    for position in range(len(sequence.tasks)):
        label, work = f"{sequence.label(position)}: scoring", (position + 1) * sequence.bench.cell_work
        where = {**_where(sequence, common, position), "kind": "score"}
        yield Unit(sequence.row_key(position), label, work, (sequence.state_key(position),), group, True, where)


def _where(sequence: Sequence, common: dict, position: int) -> dict:
    task = sequence.tasks[position].name
    return {**common, "order": sequence.order, "seed": sequence.seed, "position": position, "task": task}
