"""What is read of a run, whole or damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from feste_dp.errors import UsageError
from feste_dp.report import chronicle as chronicle_module
from feste_dp.report.chronicle import Chronicle
from feste_dp.report.run_data import RunReader, config_difference, distinct_names, read_runs
from tests.report.conftest import event, history, row, times

MakeRun = Callable[..., Path]


def test_a_run_is_read_with_all_that_it_left(make_run: MakeRun) -> None:
    run = RunReader(make_run()).read()
    assert (run.name, run.last_step, len(run.times), run.status.state) == ("run", 40, 4, "finished")
    assert run.facts["workers"] == 2
    assert run.best is not None and run.best.step == 40
    assert (run.tokenizer.vocab_size, run.tokenizer.merges) == (270, 14)
    assert all(each.kind != "times" for each in run.events)


def test_a_run_is_read_again_as_it_grows(make_run: MakeRun) -> None:
    path = make_run(events=history(40, end=""))
    reader = RunReader(path)
    assert reader.read().status.state == "interrupted"
    with (path / "events.jsonl").open("a") as file:
        file.write('{"time":"2026-01-31T13:00:00Z","step":40,"kind":"finish","text":"done"}\n{"time":"2026')
    run = reader.read()
    assert (run.status.state, run.status.text) == ("finished", "done")


def test_a_run_without_history_is_read_too(make_run: MakeRun) -> None:
    path = make_run()
    (path / "events.jsonl").unlink()
    run = RunReader(path).read()
    assert (run.events, run.times, run.facts, run.status.state) == ([], [], {}, "finished")


def test_a_damaged_line_of_the_history_is_left_out(make_run: MakeRun) -> None:
    path = make_run()
    with (path / "events.jsonl").open("a") as file:
        file.write("\x00\x00\x00\n[1, 2]\n")
    assert RunReader(path).read().status.state == "finished"


def test_damaged_metrics_are_one_line_that_names_them(make_run: MakeRun) -> None:
    path = make_run()
    with (path / "metrics.csv").open("a") as file:
        file.write("what,is,this\n")
    with pytest.raises(UsageError, match=r"metrics\.csv or events\.jsonl cannot be read"):
        RunReader(path).read()


def test_times_of_steps_done_again_count_once() -> None:
    events = [times(10), times(20), times(30), event(15, "resume"), times(25), event(25, "finish")]
    chronicle = Chronicle(Path("none"))
    for each in events:
        chronicle.add(each)
    assert [each.step for each in chronicle.times] == [10, 25]
    assert [each.kind for each in chronicle.events] == ["resume", "finish"]


def test_another_look_at_a_run_takes_in_what_is_new_and_nothing_else(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(rows=[row(step) for step in range(1, 2001)])
    reader = RunReader(path)
    before = reader.read()
    taken, decoded = [], []
    monkeypatch.setattr(chronicle_module.Chronicle, "add", lambda self, event: taken.append(event))
    monkeypatch.setattr(chronicle_module, "decode_event", lambda line: decoded.append(line))
    after = reader.read()
    assert (taken, decoded) == ([], [])
    assert after.rows is before.rows and after.events is before.events and len(after.rows) == 2000


def test_the_same_run_given_twice_is_read_once(make_run: MakeRun) -> None:
    path = make_run()
    assert len(read_runs([path, path / ".." / path.name])) == 1


def test_runs_are_told_apart_by_as_much_of_their_paths_as_it_takes() -> None:
    paths = [Path("/a/x/run"), Path("/b/x/run")]
    assert distinct_names(paths) == ["a/x/run", "b/x/run"]
    assert distinct_names([Path("/a/one"), Path("/b/two")]) == ["one", "two"]


def test_the_keys_in_which_runs_differ_are_found(make_run: MakeRun) -> None:
    runs = read_runs([make_run("a"), make_run("b", optim={"lr": 0.002}, train={"steps": 40, "seed": 2})])
    assert config_difference(runs) == ["train.seed", "optim.lr"]


def test_the_best_row_is_not_one_without_a_number(make_run: MakeRun) -> None:
    rows = [row(1, val_loss=float("nan")), row(2, val_loss=3.0), row(3, val_loss=4.0)]
    best = RunReader(make_run(rows=rows)).read().best
    assert best is not None and best.step == 2
