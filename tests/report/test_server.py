"""The dashboard as a process: who may ask, what comes back, how it ends."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from feste_dp.errors import UsageError
from feste_dp.report import server
from tests.report.conftest import write_run

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

COMMAND = [sys.executable, "-m", "feste_dp", "dashboard"]


@dataclass
class Served:
    process: subprocess.Popen[str]
    port: int
    directory: Path

    def ask(self, address: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, address, headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer, body


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Served]:
    process = subprocess.Popen(
        [*COMMAND, str(directory), "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=dict(os.environ) | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    assert found, line
    yield Served(process, int(found[1]), directory)
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that only ask it."""
    directory = tmp_path_factory.mktemp("served") / "runs"
    write_run(directory / "one")
    with serving(directory) as server_:
        yield server_


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Served]:
    """A server that a test may end."""
    write_run(tmp_path / "one")
    with serving(tmp_path) as server_:
        yield server_


def test_pages_are_served_until_ctrl_c_which_ends_it_in_silence(own_server: Served) -> None:
    answer, body = own_server.ask("/runs/one")
    assert answer.status == 200 and "<h1>one</h1>" in body
    assert own_server.ask("/runs/one", **{"If-None-Match": answer.headers["ETag"]})[0].status == 304
    own_server.process.send_signal(signal.SIGINT)
    out, err = own_server.process.communicate(timeout=60)
    assert (own_server.process.returncode, out, err) == (0, "", "")


def test_an_open_page_does_not_hold_up_the_end(own_server: Served) -> None:
    connection = HTTPConnection("127.0.0.1", own_server.port, timeout=60)
    connection.request("GET", "/")
    connection.getresponse().read()  # kept open, as a browser does
    own_server.process.send_signal(signal.SIGINT)
    assert own_server.process.wait(timeout=60) == 0
    connection.close()


def test_only_loopback_is_listened_at(served: Served) -> None:
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    port = f"{served.port:04X}"
    addresses = [line.split()[1].split(":") for line in listening if line.split()[3] == "0A"]
    assert [address for address, listened in addresses if listened == port] == ["0100007F"]


def test_every_answer_forbids_framing_sniffing_and_sharing(served: Served) -> None:
    for address in ("/", "/runs/nope"):
        headers = served.ask(address)[0].headers
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "address", ["/runs/../../etc/passwd", "/runs/%2e%2e%2f%2e%2e%2fetc/passwd", "/%00", "/runs/one/log.txt"]
)
def test_nothing_else_can_be_had(served: Served, address: str) -> None:
    assert served.ask(address)[0].status == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", ""]
)
def test_a_foreign_host_name_is_refused(served: Served, host: str) -> None:
    answer, body = served.ask("/", Host=host)
    assert answer.status == 421 and "one" not in body.split()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_can_only_be_read(served: Served, method: str) -> None:
    assert served.ask("/", method)[0].status == 405


def test_being_asked_writes_nothing(served: Served) -> None:
    def state() -> dict[str, int]:
        return {
            str(path): path.stat().st_mtime_ns for path in [served.directory, *served.directory.rglob("*")]
        }

    before = state()
    for address in ("/", "/runs/one", "/compare?run=one"):
        assert served.ask(address)[0].status == 200
    assert state() == before


def test_a_taken_port_is_one_line(served: Served) -> None:
    command = [*COMMAND, str(served.directory), "--port", str(served.port)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == (
        f"error: --port: cannot listen at 127.0.0.1, port {served.port}: Address already in use; "
        "0 takes a free one\n"
    )


def test_a_host_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^host: no such host"):
        server.serve(tmp_path, "no such host", 0, print)


@pytest.mark.parametrize("missing", ["uvicorn", "starlette.applications"])
def test_a_missing_library_is_one_line_with_the_command_to_install_it(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r"not installed: pip install 'feste-dp\[dashboard\]'"):
        server.serve(tmp_path, "127.0.0.1", 0, print)


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("127.0.0.1:8571", True),
        ("127.0.0.1", True),
        ("localhost:9", True),
        ("LOCALHOST", True),
        ("[::1]:8571", True),
        ("[::1]", True),
        ("192.168.1.7:80", True),
        ("trainer:8571", True),
        ("trainer.evil.example", False),
        ("evil.example", False),
        ("", False),
        (":80", False),
        ("1.2.3.4.evil.example:80", False),
    ],
)
def test_a_host_is_known_by_address_as_localhost_or_by_the_machines_name(header: str, known: bool) -> None:
    assert server.is_known_host(header, "0.0.0.0", ["trainer"]) is known


def test_it_listens_at_another_address_where_asked(tmp_path: Path) -> None:
    listener = server._listen("127.0.0.2", 0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.2"
        assert listener.family == socket.AF_INET
