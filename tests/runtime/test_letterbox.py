import sys
import threading
import time

import numpy as np
import pytest

from feste_dp.runtime.letterbox import BOX_BYTES, Letterbox


@pytest.fixture
def both():
    """The two ends of one letterbox: the coordinator's and the worker's."""
    memory = np.zeros(BOX_BYTES, np.uint8)
    return Letterbox(memory), Letterbox(memory)


def test_nothing_is_left_for_a_worker_that_sleeps(both):
    coordinator, worker = both
    assert not coordinator.put(b"order")
    worker.listen()
    assert worker.take(0.0) is None  # and sleeps
    assert not coordinator.put(b"order")


def test_an_order_left_while_the_worker_computes_is_found_when_it_looks(both):
    coordinator, worker = both
    worker.listen()
    assert coordinator.put(b"order")
    assert worker.take(0.0) == b"order"
    assert coordinator.put(b"")
    assert worker.take(0.0) == b""


def test_word_of_an_item_is_read_on_the_other_side_and_touches_no_frame(both):
    coordinator, worker = both
    worker.listen()
    assert coordinator.put(bytes(range(256)))
    worker.item = 2**40
    assert coordinator.item == 2**40 and worker.take(0.0) == bytes(range(256))


def test_a_second_order_is_refused_until_the_first_is_taken(both):
    coordinator, worker = both
    worker.listen()
    assert coordinator.put(b"first") and not coordinator.put(b"second")
    assert worker.take(0.0) == b"first"
    assert coordinator.put(b"second") and worker.take(0.0) == b"second"


def test_an_order_too_long_for_the_box_is_refused(both):
    coordinator, worker = both
    worker.listen()
    assert not coordinator.put(bytes(BOX_BYTES))
    longest = bytes(range(256)) * 15
    assert coordinator.put(longest) and worker.take(0.0) == longest


def test_what_was_left_for_a_worker_before_is_not_found_by_the_next(both):
    coordinator, worker = both
    worker.listen()
    assert coordinator.put(b"for the one before")
    coordinator.clear()
    assert not coordinator.put(b"not yet awake")
    worker.listen()
    assert worker.take(0.0) is None


def test_an_owner_that_never_sleeps_collects_what_is_there(both):
    other, owner = both
    owner.listen()
    assert owner.collect() is None
    for frame in (b"report", b""):
        assert other.put(frame) and not other.put(b"too early")
        assert owner.collect() == frame and owner.collect() is None


@pytest.fixture
def often():
    """Threads take turns so often that none of them waits for its turn, 5 ms each, at every order."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_no_order_is_lost_or_doubled_however_the_two_sides_meet(both, often):
    """The worker gives up looking all the time; what is refused is tried again, as the socket would."""
    coordinator, worker = both
    count, taken = 1000, []

    def work():
        worker.listen()
        while len(taken) < count:
            frame = worker.take(0.0)
            if frame is None:
                worker.listen()
            else:
                taken.append(int(frame))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    for number in range(count):
        while not coordinator.put(b"%d" % number) and time.monotonic() < deadline:
            pass
    thread.join(60)
    assert taken == list(range(count))
