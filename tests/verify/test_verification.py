"""What `feste-dp verify` says, of runs that are not trained here: the golden test trains them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from feste_dp.cli import verify as cli
from feste_dp.errors import RunError
from feste_dp.verify import remake, verification
from feste_dp.verify.golden_run import Outcome, StoppedError, first_other_step
from feste_dp.verify.kernel_cases import kernel_cases
from feste_dp.verify.table import RunHashes, Table, read_table
from tests.cli.conftest import Feste, feste  # noqa: F401

ROWS = "11111111 22222222 33333333"
BROKEN = RunHashes(state="0" * 64, metrics="1" * 64, rows="11111111 2222222f 3333333f")


@pytest.fixture
def table() -> Table:
    return read_table()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, table: Table) -> dict[str, RunHashes]:
    """Trains nothing: each run gives what the table says, or what the test puts here."""
    given: dict[str, RunHashes] = {}

    def train(table: Table, run, workers: int):
        hashes = given.get(run.name, run.hashes)
        return Outcome(hashes, clipped=1, steps=len(hashes.rows.split())), [f"{workers} workers are many"]

    monkeypatch.setattr(verification, "train_in_passing", train)
    monkeypatch.setattr(remake, "train_in_passing", train)
    monkeypatch.setattr(cli, "compile_with_notice", lambda: None)
    return given


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch, table: Table) -> dict[str, str]:
    """The hashes that the kernels give."""
    found = dict(table.kernels)
    for module in (verification, remake):
        monkeypatch.setattr(module, "hash_kernels_in_a_process", lambda environ: found)
    return found


def test_where_all_is_the_same_it_says_so_and_looks_at_no_kernel(trained, feste: Feste, monkeypatch):  # noqa: F811
    monkeypatch.setattr(verification, "hash_kernels_in_a_process", lambda environ: pytest.fail("looked"))
    result = feste("verify", "--workers", "1")
    assert result.status == 0
    assert result.out.count(": the same, ") == 6
    assert result.err.count("1 workers are many") == 1  # each run has the same warnings
    for word in ("cpu ", "compiled ", "releases ", "numpy ", "numba "):
        assert word in result.out


def test_the_first_kernel_that_differs_is_named_with_its_file_and_the_step(
    trained,
    kernels,
    feste: Feste,  # noqa: F811
    table: Table,
):
    trained["odd bf16"] = BROKEN
    kernels["layernorm backward"] = kernels["adamw"] = "0" * 64
    result = feste("verify")
    assert result.status == 1
    assert "odd        bf16  3 steps" in result.out
    assert "OTHER weights, m, v and metrics.csv, metrics from step 1 on" in result.out
    assert (
        "the first kernel that differs is layernorm backward (feste_dp/kernels/layernorm.py), then adamw"
    ) in result.out


def test_where_a_run_differs_and_no_kernel_the_listings_are_named(trained, kernels, feste: Feste):  # noqa: F811
    trained["tiny fp32"] = BROKEN
    result = feste("verify", "--run", "tiny")
    assert result.status == 1
    assert "each kernel alone gives its own: the listings" in result.out


def test_json_has_the_hashes_and_the_kernels(trained, kernels, feste: Feste):  # noqa: F811
    trained["tiny fp32"] = BROKEN
    kernels["adamw"] = "0" * 64
    result = feste("verify", "--json", "--run", "tiny")
    found = json.loads(result.out)
    assert (result.status, found["holds"], found["other_kernels"]) == (1, False, ["adamw"])
    assert [run["same"] for run in found["runs"]] == [False, True]
    assert found["runs"][0]["state_sha256"] == BROKEN.state


def test_a_config_that_the_table_has_not_is_refused(trained, feste: Feste):  # noqa: F811
    result = feste("verify", "--run", "huge")
    assert (result.status, result.out) == (2, "")
    assert result.err == "error: --run: no 'huge' in the table; it has tiny, odd, medium\n"


def test_a_signal_ends_it_with_its_status(trained, feste: Feste, monkeypatch):  # noqa: F811
    def stopped(*_: object) -> Iterator[None]:
        raise StoppedError(143)

    monkeypatch.setattr(verification, "train_in_passing", stopped)
    assert feste("verify").status == 143


def test_the_step_where_metrics_part_is_found():
    wanted = RunHashes(state="", metrics="", rows=ROWS)
    assert first_other_step(BROKEN, wanted) == 2
    assert first_other_step(wanted, wanted) is None


def test_every_kernel_has_a_name_of_its_own_and_a_file():
    cases = list(kernel_cases())
    assert len({case.name for case in cases}) == len(cases) > 30
    for case in cases:
        assert Path(verification.source_of(case.name)).exists(), case


def test_a_remade_table_is_of_this_arithmetic_and_keeps_its_configs(trained, kernels, table: Table):
    old = table.model_copy(update={"arithmetic": 1, "kernels": {}})
    assert remake.remade(old) == table


@pytest.mark.parametrize(
    ("clipped", "same", "reason"),
    [(0, True, "no gradient was clipped"), (1, False, "two worker counts give different bits")],
)
def test_what_proves_nothing_gets_into_no_table(
    kernels, table: Table, monkeypatch, clipped: int, same: bool, reason: str
):
    def train(table: Table, run, workers: int):
        return Outcome(run.hashes if same or workers == 1 else BROKEN, clipped, 3), []

    monkeypatch.setattr(remake, "train_in_passing", train)
    with pytest.raises(RunError, match=reason):
        remake.remade(table)
