"""Ranked tables and a site from submitted results.

boards = make_boards(read_submissions(Path("submissions")))
write_tables(boards, Path("leaderboard"))
build_site(boards, Path("site"))      # clbench.leaderboard.site
"""

from clbench.leaderboard.board import Board, make_boards, read_submissions
from clbench.leaderboard.write import write_tables

__all__ = ["Board", "make_boards", "read_submissions", "write_tables"]
