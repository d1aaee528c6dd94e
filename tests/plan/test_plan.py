"""A plan says what a run takes, by kind, and everything that keeps it from starting."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feste_dp.config.loading import load_config
from feste_dp.config.schema import Config
from feste_dp.data.tokens import TokenData
from feste_dp.errors import UsageError
from feste_dp.machine.cgroup import UNLIMITED
from feste_dp.machine.limits import Limits
from feste_dp.model.parameters import parameter_count
from feste_dp.nodes.link_speed import LinkSpeed
from feste_dp.plan import plan as planning
from feste_dp.plan.plan import SaidOfNode, as_slow_as, make_plan, nodes_like_this, tensor_groups
from feste_dp.plan.step_time import StepTime
from feste_dp.plan.table import plan_table

ROOT = Path(__file__).parents[2]
PLENTY = Limits(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)
TOKENS = TokenData(Path(), np.zeros(2048, np.uint16), np.zeros(64, np.uint16), 256, "", "", 0, 0)


@pytest.fixture
def measured(monkeypatch):
    step = StepTime(micro_batch=0.01, compute=0.08, reduce=0.01, update=0.005, control=0.005)
    monkeypatch.setattr(planning, "estimated_step", lambda config, workers, seconds: step)
    monkeypatch.setattr(planning, "usable_cpus", lambda: 2)
    monkeypatch.setattr(planning, "crowding", lambda workers: "too many" if workers > 2 else None)


def config(name="tiny", **overrides) -> Config:
    changes = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return load_config(ROOT / "configs" / f"{name}.yaml", changes)


@pytest.mark.parametrize("name", ["tiny", "gpt2_87m"])
def test_the_groups_hold_every_parameter_once(name):
    groups = tensor_groups(config(name))
    assert sum(group.parameters for group in groups) == parameter_count(config(name).model)
    assert len({tensor for group in groups for tensor in group.tensors}) == 17 - (name == "gpt2_87m")


def test_a_tied_head_has_no_parameters_of_its_own():
    (head,) = [group for group in tensor_groups(config("gpt2_87m")) if group.name.startswith("output head")]
    assert head.parameters == 0 and "tied" in head.name


LINKS = LinkSpeed(latency_s=0.02, bytes_per_second=1e9)


@pytest.mark.usefixtures("measured")
def test_a_plan_of_nodes_has_the_exchange_in_its_step_and_the_memory_of_one_node():
    alone = make_plan(config(run__workers=4), PLENTY, lambda: TOKENS)
    asked = config(run__workers=4)
    made = make_plan(asked, PLENTY, lambda: TOKENS, nodes=nodes_like_this(asked, 4, LINKS))
    assert (made.nodes, made.node_shards, made.workers) == (4, 2, 2)
    exchange = 0.02 + 3 * 4 * made.parameters / 1e9
    assert made.step.exchange == pytest.approx(exchange)
    assert made.tokens_per_second == pytest.approx(512 / (0.1 + exchange))
    assert made.memory.total < alone.memory.total
    table = plan_table(made, "tiny")
    for words in ("on 4 nodes of 2 workers", "exchange 22", "8 Gbit/s each way", "in all on each node"):
        assert words in table, words


@pytest.mark.usefixtures("measured")
def test_a_network_that_is_the_limit_and_uneven_nodes_are_said():
    slow = LinkSpeed(latency_s=0.5, bytes_per_second=1e9)
    made = make_plan(config(), PLENTY, lambda: TOKENS, nodes=nodes_like_this(config(), 3, slow))
    assert any("unevenly" in note for note in made.notes)
    assert any("the network is the limit" in note for note in made.notes)


def test_more_nodes_than_shards_cannot_be_planned():
    with pytest.raises(UsageError, match=r"9 nodes are more than train\.shards 8"):
        nodes_like_this(config(), 9, LINKS)


@pytest.mark.usefixtures("measured")
def test_the_plan_of_nodes_is_as_slow_as_the_slowest_and_names_who_lacks_what():
    own = make_plan(config(), PLENTY, lambda: TOKENS, nodes=nodes_like_this(config(), 2, LINKS))
    slow = replace(own.step, compute=1.0)
    made = as_slow_as(own, [SaidOfNode("a", own.step, [], ["x"]), SaidOfNode("b", slow, [], ["x", "y"])])
    assert made.step == slow and made.notes == ["x", "y"]
    assert made.run_seconds == pytest.approx(own.run_seconds * slow.total / own.step.total)
    lacking = as_slow_as(own, [SaidOfNode("a", own.step, [], []), SaidOfNode("b", None, ["memory: no"], [])])
    assert lacking.problems == ["b: memory: no"] and lacking.step is None and lacking.run_seconds is None


@pytest.mark.usefixtures("measured")
def test_a_plan_that_fits_has_times_and_no_problems():
    made = make_plan(config(run__workers=2), PLENTY, lambda: TOKENS)
    assert made.problems == [] and made.notes == []
    assert made.tokens_per_second == pytest.approx(512 / 0.1)
    assert made.run_seconds > 1000 * 0.1
    assert made.passes_over_text == pytest.approx(512_000 / 2048)
    table = plan_table(made, "tiny")
    for words in (
        "169,728 parameters",
        "gradient slots",
        "optimizer state",
        "staging for saves",
        "5,120 tokens/s",
    ):
        assert words in table
    assert table.endswith("it fits")


@pytest.mark.usefixtures("measured")
def test_all_that_is_missing_is_said_with_the_setting_to_change_and_nothing_is_measured():
    limits = replace(PLENTY, memory=100 << 20, disk=1 << 20)
    made = make_plan(config(run__workers=2, run__pin="[0, 999]"), limits, lambda: pytest.fail("prepared"))
    pin, memory, disk = made.problems
    assert "run.pin: CPU 999" in pin and memory.startswith("memory: ") and disk.startswith("disk: ")
    assert "run.workers to 1" in memory or "model" in memory
    assert made.step is None and made.run_seconds is None
    table = plan_table(made, "tiny")
    assert table.count("MISSING") == 3 and "not measured" in table and "it fits" not in table


@pytest.mark.usefixtures("measured")
def test_a_text_that_will_not_do_is_a_problem():
    def prepare():
        raise UsageError("the text has 3 bytes: give a longer one")

    made = make_plan(config(), PLENTY, prepare)
    assert made.problems == ["the text has 3 bytes: give a longer one"] and made.step is None


@pytest.mark.usefixtures("measured")
def test_what_is_slow_but_possible_is_a_note():
    made = make_plan(config(run__workers=3), PLENTY, lambda: TOKENS)
    shared, uneven = made.notes
    assert shared == "too many"
    assert "8 shards cannot be dealt out evenly to 3 workers" in uneven
    assert made.cores == 2 and made.problems == []
