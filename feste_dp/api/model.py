"""A model as an object: its weights as arrays, what it says of a text, and what it writes."""

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import ModelConfig
from feste_dp.data.tokenizer import ByteTokenizer
from feste_dp.errors import UsageError
from feste_dp.machine.cpus import usable_cores
from feste_dp.model.choosing import Choice
from feste_dp.model.decoder import Decoder
from feste_dp.model.gpt2 import micro_batch_gradient, micro_batch_loss
from feste_dp.model.parameters import layout, view_params
from feste_dp.model.workspace import make_workspace
from feste_dp.run.continuation import Continuation, Continuations, Wanted
from feste_dp.runtime.warmup import COMPILING, compile_kernels
from feste_dp.wording import counted

Floats = NDArray[np.float32]
Text = str | Sequence[int] | NDArray[np.integer[Any]]
"""Text, which the model's tokenizer turns into tokens, or tokens."""


class Options(TypedDict, total=False):
    """How text is written."""

    temperature: float
    """0.8; divides the model's scores; 0 takes the likeliest token each time."""
    top_k: int | None
    """Draw among so many of the likeliest tokens only."""
    top_p: float
    """Draw among the likeliest tokens that have this probability together."""
    min_p: float
    """Draw among tokens that have this share of the likeliest one's probability or more."""
    repetition_penalty: float
    """Above 1: makes tokens less likely that are in the text already."""
    stop: str | Sequence[str]
    """The text ends before any of these."""
    past_end: bool
    """Whether it goes on after the token that ends a text, where the tokenizer has one."""
    seed: int
    """1; another seed, another text."""


