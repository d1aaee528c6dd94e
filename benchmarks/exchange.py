"""How fast the sum over nodes is, beside a plain stream of bytes over the same link: see --help.

Start it as a job: mpirun -n 2 --bind-to none python -m benchmarks.exchange. GB/s are bytes of the array over
the time; of N nodes each sends 2 (N-1)/N as many.
"""

import os
import socket
import statistics
import sys
import threading
import time

import click
import numpy as np

from feste_dp.nodes.array_sum import ArraySum
from feste_dp.nodes.blocks import additions, node_blocks
from feste_dp.nodes.introduction import introduce
from feste_dp.nodes.link import Link
from feste_dp.nodes.transport import MpiTransport


def exchange_seconds(total: ArraySum, link: Link, array: np.ndarray) -> float:
    """Of one sum, from the moment at which all nodes are there."""
    link.meet()
    started = time.perf_counter()
    finish = total.begin(array) if total.is_small else None
    link.meet()  # the words of a step
    if finish is not None:
        finish(lambda first, last: None)
    else:
        total.all_reduce(array, lambda first, last: None)
    return time.perf_counter() - started


def stream_seconds(link: Link, nbytes: int, address: str) -> float:
    """Of so many bytes both ways at once over one TCP connection between the first two nodes."""
    data, room = bytearray(nbytes), bytearray(1 << 22)

    def receive(connection: socket.socket) -> None:
        left = nbytes
        while left:
            left -= connection.recv_into(room, min(left, len(room)))

    if link.is_first:
        with socket.create_server((address, 0)) as server:
            link.from_first(f"{address} {server.getsockname()[1]}".encode())
            connection, _ = server.accept()
    else:
        host, port = link.from_first(None).decode().split()
        connection = socket.create_connection((host, int(port)))
    with connection:
        started = time.perf_counter()
        thread = threading.Thread(target=receive, args=(connection,))
        thread.start()
        connection.sendall(data)
        thread.join()
        return time.perf_counter() - started


@click.command()
@click.option("--floats", default=87_022_080, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--address", help="The first node's, for a plain TCP stream beside it (two nodes).")
def main(floats: int, rounds: int, address: str | None) -> None:
    """Time the sum of an array over all nodes."""
    transport = MpiTransport()
    link = Link(transport)
    introduce(link)
    nodes = link.size
    total = ArraySum(link, transport, additions(node_blocks(64, nodes)), floats)
    array = np.full(floats, 1e-3, np.float32)
    array[:] += link.rank
    sums, streams = [], []
    for _ in range(rounds):
        sums.append(exchange_seconds(total, link, array))
        if address is not None and nodes == 2:
            link.meet()
            streams.append(stream_seconds(link, 4 * floats, address))
    assert np.isfinite(array).all()
    if link.is_first:
        gigabytes = 4e-9 * floats
        best, middle = min(sums), statistics.median(sums)
        print(f"{transport.library}, {nodes} nodes, {floats:,} floats", end=": ")
        print(f"{1e3 * middle:,.3f} ms (best {1e3 * best:,.3f}), {gigabytes / middle:.2f} GB/s", end="")
        if streams:
            stream = statistics.median(streams)
            print(
                f"; a TCP stream both ways {gigabytes / stream:.2f} GB/s, so {stream / middle:.0%} of it",
                end="",
            )
        print(f"; {os.cpu_count()} CPUs")
    sys.stdout.flush()
    link.close(0)


if __name__ == "__main__":
    main()
