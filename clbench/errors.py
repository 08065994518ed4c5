"""The exceptions that the command line turns into a sentence."""


class ClbenchError(Exception):
    """Something the user can mend: bad usage, bad input (exit code 2)."""

    exit_code = 2


class WorkFailed(ClbenchError):
    """The work itself failed: a plugin raised, a loss became NaN, the disk is full (exit code 1)."""

    exit_code = 1


class DeviceFailed(WorkFailed):
    """A GPU came into a state that its process cannot mend; another process may do the same work."""


def did_you_mean(word: str, choices: list[str]) -> str:
    """`; did you mean 'x'? (known: ...)`, for the end of an error sentence."""
    import difflib

    close = difflib.get_close_matches(word, choices, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (known: {', '.join(choices) or 'none'})"
