"""Ranked tables from submitted results; the site is `clbench.leaderboard.site`.

boards = make_boards(read_submissions(Path("submissions")))     # or read_own(Path("runs"))
write_tables(boards, Path("leaderboard"))
"""

from clbench.leaderboard.board import Board, make_boards
from clbench.leaderboard.read import read_own, read_submissions
from clbench.leaderboard.write import write_tables

__all__ = ["Board", "make_boards", "read_own", "read_submissions", "write_tables"]
