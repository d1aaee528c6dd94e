"""Workers say at the handshake which program they are; another than the coordinator's does no work."""

import os
import shutil
import signal
import time

import pytest

from feste_dp.errors import RunError
from feste_dp.model.parameters import initial_params
from feste_dp.runtime import crew, own_code
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.own_code import Code

OTHER = Code("0123456789abcdef", "/elsewhere/feste_dp (Python 3.99)")


def test_the_digest_is_of_every_source_file_whatever_their_place(tmp_path, monkeypatch):
    def digest() -> str:
        own_code.own_code.cache_clear()
        return own_code.own_code().digest

    here = digest()
    package = tmp_path / "feste_dp"
    shutil.copytree(own_code.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(own_code, "PACKAGE", str(package))
    assert digest() == here and own_code.own_code().place.startswith(f"{package} (Python 3.")
    (package / "runtime" / "worker.py").write_text("# other code\n")
    changed = digest()
    (package / "runtime" / "more.py").write_text("")
    assert len({here, changed, digest()}) == 3
    monkeypatch.undo()
    assert digest() == here


@pytest.fixture
def coordinator(make_config, token_data, compiled):
    with Coordinator(make_config(), 2, token_data.directory, os.environ) as coordinator:
        coordinator.arena.params[:] = initial_params(make_config().model, 1)
        yield coordinator


def test_a_worker_of_another_program_ends_the_start_in_one_line_that_names_both_places(
    coordinator, monkeypatch
):
    notices = []
    coordinator.tell(notices.append)
    place = own_code.own_code().place
    monkeypatch.setattr(crew, "own_code", lambda: OTHER)
    with pytest.raises(RunError) as caught:
        coordinator.start()
    words = str(caught.value)
    assert place in words and OTHER.place in words and "\n" not in words
    assert notices == []


def test_a_program_whose_files_were_changed_is_named_as_such(coordinator, monkeypatch):
    changed = Code(OTHER.digest, own_code.own_code().place)
    monkeypatch.setattr(crew, "own_code", lambda: changed)
    with pytest.raises(RunError, match="which was changed since this run started"):
        coordinator.start()


def test_a_program_that_changes_while_a_run_trains_costs_the_workers_that_are_lost(coordinator, monkeypatch):
    notices = []
    coordinator.tell(notices.append)
    coordinator.start()
    monkeypatch.setattr(crew, "own_code", lambda: OTHER)
    os.kill(coordinator.worker_pids()[0], signal.SIGKILL)
    deadline = time.monotonic() + 60
    while [notice.kind for notice in notices] != ["lost", "left"] and time.monotonic() < deadline:
        coordinator.tend()
        time.sleep(0.01)
    assert [notice.kind for notice in notices] == ["lost", "left"]
    assert OTHER.place in notices[1].text and len(coordinator.worker_pids()) == 1
