"""Draws text from the model, token by token, for several texts at once."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import ModelConfig
from feste_dp.errors import RunError
from feste_dp.kernels.philox import STREAM_SAMPLE, uniform
from feste_dp.model.choosing import Choice, choose
from feste_dp.model.decoder import Decoder, Feed
from feste_dp.model.parameters import Parameters

# Room is made in such steps, so that one text after the other finds the room that there is.
_POSITIONS_STEP = 64


def positions_for(cfg: ModelConfig, length: int) -> int:
    """Positions that a decoder has for texts of so many tokens."""
    return min(cfg.block_size, -(-length // _POSITIONS_STEP) * _POSITIONS_STEP)


class NonFiniteLogitsError(RunError):
    """The model gives no probabilities to draw from."""


def kept_of_window(block_size: int) -> int:
    """Tokens that the model still sees when a text gets longer than block_size: the oldest quarter goes, and
    the rest is read anew. Dropping one token at a time would mean to read all for each."""
    return max(1, block_size - max(1, block_size // 4))


class Drawing:
    """Texts that are drawn together: `samples` of each prompt, prompt by prompt. A text does not depend on
    the others, only on the weights, its prompt, its number among that prompt's samples, and the arguments."""

    def __init__(
        self,
        decoder: Decoder,
        cfg: ModelConfig,
        prompts: Sequence[Sequence[int]],
        samples: int,
        choice: Choice,
        *,
        seed: int,
        step: int = 0,
    ) -> None:
        """Each prompt has at least one token, and the decoder a slot for each text."""
        self._decoder, self._cfg, self._choice, self._samples = decoder, cfg, choice, samples
        self._seed, self._step, self._drawn = np.uint64(seed), step, 0
        self._tokens = [list(prompt) for prompt in prompts for _ in range(samples)]
        self.live = list(range(len(self._tokens)))
        """Numbers of the texts that go on; take one out to end it."""
        self._starts = [self._first_start(tokens) for tokens in self._tokens]
        """Where the part of each text begins that is in its slot."""
        self._seen = [self._seen_in(tokens) for tokens in self._tokens]
        self._scores: NDArray[np.float32] | None = None

    def advance(self) -> list[tuple[int, int]]:
        """One more token of every live text: (text, token). Raises NonFiniteLogitsError."""
        drawn = []
        for text, scores in self._next_scores():
            if not np.isfinite(scores).all():
                raise NonFiniteLogitsError(
                    f"the model cannot write token {self._drawn + 1}: its scores for it are NaN or infinite; "
                    "take another checkpoint"
                )
            u = uniform(self._drawn, text % self._samples, self._step, STREAM_SAMPLE, self._seed)
            token = choose(scores, u, self._choice, self._seen[text])
            if (seen := self._seen[text]) is not None:
                seen[token] = True
            self._tokens[text].append(token)
            drawn.append((text, token))
        self._drawn += 1
        return drawn

    def _next_scores(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        if self._drawn == 0:
            yield from self._scores_after_prompts()
            return
        live = list(self.live)
        yield from zip(live, self._decoder.feed([self._feed(text) for text in live]), strict=True)

    def _scores_after_prompts(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Each prompt is read once, whatever the number of its samples."""
        firsts = range(0, len(self._tokens), self._samples)
        scores = self._decoder.feed(
            [Feed(text, 0, self._tokens[text][self._starts[text] :]) for text in firsts]
        )
        for first, row in zip(firsts, scores, strict=True):
            self._decoder.copy(first, range(first + 1, first + self._samples))
            yield from ((text, row) for text in range(first, first + self._samples))

    def _feed(self, text: int) -> Feed:
        """The last token of a text, or what is still seen of one that has grown past the window."""
        tokens = self._tokens[text]
        place = len(tokens) - 1 - self._starts[text]
        if place < self._cfg.block_size:
            return Feed(text, place, tokens[-1:])
        self._starts[text] = len(tokens) - kept_of_window(self._cfg.block_size)
        return Feed(text, 0, tokens[self._starts[text] :])

    def _first_start(self, tokens: list[int]) -> int:
        block = self._cfg.block_size
        return len(tokens) - kept_of_window(block) if len(tokens) > block else 0

    def _seen_in(self, tokens: list[int]) -> NDArray[np.bool_] | None:
        if self._choice.repetition_penalty == 1:
            return None
        seen = np.zeros(self._cfg.vocab_size, np.bool_)
        seen[tokens] = True
        return seen


class Sampler:
    """Draws one text after the other from weights `p`, which may change between them. Keeps its room."""

    def __init__(self, cfg: ModelConfig, p: Parameters, threads: int | None = None) -> None:
        self._cfg, self._p, self._threads = cfg, p, threads
        self._positions = 0
        self._decoder: Decoder

    def draw(
        self,
        prompt: Sequence[int],
        count: int,
        *,
        temperature: float,
        seed: int,
        step: int = 0,
        top_k: int | None = None,
    ) -> Iterator[int]:
        """`count` tokens that continue `prompt` (at least one token), one by one as they are drawn.

        A pure function of the weights and the arguments. The model sees the whole text as far as block_size
        reaches, see kept_of_window(). Raises NonFiniteLogitsError.
        """
        positions = positions_for(self._cfg, len(prompt) + count)
        if positions > self._positions:
            self._positions = positions
            self._decoder = Decoder(self._cfg, self._p, 1, self._positions, self._threads)
        choice = Choice(temperature, top_k)
        drawing = Drawing(self._decoder, self._cfg, [prompt], 1, choice, seed=seed, step=step)
        for _ in range(count):
            ((_, token),) = drawing.advance()
            yield token
