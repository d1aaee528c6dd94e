"""What launchers tell a process, as they were seen to (Open MPI 5, MPICH 5, Slurm 22.05)."""

import pytest

from feste_dp.errors import UsageError
from feste_dp.nodes.world import check_world, world_size

OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    "OMPI_UNIVERSE_SIZE": "4",
    "PMIX_RANK": "1",
    "PMIX_NAMESPACE": "prterun-node0-17@1",
}
MPICH = {"PMI_SIZE": "3", "PMI_RANK": "0", "PMI_FD": "7", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}
BATCH_SCRIPT = {
    "SLURM_JOB_ID": "12",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NNODES": "2",
}
STEP = BATCH_SCRIPT | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("environ", "size"),
    [
        ({}, 1),
        (OPEN_MPI, 2),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, 1),
        (MPICH, 3),
        (MPICH | {"PMI_SIZE": "1"}, 1),
        (STEP, 4),
        (STEP | {"PMIX_RANK": "3", "PMIX_NAMESPACE": "slurm.pmix.12.0", "SLURM_MPI_TYPE": "pmix"}, 4),
        (STEP | {"PMI_SIZE": "4", "PMI_RANK": "2", "SLURM_MPI_TYPE": "pmi2"}, 4),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, 1),
    ],
    ids=["none", "openmpi", "openmpi alone", "mpich", "mpich alone", "srun", "pmix", "pmi2", "srun -n1"],
)
def test_a_rank_knows_how_many_there_are(environ, size):
    assert world_size(environ) == size


def test_a_batch_script_is_no_rank_and_a_job_of_mpirun_in_it_is():
    assert world_size(BATCH_SCRIPT) == 1
    assert world_size(BATCH_SCRIPT | OPEN_MPI) == 2
    assert world_size(STEP | OPEN_MPI) == 2


@pytest.mark.parametrize("value", ["", "two", "-1", "2.0"])
def test_what_is_no_number_is_no_launchers(value):
    assert world_size({"OMPI_COMM_WORLD_SIZE": value, "OMPI_COMM_WORLD_RANK": "0"}) == 1
    assert world_size({"PMI_SIZE": "2", "PMI_RANK": value}) == 1


def test_ranks_that_mpi_does_not_connect_are_refused_with_what_to_give_srun():
    check_world(4, 4)
    with pytest.raises(UsageError, match=r"started 4 processes, but MPI connects 1 of them: .*--mpi=pmix"):
        check_world(4, 1)
