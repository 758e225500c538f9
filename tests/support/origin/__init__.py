"""The origin: an ASGI application in a process of its own, behind hypercorn and behind strict front ends of our own.

This module is the tests' side: starting it, its URLs, its journal, its gates. README.md in tests/support lists the routes.
"""

import contextlib
import http.client
import itertools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.support.certs import Certificates
from tests.support.processes import START_TIMEOUT, ServerProcess, listening_socket, paired_sockets
from tests.support.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[3]
_ids = itertools.count(1)


@dataclass(frozen=True)
class Entry:
    """What the origin knows of one id: sums over its requests, and a line per request in the lists."""

    count: int
    received: int
    sent: int
    bodies: int
    finished: int
    disconnected: int
    versions: list[str]
    ports: list[int]


@dataclass(frozen=True)
class Origin:
    """A running origin: base URLs without a trailing slash."""

    process: ServerProcess
    http: str
    https: str
    strict_http: str
    strict_https: str
    _control: int

    def journal(self, name: str, until: str | None = None, timeout: float = 10.0) -> Entry:
        """What is known of an id, once `until` holds; TimeoutError, with what is known, if it does not within `timeout` s.

        `until`: "started", "body", "disconnected", "finished", "over", or a number: "received>=1024".
        """
        query = urlencode({"timeout": timeout, **({"until": until} if until else {})})
        status, body = self._ask(f"/control/journal/{name}?{query}", timeout)
        entry = Entry(**json.loads(body))
        if status != 200:
            raise TimeoutError(f"the origin did not see {until!r} within {timeout} s: {entry}")
        return entry

    def open_gate(self, name: str, permits: int | None = 1) -> None:
        """Give `permits` permits to the route that waits, or will wait, at gate `name`; None: for ever."""
        self._ask(f"/control/gate/{name}?permits={'all' if permits is None else permits}", 0.0)

    def fresh_id(self) -> str:
        """A name for an id or a gate that nobody else uses."""
        return f"{os.getpid()}-{next(_ids)}"

    def stop(self) -> None:
        """End the server. Idempotent."""
        self.process.stop()

    def _ask(self, path: str, timeout: float) -> tuple[int, bytes]:
        # The origin has its own deadline; the socket's is a backstop.
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=timeout + 20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def start_origin(folder: Path, certs: Certificates) -> Origin:
    """Start the origin; returns when all its front ends serve."""
    with contextlib.ExitStack() as held:
        sockets = {"http": listening_socket(), "strict_http": listening_socket()}
        sockets["https"], sockets["quic"] = paired_sockets()
        sockets["strict_https"], sockets["strict_quic"] = paired_sockets()
        for sock in sockets.values():
            held.enter_context(sock)
        ports = {name: int(sock.getsockname()[1]) for name, sock in sockets.items()}
        settings: dict[str, object] = {name: sock.fileno() for name, sock in sockets.items()}
        settings |= {"cert": str(certs.localhost.cert), "key": str(certs.localhost.key)}
        process = ServerProcess(
            [sys.executable, "-m", "tests.support.origin.serve", json.dumps(settings)],
            folder / "origin.log",
            pass_fds=[sock.fileno() for sock in sockets.values()],
            cwd=_ROOT,
        )

    def ready() -> bool:
        process.check()
        return "ready" in process.output().splitlines()

    try:
        wait_until(ready, START_TIMEOUT, "the origin does not start")
        process.wait_http(ports["http"], "/count")
    except BaseException:
        process.stop()
        raise
    return Origin(
        process,
        http=f"http://localhost:{ports['http']}",
        https=f"https://localhost:{ports['https']}",
        strict_http=f"http://localhost:{ports['strict_http']}",
        strict_https=f"https://localhost:{ports['strict_https']}",
        _control=ports["strict_http"],
    )
