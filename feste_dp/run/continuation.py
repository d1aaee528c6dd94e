"""Text that a model writes after prompts: from strings to strings, several at once, piece by piece.

Owns where a text ends and which of its characters are certain by now. Knows nothing of runs and terminals.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import ModelConfig
from feste_dp.data.tokenizer import ByteTokenizer
from feste_dp.errors import UsageError
from feste_dp.machine.limits import available_memory
from feste_dp.model.choosing import Choice
from feste_dp.model.decoder import Decoder, decoding_bytes, decoding_threads
from feste_dp.model.parameters import view_params
from feste_dp.model.sampling import Drawing, positions_for
from feste_dp.wording import counted

Finish = Literal["length", "stop", "end_of_text"]
_UNFINISHED = "\ufffd"


@dataclass(frozen=True)
class Wanted:
    """What is to be written after each prompt."""

    tokens: int = 200
    choice: Choice = field(default_factory=Choice)
    seed: int = 1
    samples: int = 1
    stop: tuple[str, ...] = ()
    """A text ends before the first of these."""
    past_end: bool = False
    """Whether it goes on after the token that ends a text."""


@dataclass
class Continuation:
    """What was written after a prompt, without it."""

    prompt: str
    sample: int
    """Which of the prompt's samples, from 0 on."""
    text: str = ""
    tokens: int = 0
    """How many were drawn."""
    finish: Finish = "length"
    """Why it ends: all tokens are drawn, a stop string came, or the end-of-text token."""


class Continuations:
    """Writes them: iterate for the pieces, (number of the text, characters), as they become certain."""

    def __init__(
        self,
        cfg: ModelConfig,
        params: NDArray[np.float32],
        tokenizer: ByteTokenizer,
        prompts: Sequence[str],
        wanted: Wanted,
    ) -> None:
        """Raises UsageError: a prompt is empty, a stop string is, or there is not the memory."""
        encoded = [tokenizer.encode(prompt).tolist() for prompt in prompts]
        if not all(encoded):
            raise UsageError("is empty: give the model at least one character to continue", about="prompt")
        if not all(wanted.stop):
            raise UsageError("is empty: give the text to end at", about="stop")
        self.texts = [Continuation(prompt, i) for prompt in prompts for i in range(wanted.samples)]
        self._tokenizer, self._wanted = tokenizer, wanted
        self._end = None if wanted.past_end else tokenizer.end_of_text
        slots, threads = len(self.texts), decoding_threads(cfg)
        positions = positions_for(cfg, max(map(len, encoded)) + wanted.tokens)
        needed, available = decoding_bytes(cfg, slots, positions, threads), available_memory()
        if needed > available:
            raise UsageError(
                f"{counted(slots, 'text')} of {counted(positions, 'token')} at once need "
                f"{needed / 2**20:,.0f} MiB of memory, {available / 2**20:,.0f} MiB are available: "
                "ask for fewer",
                about="samples",
            )
        decoder = Decoder(cfg, view_params(params, cfg), slots, positions, threads)
        self._drawing = Drawing(decoder, cfg, encoded, wanted.samples, wanted.choice, seed=wanted.seed)
        self._tails = [_Tail(tokenizer, wanted.stop) for _ in self.texts]

    @property
    def live(self) -> list[int]:
        """Numbers of the texts that go on."""
        return self._drawing.live

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Raises NonFiniteLogitsError where the model has no scores."""
        for _ in range(self._wanted.tokens):
            for number, token in self._drawing.advance():
                text, tail = self.texts[number], self._tails[number]
                text.tokens += 1
                if token == self._end:
                    text.finish = "end_of_text"
                    piece = tail.rest()
                else:
                    piece = tail.add(token)
                    if tail.stopped:
                        text.finish = "stop"
                if text.finish != "length":
                    self._drawing.live.remove(number)
                text.text += piece
                yield number, piece
            if not self._drawing.live:
                return
        for number in self._drawing.live:
            piece = self._tails[number].rest()
            self.texts[number].text += piece
            yield number, piece


def in_order(written: Continuations) -> Iterator[tuple[int, str]]:
    """The pieces of one text after the other: of the first that is not done as they come, of those after it
    when it is their turn."""
    current, shown = 0, 0
    for _ in written:
        while True:
            text = written.texts[current].text
            yield current, text[shown:]
            shown = len(text)
            if current in written.live or current + 1 == len(written.texts):
                break
            current, shown = current + 1, 0
    for number in range(current, len(written.texts)):
        yield number, written.texts[number].text[shown if number == current else 0 :]


class _Tail:
    """The end of a text that may still change: half a character, or what may begin a stop string."""

    def __init__(self, tokenizer: ByteTokenizer, stop: tuple[str, ...]) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._tokens: list[int] = []
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """What is certain now."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        if text.endswith(_UNFINISHED):
            return ""
        self._tokens.clear()
        return self._certain(text)

    def rest(self) -> str:
        """The text ends here."""
        text = self._certain(self._tokenizer.decode(self._tokens))
        return text if self.stopped else text + self._held

    def _certain(self, text: str) -> str:
        text = self._held + text
        found = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        longest = max(map(len, self._stop), default=1) - 1
        held = next(
            (n for n in range(min(longest, len(text)), 0, -1) if self._may_begin(text[-n:])),
            0,
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def _may_begin(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stop)
