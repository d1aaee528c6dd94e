import json
from dataclasses import asdict

import pytest

from feste_dp.bench.step_report import (
    Spread,
    StepReport,
    Yardsticks,
    phase_means_ms,
    reduce_bytes,
    spread,
    step_report,
)
from feste_dp.bench.step_table import step_table
from feste_dp.config.schema import Config
from feste_dp.machine.memory import Memory
from feste_dp.model.parameters import parameter_count
from feste_dp.nodes.link_speed import LinkSpeed
from feste_dp.nodes.team import NodeFacts
from feste_dp.optim.optimizer import update_bytes
from feste_dp.plan.arithmetic import flops_per_token
from feste_dp.run.step_times import ALL_PHASES, PHASES, StepTimes

CONFIG = Config.model_validate(
    {
        "model": {"vocab_size": 256, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 4, "dropout": 0.0},
        "train": {"batch_size": 8, "shards": 4},
    }
)


def times(total: float) -> StepTimes:
    return StepTimes(total, [0.4 * total, 0.5 * total], [0.02 * total, 0.05 * total], 0.1 * total)


def report(seconds, losses=(5.0, 4.0, 3.0)):
    yardsticks = Yardsticks(1e9, 2e9, 4e9, 1e9)
    memory = Memory(10 << 20, 1 << 20, 3 << 20, [3 << 20, 3 << 20], 9 << 20)
    return step_report(CONFIG, 2, 2, "a CPU", yardsticks, [times(s) for s in seconds], losses, memory)


def test_the_phases_of_a_step_sum_up_to_it():
    step = times(2.0)
    assert step.compute == pytest.approx(0.9)
    assert step.wait == pytest.approx(0.1)
    assert step.reduce == pytest.approx(0.1)
    assert step.control == pytest.approx(0.7)
    assert sum(getattr(step, name) for name in PHASES) == pytest.approx(step.total)


def test_the_mean_phases_add_up_to_the_middle_steps_and_an_interruption_does_not_count():
    phases = phase_means_ms([times(s) for s in (0.009, 0.010, 0.012, 5.0)])
    assert sum(phases.values()) == pytest.approx(11.0)
    assert phases["compute"] == pytest.approx(0.45 * 11.0)


def test_the_spread_has_the_median_the_quartiles_and_the_ends():
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(3.0, 2.0, 4.0, 1.0, 5.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0, 7.0, 7.0)


def test_arithmetic_is_the_model_s_own_over_the_cores_and_a_share_of_the_peak():
    made = report([0.5, 0.5])
    assert made.tokens_per_second.median == 128.0
    assert made.gflops_per_second_per_core == pytest.approx(128 * flops_per_token(CONFIG.model) / 2 / 1e9)
    assert made.share_of_peak == pytest.approx(made.gflops_per_second_per_core / 1.0)


def test_bandwidth_counts_every_slot_once_and_the_state_of_adamw_twice():
    parameters = parameter_count(CONFIG.model)
    assert reduce_bytes(CONFIG, 2) == 5 * 4 * parameters
    update = update_bytes(CONFIG.optim, parameters)
    assert update == 7 * 4 * parameters
    made = report([1.0])
    assert made.reduce.gb_per_second == pytest.approx(reduce_bytes(CONFIG, 2) / 0.05 / 1e9)
    assert made.reduce.share_of_triad == pytest.approx(made.reduce.gb_per_second / 2.0)
    assert made.update.share_of_triad == pytest.approx(made.update.gb_per_second / 4.0)


LARGE = Config.model_validate({"model": {"vocab_size": 8192, "n_layer": 2, "n_head": 2, "n_embd": 128}})
NODES = [NodeFacts("node 0 (a)", "a CPU", 2, 2, 4), NodeFacts("node 1 (b)", "a CPU", 4, 2, 4)]


def of_nodes(config: Config = LARGE) -> StepReport:
    step = StepTimes(
        0.1, [0.05, 0.06], [0.01], 0.01, node_seconds=[0.06, 0.05], node_wait=0.002, exchange=0.01
    )
    links = LinkSpeed(latency_s=1e-4, bytes_per_second=2e9)
    memory = Memory(1, 1, 1, [1, 1], 1)
    return step_report(
        config, 2, 2, "a CPU", Yardsticks(1e9, 2e9, 4e9, 1e9), [step], [3.0], memory, NODES, links
    )


def test_several_nodes_have_an_exchange_with_its_bandwidth_against_the_link():
    made = of_nodes()
    parameters = parameter_count(LARGE.model)
    assert list(made.phases_ms) == list(ALL_PHASES)
    assert sum(made.phases_ms.values()) == pytest.approx(100.0)
    assert made.exchange is not None and made.exchange.bytes == 4 * parameters  # 2 (N - 1) / N of it
    assert made.exchange.gb_per_second == pytest.approx(4 * parameters / 0.01 / 1e9)
    assert made.exchange.share_of_link == pytest.approx(4 * parameters / 0.01 / 2e9)
    flops = flops_per_token(LARGE.model) * made.tokens_per_second.median
    assert made.gflops_per_second_per_core == pytest.approx(flops / 4 / 1e9)  # of both nodes' cores
    table = step_table(made)
    for words in (
        "on 2 nodes of 2 workers",
        "nodes          node 0 (a): 4 shards on 2 workers, a CPU\n               node 1 (b): 4 shards",
        "  exchange        10.000 ms  10.0%",
        "slowest node",
        "of a plain stream's 2.00",
        "a word to all takes 100 us",
    ):
        assert words in table, words


def test_a_small_gradient_is_said_to_be_sent_whole():
    assert "MB sent whole" in step_table(of_nodes(CONFIG))


def test_one_machine_has_no_exchange():
    assert "exchange" not in step_table(report([1.0])) and report([1.0]).exchange is None


def test_the_table_and_the_json_say_the_same():
    made = report([0.5, 0.5])
    assert json.loads(json.dumps(asdict(made)))["tokens_per_second"]["median"] == 128.0
    assert (made.warmup_steps, made.steps, made.first_loss, made.last_loss) == (1, 2, 5.0, 3.0)
    table = step_table(made)
    for words in (
        "tokens/s       128",
        "control        175,000 us",
        "10 MiB: arena 1 MiB",
        made.flops_formula,
    ):
        assert words in table
    assert all(f"  {name}" in table for name in PHASES)
