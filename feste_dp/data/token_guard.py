"""Notices that the tokens of a run are changed in place while it trains.

Tokens that are removed or replaced stay what they are for who has them open. A file that is cut ends whoever
reads behind its new end by SIGBUS, and other tokens in it would make another model.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from feste_dp.data.tokens import CHUNK, TOKENS_FILE, HeldTokens
from feste_dp.errors import RunError


class TokenGuard:
    def __init__(self, held: HeldTokens) -> None:
        self._held = held
        meta = held.meta
        self._size = (meta.train.tokens + meta.val.tokens) * np.dtype(meta.dtype).itemsize
        self._seen = self._marks()

    def check(self) -> None:
        """RunError where the tokens are not those of the start any more. Looks at the file's size and time,
        which takes a microsecond, and reads it where they have changed."""
        marks = self._marks()
        if marks == self._seen:
            return
        path = Path(self._held.directory) / TOKENS_FILE
        if marks[0] < self._size:
            raise RunError(
                f"{path} was cut while the run trains: {marks[0]:,} of its {self._size:,} bytes are left"
            )
        if self._sha256() != self._held.meta.tokens_sha256:
            raise RunError(f"{path} was overwritten while the run trains: its tokens are others now")
        self._seen = marks

    def _marks(self) -> tuple[int, int]:
        status = os.fstat(self._held.fd)
        return status.st_size, status.st_mtime_ns

    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for start in range(0, self._size, CHUNK):
            digest.update(os.pread(self._held.fd, min(CHUNK, self._size - start), start))
        return digest.hexdigest()
