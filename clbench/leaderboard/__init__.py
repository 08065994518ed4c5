"""Ranked tables from submitted results: `build_leaderboard(submissions, out)`."""

from clbench.leaderboard.aggregate import build_leaderboard

__all__ = ["build_leaderboard"]
