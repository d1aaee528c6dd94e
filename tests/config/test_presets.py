"""A config is found by its name from any folder, in a checkout and in an installed package."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from feste_dp.config.loading import load_config
from feste_dp.config.presets import find_config, nearest_configs, preset_folder, preset_names, preset_path
from feste_dp.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_stands_for_the_file_from_any_folder():
    assert load_config("tiny") == load_config(ROOT / "configs/tiny.yaml")
    assert load_config("tiny", ["train.steps=7"]).train.steps == 7


def test_a_file_that_is_there_wins_and_a_folder_does_not(elsewhere: Path):
    (elsewhere / "small").mkdir()  # such as a run
    assert find_config(Path("small")) == preset_path("small")
    (elsewhere / "tiny").write_text("train: {steps: 3}")
    assert load_config("tiny").train.steps == 3
    (elsewhere / "medium").symlink_to("nowhere")
    assert find_config(Path("medium")) == preset_path("medium")


@pytest.mark.parametrize("path", ["./none/tiny", "tiny.yaml", "configs/tiny.yaml", "tiny.yml"])
def test_what_has_a_folder_or_an_ending_is_a_path(path: str):
    with pytest.raises(UsageError, match=r"no such file; did you mean tiny"):
        load_config(path)


def test_a_bad_name_is_one_line_with_the_nearest_names(elsewhere: Path):
    assert nearest_configs(Path("smal")) == ["small"]
    (elsewhere / "smalls.yaml").touch()
    assert nearest_configs(Path("smal")) == ["small", "smalls.yaml"]
    assert nearest_configs(Path("smal.yaml")) == ["smalls.yaml"]
    with pytest.raises(UsageError) as caught:
        load_config("\0")
    assert str(caught.value).isprintable()


def test_every_name_is_a_word_of_the_command_line():
    assert len(preset_names()) >= 5
    assert all(name.replace("-", "").replace("_", "").isalnum() for name in preset_names())


def test_an_installed_package_has_its_configs_inside(elsewhere: Path):
    """The wheel takes them where they are looked for; what is built stands for it."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    site = elsewhere / "site"
    shutil.copytree(ROOT / "feste_dp/config", site / "feste_dp/config")
    for part in ("__init__.py", "errors.py", "interruption.py", "wording.py", "files"):
        source = ROOT / "feste_dp" / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, site / "feste_dp" / part)
    shutil.copytree(ROOT / "configs", site / included["configs"])
    program = "import feste_dp.config.presets as p; print(p.preset_folder(), *p.preset_names())"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=dict(os.environ) | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(site / "feste_dp/configs"), *preset_names()]
    assert preset_folder() == ROOT / "configs"
