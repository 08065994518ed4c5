"""The leaderboard as a static site: `build_site(make_boards(read_submissions(submissions)), out)`."""

from clbench.leaderboard.site.build import build_site

__all__ = ["build_site"]
