"""The display of work while it goes on: a bar for all of it and one for each run at work, the last cell, memory.

Where nobody sees bars (a pipe, the log of a job, a terminal that cannot move its cursor) it prints a line now and then.

with Display(plan.graph.units, console) as display:
    carry_out(plan, display.on_event)
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from clbench.runner.engine import EventHandler
from clbench.runner.engine.schedule import Unit
from clbench.runner.monitor.events import output_line, print_output
from clbench.utils.formatting import format_bytes, format_time
from clbench.utils.tables import FittedTable, OneLine, RankedColumn

BARS = 12
"""Runs that are shown at a time."""
LOG_INTERVAL, MINUTE = 10.0, 60.0
"""Seconds between two lines of a log: at first, and from the sixth minute on."""
NOTEBOOK_INTERVAL = 5.0
"""Seconds between two lines in a notebook, whose reader waits for them."""
LOADING, ALL_STORED = "loading models", "all from the store"


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


@contextmanager
def progress_lines(units: Iterable[Unit]) -> Iterator[EventHandler]:
    """An event handler for callers from Python, who gave none: what methods print, and in a notebook the progress too.

    The progress is lines on stderr, which need no widgets.
    """
    if not _in_notebook():
        yield print_output
        return
    with Display(units, Console(stderr=True, force_jupyter=False, force_terminal=False), NOTEBOOK_INTERVAL) as display:
        yield display.on_event


def _in_notebook() -> bool:
    """Whether this code runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")  # where it is not imported, no kernel is running
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def run_of(params: Mapping[str, Any], otherwise: str = "") -> str:
    """The name of a unit's run; `otherwise` for a unit of no single run."""
    if params.get("order") is None:
        return otherwise
    return f"{params['variant']}, {params['track']}, order {params['order']} seed {params['seed']}"


