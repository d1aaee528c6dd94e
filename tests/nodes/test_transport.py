"""How MPI is used, seen from an MPI that only remembers what it is asked."""

import gc
import threading
import weakref

import numpy as np
import pytest

from feste_dp.nodes.transport import MpiTransport, TransportError


class BrokenError(RuntimeError):
    """As MPI.Exception."""


class Transfer:
    def __init__(self):
        self.is_done, self.error = False, None

    def Test(self, status):  # noqa: N802
        if self.error is not None:
            raise self.error
        return self.is_done


class Mpi:
    """The module, and a communicator of it."""

    BYTE, ANY_SOURCE, Exception = "byte", -1, BrokenError

    def __init__(self):
        self.transfers = []

    def Status(self):  # noqa: N802
        return None

    def Isend(self, data, to, tag):  # noqa: N802
        self.transfers.append(Transfer())
        return self.transfers[-1]

    def Irecv(self, into, source, tag):  # noqa: N802
        return self.Isend(into, source, tag)

    def Iprobe(self, source, tag, status):  # noqa: N802
        raise BrokenError("MPI_ERR_PROC_FAILED:\n  node 1\thas failed")


@pytest.fixture
def mpi():
    return Mpi()


@pytest.fixture
def transport(mpi):
    made = object.__new__(MpiTransport)
    made._lock, made._mpi, made._comm, made._under_way = threading.Lock(), mpi, mpi, set()
    return made


@pytest.mark.parametrize("way", ["send", "receive"])
def test_memory_that_mpi_may_still_use_lives_until_the_transfer_is_done(mpi, transport, way):
    """Who waited for it has given up: the arena of a run is unmapped, and what another node sends comes."""
    memory = np.zeros(10, np.float32)
    is_there = weakref.ref(memory)
    request = getattr(transport, way)(memory, 1, 7)
    watched = weakref.ref(request)
    assert not request.done()
    del memory, request
    gc.collect()
    assert is_there() is not None
    (transfer,) = mpi.transfers
    transfer.is_done = True
    assert watched().done()
    del transfer
    gc.collect()
    assert is_there() is None and watched() is None


def test_what_mpi_cannot_do_is_one_line(mpi, transport):
    with pytest.raises(
        TransportError, match=r"^the MPI library failed: MPI_ERR_PROC_FAILED: node 1 has failed$"
    ):
        transport.incoming(1)
    request = transport.send(b"x", 1, 1)
    mpi.transfers[0].error = BrokenError("MPI_ERR_TRUNCATE: message truncated")
    with pytest.raises(TransportError, match=r"MPI_ERR_TRUNCATE: message truncated"):
        request.done()
    assert not transport._lock.locked()
