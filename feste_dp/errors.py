"""The two failures a user may see: bad input (exit status 2) and a run that failed (exit status 1).

The message is one line that says what to change. The command line prints it and nothing else; any other
exception is a fault of the program and keeps its traceback.
"""


class UsageError(Exception):
    """Bad usage, config or input file. Nothing has been created or lost. Exit status 2."""


class RunError(Exception):
    """The run failed after it started; what was saved stays saved. Exit status 1."""


def on_one_line(error: BaseException) -> str:
    """What an exception of a library says, short and on one line; its type where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
