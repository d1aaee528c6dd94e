"""The two failures a user may see: bad input (exit status 2) and a run that failed (exit status 1).

The message is one line that says what to change, by the names that a Python caller knows: parameters, and
keys of the config. The command line prints it, with its own flags for these, and nothing else; any other
exception is a fault of the program and keeps its traceback.
"""

from collections.abc import Mapping


class UsageError(Exception):
    """Bad usage, config or input file. Nothing has been created or lost. Exit status 2.

    `about` is the parameter or the config's key that is to change, where it is one; `settings` are keys of
    the config with values that would do.
    """

    def __init__(
        self, message: str, *, about: str = "", settings: Mapping[str, object] | None = None
    ) -> None:
        self.message, self.about, self.settings = message, about, settings or {}
        words = f"{about}: {message}" if about else message
        would_do = " ".join(f"{key}={value}" for key, value in self.settings.items())
        super().__init__(f"{words}: {would_do}" if would_do else words)


class RunError(Exception):
    """The run failed after it started; what was saved stays saved. Exit status 1."""


def on_one_line(error: BaseException | str) -> str:
    """What an exception of a library says, short, on one printable line; its type where it is silent."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in said)
