"""A worker's end of the socket, with hostile frames on it."""

import os
import shutil
import tempfile
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq

from feste_dp.runtime import messages as m
from feste_dp.runtime.letterbox import BOX_BYTES, Letterbox
from feste_dp.runtime.worker import Connection, WorkerSpec

TOKEN = b"0123456789abcdef" * 2
ORDER = m.Compute(1, 0, 1, 1)


@pytest.fixture
def ends():
    """(connection of a worker, the coordinator's socket, the worker's spec)."""
    folder = Path(tempfile.mkdtemp(prefix="fdp-"))
    endpoint = f"ipc://{folder}/s"
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    spec = WorkerSpec.model_construct(
        worker=1, life=0, coordinator_pid=1, endpoint=endpoint, token=TOKEN, bell_fd=bell, listen_s=0.0
    )
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        router.bind(endpoint)
        connection = Connection(spec)
        connection.send(m.Ready(4711, "c0de", "/here"))
        assert router.recv_multipart() == [spec.identity, TOKEN, m.encode(m.Ready(4711, "c0de", "/here"))]
        yield connection, router, spec
        connection._socket.close(linger=0)
    os.close(bell)
    shutil.rmtree(folder)


@pytest.fixture
def line(ends):
    """(connection of a worker, function that sends it frames); the coordinator's end is ours."""
    connection, router, spec = ends
    return connection, lambda frames: router.send_multipart([spec.identity, *frames])


@pytest.fixture
def boxes(ends):
    """The coordinator's ends of the letterboxes that the connection uses: for orders and for reports."""
    memory = np.zeros((2, BOX_BYTES), np.uint8)
    orders, reports = Letterbox(memory[0]), Letterbox(memory[1])
    ends[0].use(Letterbox(memory[0]), Letterbox(memory[1]))
    reports.listen()
    return orders, reports


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [TOKEN],
        [b"x" * 32, m.encode(m.Stop())],
        [TOKEN[:-1], m.encode(m.Stop())],
        [TOKEN, m.encode(m.Stop()), b""],
        [TOKEN, b"\xc1"],
        [TOKEN, b"\x91" * 5000],
        [TOKEN, m.encode(m.Stop()) + bytes(m.MAX_ORDER_BYTES)],
        [TOKEN, b"\x94\x01\x01\xdd\xff\xff\xff\xff"],
        [TOKEN, msgpack.packb([1, 1, msgpack.ExtType(1, b"x"), 2])],
        [TOKEN, m.encode(m.ShardsDone(1, 1, (1.0,), 1.0))],
        [TOKEN, m.encode(m.Ready(1, "c0de", "/here"))],
    ],
)
def test_a_frame_that_is_no_order_is_dropped_with_one_line_and_the_next_order_is_taken(line, frames, capfd):
    connection, send = line
    for _ in range(50):
        send(frames)
    send([TOKEN, m.encode(ORDER)])
    assert connection.receive() == ORDER
    assert connection._frames.dropped == 50
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and told.startswith("warning: worker 1 dropped a frame")


def test_an_order_above_the_size_limit_never_arrives(line, monkeypatch):
    connection, send = line
    send(
        [TOKEN, bytes(m.MAX_FRAME_BYTES + 1)]
    )  # ZeroMQ ends the connection of who sends it, and connects anew
    assert connection._socket.poll(200) == 0


def test_a_report_is_left_in_its_box_and_rings_and_one_that_finds_it_full_comes_by_the_socket(ends, boxes):
    connection, router, spec = ends
    orders, reports = boxes
    assert orders.put(m.encode(ORDER)) and connection.receive() == ORDER
    done = [m.ShardsDone(1, shard, (1.5,), 0.1) for shard in range(3)]
    connection.send(done[0])
    assert os.eventfd_read(spec.bell_fd) == 1
    connection.send(done[1])
    with pytest.raises(BlockingIOError):
        os.eventfd_read(spec.bell_fd)
    assert reports.collect() == m.encode(done[0])
    assert router.recv_multipart() == [spec.identity, TOKEN, m.encode(done[1])]
    connection.send(done[2])
    assert reports.collect() == m.encode(done[2]) and router.poll(50) == 0


def test_why_a_worker_ends_comes_by_the_socket_which_holds_it_whatever_its_length(ends, boxes):
    connection, router, spec = ends
    failed = m.Failed("ValueError: no", "Traceback ..." * 1000)
    connection.send(failed)
    assert router.recv_multipart() == [spec.identity, TOKEN, m.encode(failed)]
    assert boxes[1].collect() is None