class Display:
    """The live display of one command.

    Args:
        log_interval: seconds between the first lines where there are no bars.
        live: whether bars are drawn again and again; without them each unit is a line.
    """

    def __init__(
        self, units: Iterable[Unit], console: Console, log_interval: float = LOG_INTERVAL, *, live: bool = True
    ) -> None:
        units, self._log_interval = list(units), log_interval
        self._work, self._console = WorkCounter(units), console
        self._several = len({group for unit in units for group in unit.groups}) > 1
        """Whether results come one after another, each worth a line."""
        self._planned, self._total = len(units), sum(self._work.total.values())
        self._all = Progress(
            _Label(_WholeWords, RankedColumn(ratio=1)),
            BarColumn(20, table_column=RankedColumn(no_wrap=True, rank=2)),
            TaskProgressColumn(table_column=RankedColumn(no_wrap=True)),
            TimeElapsedColumn(RankedColumn(no_wrap=True, rank=1)),
            TimeRemainingColumn(table_column=RankedColumn(no_wrap=True)),
            expand=True,
        )
        self._each = Progress(
            _Label(lambda run: OneLine(f"  {run}"), RankedColumn()),
            BarColumn(10, table_column=RankedColumn(no_wrap=True, rank=2)),
            TaskProgressColumn(table_column=RankedColumn(no_wrap=True)),
            TextColumn("{task.fields[what]}", table_column=RankedColumn(no_wrap=True, rank=1)),
        )
        self._bar = self._all.add_task("starting", total=self._total or 1.0)
        self._bars: dict[str, TaskID] = {}
        self._begun: dict[str, Mapping[str, Any]] = {}
        """Unit -> its `begin`."""
        self._loading: set[str] = set()
        """Units that wait for models to be loaded."""
        self._memory: dict[Any, int] = {}
        self._cell, self._began = Text(), time.monotonic()
        self._noted = self._began
        self._over = False
        self._each_unit = not live
        self._bars_seen = live and console.is_terminal and console.is_interactive
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._bars_seen:
            self._live.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._over = True
        if self._bars_seen:
            self._live.__exit__(*failure)
        else:
            self._print(self._conclusion())

    def on_event(self, event: dict[str, Any]) -> None:
        """Show what an event tells."""
        kind = event["event"]
        self._work.count(event)
        if kind == "stage":
            self._describe(event["what"])
        elif kind == "wait":
            self._describe("waiting for another command")
        elif kind == "plan" and event["workers"] > 1:
            self._describe(f"starting {event['workers']} workers")
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
        elif kind == "begin":
            self._begun[event["unit"]] = event
            self._loading.discard(event["unit"])  # the worker may have died that loaded for it
            self._show(event["unit"])
            if self._each_unit:
                self._print(event["label"])
        elif kind in ("load", "loaded"):
            (self._loading.add if kind == "load" else self._loading.discard)(event["unit"])
            self._show(event["unit"])
            if self._bars_seen and kind == "load":
                self._live.refresh()  # small models are loaded before the next picture
        elif kind == "end":
            self._loading.discard(event["unit"])
            run = run_of(event, event["label"])
            self._each.update(self._bars[run], what="", visible=self._work.done[run] < self._work.total[run])
        if not self._bars_seen:
            self._note()

    def _describe(self, what: str) -> None:
        self._all.update(self._bar, description=what)

    @property
    def _description(self) -> str:
        return self._all.tasks[self._bar].description

    @property
    def _share(self) -> float:
        """How much of all work is done."""
        if self._description == "done":
            return 1.0  # what is left is no work that is counted
        return sum(self._work.done.values()) / self._total if self._total else 0.0

    def _show(self, key: str) -> None:
        """Show what is being done for a unit."""
        unit, loading = self._begun[key], key in self._loading
        run = run_of(unit, unit["label"])
        if run not in self._bars:
            self._bars[run] = self._each.add_task(run, total=self._work.total[run], what="")
        self._describe(LOADING if loading else unit["label"])
        self._each.update(self._bars[run], visible=True, what=LOADING if loading else _doing(unit))
        self._hide_the_oldest()

    def _note(self) -> None:
        """Print a line if the last one was long ago: 10 seconds at first, a minute later on."""
        now = time.monotonic()
        if now - self._noted < max(self._log_interval, min(MINUTE, (now - self._began) / 6)):
            return
        self._noted, share = now, self._share
        left = f", about {format_time((now - self._began) * (1 - share) / share)} left" if share else ""
        self._print(f"{share:.0%}{left}: {self._description}")

    def _conclusion(self) -> str:
        """The last line of a log."""
        if not self._planned:
            return ALL_STORED
        how = self._description if self._description in ("done", "failed") else "stopped"
        return f"{self._share:.0%}, {how} after {format_time(time.monotonic() - self._began)}"

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=not self._console.is_terminal)

    def _hide_the_oldest(self) -> None:
        seen = [bar for bar in self._bars.values() if self._each.tasks[bar].visible]
        for bar in seen[:-BARS]:
            self._each.update(bar, visible=False)

    def _picture(self) -> RenderableType:
        """Made as often as it is shown, and no oftener."""
        if self._over and not self._planned:
            return Text(ALL_STORED)
        done = self._work.done
        self._all.update(self._bar, completed=self._share * (self._total or 1.0))
        if self._over:
            return _fitted(self._all)
        for run, bar in self._bars.items():
            self._each.update(bar, completed=done[run])
        rate = sum(done.values()) / max(time.monotonic() - self._began, 1e-3)
        memory = f", {format_bytes(sum(self._memory.values()))} of memory in use" if self._memory else ""
        speed = Text(f"  {rate:,.0f} U-Net passes/s{memory}", style="dim")
        return Group(_fitted(self._all), _fitted(self._each), self._cell, speed)


def _fitted(bars: Progress) -> RenderableType:
    return FittedTable(bars.make_tasks_table(bars.tasks), note=False)


class _Label(ProgressColumn):
    """A task's description, as `make` shows it."""

    def __init__(self, make: Callable[[str], RenderableType], table_column: RankedColumn) -> None:
        super().__init__(table_column)
        self._make = make

    def render(self, task: Task) -> RenderableType:
        return self._make(task.description)


class _WholeWords:
    """Text that is cut between words where there is little room, so that no number is."""

    LEAST = 16
    """Columns that it needs, unless it is shorter."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(textwrap.shorten(self._text, max(2, options.max_width), placeholder=" …"))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(self.LEAST, len(self._text)), len(self._text)).with_maximum(options.max_width)


def _doing(event: Mapping[str, Any]) -> str:
    return f"{event['kind']} {event['task']}" if event.get("task") else ""
