"""The display of work while it goes on: a bar for all of it and one for each run at work, the last cell, memory.

with Display(plan.graph.units, console) as display:
    carry_out(plan, display.on_event)
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from clbench.runner.engine.schedule import Unit
from clbench.runner.monitor.events import output_line
from clbench.utils.formatting import format_bytes, format_time

BARS = 12
"""Runs that are shown at a time."""
MINUTE = 60.0
"""Seconds between two lines of a log."""


class WorkCounter:
    """How much of some units is done, counted from events, in U-Net passes of one image."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._units = {unit.key: unit for unit in units}
        self._made: dict[str, float] = defaultdict(float)
        self.total: dict[str, float] = defaultdict(float)
        """Run -> its work; units that belong to no single run are under their own label."""
        self.done: dict[str, float] = defaultdict(float)
        """Run -> how much of its work is done."""
        for unit in self._units.values():
            self.total[run_of(unit.params, unit.label)] += unit.work

    def count(self, event: Mapping[str, Any]) -> None:
        """Count what was done; a unit that is begun again counts from nothing, and one that ended counts whole."""
        key = event.get("unit")
        if key not in self._units:
            return
        unit, before = self._units[key], self._made[key]
        if event["event"] == "begin":
            self._made[key] = 0.0
        elif event["event"] == "work":
            self._made[key] = min(before + event["made"], unit.work)
        elif event["event"] == "end" and event["how"] == "done":
            self._made[key] = unit.work
        self.done[run_of(unit.params, unit.label)] += self._made[key] - before


def run_of(params: Mapping[str, Any], otherwise: str = "") -> str:
    """The name of a unit's run; `otherwise` for a unit of no single run."""
    if params.get("order") is None:
        return otherwise
    return f"{params['variant']}, {params['track']}, order {params['order']} seed {params['seed']}"


class Display:
    """The live display of one command.

    Args:
        log_interval: seconds between two lines where the console is no terminal.
        live: whether bars are drawn again and again; without them each unit is a line.
    """

    def __init__(
        self, units: Iterable[Unit], console: Console, log_interval: float = MINUTE, *, live: bool = True
    ) -> None:
        units, self._log_interval = list(units), log_interval
        self._work, self._console = WorkCounter(units), console
        self._several = len({group for unit in units for group in unit.groups}) > 1
        """Whether results come one after another, each worth a line."""
        label = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
        times = (TimeElapsedColumn(Column(no_wrap=True)), TimeRemainingColumn(table_column=Column(no_wrap=True)))
        self._all = Progress(label, BarColumn(20), TaskProgressColumn(), *times, expand=True)
        self._each = Progress("  {task.description}", BarColumn(), TaskProgressColumn(), "{task.fields[what]}")
        self._bar = self._all.add_task("starting", total=sum(self._work.total.values()))
        self._bars: dict[str, TaskID] = {}
        self._memory: dict[Any, int] = {}
        self._cell, self._began = Text(), time.monotonic()
        self._noted = self._began
        self._over = False
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=4) if live else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._over = True
        if self._live:
            self._live.__exit__(*failure)
            if not self._console.is_interactive:
                self._console.print()  # which Live leaves out there

    def on_event(self, event: dict[str, Any]) -> None:
        """Show what an event tells."""
        kind = event["event"]
        self._work.count(event)
        if kind == "stage":
            self._all.update(self._bar, description=event["what"])
        elif kind == "wait":
            self._all.update(self._bar, description="waiting for another command")
        elif kind == "warning":
            self._console.print(Text(f"warning: {event['message']}", style="yellow"), soft_wrap=True)
        elif kind == "output":
            self._console.print(Text(output_line(event)), soft_wrap=True)
        elif kind == "result" and self._several:
            self._console.print(Text(f"result: {event['path']}", style="dim"), soft_wrap=True)
        elif kind == "memory":
            self._memory[event.get("worker")] = event["bytes"]
        elif kind == "cell":
            scores = "  ".join(f"{metric} {value:.3f}" for metric, value in event["scores"].items())
            self._cell = Text(f"  last cell: {event['task']}  {scores}", style="dim")
        elif kind in ("begin", "end"):
            if kind == "begin" and not self._live:
                self._console.print(Text(event["label"], style="dim"), soft_wrap=True)
            self._show(event)
            self._note(event)

    def _show(self, event: Mapping[str, Any]) -> None:
        """A unit's begin or end."""
        run = run_of(event, event["label"])
        if run not in self._bars:
            self._bars[run] = self._each.add_task(run, total=self._work.total[run], what="")
        if event["event"] == "begin":
            self._all.update(self._bar, description=event["label"])
            self._each.update(self._bars[run], visible=True, what=_doing(event))
            self._hide_the_oldest()
        else:
            self._each.update(self._bars[run], what="", visible=self._work.done[run] < self._work.total[run])

    def _note(self, event: Mapping[str, Any]) -> None:
        """A line a minute where nobody sees the bars, as in the log of a cluster's job."""
        now, done, total = time.monotonic(), sum(self._work.done.values()), sum(self._work.total.values())
        if self._console.is_terminal or now - self._noted < self._log_interval or not done:
            return
        self._noted = now
        left = format_time((now - self._began) * (total - done) / done)
        self._console.print(Text(f"{done / total:.0%}, about {left} left: {event['label']}"), soft_wrap=True)

    def _hide_the_oldest(self) -> None:
        seen = [bar for bar in self._bars.values() if self._each.tasks[bar].visible]
        for bar in seen[:-BARS]:
            self._each.update(bar, visible=False)

    def _picture(self) -> RenderableType:
        """Made as often as it is shown, and no oftener."""
        done = self._work.done
        self._all.update(self._bar, completed=sum(done.values()))
        if self._over:
            return self._all
        for run, bar in self._bars.items():
            self._each.update(bar, completed=done[run])
        rate = sum(done.values()) / max(time.monotonic() - self._began, 1e-3)
        memory = f", {format_bytes(sum(self._memory.values()))} of memory in use" if self._memory else ""
        return Group(self._all, self._each, self._cell, Text(f"  {rate:,.0f} U-Net passes/s{memory}", style="dim"))


def _doing(event: Mapping[str, Any]) -> str:
    return f"{event['kind']} {event['task']}" if event.get("task") else ""
