"""feste-dp scale through the real command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from feste_dp.scale.study import read_study
from tests.cli.conftest import COMMAND, Feste, Place


@pytest.fixture(scope="module")
def study_directory(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one and two workers, two rounds of two steps, with both baselines."""
    out = tmp_path_factory.mktemp("study") / "out"
    arguments = ["--workers", "2,1", "--steps", "2", "--repeats", "2", "--warmup", "1", "--out", str(out)]
    done = subprocess.run(
        [*COMMAND, "scale", "--config", str(place.config), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "round 2 of 2: 1 worker" in done.stderr
    (out / "printed.txt").write_text(done.stdout)
    return out


def test_a_study_measures_every_count_in_every_round(study_directory: Path) -> None:
    study = read_study(study_directory)
    assert [count.workers for count in study.counts] == [1, 2]
    assert (study.kind, study.repeats, study.steps, study.warmup_steps) == ("strong", 2, 2, 1)
    for count in study.counts:
        assert len(count.tokens_per_second_each) == 2
        assert count.tokens_per_step == 8 * 16 and count.memory_bytes > 1 << 20
        assert count.reduce.gb_per_second > 0 and count.update.gb_per_second > 0
        assert 0 < count.gflops_per_second_per_core < count.peak_gflops_per_second_per_core
    assert study.counts[0].speedup.value == 1.0
    assert study.limit is not None and study.limit.at_workers == 2


def test_every_count_gave_the_same_loss_bits_and_the_study_says_so(study_directory: Path) -> None:
    study = read_study(study_directory)
    assert study.same_bits.agree
    assert "all 4 runs of 3 steps gave the same losses, bit for bit" in study.same_bits.sentence
    assert study.counts[0].loss_sha256 == study.counts[1].loss_sha256
    assert study.same_bits.sentence.split(",")[0] in (study_directory / "printed.txt").read_text()


def test_one_process_without_workers_takes_the_same_steps(study_directory: Path) -> None:
    one = next(b for b in read_study(study_directory).baselines if b.name == "one process")
    assert one.skipped is None and len(one.tokens_per_second_each) == 2
    apart = float(one.what.partition("within ")[2].split()[0])
    assert apart < 1e-6
    assert one.memory_bytes is not None and one.memory_bytes > 1 << 20


def test_pytorch_is_measured_where_it_is_installed(study_directory: Path) -> None:
    pytest.importorskip("torch")
    torch = next(b for b in read_study(study_directory).baselines if b.name == "PyTorch")
    assert torch.skipped is None and len(torch.tokens_per_second_each) == 2


def test_the_program_runs_without_pytorch_and_says_so(place: Place, tmp_path: Path) -> None:
    program = (
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n in ('torch', 'matplotlib') else real(n, *a)\n"
        "from feste_dp.cli.main import main\n"
        "main()\n"
    )
    arguments = ["scale", "--config", str(place.config), "--workers", "1", "--steps", "1", "--warmup", "0"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--repeats", "1", "--out", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "PyTorch        skipped: PyTorch is not installed" in done.stdout
    assert "pip install 'feste-dp[plot]'" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scaling.csv", "scaling.json"]


def test_weak_scaling_compares_each_batch_with_one_worker(place: Place, feste: Feste, tmp_path: Path) -> None:
    arguments = ["--weak", "--workers", "1,2", "--steps", "1", "--warmup", "1", "--repeats", "1", "--json"]
    result = feste(
        "scale", "--config", place.config, *arguments, "--no-baselines", "--out", tmp_path / "weak"
    )
    assert result.status == 0, result.err
    study = json.loads(result.out)
    assert [count["tokens_per_step"] for count in study["counts"]] == [128, 256]
    assert study["same_bits"]["agree"] and "as one worker on it" in study["same_bits"]["sentence"]
    assert study["fits"][0]["law"] == "Gustafson"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--workers", "1,8"],
            "--workers: 8 is more than train.shards 4; use at most 4, or more shards: --set train.shards=8",
        ),
        (["--workers", "1,1"], "a count is there twice"),
        (["--workers", "1,x"], "expected a whole number"),
        (["--workers", ""], "expected a whole number"),
        (["--workers", "0"], "expected a whole number from 1"),
        (["--workers", "1", "--repeats", "0"], "expected a whole number from 1"),
    ],
)
def test_bad_counts_are_one_line_and_nothing_is_made(
    place: Place, feste: Feste, tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = feste("scale", "--config", place.config, *arguments, "--out", tmp_path / "out")
    assert result.status == 2 and words in result.err
    assert result.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_losses_that_differ_end_with_status_1_and_the_files_are_written(
    place: Place, feste: Feste, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feste_dp.scale import measuring

    real = measuring.measure_steps

    def wrong(config, workers, *rest):  # type: ignore[no-untyped-def]
        measured = real(config, workers, *rest)
        if workers == 2:
            measured.losses[-1] += 1e-12
        return measured

    monkeypatch.setattr(measuring, "measure_steps", wrong)
    arguments = ["--workers", "1,2", "--steps", "1", "--warmup", "0", "--repeats", "1", "--no-baselines"]
    result = feste("scale", "--config", place.config, *arguments, "--out", tmp_path / "out")
    assert result.status == 1 and "DIFFERENT LOSSES: step 1 with 2 workers" in " ".join(result.out.split())
    assert not read_study(tmp_path / "out").same_bits.agree
