"""The two failures a user may see: bad input (exit status 2) and a run that failed (exit status 1).

The message is one line that says what to change. The command line prints it and nothing else; any other
exception is a fault of the program and keeps its traceback.
"""


class UsageError(Exception):
    """Bad usage, config or input file. Nothing has been created or lost. Exit status 2."""


class RunError(Exception):
    """The run failed after it started; what was saved stays saved. Exit status 1."""


def on_one_line(error: BaseException) -> str:
    """What an exception of a library says, short, on one printable line; its type where it is silent."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in said)
