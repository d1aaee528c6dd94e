"""Makes golden.json anew, with its configs as they are: for a change of arithmetic that is meant.

    python -m feste_dp.verify.remake

What is there now is lost: commit it with the change, `kernels.ARITHMETIC` raised and the reason in words.
Each run must have had steps whose gradient was clipped and, so that a count of workers is no part of the
table, give the same with one worker and with as many as there are.
"""

import os
import sys

from feste_dp.errors import RunError, UsageError
from feste_dp.kernels import ARITHMETIC
from feste_dp.runtime.warmup import compile_kernels
from feste_dp.verify.golden_run import Outcome
from feste_dp.verify.kernel_hashes import hash_kernels_in_a_process
from feste_dp.verify.table import GoldenRun, Table, read_table, write_table
from feste_dp.verify.verification import train_in_passing, workers_for


def remade(table: Table) -> Table:
    """The table as this machine gives it. Raises RunError where it cannot be one."""
    runs = [run.model_copy(update={"hashes": _trained(table, run).hashes}) for run in table.runs]
    kernels = hash_kernels_in_a_process(os.environ)
    return table.model_copy(update={"arithmetic": ARITHMETIC, "runs": runs, "kernels": kernels})


def _trained(table: Table, run: GoldenRun) -> Outcome:
    outcome, _ = train_in_passing(table, run, 1)
    again, _ = train_in_passing(table, run, max(2, workers_for(table, run, None)))
    if outcome != again:
        raise RunError(f"{run.name}: two worker counts give different bits")
    print(f"{run.name}: {outcome.steps} steps, {outcome.clipped} of them clipped", file=sys.stderr)
    if not outcome.clipped:
        raise RunError(f"{run.name}: no gradient was clipped; set its optim.clip_norm lower")
    return outcome


def main() -> int:
    compile_kernels(os.environ, lambda seconds: None)
    try:
        write_table(remade(read_table()))
    except (RunError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
