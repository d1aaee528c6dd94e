from pathlib import Path

import pytest

from tests.chaos.storm import Storm, quiet_run

CONFIG = Path("configs/tiny.yaml")


def test_a_run_in_a_storm_of_kills_ends_with_the_weights_of_a_quiet_one(tmp_path, compiled):
    quiet = quiet_run(CONFIG, 250, tmp_path / "quiet")
    storm = Storm(CONFIG, 250, 7, tmp_path)
    while storm.kills < 3:
        assert storm.round() == quiet, storm.summary()


@pytest.mark.long
def test_two_hundred_kills_change_nothing(tmp_path, compiled):
    quiet = quiet_run(CONFIG, 1500, tmp_path / "quiet")
    storm = Storm(CONFIG, 1500, 11, tmp_path)
    while storm.kills < 200:
        assert storm.round() == quiet, storm.summary()
