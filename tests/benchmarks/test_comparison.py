import importlib.util
import json
from pathlib import Path

from click.testing import CliRunner

from benchmarks import compare, contenders
from benchmarks.comparison import OURS, Contender, as_json, best, ratio, table
from benchmarks.contenders import PEERS, ContenderError, Round, Task, missing

ROOT = Path(__file__).parents[2]
TINY = ROOT / "configs" / "tiny.yaml"


def measured() -> list[Contender]:
    return [
        Contender(OURS, [300.0, 310.0, 305.0], 1 << 20),
        Contender("torch", [100.0, 90.0, 110.0], 2 << 20),
        Contender("torch-ddp", [80.0], 3 << 20),
        Contender("torch-tuned", [244.0], 2 << 20),
        Contender("torch-compiled", skipped="no compiler"),
    ]


def task(**changes: object) -> Task:
    settings = {"config": TINY, "precision": "fp32", "workers": 2, "batch_size": 8, "shards": 2}
    settings |= {"micro_batch": 4, "dropout": 0.0, "steps": 1, "warmup": 0}
    return Task(**settings | changes)  # type: ignore[arg-type]


def test_the_ratio_is_that_of_the_medians_to_the_best_of_each_kind():
    all_of_them = measured()
    stock, tuned = best(all_of_them, tuned=False), best(all_of_them, tuned=True)
    assert stock is not None and stock.name == "torch" and ratio(all_of_them, stock) == 3.05
    assert tuned is not None and ratio(all_of_them, tuned) == 1.25
    assert ratio(all_of_them[1:], stock) is None
    assert best(all_of_them[:1], tuned=False) is None


def test_the_table_has_every_contender_and_says_who_was_skipped():
    lines = table("a title", measured()).splitlines()
    assert lines[0] == "a title"
    assert lines[2].split() == ["feste-dp", "305", "300", "to", "310", "1", "MiB"]
    assert lines[3].split() == ["torch", "100", "90", "to", "110", "2", "MiB", "3.05x"]
    assert "torch-compiled  skipped: no compiler" in lines[6]
    assert lines[-2:] == [
        "  feste-dp / best stock peer (torch): 3.05",
        "  feste-dp / best tuned peer (torch-tuned): 1.25",
    ]


def test_what_is_stored_has_the_rounds_and_the_ratios():
    stored = json.loads(json.dumps(as_json("a title", measured())))
    assert stored["ratio_to_best_stock_peer"] == 3.05 and stored["best_tuned_peer"] == "torch-tuned"
    assert stored["contenders"][4]["skipped"] == "no compiler"
    assert stored["contenders"][0]["tokens_per_second_rounds"] == [300.0, 310.0, 305.0]


def test_a_peer_that_is_not_installed_is_skipped_with_a_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert {missing(name, task(), None) for name in PEERS} == {"PyTorch is not installed"}
    assert missing(OURS, task(), None) is None


def test_what_a_peer_lacks_is_named(monkeypatch):
    monkeypatch.setattr(contenders.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert "C++ compiler" in str(missing("torch-compiled", task(), None))
    assert "more than one worker" in str(missing("torch-ddp", task(workers=1), None))
    assert "does not divide" in str(missing("torch-ddp", task(workers=3), None))
    assert "vendor check" in str(missing("torch-tuned", task(), None))


def test_contenders_run_by_turns_and_one_that_fails_is_left_out(monkeypatch, tmp_path):
    order = []

    def run(name, *rest):
        order.append(name)
        if name == "torch-ddp":
            raise ContenderError("it broke")
        return Round([0.5, 0.25, 1.0], 1 << 20)

    monkeypatch.setattr(compare, "run_round", run)
    results = compare.compare(task(), [OURS, "torch", "torch-ddp"], 2, None, tmp_path)
    assert order == [OURS, "torch", "torch-ddp", OURS, "torch"]
    assert [each.median for each in results] == [1024.0, 1024.0, None]
    assert results[2].skipped == "it broke"


def test_the_batch_is_that_of_the_published_figures_and_every_override_is_a_key():
    made = compare.make_task(ROOT / "configs" / "gpt2_87m.yaml", "bf16", 2, 4, 0.1, None)
    assert (made.batch_size, made.micro_batch) == (4, 1)
    assert made.overrides == [
        "train.batch_size=4",
        "train.shards=4",
        "train.micro_batch=1",
        "model.dropout=0.1",
        "train.precision=bf16",
    ]
    medium, tiny = (
        compare.make_task(ROOT / "configs" / f"{name}.yaml", "fp32", 2, 2, 0.0, 7)
        for name in ("medium", "tiny")
    )
    assert (medium.batch_size, medium.micro_batch) == (16, 1)
    assert (tiny.batch_size, tiny.micro_batch) == (8, 4)  # all of a shard


def test_the_settings_of_others_do_not_reach_a_contender():
    environ = {"OPENBLAS_CORETYPE": "x", "OMP_NUM_THREADS": "9", "LD_PRELOAD": "x", "HOME": "/h"}
    assert contenders._environment(environ) == {"HOME": "/h", "PYTHONPATH": str(ROOT)}


def test_an_unknown_peer_is_bad_usage():
    result = CliRunner().invoke(compare.main, ["--peers", "tensorflow"])
    assert result.exit_code == 2 and "unknown peer 'tensorflow'" in result.output
    assert compare.chosen_peers("torch,torch-compiled", compiled=False) == ["torch"]
