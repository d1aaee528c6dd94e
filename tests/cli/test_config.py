"""feste-dp config and feste-dp configs: what they print, and that what they write can be read."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from feste_dp.cli.commands import cli
from feste_dp.config.loading import load_config
from feste_dp.config.presets import preset_names, preset_path
from feste_dp.config.schema import Config, known_keys
from feste_dp.errors import RunError
from feste_dp.plan import presets
from tests.cli.conftest import COMMAND, Feste


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_show_prints_each_key_with_its_sentence_range_value_and_origin(feste: Feste) -> None:
    shown = feste("config", "show", "tiny", "--set", "optim.lr=3e-4")
    assert shown.status == 0
    lines = [line.strip() for line in shown.out.splitlines()]
    assert lines[0] == f"# {preset_path('tiny')}"
    at = lines.index("lr: 0.0003  # --set optim.lr=3e-4")
    assert lines[at - 2 : at] == [
        "# Peak learning rate, reached at the end of the warm-up.",
        "# Takes a number above 0 and at most 10.",
    ]
    assert "vocab_size: 512  # tiny.yaml:3:15" in lines and "beta1: 0.9  # default" in lines


def test_what_show_prints_is_a_config_of_the_same_values(feste: Feste, elsewhere: Path) -> None:
    for given, expected in ((["tiny"], load_config("tiny")), ([], Config.model_validate({}))):
        (elsewhere / "shown.yaml").write_text(feste("config", "show", *given).out)
        assert load_config("shown.yaml") == expected


def test_an_override_of_several_lines_stays_in_its_comment(feste: Feste, elsewhere: Path) -> None:
    shown = feste("config", "show", "--set", 'sample.prompt="a\n\n  b: #"')
    (elsewhere / "shown.yaml").write_text(shown.out)
    assert load_config("shown.yaml").sample.prompt == "a\nb: #"


def test_show_as_json_has_every_key(feste: Feste) -> None:
    found = json.loads(feste("config", "show", "tiny", "--set", "train.steps=7", "--json").out)
    assert tuple(found) == known_keys()
    assert found["train.steps"] == {
        "value": 7,
        "from": "--set train.steps=7",
        "default": 1000,
        "takes": "a whole number from 1 to 1000000000",
        "about": "Optimizer steps in the whole run.",
        "in_a_resume": "asked",
    }
    assert found["model.n_head"]["from"] == f"{preset_path('tiny')}:6:11"
    assert found["run.trackers"]["from"] == "default"


def test_check_says_what_is_valid(feste: Feste) -> None:
    checked = feste("config", "check", "tiny", "--set", "train.steps=1")
    assert (checked.status, checked.err) == (0, "")
    assert checked.out == "tiny is valid: 169,728 parameters, 512 tokens a step, 1 step\n"


def test_schema_prints_one_json_object(feste: Feste) -> None:
    assert json.loads(feste("config", "schema").out)["type"] == "object"


def test_init_writes_a_config_to_edit_and_leaves_what_is_there(feste: Feste, elsewhere: Path) -> None:
    made = feste("config", "init", "mine.yaml", "--from", "tiny", "--set", "train.steps=300")
    assert made.status == 0 and "feste-dp config check mine.yaml" in made.out
    text = Path("mine.yaml").read_text()
    assert "  steps: 300\n" in text and "  #beta1: 0.9\n" in text and "# Takes a number" in text
    expected = load_config("tiny", ["train.steps=300", "run.name=mine"])
    assert load_config("mine.yaml") == expected
    assert feste("config", "init", "mine.yaml").status == 2
    assert Path("mine.yaml").read_text() == text
    assert list(elsewhere.iterdir()) == [elsewhere / "mine.yaml"]


def test_the_defaults_of_a_new_config_still_follow_from_its_keys(feste: Feste) -> None:
    assert feste("config", "init", "mine.yaml").status == 0
    assert load_config("mine.yaml") == load_config("mine.yaml", ["run.name=mine"])
    assert load_config("mine.yaml", ["train.steps=100"]).optim.warmup_steps == 5
    assert feste("config", "init", "a name.yaml").status == 0
    assert load_config("a name.yaml").run.name == "run"


def test_configs_lists_all_without_times_where_the_kernels_cannot_be_compiled(
    feste: Feste, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise RunError("no room")

    monkeypatch.setattr(presets, "measured_speed", refuse)
    listed = feste("configs")
    assert listed.status == 0 and listed.err.endswith("warning: no times: no room\n")
    named = [line.split()[0] for line in listed.out.splitlines()[1:] if not line.startswith("*")]
    assert sorted(named) == sorted(preset_names())
    found = json.loads(feste("configs", "--no-time", "--json").out)
    assert found["presets"][0]["name"] == "tiny" and found["presets"][0]["run_seconds"] is None


def test_configs_measures_once_for_all(feste: Feste) -> None:
    found = json.loads(feste("configs", "--json").out)
    assert found["speed"]["flops_per_second"] > 0
    assert all(each["run_seconds"] > 0 for each in found["presets"])
    assert "as measured of medium" in feste("configs").out


@pytest.mark.parametrize(
    ("words", "begun", "completed"),
    [
        ("launch --config", "sma", "small"),
        ("config check", "pocket", "pocket-bard"),
        ("launch --config tiny --set", "optim.warm", "optim.warmup_steps="),
        ("", "conf", "configs"),
    ],
)
def test_the_shell_completes_commands_configs_and_keys(words: str, begun: str, completed: str) -> None:
    completion = ShellComplete(cli, {}, "feste-dp", "_FESTE_DP_COMPLETE")
    found = completion.get_completions(words.split(), begun)
    assert completed in [item.value for item in found]


def test_completion_answers_the_shell(elsewhere: Path) -> None:
    asked = {"_FESTE_DP_COMPLETE": "bash_complete", "COMP_WORDS": "feste-dp configs --no", "COMP_CWORD": "2"}
    done = subprocess.run(COMMAND, env=dict(os.environ) | asked, capture_output=True, text=True)
    assert (done.stderr, done.stdout) == ("", "plain,--no-time\n")
