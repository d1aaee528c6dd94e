"""When to stop because validation no longer improves. A pure state: no clock, no files, no loop."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class EarlyStop:
    """The best validation loss so far and how many evaluations have passed since.

    The fields are plain numbers, so a checkpoint can hold `dataclasses.asdict(state)` and
    `EarlyStop(**fields)` brings it back.
    """

    patience: int
    """Evaluations without improvement that end the run; 0 never ends it."""
    best_loss: float | None = None
    """None until an evaluation gave a finite loss."""
    best_step: int | None = None
    evals_since_best: int = 0

    @property
    def should_stop(self) -> bool:
        return 0 < self.patience <= self.evals_since_best

    def update(self, step: int, val_loss: float) -> "tuple[EarlyStop, bool, bool]":
        """(next state, is this the best so far, should the run stop) after the evaluation at `step`.

        Only a strictly smaller loss is better; NaN and infinities never are.
        """
        is_best = math.isfinite(val_loss) and (self.best_loss is None or val_loss < self.best_loss)
        if is_best:
            state = replace(self, best_loss=float(val_loss), best_step=step, evals_since_best=0)
        else:
            state = replace(self, evals_since_best=self.evals_since_best + 1)
        return state, is_best, state.should_stop
