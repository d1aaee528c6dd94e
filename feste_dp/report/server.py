"""Serves the dashboard over HTTP: on loopback unless told otherwise, GET only, for known host names only."""

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from feste_dp.errors import UsageError
from feste_dp.interruption import STOP_SIGNALS, Interrupted, interrupt
from feste_dp.report.dashboard import Dashboard

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


_OF_THE_SERVER = (signal.SIGINT, signal.SIGTERM)


def serve(directory: Path, host: str, port: int, say: Callable[[str], object]) -> int:
    """Serve until Ctrl-C; returns the exit status. Raises UsageError: no library, directory or port."""
    try:
        import uvicorn
    except ImportError as error:
        raise _not_installed(error) from None
    app = make_app(Dashboard(directory), host)
    listener = _listen(host, port)
    address, port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    say(f"the runs in {directory}: http://{shown}:{port}/    (Ctrl-C ends this)")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    try:
        with _stopped_by_all_signals(server):
            server.run(sockets=[listener])
    except Interrupted as stopped:
        if stopped.signum != signal.SIGINT:
            raise
    finally:
        listener.close()
    return 0


def _not_installed(error: ImportError) -> UsageError:
    return UsageError(
        f"the dashboard needs {error.name}, which is not installed: pip install 'feste-dp[dashboard]'"
    )


@contextlib.contextmanager
def _stopped_by_all_signals(server: "uvicorn.Server") -> Iterator[None]:
    """The server takes SIGINT and SIGTERM for itself and, in the middle of an answer, drops what the handler
    of another signal raises: those only ask it to stop, too, and raise when it has."""
    asked: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)
        server.should_exit = True

    others = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS if signum not in _OF_THE_SERVER}
    before = {signum: handler for signum, handler in others.items() if callable(handler)}
    for signum in before:
        signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if asked:
        interrupt(asked[0])


def make_app(dashboard: Dashboard, host: str) -> "ASGIApp":
    """The application, as any ASGI server takes it."""
    try:
        from starlette.applications import Starlette
        from starlette.responses import HTMLResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise _not_installed(error) from None

    def answer(request: "Request") -> Response:
        chosen = request.query_params.getlist("run")
        # as it was sent: the decoded one has lost the bytes of names that are not UTF-8
        path = unquote(request.scope["raw_path"].decode("latin-1"), errors="surrogateescape")
        made = dashboard.answer(path, chosen, request.headers.get("if-none-match"))
        headers = {"ETag": made.version} if made.version else {}
        if made.status == 304:
            return Response(status_code=304, headers=headers)
        return HTMLResponse(made.body, made.status, headers)

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET"])])
    return _Guard(app, host)


def is_known_host(header: str, bound_to: str, own_names: Iterable[str]) -> bool:
    """Whether a Host header names this server: by an address, as localhost, or by the machine's own name.

    A page of a stranger that lets its own name point here (DNS rebinding) is none of these.
    """
    name = header.rsplit(":", 1)[0] if not header.endswith("]") else header
    name = name.strip("[]").lower().rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in {"localhost", bound_to.lower(), *(own.lower() for own in own_names)}
    return True


class _Guard:
    """Refuses unknown hosts before anything is looked up, and adds the headers that every answer has."""

    def __init__(self, app: "ASGIApp", host: str) -> None:
        self._app, self._host = app, host
        self._own = [] if _is_loopback(host) else [socket.gethostname(), socket.getfqdn()]

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            return

        async def send_guarded(message: "Message") -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        given = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        app: Callable[[Scope, Receive, Send], Awaitable[None]] = self._app
        if not is_known_host(given, self._host, self._own):
            app = PlainTextResponse("unknown host: open this page by the address it is served at\n", 421)
        await app(scope, receive, send_guarded)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"{host}: {error.strerror}", about="host") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen at {host}, port {port}: {error.strerror}; 0 takes a free one", about="port"
        ) from None
    return listener
