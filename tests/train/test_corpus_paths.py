"""Where a run finds its text again: the config holds what can be read back."""

import os
from pathlib import Path

import pytest

from feste_dp.config.dumping import dump_config
from feste_dp.config.loading import config_from_text
from feste_dp.config.schema import Config
from feste_dp.run.token_data import with_absolute_paths


@pytest.mark.parametrize("corpus", ["texts", ["a.txt", "b.txt"]])
@pytest.mark.parametrize("name", ["plain", "é 🙂", os.fsdecode(b"not utf-8 \xe9")])
def test_the_config_of_a_run_reads_back_whatever_the_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, corpus: str | list[str]
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    config = with_absolute_paths(Config.model_validate({"data": {"corpus": corpus}}))
    assert config_from_text(dump_config(config), "config.yaml") == config
    assert Config.model_validate(config.model_dump(mode="json")) == config
    first = config.data.corpus if isinstance(config.data.corpus, str) else config.data.corpus[0]
    assert Path(first).is_absolute() == (name != os.fsdecode(b"not utf-8 \xe9"))
