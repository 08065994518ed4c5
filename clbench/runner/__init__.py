"""From a request to a plan to results."""
