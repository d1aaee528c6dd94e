"""The time of a step on several nodes, and where the network becomes its limit."""

import pytest

from feste_dp.config.loading import load_config
from feste_dp.config.schema import Config
from feste_dp.model.parameters import parameter_count
from feste_dp.nodes.link_speed import LinkSpeed
from feste_dp.plan.arithmetic import flops_per_token
from feste_dp.plan.network import GBIT, OF_STREAM, exchange_seconds, part_of, plan_network
from feste_dp.plan.network_table import network_table
from feste_dp.plan.step_time import Speed

GPT2 = ("gpt2_87m", "gpt2_124m", "gpt2_355m", "gpt2_774m", "gpt2_1558m")
NODE = Speed(16, 60e9, 100e9)
FAST = LinkSpeed(0.0, 1e9)


def batch_of(name: str, sequences: int) -> Config:
    config = load_config(name)
    batch = {"batch_size": sequences, "shards": sequences, "micro_batch": 1}
    return config.model_copy(update={"train": config.train.model_copy(update=batch)})


def test_the_parts_of_all_nodes_are_the_batch():
    config = batch_of("gpt2_124m", 64)
    part = part_of(config, 16)
    assert 4 * part.tokens_per_step == config.tokens_per_step
    assert part.train.sequences_per_shard == config.train.sequences_per_shard


def test_the_exchange_of_a_large_gradient_takes_its_bytes_and_of_a_small_one_mostly_the_latency():
    large, small = 100_000_000, 100_000
    assert exchange_seconds(large, 1, FAST) == 0.0
    assert exchange_seconds(large, 2, FAST) == pytest.approx(4e8 / 1e9 / OF_STREAM)
    assert exchange_seconds(large, 1024, FAST) == pytest.approx(8e8 / 1e9 / OF_STREAM, rel=2e-3)
    slow_words = LinkSpeed(1e-3, 1e12)
    assert exchange_seconds(small, 2, slow_words) == pytest.approx(1e-3, rel=1e-3)
    assert exchange_seconds(large, 2, slow_words) > 3e-3


@pytest.mark.parametrize("name", GPT2)
def test_at_the_limit_computing_takes_as_long_as_the_exchange(name: str):
    config = batch_of(name, 256)
    plan = plan_network(name, config, NODE, [1, 2, 4, 8, 16], 10, 50e-6)
    computing = plan.tokens_at_the_limit * flops_per_token(config.model) / (16 * 60e9)
    assert computing == pytest.approx(plan.exchange_s * 16 / 15, rel=1e-3)  # between many nodes
    assert plan.exchange_s == pytest.approx(
        exchange_seconds(parameter_count(config.model), 16, LinkSpeed(50e-6, 10 * GBIT))
    )
    assert plan.limit_nodes * plan.tokens_at_the_limit == pytest.approx(config.tokens_per_step)


def test_the_limit_hardly_depends_on_the_model_and_goes_with_the_link():
    plans = [plan_network(name, batch_of(name, 256), NODE, [1, 16], 10, 50e-6) for name in GPT2]
    limits = [plan.tokens_at_the_limit for plan in plans]
    assert max(limits) / min(limits) < 1.1
    faster = plan_network("gpt2_124m", batch_of("gpt2_124m", 256), NODE, [1, 16], 100, 50e-6)
    assert faster.tokens_at_the_limit == pytest.approx(limits[1] / 10, rel=0.01)


def test_efficiency_falls_with_nodes_and_with_slower_links():
    plans = [
        plan_network("gpt2_124m", batch_of("gpt2_124m", 256), NODE, [1, 2, 4, 8, 16], gbit, 50e-6)
        for gbit in (1, 10, 100)
    ]
    for plan in plans[:2]:
        each = [plan.efficiency(nodes) for nodes in plan.step_s]
        assert each[0] == 1.0 and each == sorted(each, reverse=True)
    slow, middle, fast = (plan.efficiency(16) for plan in plans)
    assert slow < middle < fast


def test_the_table_has_a_line_for_each_config_and_link():
    plans = [
        plan_network(name, batch_of(name, 256), NODE, [1, 2, 4, 8], gbit, 50e-6)
        for name in GPT2
        for gbit in (10, 25, 100)
    ]
    table = network_table(plans, NODE, 50e-6)
    assert all(name in table for name in GPT2)
    assert "nodes of 16 cores at 60 GF/s each" in table and "262,144 tokens a step" in table
    assert len([line for line in table.splitlines() if line.rstrip().endswith("%")]) == 15
    assert max(map(len, table.splitlines())) <= 110
