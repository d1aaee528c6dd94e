"""Nodes that speak to each other, and what each hears of the end of another."""

import os
import random
import threading
import time

import msgpack
import numpy as np
import pytest

from feste_dp.errors import RunError
from feste_dp.nodes import link as links
from feste_dp.nodes.link import WORDS_BYTES, Link, NodeLostError
from tests.nodes.wires import Wires, linked, on_nodes


def wait_until(condition, timeout_s=15.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "what was waited for has not come"
        time.sleep(0.005)


def late(seed, most_s=0.01):
    rng = random.Random(seed)
    return lambda source, to, tag: rng.uniform(0, most_s)


@pytest.mark.parametrize("nodes", [1, 2, 5])
@pytest.mark.parametrize("eager_bytes", [0, 1 << 20])
def test_each_node_hears_what_each_said_in_their_order(nodes, eager_bytes):
    wires = Wires(nodes, late(nodes), eager_bytes)

    def body(link):
        return [link.gather({"round": i, "from": link.rank, "more": "x" * 5000 * i}) for i in range(4)]

    for heard in linked(wires.ends(), body):
        for i, said in enumerate(heard):
            assert [words["from"] for words in said] == list(range(nodes))
            assert all(words["round"] == i and len(words["more"]) == 5000 * i for words in said)


def test_a_node_may_be_one_exchange_ahead_of_another():
    wires = Wires(3)

    def body(link):
        heard = []
        for i in range(20):
            if link.rank == i % 3:
                time.sleep(0.005)
            heard.append(link.gather([i, link.rank]))
        return heard

    for heard in linked(wires.ends(), body):
        assert heard == [[[i, node] for node in range(3)] for i in range(20)]


def test_words_may_be_as_long_as_is_said_and_no_longer():
    words = bytes(WORDS_BYTES)
    assert linked(Wires(2).ends(), lambda link: link.all_gather(words)) == [[words, words]] * 2
    with pytest.raises(AssertionError, match=str(WORDS_BYTES + 1)):
        linked(Wires(1).ends(), lambda link: link.all_gather(words + b"x"))


@pytest.mark.parametrize("length", [0, 1, 4 << 20, (4 << 20) + 3])
def test_all_nodes_have_what_the_first_gives(length):
    content = np.random.default_rng(1).bytes(length)

    def body(link):
        return link.from_first(content if link.is_first else None)

    assert linked(Wires(3, late(5)).ends(), body) == [content] * 3


def test_an_array_becomes_that_of_the_first():
    first = np.random.default_rng(2).standard_normal(3_000_001, np.float32)

    def body(link):
        array = first.copy() if link.is_first else np.zeros_like(first)
        link.copy_from_first(array)
        return array.tobytes()

    assert linked(Wires(2).ends(), body) == [first.tobytes()] * 2


def lost(link):
    """What the link says of another node."""
    wait_until(lambda: link.failure is not None)
    with pytest.raises(NodeLostError) as caught:
        link.check()
    return str(caught.value)


@pytest.mark.parametrize("nodes", [2, 3])
def test_a_node_that_is_cut_off_is_named_in_time_and_so_are_the_others_there(nodes):
    wires = Wires(nodes)
    silent_after_s = 1.5
    all_are_there = threading.Barrier(nodes)

    def body(link):
        link.names = [f"node {node} (host{node})" for node in range(nodes)]
        link.gather("all are there")
        all_are_there.wait()
        wires.cut(nodes - 1)
        return lost(link)

    *others, cut_off = linked(wires.ends(), body, parts=False, silent_after_s=silent_after_s)
    for text in others:
        assert text == f"node {nodes - 1} (host{nodes - 1}) gave no sign of life for 1.5 s: lost, or cut off"
    names = ", ".join(f"node {node} (host{node})" for node in range(nodes - 1))
    assert cut_off.startswith(f"{names} gave no sign of life")


def test_a_node_that_computes_for_long_is_not_lost():
    def body(link):
        link.gather(None)
        if link.rank == 1:
            time.sleep(2.5)
        return link.gather(link.rank)

    assert linked(Wires(2).ends(), body, silent_after_s=1.5) == [[0, 1]] * 2


def test_who_was_stopped_itself_heard_no_silence():
    class Clock:
        ahead = 0.0

        def __call__(self):
            return time.monotonic() + self.ahead

    clocks = [Clock(), Clock()]

    def body(end):
        link = Link(end, 5.0, clocks[end.rank])
        link.gather(None)
        clocks[end.rank].ahead = 3600.0  # as if all had been stopped for an hour
        time.sleep(0.5)
        heard = link.gather(end.rank)
        link.close(0, timeout_s=5.0)
        return heard

    assert on_nodes(Wires(2).ends(), body) == [[0, 1]] * 2


def test_who_is_starved_for_good_still_notices_a_lost_node():
    """By its clock each of its looks comes about a second after the last."""

    class Starved:
        now = 0.0

        def __call__(self):
            self.now += 0.3
            return self.now

    wires, all_are_there = Wires(2), threading.Barrier(2)

    def body(end):
        link = Link(end, 8.0, Starved())
        link.gather(None)
        all_are_there.wait()
        wires.cut(1)
        heard = lost(link)
        link.close(1, timeout_s=0.0)
        return heard

    assert all("gave no sign of life" in heard for heard in on_nodes(wires.ends(), body))


def test_what_made_a_node_fail_is_heard_by_those_who_wait_for_it():
    def body(link):
        link.names = ["node 0 (alpha)", "node 1 (beta)", "node 2 (gamma)"]
        link.gather(None)
        if link.rank == 1:
            return link.close(2, "no text at here.txt", timeout_s=5.0)
        with pytest.raises(NodeLostError) as caught:
            link.gather(None)
        heard = str(caught.value), link.failed_status
        link.close(link.failed_status, timeout_s=5.0)
        return heard

    first, _, last = linked(Wires(3, late(3)).ends(), body)
    assert first == last == ("node 1 (beta): no text at here.txt", 2)


def test_who_ends_because_of_another_says_what_it_heard():
    """The reason may come later than the goodbye of who heard it first."""
    wires = Wires(3, lambda *way: 1.0 if way == (2, 0, links._CONTROL) else 0.0)

    def body(link):
        link.gather(None)
        if link.rank == 2:
            return link.close(1, "no worker is left", timeout_s=5.0)
        heard = lost(link)
        link.close(1, timeout_s=5.0)
        return heard

    assert linked(wires.ends(), body)[:2] == ["node 2: no worker is left"] * 2


def test_a_node_that_ended_well_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(links, "_ENDED_S", 0.5)

    def body(link):
        if link.is_first:
            return link.close(0, timeout_s=5.0)
        with pytest.raises(NodeLostError, match="node 0 has ended while this"):
            link.gather(None)
        return link.close(1, timeout_s=5.0)

    assert linked(Wires(2).ends(), body) == [0, 0]


@pytest.mark.parametrize("nodes", [2, 4])
def test_all_end_with_the_status_of_the_first_and_leave_nothing_unsent(nodes):
    ends = Wires(nodes, late(9)).ends()

    def body(end):
        link = Link(end)
        link.gather(None)
        status = link.close(143 if end.rank == 0 else 0, timeout_s=10.0)
        assert link.close(5) == 5  # called again, it changes nothing
        return status, link.has_parted, end.is_closed, end.unsent

    assert on_nodes(ends, body) == [(143, True, True, 0)] * nodes


def test_a_lost_node_is_not_waited_for_and_the_others_part():
    wires, all_are_there = Wires(3), threading.Barrier(3)

    def body(end):
        link = Link(end, 1.0)
        link.gather(None)
        all_are_there.wait()
        wires.cut(2)
        with pytest.raises(NodeLostError):
            link.gather(None)
        return link.close(1), link.has_parted, end.is_closed

    assert on_nodes(wires.ends(), body) == [(1, False, False)] * 3


def test_who_ends_at_once_still_says_why():
    """Nobody is left to be waited for, and the words are on their way all the same."""
    wires = Wires(3)
    seen = {}

    def body(end):
        link = Link(end)
        link.gather(None)
        if end.rank == 1:
            return link.close(1, "out of memory", timeout_s=0.0)
        seen[end.rank] = lost(link)
        return link.close(1, timeout_s=5.0)

    on_nodes(wires.ends(), body)
    assert seen == dict.fromkeys((0, 2), "node 1: out of memory")


def test_a_signal_that_asks_one_node_to_stop_is_passed_on_to_the_others_once():
    passed_on = {node: [] for node in range(3)}
    asked = threading.Event()

    def body(link):
        link.own_stop = lambda: 15 if link.rank == 1 and asked.is_set() else None
        link.pass_on = passed_on[link.rank].append
        link.gather(None)
        asked.set()
        wait_until(lambda: passed_on[0] and passed_on[2])
        time.sleep(0.3)
        return link.gather(None)

    linked(Wires(3).ends(), body)
    assert passed_on == {0: [15], 1: [], 2: [15]}


def test_what_others_tell_is_told_on_the_first_with_who_it_is():
    def body(link):
        link.names = ["node 0 (alpha)", "node 1 (beta)"]
        if not link.is_first:
            link.tell("worker_lost", "worker 3 was killed", "warning")
            link.tell("worker_joined", "worker 3 is ready", "message")
            link.gather(None)
            return []
        told = []
        wait_until(lambda: told.extend(link.told()) or len(told) == 2)
        link.gather(None)
        return [(each.node, each.kind, each.text, each.level) for each in told]

    first, other = linked(Wires(2, late(4)).ends(), body)
    assert first == [
        (1, "worker_lost", "node 1 (beta): worker 3 was killed", "warning"),
        (1, "worker_joined", "node 1 (beta): worker 3 is ready", "message"),
    ]
    assert other == []


def test_a_long_message_that_never_comes_whole_does_not_hide_the_silence():
    """It is announced, and then the link is cut."""
    wires = Wires(2, eager_bytes=100)

    class Torn(type(wires.ends()[0])):
        def receive(self, into, source, tag):
            if tag == links._CONTROL and len(into) > 100:
                wires.cut(1)
            return super().receive(into, source, tag)

    def body(link):
        link.gather(None)
        if not link.is_first:
            link.tell("worker_lost", "x" * 1000, "warning")
        return lost(link)

    for text in linked([Torn(wires, 0), Torn(wires, 1)], body, parts=False, silent_after_s=1.5):
        assert "gave no sign of life" in text


def test_the_end_of_the_launcher_is_noticed(monkeypatch):
    def body(link):
        link.gather(None)
        parent = os.getppid()
        if link.is_first:
            time.sleep(0.3)
            monkeypatch.setattr(links.os, "getppid", lambda: 1)
        assert lost(link) == f"the launcher of the 2 nodes (process {parent}) is gone"
        return link.close(1, timeout_s=5.0)

    assert linked(Wires(2).ends(), body) == [1, 1]


def test_a_library_that_fails_in_the_watching_thread_ends_the_run():
    class Failing(type(Wires(1).ends()[0])):
        fails = False

        def incoming(self, tag):
            if self.fails:
                raise RunError("the MPI library failed: MPI_ERR_OTHER")
            return super().incoming(tag)

    wires = Wires(2)
    ends = [Failing(wires, 0), Failing(wires, 1)]

    def body(link):
        link.gather(None)
        ends[link.rank].fails = True
        told = "no connection to the others any more: the MPI library failed: MPI_ERR_OTHER"
        assert lost(link) == f"node {link.rank}: {told}"

    linked(ends, body, parts=False)


def test_who_waits_elsewhere_is_woken_when_another_node_fails():
    woken = threading.Event()

    def body(link):
        link.gather(None)
        if link.rank == 1:
            return link.close(1, "broken", timeout_s=5.0)
        link.wake = woken.set
        assert woken.wait(5.0)
        with pytest.raises(NodeLostError, match="node 1: broken"):
            link.check()
        return link.close(1, timeout_s=5.0)

    linked(Wires(2).ends(), body)


def test_what_is_no_message_is_passed_over():
    wires = Wires(2)
    ends = wires.ends()

    def body(link):
        link.gather(None)
        if not link.is_first:
            for junk in (b"\xc1", b"", msgpack.packb(["stop"]), msgpack.packb({"a": 1}), msgpack.packb(7)):
                ends[1].send(junk, 0, links._CONTROL)
        time.sleep(0.4)
        return link.gather(link.failure)

    assert linked(ends, body) == [[None, None]] * 2
