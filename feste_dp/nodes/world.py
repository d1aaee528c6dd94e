"""Whether this process is one of several nodes, as its launcher tells it. Imports nothing of MPI."""

import os
from collections.abc import Mapping

from feste_dp.errors import UsageError

# (number of ranks, own rank), by launcher: Open MPI's mpirun, MPICH's and Intel's, srun with PMI
_PAIRS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
)
_SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")


def world_size(environ: Mapping[str, str] = os.environ) -> int:
    """How many processes the launcher started for this job; 1 where none did, or only this one.

    A batch script of Slurm itself is no rank, however many tasks the job has.
    """
    for size, rank in _PAIRS:
        if environ.get(size, "").isdigit() and environ.get(rank, "").isdigit():
            return int(environ[size])
    size, rank = _SLURM
    if environ.get(size, "").isdigit() and environ.get(rank, "").isdigit() and "SLURM_STEP_ID" in environ:
        return int(environ[size])
    return 1


def check_world(size: int, ranks: int) -> None:
    """Raises UsageError where MPI knows of fewer ranks than the launcher: each would train by itself."""
    if ranks != size:
        raise UsageError(
            f"the launcher started {size} processes, but MPI connects {ranks} of them: give srun the kind of "
            "start that the MPI library knows (--mpi=pmix for Open MPI, --mpi=pmi2 for MPICH)"
        )
