"""A worker's end of the socket, with hostile frames on it."""

import shutil
import tempfile
from pathlib import Path

import msgpack
import pytest
import zmq

from feste_dp.runtime import messages as m
from feste_dp.runtime.worker import Connection, WorkerSpec

TOKEN = b"0123456789abcdef" * 2
ORDER = m.Compute(1, (0,), (5,))


@pytest.fixture
def line():
    """(connection of a worker, function that sends it frames); the coordinator's end is ours."""
    folder = Path(tempfile.mkdtemp(prefix="fdp-"))
    endpoint = f"ipc://{folder}/s"
    spec = WorkerSpec.model_construct(worker=1, life=0, coordinator_pid=1, endpoint=endpoint, token=TOKEN)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        router.bind(endpoint)
        connection = Connection(spec)
        connection.send(m.Ready(4711))
        assert router.recv_multipart() == [spec.identity, TOKEN, m.encode(m.Ready(4711))]
        yield connection, lambda frames: router.send_multipart([spec.identity, *frames])
        connection._socket.close(linger=0)
    shutil.rmtree(folder)


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
        [TOKEN, b"\x94\x01\x01\xdd\xff\xff\xff\xff"],
        [TOKEN, msgpack.packb([1, 1, msgpack.ExtType(1, b"x"), []])],
        [TOKEN, m.encode(m.ShardDone(1, 1, 1.0, 1.0))],
        [TOKEN, m.encode(m.Ready(1))],
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
