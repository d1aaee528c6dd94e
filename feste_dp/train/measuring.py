"""What is measured after a step: the loss on held-out text, and a sample of what the model writes.

On several nodes each measures its part of the text and the first draws the sample; all have measured then, or
none has. When to measure, and what follows from it, is trainer.py's.
"""

import contextlib
from collections.abc import Callable

from feste_dp.config.schema import Config
from feste_dp.data.order import validation_spacing
from feste_dp.data.tokenizer import ByteTokenizer
from feste_dp.data.tokens import TokenData
from feste_dp.model.parameters import view_params
from feste_dp.model.sampling import NonFiniteLogitsError, Sampler
from feste_dp.run.record import Record
from feste_dp.runtime.faults import Faults
from feste_dp.runtime.results import mean_loss
from feste_dp.train.signals import Abandoned, StopSignals
from feste_dp.train.source import Exchange, Workforce


class Measuring:
    """Validation and samples of the weights that a workforce has."""

    def __init__(
        self,
        config: Config,
        data: TokenData,
        tokenizer: ByteTokenizer,
        workforce: Workforce,
        exchange: Exchange | None,
        signals: StopSignals,
        record: Record,
        faults: Faults,
    ) -> None:
        self._config, self._data, self._tokenizer = config, data, tokenizer
        self._workforce, self._exchange, self._signals = workforce, exchange, signals
        self._record, self._faults = record, faults
        self._sampler = Sampler(config.model, view_params(workforce.arena.params, config.model))

    def measure(
        self, step: int, *, evaluates: bool, samples: bool, save: Callable[[], None]
    ) -> tuple[float | None, str]:
        """The validation loss after this step, None where it is not asked for, and a sample; save() is what a
        signal may ask for meanwhile. Raises Abandoned, after which give_up() is to be called."""
        with self._signals.measuring(save):
            val_loss = self._validation_loss(step) if evaluates else None
            draws = samples and (self._exchange is None or self._exchange.is_first)
            sample = self._sample_or_none(step) if draws else ""
        if self._exchange is not None:  # all have measured, or none has
            self._exchange.join([])
        return val_loss, sample

    def give_up(self, error: BaseException) -> None:
        """Have the other nodes give up what this one has, but for what came from them."""
        exchange = self._exchange
        if exchange is not None and isinstance(error, Abandoned) and not exchange.has_abandoned:
            with contextlib.suppress(Abandoned):
                exchange.join(None)

    def _validation_loss(self, step: int) -> float:
        count = self._config.eval.batches * self._config.train.batch_size
        spacing = validation_spacing(count, len(self._data.val), self._config.model.block_size)
        if self._exchange is None:
            return self._workforce.validation_loss(step, count, spacing)
        own = self._exchange.units(count // self._config.train.sequences_per_shard)
        losses = self._workforce.unit_losses(step, own, spacing)
        with self._signals.shielded():
            losses = self._exchange.join(losses)
        return mean_loss(losses, count * self._config.model.block_size)

    def _sample_or_none(self, step: int) -> str:
        """Empty, and said, where there is none: a sample is not worth the run. Where it was the workers that
        failed, the next phase says so."""
        try:
            return self._text_of_model(step)
        except NonFiniteLogitsError as error:
            self._record.warn(f"no sample at step {step}: {error}")
        except Exception as error:
            self._record.warn(f"step {step}: no sample: {error or type(error).__name__}")
        return ""

    def _text_of_model(self, step: int) -> str:
        self._faults.at("sample", step)
        sample = self._config.sample
        prompt = self._tokenizer.encode(sample.prompt).tolist()
        drawn = []
        for token in self._sampler.draw(
            prompt, sample.tokens, temperature=sample.temperature, seed=self._config.train.seed, step=step
        ):
            if token == self._tokenizer.end_of_text:
                break
            drawn.append(token)
            self._workforce.tend()  # a worker that is lost meanwhile is replaced meanwhile
        return self._tokenizer.decode([*prompt, *drawn])
