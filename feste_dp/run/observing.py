"""The one guard around what only watches a run: a fault of it is a warning, told once, never the end."""

import contextlib
from collections.abc import Callable, Iterator

from feste_dp.errors import on_one_line


class Observing:
    """`with observing("the watch for loss spikes"):` around what shows or records, and decides nothing.

    Signals and requests to stop are no Exceptions: they pass. `tell` are the ways to say what went wrong; a
    way that fails as well is passed over.
    """

    def __init__(self, *tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: set[str] = set()

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if what not in self._told:
                self._told.add(what)
                for tell in self._tell:
                    with contextlib.suppress(Exception):
                        tell(f"{what} failed, the run goes on: {type(error).__name__}: {on_one_line(error)}")