class Model:
    """Weights (P,), their shape, and the tokenizer that belongs to them, where there is one.

    Make one with load() or new(). Not to be used by two threads at once.
    """

    def __init__(self, config: ModelConfig, weights: Floats, tokenizer: ByteTokenizer | None) -> None:
        self.config = config
        """vocab_size, block_size, n_layer, n_head, n_embd, dropout, tie_embeddings."""
        self.tokenizer = tokenizer
        """encode(text) gives ids, decode(ids) text."""
        self.weights = weights
        """(P,) float32: all parameters, one after the other."""

    def __repr__(self) -> str:
        c = self.config
        return (
            f"<feste_dp.Model: {len(self.weights):,} parameters, {counted(c.n_layer, 'layer')}, "
            f"{counted(c.n_head, 'head')}, {counted(c.n_embd, 'channel')}, vocabulary {c.vocab_size}, "
            f"context {c.block_size}>"
        )

    @property
    def parameters(self) -> dict[str, Floats]:
        """The parameters by name: views of `weights`, so writing to one changes the model."""
        return named_views(self.weights, self.config)

    def logits(self, text: Text) -> Floats:
        """(T, V) what may come after each token of at most block_size; (B, T, V) of tokens (B, T)."""
        _ready()
        tokens = self._tokens(text)
        rows = tokens if tokens.ndim == 2 else tokens[None]
        if not 1 <= rows.shape[1] <= self.config.block_size:
            raise UsageError(
                f"{rows.shape[1]} tokens: the model takes from 1 to {self.config.block_size} at once",
                about="text",
            )
        decoder = Decoder(self.config, view_params(self.weights, self.config), 1, rows.shape[1])
        out = np.stack([decoder.logits(row) for row in rows])
        return out if tokens.ndim == 2 else out[0]

    def loss(self, text: Text) -> float:
        """Mean loss over all tokens but the first, in nats per token. The text is read in sequences of
        block_size, each on its own."""
        _ready()
        tokens = self._one_row(text, at_least=2)
        block, p = self.config.block_size, view_params(self.weights, self.config)
        starts = range(0, len(tokens) - 1, block)
        workspaces: dict[int, Any] = {}

        def loss_of(worker: int) -> list[tuple[int, float]]:
            losses = []
            for start in starts[worker::workers]:
                window = tokens[start : start + block + 1]
                key = worker * (block + 1) + len(window)
                if key not in workspaces:
                    workspaces[key] = make_workspace(self.config, 1, len(window) - 1)
                losses.append((start, micro_batch_loss(workspaces[key], p, *_pairs(window), *self._plain())))
            return losses

        workers = min(usable_cores(), len(starts))
        with ThreadPoolExecutor(workers, "loss") as pool:
            losses = [loss for part in pool.map(loss_of, range(workers)) for loss in part]
        return sum(loss for _, loss in sorted(losses)) / (len(tokens) - 1)

    def loss_and_gradient(self, text: Text) -> tuple[float, dict[str, Floats]]:
        """The mean loss over all tokens but the first, of at most block_size + 1, and its gradient by
        parameter."""
        _ready()
        tokens = self._one_row(text, at_least=2)
        count = len(tokens) - 1
        most = self.config.block_size + 1
        if len(tokens) > most:
            raise UsageError(
                f"{len(tokens)} tokens: a gradient is of at most {most}, block_size + 1", about="text"
            )
        gradient = np.empty_like(self.weights)
        n_head, draw = self._plain()
        loss = micro_batch_gradient(
            view_params(gradient, self.config),
            make_workspace(self.config, 1, count),
            view_params(self.weights, self.config),
            *_pairs(tokens),
            dloss=1 / count,
            n_head=n_head,
            dropout=0.0,
            draw=draw,
            accumulate=False,
        )
        return loss / count, named_views(gradient, self.config)

    def generate(self, prompt: str, tokens: int = 200, **options: Unpack[Options]) -> str:
        """What the model writes after the prompt, without it: the same each time for the same arguments."""
        return "".join(piece for _, piece in self._write([prompt], _wanted(tokens, 1, options)))

    def stream(self, prompt: str, tokens: int = 200, **options: Unpack[Options]) -> Iterator[str]:
        """As generate, piece by piece as it is written."""
        return (piece for _, piece in self._write([prompt], _wanted(tokens, 1, options)) if piece)

    def generate_all(
        self, prompts: Sequence[str], tokens: int = 200, *, samples: int = 1, **options: Unpack[Options]
    ) -> list[Continuation]:
        """As generate, `samples` texts after each of the prompts, all at once, which takes little longer than
        one: prompt by prompt, each with its prompt, sample, text, tokens (how many) and finish (why it
        ended: length, stop or end_of_text)."""
        written = self._write(list(prompts), _wanted(tokens, samples, options))
        for _ in written:
            pass
        return written.texts

    def _write(self, prompts: Sequence[str], wanted: Wanted) -> Continuations:
        _ready()
        return Continuations(self.config, self.weights, self._own_tokenizer(), prompts, wanted)

    def _own_tokenizer(self) -> ByteTokenizer:
        if self.tokenizer is None:
            raise UsageError("this model has no tokenizer: give tokens", about="text")
        return self.tokenizer

    def _tokens(self, text: Text) -> NDArray[np.int32]:
        """The text's tokens, or the tokens as they are, all of the vocabulary."""
        tokens = self._own_tokenizer().encode(text) if isinstance(text, str) else np.asarray(text)
        if not (tokens.size == 0 or np.issubdtype(tokens.dtype, np.integer)) or tokens.ndim not in (1, 2):
            raise UsageError("give a string, or whole numbers in one or two dimensions", about="text")
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.config.vocab_size:
            raise UsageError(f"tokens are from 0 to {self.config.vocab_size - 1}", about="text")
        return tokens.astype(np.int32)

    def _one_row(self, text: Text, *, at_least: int) -> NDArray[np.int32]:
        tokens = self._tokens(text)
        if tokens.ndim != 1 or len(tokens) < at_least:
            raise UsageError(f"give one text of at least {counted(at_least, 'token')}", about="text")
        return tokens

    def _plain(self) -> tuple[int, Any]:
        """Heads, and what dropout would be drawn by."""
        return self.config.n_head, (np.uint64(0), 0, np.zeros(1, np.int64))


def named_views(flat: Floats, config: ModelConfig) -> dict[str, Floats]:
    """Views of `flat` (P,) by name; a tied head is in none of its own."""
    return {tensor.name: flat[tensor.start : tensor.stop].reshape(tensor.shape) for tensor in layout(config)}


def _pairs(tokens: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Inputs and targets (1, T)."""
    return tokens[None, :-1].copy(), tokens[None, 1:].copy()


def _wanted(tokens: int, samples: int, options: Options) -> Wanted:
    given: dict[str, Any] = dict(options)
    if unknown := given.keys() - Options.__annotations__.keys():
        raise TypeError(f"unknown option {min(unknown)!r}; there are {', '.join(Options.__annotations__)}")
    for name, number in (("tokens", tokens), ("samples", samples)):
        if number < 1:
            raise UsageError(f"{number}: ask for 1 or more", about=name)
    seed, stop, past_end = given.pop("seed", 1), given.pop("stop", ()), given.pop("past_end", False)
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    return Wanted(tokens, Choice(**given), seed, samples, stops, past_end)


@functools.cache
def _ready() -> None:
    """Compiled kernels: the first time on a machine takes a minute, and says so."""
    told = False

    def on_wait(seconds: float) -> None:
        nonlocal told
        if not told:
            sys.stderr.write(f"{COMPILING}\n")
            told = True

    compile_kernels(os.environ, on_wait)
