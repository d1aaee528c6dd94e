import gc
import signal
import threading
import time

import pytest

from feste_dp.model.parts import Parts


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decoding")]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_part_is_done_once_and_all_at_once(count):
    parts = Parts(count)
    for _ in range(3):
        meeting, done = threading.Barrier(count, timeout=30), []

        def work(part, meeting=meeting, done=done):
            meeting.wait()
            done.append(part)

        parts.run(work)
        assert sorted(done) == list(range(count))


def test_what_a_part_raises_is_raised_and_the_next_work_is_done():
    parts = Parts(3)

    def work(part):
        if part == 2:
            raise ValueError("part 2")

    with pytest.raises(ValueError, match="part 2"):
        parts.run(work)
    done = []
    parts.run(done.append)
    assert sorted(done) == [0, 1, 2]


def test_threads_end_with_their_owner():
    before = decoding_threads()
    parts = Parts(3)
    parts.run(lambda part: None)
    own = [thread for thread in decoding_threads() if thread not in before]
    assert len(own) == 3
    del parts
    gc.collect()
    for thread in own:
        thread.join(30)
    assert not any(thread.is_alive() for thread in own)


def test_where_no_thread_may_be_started_the_caller_works(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    parts, done = Parts(4), []
    parts.run(lambda part: done.append((part, threading.current_thread())))
    assert parts.count == 1 and done == [(0, threading.main_thread())]


def test_an_interrupted_caller_leaves_nothing_undone():
    """What was begun is finished by the threads, and what is asked next comes after it."""
    parts, meeting, finished = Parts(2), threading.Barrier(2, timeout=30), []

    def work(part):
        meeting.wait()
        if part == 0:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.1)
        meeting.wait()
        finished.append(part)

    with pytest.raises(KeyboardInterrupt):
        parts.run(work)
    parts.run(finished.append)
    assert sorted(finished) == [0, 0, 1, 1]
