"""Each tracker is given a run, and what it left is read back by its own library where there is one here."""

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from feste_dp.config.dumping import dump_config, flat_values
from feste_dp.config.schema import Config
from feste_dp.errors import UsageError
from feste_dp.run.events import Event
from feste_dp.run.trackers import choosing
from feste_dp.run.trackers.choosing import make_trackers
from feste_dp.run.trackers.tracker import RunFacts, Tracker
from feste_dp.run.trackers.weights_and_biases import WeightsAndBiases

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SAMPLE = "HAMLET.\n<b>To be</b>\n"


def facts(directory: Path, first_step: int = 0) -> RunFacts:
    directory.mkdir(exist_ok=True)
    return RunFacts(directory, flat_values(Config()), dump_config(Config()), first_step)


def follow(tracker: Tracker, run: RunFacts, steps: range) -> None:
    tracker.start(run)
    for step in steps:
        tracker.scalars(step, {"loss/train": 8.0 - step, "optim/learning_rate": 1e-3})
    tracker.scalars(steps[-1], {"loss/validation": 2.5})
    tracker.text(steps[-1], "sample", SAMPLE)
    tracker.event(Event(NOON, steps[-1], "save", "saved", {"seconds": 0.1}))
    tracker.close()


def test_json_lines_hold_config_scalars_samples_and_events(tmp_path: Path) -> None:
    (tracker,) = make_trackers(["jsonl"])
    follow(tracker, facts(tmp_path / "run"), range(1, 4))
    lines = [json.loads(line) for line in (tmp_path / "run/tracker.jsonl").read_text().splitlines()]
    assert lines[0]["config"] == flat_values(Config())
    assert (lines[0]["type"], lines[0]["run"], lines[0]["step"]) == ("start", "run", 0)
    assert lines[2] == {"type": "scalars", "step": 2, "loss/train": 6.0, "optim/learning_rate": 1e-3}
    assert lines[-2] == {"type": "text", "step": 3, "tag": "sample", "text": SAMPLE}
    assert (lines[-1]["kind"], lines[-1]["seconds"]) == ("save", 0.1)


def test_json_lines_after_a_resume_follow_those_before(tmp_path: Path) -> None:
    run = tmp_path / "run"
    follow(make_trackers(["jsonl"])[0], facts(run), range(1, 4))
    follow(make_trackers(["jsonl"])[0], facts(run, first_step=2), range(3, 5))
    lines = [json.loads(line) for line in (run / "tracker.jsonl").read_text().splitlines()]
    starts = [line["step"] for line in lines if line["type"] == "start"]
    assert starts == [0, 2]


def test_json_lines_are_json_when_a_loss_is_not_a_number(tmp_path: Path) -> None:
    (tracker,) = make_trackers(["jsonl"])
    tracker.start(facts(tmp_path / "run"))
    tracker.scalars(1, {"a": math.nan, "b": math.inf, "c": 1.0})
    tracker.close()
    last = (tmp_path / "run/tracker.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == {"type": "scalars", "step": 1, "a": None, "b": None, "c": 1.0}


def tensorboard_values(directory: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, list[bytes]]]:
    """Scalars and texts by tag, as the event files hold them: length, checksum, protobuf, checksum."""
    from tensorboardX.proto.event_pb2 import Event as Record

    scalars: dict[str, list[tuple[int, float]]] = {}
    texts: dict[str, list[bytes]] = {}
    for path in sorted(directory.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            record = Record.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in record.summary.value:
                if value.HasField("simple_value"):
                    scalars.setdefault(value.tag, []).append((record.step, value.simple_value))
                else:
                    content_bytes = b"".join(value.tensor.string_val) or value.metadata.plugin_data.content
                    texts.setdefault(value.tag, []).append(content_bytes)
    return scalars, texts


def test_tensorboard_files_hold_scalars_samples_and_hyper_parameters(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    (tracker,) = make_trackers(["tensorboard"])
    follow(tracker, facts(tmp_path / "run"), range(1, 4))
    scalars, texts = tensorboard_values(tmp_path / "run/tensorboard")
    assert scalars["loss/train"] == [(1, 7.0), (2, 6.0), (3, 5.0)]
    assert scalars["loss/validation"] == [(3, 2.5)]
    assert texts["sample/text_summary"] == [b"    HAMLET.\n    <b>To be</b>"]
    assert b"vocab_size: 1024" in texts["config/text_summary"][0]
    (start,) = texts["_hparams_/session_start_info"]
    assert b"optim.weight_decay" in start and b"data.corpus" in start
    assert texts["event/save/text_summary"] == [b"    saved"] or texts["event/save/text_summary"] == [
        b"saved"
    ]


def test_a_resume_lets_tensorboard_hide_the_steps_done_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import SessionLog

    run = tmp_path / "run"
    follow(make_trackers(["tensorboard"])[0], facts(run, first_step=40), range(41, 43))
    (path,) = (run / "tensorboard").iterdir()
    from tensorboardX.proto.event_pb2 import Event as Record

    content, logs = path.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        record = Record.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        if record.HasField("session_log"):
            logs.append((record.session_log.status, record.step))
    assert logs == [(SessionLog.START, 41)]


def test_wandb_keeps_an_offline_run_that_it_can_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tracker,) = make_trackers(["wandb"])
    follow(tracker, facts(tmp_path / "run"), range(1, 4))
    (file,) = (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")
    written = file.read_bytes()
    for words in (b"loss/train", b"loss/validation", b"optim.weight_decay", b"event/save"):
        assert words in written
    known = (tmp_path / "run/wandb/feste-dp-id").read_text().strip()
    assert known in file.name
    follow(make_trackers(["wandb"])[0], facts(tmp_path / "run", 2), range(3, 4))
    assert all(known in path.name for path in (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb"))


@pytest.mark.parametrize(
    ("settings", "project_variable", "project", "tags"),
    [
        ({}, None, "feste-dp", None),
        ({}, "plays", "plays", None),
        ({"wandb_project": "own", "wandb_tags": ["a", "b"]}, "plays", "own", ["a", "b"]),
    ],
)
def test_wandb_gets_project_and_tags(
    settings: dict[str, object],
    project_variable: str | None,
    project: str,
    tags: list[str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a stand-in for the library: no account and no network."""
    asked: list[dict[str, object]] = []
    run = SimpleNamespace(
        define_metric=lambda *_, **__: None, log=lambda _: None, summary={}, finish=lambda: None
    )

    def init(**options: object) -> SimpleNamespace:
        asked.append(options)
        return run

    library = SimpleNamespace(
        api=SimpleNamespace(api_key=None), Settings=dict, Table=lambda **_: None, init=init
    )
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    if project_variable is not None:
        monkeypatch.setenv("WANDB_PROJECT", project_variable)
    (tmp_path / "run").mkdir()
    config = Config.model_validate({"run": settings})
    known = RunFacts(tmp_path / "run", flat_values(config), dump_config(config), 0)
    follow(WeightsAndBiases(), known, range(1, 3))
    ((options),) = asked
    assert (options["project"], options["tags"], options["name"]) == (project, tags, "run")


@pytest.mark.parametrize(("name", "library"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_library_is_one_line_with_the_command_to_install_it(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(UsageError) as failure:
        make_trackers(["jsonl", name])
    assert str(failure.value) == (
        f"run.trackers: {name} needs {library}, which is not installed: "
        f"pip install 'feste-dp[{name}]', or leave {name} out of run.trackers"
    )


def test_a_tracker_named_twice_is_one() -> None:
    assert [tracker.name for tracker in make_trackers(["jsonl", "jsonl"])] == ["jsonl"]
