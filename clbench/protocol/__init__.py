"""One sequence of tasks: train a task, hand the state on, draw, score."""
