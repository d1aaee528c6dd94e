"""A study over node counts, from what bench printed on each; and how bench is started there."""

import csv
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feste_dp.bench.step_report import StepReport, Yardsticks, step_report
from feste_dp.config.schema import Config
from feste_dp.errors import RunError, UsageError
from feste_dp.json_text import json_text
from feste_dp.machine.memory import Memory
from feste_dp.nodes.link_speed import LinkSpeed
from feste_dp.nodes.team import NodeFacts
from feste_dp.report.study_sections import read_study_part
from feste_dp.run.step_times import StepTimes
from feste_dp.scale.files import write_study
from feste_dp.scale.launching import NODES, Launcher, bench_on_nodes, find_launcher
from feste_dp.scale.node_study import NodePlan, NodeRuns, make_node_study
from feste_dp.scale.study import Study, read_study, study_from_json, study_to_json
from feste_dp.scale.table import study_csv, study_table
from tests.scale.studies import MACHINE

LARGE = Config.model_validate({"model": {"vocab_size": 8192, "n_layer": 2, "n_head": 2, "n_embd": 128}})
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def report(nodes: int, step: float, loss: float = 3.0, sharing: int = 1) -> StepReport:
    """Of a step that computes for `step` and, on several nodes, exchanges for 20 ms."""
    several = nodes > 1
    times = StepTimes(
        step + (0.03 if several else 0.01),
        [step, step],
        [0.0],
        0.01,
        node_seconds=[step] * nodes if several else [],
        exchange=0.02 if several else 0.0,
    )
    facts = [NodeFacts(f"node {i} (a)", "a CPU", 2, 2, 8 // nodes, None, sharing) for i in range(nodes)]
    return step_report(
        LARGE, 2, 2, "a CPU", Yardsticks(1e12, 2e9, 4e9, 1e9), [times] * 4, [4.0, loss],
        Memory(1 << 20, 0, 0, [0], 0), facts if several else [], LinkSpeed(1e-4, 1e9) if several else None,
    )  # fmt: skip


def plan(kind: str = "strong") -> NodePlan:
    return NodePlan(kind, LARGE, [1, 2, 4], 4, 1, 2, Launcher(("true",)), ["--config", "c"])  # type: ignore[arg-type]


def study(loss: float = 3.0, sharing: int = 1) -> Study:
    found = [
        NodeRuns(1, [report(1, 0.4), report(1, 0.41)]),
        NodeRuns(2, [report(2, 0.2, sharing=sharing), report(2, 0.2)]),
        NodeRuns(4, [report(4, 0.1), report(4, 0.1, loss)]),
    ]
    return make_node_study(plan(), "large", MACHINE, found, 0.0, NOW)


def test_speed_up_and_efficiency_are_against_one_node_and_the_network_is_the_limit():
    made = study()
    assert [(count.nodes, count.workers, count.cores) for count in made.counts] == [
        (1, 2, 2),
        (2, 4, 4),
        (4, 8, 8),
    ]
    last = made.counts[-1]
    assert last.speedup.value == pytest.approx(0.415 / 0.13, rel=0.01)
    assert last.efficiency.value == pytest.approx(last.speedup.value / 4)
    assert last.phases_ms["exchange"] == pytest.approx(20.0)
    assert last.exchange is not None and last.exchange.share_of_link > 0
    assert made.limit is not None and made.limit.cause == "network"
    assert "At 4 nodes the limit is network" in made.limit.sentence
    assert [fit.counts for fit in made.fits] == [[1, 2, 4]] * 2
    assert "beyond 4 nodes" in made.fits[0].note


def test_the_files_come_back_and_the_table_csv_page_and_drawing_speak_of_nodes(tmp_path: Path):
    made = study()
    assert study_from_json(study_to_json(made)) == made
    table = study_table(made)
    for words in ("nodes, workers", "4, 8", "exchange GB/s", "with 1 node;", "on 1, 2, 4 nodes, all 6 runs"):
        assert words in table, words
    assert max(map(len, table.splitlines())) <= 110
    rows = list(csv.DictReader(study_csv(made).splitlines()))
    assert [(row["what"], row["nodes"], row["workers"]) for row in rows] == [
        ("nodes", "1", "2"), ("nodes", "2", "4"), ("nodes", "4", "8"),
    ]  # fmt: skip
    assert rows[0]["exchange_ms"] == "0.000" and rows[1]["exchange_ms"] == "20.000"
    write_study(made, tmp_path / "out")
    assert read_study(tmp_path / "out") == made
    part = read_study_part(tmp_path / "out")
    assert "Throughput over nodes" in part and "exchange ms" in part and "speed-up per node" in part


def test_one_bit_of_difference_between_node_counts_is_said_loudly():
    made = study(loss=3.0000000000000004)
    assert not made.same_bits.agree
    assert "DIFFERENT LOSSES: step 2 on 4 nodes" in made.same_bits.sentence


def test_nodes_that_share_cpus_are_a_trial_and_no_measurement():
    made = study(sharing=2)
    assert "2 nodes ran on the same CPUs" in made.warnings[0]
    assert made.counts[1].above_cores and made.fits[0].counts == [1, 4]


def test_a_weak_study_gives_bench_a_batch_in_proportion():
    batch = LARGE.train.batch_size
    assert f"train.batch_size={4 * batch}" in plan("weak").arguments_of(4)
    assert "train.batch_size" not in " ".join(plan().arguments_of(4))


def script(folder: Path, text: str) -> Launcher:
    path = folder / "launcher.py"
    path.write_text(text)
    return Launcher((sys.executable, str(path), NODES))


def test_what_bench_printed_behind_the_launchers_own_words_is_taken(tmp_path: Path):
    made = report(2, 0.2)
    text = f"print('launcher 1.0')\nprint({json_text(asdict(made), indent=2)!r})\n"
    assert bench_on_nodes(script(tmp_path, text), 2, [], {}) == made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "import sys; sys.stderr.write('-----\\nerror: --config: no\\n'); sys.exit(2)",
            "failed: --config: no",
        ),
        ("import sys; sys.exit(3)", "failed: exit status 3"),
        ("import sys; print('no slots', file=sys.stderr); sys.exit(1)", "failed: no slots"),
        ("print('hello')", "printed no report"),
        ("print('{}')", "printed no report"),
    ],
)
def test_a_bench_that_fails_is_one_line(tmp_path: Path, text: str, words: str):
    with pytest.raises(RunError) as raised:
        bench_on_nodes(script(tmp_path, text), 2, [], {})
    assert words in str(raised.value) and "on 2 nodes" in str(raised.value)


def test_a_launcher_that_starts_another_number_is_named(tmp_path: Path):
    alone = replace(report(1, 0.2), nodes=[])
    with pytest.raises(RunError, match="was to start 2 nodes and started 1"):
        bench_on_nodes(script(tmp_path, f"print({json_text(asdict(alone))!r})"), 2, [], {})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("mpirun -n 2", "lacks {nodes}"),
        ("no-such-launcher -n {nodes}", "there is no no-such-launcher"),
        ("mpirun -n '{nodes}", "not a command line"),
    ],
)
def test_a_launcher_that_cannot_be_is_one_line(given: str, words: str):
    with pytest.raises(UsageError, match=words) as raised:
        find_launcher(given)
    assert raised.value.about == "launcher"


def test_without_mpirun_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UsageError, match="pip install 'feste-dp\\[mpi\\]'"):
        find_launcher(None, path=str(tmp_path))
    (tmp_path / "mpirun").touch()
    assert find_launcher(None).command(3, ["x"])[-3:] == ["-n", "3", "x"]
