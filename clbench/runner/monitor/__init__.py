"""Events of a run, the progress display, and trackers."""
