"""Where workers come in: nobody else can, nothing stays, no folder is needed for those that come later."""

import os
import socket
import tempfile
from pathlib import Path

import pytest
import zmq

from feste_dp.errors import UsageError
from feste_dp.files import temporary
from feste_dp.runtime import door as door_module
from feste_dp.runtime.door import open_door


@pytest.fixture
def router():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        yield router


def says_hello(door, router):
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(door.endpoint)
        dealer.send(b"hello")
        return router.poll(5000) != 0 and router.recv_multipart()[1] == b"hello"


def only(monkeypatch, *places):
    monkeypatch.setattr(door_module, "temporary_places", lambda: [Path(place) for place in places])


def test_workers_connect_to_a_socket_whose_folder_is_gone_also_later(router, monkeypatch, tmp_path):
    only(monkeypatch, tmp_path)
    door = open_door(router)
    assert list(tmp_path.iterdir()) == []
    tmp_path.rmdir()
    assert says_hello(door, router) and says_hello(door, router)
    door.close()


def test_a_folder_that_cannot_be_written_or_is_too_long_for_a_socket_is_no_trouble(
    router, monkeypatch, tmp_path
):
    long = tmp_path / ("x" * 200)
    long.mkdir()
    only(monkeypatch, tmp_path / "gone", "/proc", long)
    door = open_door(router)
    assert str(long) in str(Path(door.endpoint.removeprefix("ipc://")).readlink())
    assert says_hello(door, router) and list(long.iterdir()) == []
    door.close()


def test_without_any_folder_it_has_a_name_that_only_this_user_can_connect_to(router, monkeypatch):
    only(monkeypatch, "/proc")
    door = open_door(router)
    assert door.endpoint.startswith("ipc://@") and door.descriptors == ()
    assert says_hello(door, router)


def test_a_stranger_is_turned_away_from_the_name(router, monkeypatch):
    only(monkeypatch, "/proc")
    monkeypatch.setattr(door_module.os, "geteuid", lambda: os.getuid() + 1)
    assert not says_hello(open_door(router), router)


def test_no_socket_at_all_is_one_line(router, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", refused)
    with pytest.raises(UsageError, match=r"no socket for the workers \(Permission denied\)"):
        open_door(router)


def test_temporary_folders_of_the_dead_go_and_those_in_use_and_of_others_stay(tmp_path):
    def folder(pid, what="door"):
        path = tmp_path / f"feste-dp-{what}-{pid}-abcdefgh"
        path.mkdir()
        (path / "s").touch()
        return path

    dead, alive, held, alien = (
        folder(2**22 + 1),
        folder(os.getpid()),
        folder(2**22 + 2),
        tmp_path / "feste-dp-x",
    )
    alien.mkdir()
    linked = tmp_path / f"feste-dp-door-{2**22 + 3}-abcdefgh"
    linked.symlink_to(alive)
    with temporary._locked(str(held)), temporary.temporary_folder("trace", [tmp_path]) as ours:
        assert ours.stat().st_mode & 0o777 == 0o700
        assert not dead.exists() and {alive, held, alien, linked, ours} == set(tmp_path.iterdir())
        assert (alive / "s").exists()
    assert not ours.exists()


def test_the_places_for_temporary_folders_are_the_users_own_first(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "not/absolute")
    monkeypatch.delenv("TMPDIR", raising=False)
    assert temporary.temporary_places() == [tmp_path, Path("/dev/shm"), Path("/tmp")]


def test_where_proc_is_taken_away_another_door_is_opened_beside_it(router, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is too long for a socket
        proc = Path(folder) / "p"
        proc.symlink_to("/proc/self/fd")
        monkeypatch.setattr(door_module, "_DESCRIPTORS", proc)
        door = open_door(router)
        assert door.endpoint.startswith(f"ipc://{proc}/") and door.leads_in() and says_hello(door, router)
        proc.unlink()
        assert not door.leads_in()
        second = open_door(router)
        assert second.endpoint.startswith("ipc://@") and second.leads_in() and says_hello(second, router)
        door.close()
