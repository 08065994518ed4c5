"""The leaderboard as a static site: `build_site(read_submissions(submissions, load_suite), out)`."""

from clbench.leaderboard.site.build import build_site

__all__ = ["build_site"]
