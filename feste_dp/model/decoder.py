"""Texts that grow token by token: their cache, and the threads that compute what may come next."""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import ModelConfig
from feste_dp.machine.cpus import usable_cores
from feste_dp.model.decoding import (
    MOST_ROWS,
    Own,
    Rows,
    extend,
    make_cache,
    make_own,
    make_rows,
    make_words,
    read,
)
from feste_dp.model.pace import Pace
from feste_dp.model.parameters import Parameters, parameter_count
from feste_dp.model.parts import Parts
from feste_dp.model.workspace import ByteCounter

# Below this a second thread costs more than it saves.
_PARAMETERS_PER_THREAD = 1 << 20


class Feed(NamedTuple):
    """Tokens for the text in a slot, the first of them at position `place`."""

    slot: int
    place: int
    tokens: Sequence[int]


class _Team(NamedTuple):
    parts: Parts
    words: Any


class Decoder:
    """Room for `slots` texts of at most `positions` tokens, and weights `p` to continue them with.

    What it computes does not depend on the number of threads, nor on which texts are fed together.
    """

    def __init__(
        self, cfg: ModelConfig, p: Parameters, slots: int, positions: int, threads: int | None = None
    ) -> None:
        self._cfg, self._p, self._positions = cfg, p, positions
        parts = Parts(threads or decoding_threads(cfg))
        count = parts.count
        self._all, self._one = _Team(parts, make_words(count)), _Team(Parts(1), make_words(1))
        self._pace = Pace()
        self._cache = make_cache(cfg, slots, positions)
        self._own = [make_own(cfg, MOST_ROWS, positions) for _ in range(count)]
        self._few = make_rows(cfg, MOST_ROWS)
        self._many: Rows | None = None
        self._logits = np.empty((0, cfg.vocab_size), np.float32)
        self._first_rows = lru_cache(MOST_ROWS)(self._make_first_rows)

    def feed(self, feeds: Sequence[Feed]) -> NDArray[np.float32]:
        """(n, V) what may come after the last token of each: overwritten by the next call."""
        if len(self._logits) < len(feeds):
            self._logits = np.empty((len(feeds), self._cfg.vocab_size), np.float32)
        done = 0
        for group in _groups(feeds, self._positions):
            self._feed(group, self._logits[done : done + len(group)])
            done += len(group)
        return self._logits[:done]

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """(T, V) what may come after each of the tokens, at most `positions`, as the text in slot 0."""
        out = np.empty((len(tokens), self._cfg.vocab_size), np.float32)
        self._compute(
            read, self._rows(len(tokens)), self._own, [Feed(0, 0, tokens)], np.arange(len(tokens)), out
        )
        return out

    def copy(self, slot: int, others: Sequence[int]) -> None:
        """Give the text in a slot to others as well."""
        for array in self._cache:
            for other in others:
                array[:, other] = array[:, slot]

    def _feed(self, feeds: Sequence[Feed], logits: NDArray[np.float32]) -> None:
        ends = np.cumsum([len(feed.tokens) for feed in feeds])
        rows = int(ends[-1])
        if rows <= MOST_ROWS:
            started = time.perf_counter()
            self._compute(extend, *self._first_rows(rows), feeds, ends - 1, logits)
            self._pace.took(time.perf_counter() - started)
        else:
            self._compute(read, self._rows(rows), self._own, feeds, ends - 1, logits)

    def _compute(
        self, listing: Any, rows: Rows, own: Sequence[Own], feeds: Sequence[Feed], wanted: Any, logits: Any
    ) -> None:
        lengths = [len(feed.tokens) for feed in feeds]
        tokens = np.concatenate([np.asarray(feed.tokens, np.int32) for feed in feeds])
        places = np.concatenate(
            [
                np.arange(feed.place, feed.place + n, dtype=np.int32)
                for feed, n in zip(feeds, lengths, strict=True)
            ]
        )
        text = tokens, places, np.repeat(np.array([feed.slot for feed in feeds], np.int32), lengths)
        wanted = wanted.astype(np.int32)
        team = self._one if listing is extend and self._pace.way else self._all
        cache, p, heads, words = self._cache, self._p, self._cfg.n_head, team.words
        team.parts.run(
            lambda part: listing(logits, cache, rows, own[part], p, text, wanted, heads, words, part)
        )

    def _rows(self, count: int) -> Rows:
        if self._many is None or len(self._many.x) < count:
            self._many = make_rows(self._cfg, count)
        return Rows(*[array[:count] for array in self._many])

    def _make_first_rows(self, count: int) -> tuple[Rows, list[Own]]:
        rows = Rows(*[array[:count] for array in self._few])
        return rows, [
            o._replace(ln=o.ln[:count], mean=o.mean[:count], rstd=o.rstd[:count]) for o in self._own
        ]


def _groups(feeds: Sequence[Feed], positions: int) -> list[list[Feed]]:
    """What is computed together: as many rows as are read in one stream; of new texts, as many as there is
    room for."""
    groups: list[list[Feed]] = []
    for feed in feeds:
        if groups:
            group = [*groups[-1], feed]
            rows = sum(len(each.tokens) for each in group)
            if rows <= (MOST_ROWS if any(each.place for each in group) else max(positions, MOST_ROWS)):
                groups[-1] = group
                continue
        groups.append([feed])
    return groups


def decoding_threads(cfg: ModelConfig) -> int:
    """As many as there are cores, but for small models."""
    return max(1, min(usable_cores(), parameter_count(cfg) // _PARAMETERS_PER_THREAD))


def decoding_bytes(cfg: ModelConfig, slots: int, positions: int, threads: int) -> int:
    """What a Decoder takes, with a prompt as long as there is room for."""
    counter = ByteCounter()
    make_cache(cfg, slots, positions, counter)
    make_rows(cfg, MOST_ROWS + positions, counter)
    for _ in range(threads):
        make_own(cfg, MOST_ROWS, positions, counter)
    return counter.bytes
