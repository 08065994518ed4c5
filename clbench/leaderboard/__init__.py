"""Ranked tables from submitted results: `build_leaderboard(submissions, out)`."""

from clbench.leaderboard.build import build_leaderboard

__all__ = ["build_leaderboard"]
