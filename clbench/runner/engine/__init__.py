"""Do units of work: in this process, in several of this machine, or on a Ray cluster.

    with engine.start(request) as pool:          # an `InlineEngine`, `LocalEngine` or `RayEngine`
        failures = execute(units, pool, on_event)    # returns when all that can be done is done

A unit is a piece of work that is never seen half done; its artifact is in a store, under its key. The engine knows
which units need which, and nothing of what they mean: that is the executor's part.
"""

from clbench.runner.engine.base import (
    End,
    Engine,
    Event,
    EventHandler,
    Executor,
    Failed,
    PoolRequest,
    WorkerDied,
    WorkerPool,
)
from clbench.runner.engine.loop import execute
from clbench.runner.engine.schedule import Schedule, Unit, needed

__all__ = [
    "End",
    "Engine",
    "Event",
    "EventHandler",
    "Executor",
    "Failed",
    "PoolRequest",
    "Schedule",
    "Unit",
    "WorkerDied",
    "WorkerPool",
    "execute",
    "needed",
]
