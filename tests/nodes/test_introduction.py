"""Nodes that differ are named, by all of them alike, before anything begins."""

import threading
import time
from types import SimpleNamespace

import pytest

from feste_dp.errors import UsageError
from feste_dp.nodes import introduction
from feste_dp.nodes.introduction import check_alike, differing, introduce, sharing
from tests.nodes.wires import Wires, linked

FACTS = {
    "host": "alpha",
    "version": "1.0",
    "command": "launch",
    "arithmetic": 3,
    "sources": "ab" * 32,
    "cpus": 8,
    "usable": 8,
}


@pytest.fixture
def introduced(monkeypatch):
    """What each of the nodes with these facts says of all: (names, warnings) or the error."""
    here = threading.local()

    def run(*nodes, clocks=None):
        def own_facts():
            return dict(FACTS, **nodes[here.rank])

        def now():
            return time.monotonic() + (clocks[here.rank] if clocks else 0.0)

        monkeypatch.setattr(introduction, "_own_facts", own_facts)
        monkeypatch.setattr(introduction, "time", SimpleNamespace(time=now))

        def body(link):
            here.rank = link.rank
            try:
                return link.names, introduce(link), link.names
            except UsageError as error:
                return str(error)

        return linked(Wires(len(nodes)).ends(), body)

    return run


def test_alike_nodes_know_each_others_names_and_have_nothing_to_warn_of(introduced):
    for _, warnings, names in introduced({}, {"host": "beta"}):
        assert (names, warnings) == (["node 0 (alpha)", "node 1 (beta)"], [])


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("version", "0.9", "has feste-dp 0.9, {others} 1.0: install the same everywhere"),
        ("command", "resume", "runs feste-dp resume, {others} launch: give all nodes the same command"),
        ("arithmetic", 2, "has arithmetic version 2, {others} 3: install the same everywhere"),
        ("sources", "cd" * 32, "has source files with SHA-256 " + "cd" * 18 + "c..., {others} " + "ab" * 18),
    ],
)
@pytest.mark.parametrize("count", [2, 3])
def test_the_odd_one_is_named_by_all(introduced, key, value, line, count):
    nodes = [{"host": f"host{node}"} for node in range(count)]
    nodes[1][key] = value
    others = "node 0 (host0)" if count == 2 else "the others"
    for said in introduced(*nodes):
        assert said.startswith(f"node 1 (host1) {line.format(others=others)}")


def test_the_first_may_be_the_odd_one_among_three(introduced):
    for said in introduced({"version": "2.0"}, {}, {}):
        assert said.startswith("node 0 (alpha) has feste-dp 2.0, the others 1.0")


@pytest.mark.parametrize(
    ("at", "offset", "line"), [(1, -3600.0, "node 1 (b) is -3600"), (2, 90.0, "node 2 (c) is +90")]
)
def test_a_clock_that_is_off_is_told(introduced, at, offset, line):
    clocks = [0.0, 0.0, 0.0]
    clocks[at] = offset
    for _, warnings, _ in introduced({"host": "a"}, {"host": "b"}, {"host": "c"}, clocks=clocks):
        assert warnings == [f"the clock of {line} s off the others': set it"]


def test_a_rank_that_is_bound_to_a_core_is_told_what_mpirun_needs(introduced):
    for _, warnings, _ in introduced(
        {}, {"host": "beta", "usable": 1}, {"host": "gamma", "cpus": 1, "usable": 1}
    ):
        assert warnings == [
            "node 1 (beta) may use 1 of its 8 CPUs, as mpirun binds a rank to a core: give it --bind-to none"
        ]


def test_nodes_that_share_cpus_are_counted(monkeypatch):
    places = [("x", [0, 1]), ("x", [1, 2]), ("x", [3]), ("y", [0, 1])]
    here = threading.local()
    monkeypatch.setattr(introduction, "_place", lambda: places[here.rank])

    def body(link):
        here.rank = link.rank
        return sharing(link)

    assert linked(Wires(4).ends(), body) == [2, 2, 1, 1]


def test_several_odd_ones_are_all_named():
    names = [f"node {node}" for node in range(5)]
    with pytest.raises(UsageError, match=r"^node 1, node 4 has tokens b, the others a: give"):
        check_alike(names, ["a", "b", "a", "a", "c"], "has tokens", "give all the same")
    check_alike(names, ["a"] * 5, "has tokens", "give all the same")


def test_a_config_that_differs_is_told_by_its_first_key():
    first = {"train.steps": 10, "optim.lr": 0.1, "run.dir": "/a"}
    own = {"train.steps": 10, "optim.lr": 0.2, "run.dir": "/b", "model.n_layer": 3}
    apart = {"run.dir"}.__contains__
    assert (
        differing(own, first, apart)
        == "optim.lr is 0.2 here and 0.1 on node 0: give all nodes the same config"
    )
    assert differing(first | {"run.dir": "/b"}, first, apart) is None
    assert differing(first | {"model.n_layer": 3}, first, apart) is not None
