"""The exceptions that the command line prints as one sentence."""


class ClbenchError(Exception):
    """The user can fix the cause: wrong usage or wrong input (exit code 2)."""

    exit_code = 2


class UnknownMethod(ClbenchError):
    """No method of this name is registered."""


class WorkFailed(ClbenchError):
    """The work itself failed: a plugin raised, a loss became NaN, the disk is full (exit code 1)."""

    exit_code = 1


class MethodFailed(WorkFailed):
    """A method raised, returned something unusable, or its loss became NaN; with other settings it may not."""


class DeviceFailed(WorkFailed):
    """A GPU failed, and this process cannot use it any more; another process can do the same work."""


def did_you_mean(word: str, choices: list[str]) -> str:
    """The end of an error sentence: `; did you mean 'x'? (known: ...)`."""
    import difflib

    close = difflib.get_close_matches(word, choices, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (known: {', '.join(choices) or 'none'})"
