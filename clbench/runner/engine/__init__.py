"""Where units of work run: in this process, in several of this machine, or on a Ray cluster.

    crew = Crew of one of `inline`, `local`, `cluster`
    work_off(units, crew, watch)            # until all that can be done is done

A unit is a piece of work that nobody needs to see half done; what it makes lies in a store, under its key. The engine
knows which units need which, and nothing of what they do: that is the workshop's, which every worker opens for itself.
"""

from clbench.runner.engine.loop import Crew, Event, Failed, Watcher, WorkerDied, Workshop, work_off
from clbench.runner.engine.schedule import Schedule, Unit, needed

__all__ = [
    "Crew",
    "Event",
    "Failed",
    "Schedule",
    "Unit",
    "Watcher",
    "WorkerDied",
    "Workshop",
    "needed",
    "work_off",
]
