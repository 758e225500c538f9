"""Small forward proxies that record what they were asked, and a real one (tinyproxy).

Both of our own run in threads of this process, serve as a context manager, and raise nothing into the test: what matters is
what they recorded, and what the client made of their answers.
"""

import abc
import base64
import contextlib
import select
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

from tests.support.certs import Certificate
from tests.support.processes import ServerProcess, free_ports, listening_socket, require_program
from tests.support.waiting import wait_until

TIMEOUT = 20.0

_Proxy = TypeVar("_Proxy", bound="Proxy")


@dataclass(frozen=True)
class ProxyRequest:
    """What a client asked a proxy for. For SOCKS, method is "SOCKS5" and `headers` is empty.

    `authorization` is what the client offered: the value of Proxy-Authorization, or "user:password" for SOCKS.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    authorization: str | None
    answered: int


class Proxy(abc.ABC):
    """Listens, and runs `handle` in a thread for each connection."""

    scheme = ""

    def __init__(self, *, tls: Certificate | None = None) -> None:
        self._tls: ssl.SSLContext | None = None
        if tls is not None:
            self.scheme += "s"
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(tls.cert, tls.key)
        self._sock = listening_socket()
        self.port: int = self._sock.getsockname()[1]
        self.url = f"{self.scheme}://{'127.0.0.1' if tls is None else 'localhost'}:{self.port}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._requests: list[ProxyRequest] = []
        self._tunnels = 0
        self._accepted = 0
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, name=f"{self.scheme}-proxy", daemon=True)
        self._thread.start()

    @property
    def requests(self) -> list[ProxyRequest]:
        """Everything that was asked, in order, refused or not."""
        with self._lock:
            return list(self._requests)

    @property
    def tunnels(self) -> int:
        """How many tunnels have been opened."""
        with self._lock:
            return self._tunnels

    @property
    def accepted(self) -> int:
        """How many connections have been accepted."""
        with self._lock:
            return self._accepted

    def close(self) -> None:
        """Close the proxy and everything that goes through it. Idempotent."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            left = list(self._open)
        for sock in (self._sock, *left):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes who waits in it
        for thread in (self._thread, *self._threads):
            thread.join(TIMEOUT)
        self._sock.close()

    def __enter__(self: _Proxy) -> _Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abc.abstractmethod
    def handle(self, client: socket.socket) -> None:
        """Serve one connection. OSError ends it."""

    def note(self, request: ProxyRequest) -> None:
        """Record a request."""
        with self._lock:
            self._requests.append(request)

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to the origin; closed with the proxy."""
        upstream = socket.create_connection((host, port), TIMEOUT)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._hold(upstream)
        return upstream

    def tunnel(self, client: socket.socket, upstream: socket.socket) -> None:
        """Copy both ways until both have ended."""
        with self._lock:
            self._tunnels += 1
        self._copy_both(client, upstream)

    def _copy_both(self, client: socket.socket, upstream: socket.socket) -> None:
        client.settimeout(None)
        upstream.settimeout(None)
        if isinstance(client, ssl.SSLSocket):  # not for two threads at once
            _copy_by_turns(client, upstream)
            self._release(upstream)
            return
        back = threading.Thread(target=_copy, args=(upstream, client), daemon=True)
        back.start()
        _copy(client, upstream)
        back.join()
        self._release(upstream)

    def _hold(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.add(sock)
            closing = self._closing
        if closing:
            self._release(sock)
            raise OSError("the proxy is closed")

    def _release(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.discard(sock)
        sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
            except OSError:
                return
            if self._closing:
                client.close()
                return
            with self._lock:
                self._accepted += 1
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            client.settimeout(TIMEOUT)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            self._hold(client)
            self.handle(client)
        self._release(client)


class HTTPProxy(Proxy):
    """CONNECT, and plain requests with an absolute target (one to a connection).

    `auth`: (user, password) wanted as Basic; without it in a request, 407. `refuse`: answer this status to everything
    instead. `hang`: never answer. `tls`: it is an HTTPS proxy, with this certificate.
    """

    scheme = "http"

    def __init__(
        self,
        *,
        auth: tuple[str, str] | None = None,
        refuse: int | None = None,
        hang: bool = False,
        tls: Certificate | None = None,
    ) -> None:
        self._wanted = None
        if auth is not None:
            self._wanted = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
        self._refuse = refuse
        self._hang = hang
        super().__init__(tls=tls)

    def handle(self, client: socket.socket) -> None:
        while True:
            raw = _read_until(client, b"\r\n\r\n")
            first, *lines = raw.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
            method, target, version = first.split(" ", 2)
            headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
            given = next((value for name, value in headers if name.lower() == "proxy-authorization"), None)
            status = self._refuse or (407 if self._wanted not in (None, given) else 200)
            self.note(ProxyRequest(method, target, headers, given, 0 if self._hang else status))
            if self._hang:
                client.recv(1)
                return
            if status != 200:
                extra = 'Proxy-Authenticate: Basic realm="proxy"\r\n' if status == 407 else ""
                client.sendall(f"HTTP/1.1 {status} Refused\r\n{extra}Content-Length: 0\r\n\r\n".encode())
                continue
            if method == "CONNECT":
                host, _, port = target.rpartition(":")
                upstream = self._upstream(client, host.strip("[]"), int(port))
                if upstream is not None:
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    self.tunnel(client, upstream)
                return
            self._forward(client, method, target, version, headers, raw.partition(b"\r\n\r\n")[2])
            return

    def _forward(
        self,
        client: socket.socket,
        method: str,
        target: str,
        version: str,
        headers: tuple[tuple[str, str], ...],
        rest: bytes,
    ) -> None:
        url = urlsplit(target)
        upstream = self._upstream(client, url.hostname or "", url.port or 80)
        if upstream is None:
            return
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        # Connection: close makes the origin end the connection, so that copying is enough and nothing needs to be parsed.
        kept = [
            item for item in headers if item[0].lower() not in ("proxy-authorization", "proxy-connection", "connection")
        ]
        lines = [f"{method} {path} {version}", *(f"{name}: {value}" for name, value in kept), "Connection: close"]
        upstream.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + rest)
        self._copy_both(client, upstream)

    def _upstream(self, client: socket.socket, host: str, port: int) -> socket.socket | None:
        try:
            return self.connect(host, port)
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return None


class SocksProxy(Proxy):
    """SOCKS5 (RFC 1928): CONNECT by name or address. `auth`: (user, password) wanted (RFC 1929). `refuse`: a reply code."""

    scheme = "socks5h"

    def __init__(self, *, auth: tuple[str, str] | None = None, refuse: int | None = None) -> None:
        self._auth = auth
        self._refuse = refuse
        super().__init__()

    def handle(self, client: socket.socket) -> None:
        _, count = _read_exactly(client, 2)
        offered = _read_exactly(client, count)
        method = 2 if self._auth else 0
        if method not in offered:
            client.sendall(b"\x05\xff")
            return
        client.sendall(bytes((5, method)))
        given = None
        if self._auth:
            _, size = _read_exactly(client, 2)
            user = _read_exactly(client, size).decode()
            password = _read_exactly(client, _read_exactly(client, 1)[0]).decode()
            given = f"{user}:{password}"
            right = (user, password) == self._auth
            client.sendall(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                self.note(ProxyRequest("SOCKS5", "", (), given, 1))
                return
        _, _, _, kind = _read_exactly(client, 4)
        if kind == 3:
            host = _read_exactly(client, _read_exactly(client, 1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, _read_exactly(client, size))
        port = int.from_bytes(_read_exactly(client, 2), "big")
        code, upstream = self._refuse or 0, None
        if not code:
            try:
                upstream = self.connect(host, port)
            except OSError:
                code = 5  # connection refused
        self.note(ProxyRequest("SOCKS5", f"{host}:{port}", (), given, code))
        client.sendall(bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0)))
        if upstream is not None:
            self.tunnel(client, upstream)


class Socks4Proxy(Proxy):
    """SOCKS4, and 4a: CONNECT by address, or by a name that the proxy looks up. The user goes to `authorization`."""

    scheme = "socks4a"

    def handle(self, client: socket.socket) -> None:
        _, _, *port_and_address = _read_exactly(client, 8)
        port, address = int.from_bytes(port_and_address[:2], "big"), bytes(port_and_address[2:])
        by_name = address[:3] == b"\0\0\0" and address[3] != 0
        texts = _read_until(client, b"\0")
        while by_name and texts.count(b"\0") < 2:
            texts += _read_until(client, b"\0")
        user, name, *_ = (text.decode() for text in texts.split(b"\0"))
        host = name if by_name else socket.inet_ntoa(address)
        upstream = self.connect(host, port)
        self.note(ProxyRequest("SOCKS4a" if by_name else "SOCKS4", f"{host}:{port}", (), user, 90))
        client.sendall(b"\0\x5a" + bytes(6))
        self.tunnel(client, upstream)


@dataclass(frozen=True)
class Tinyproxy:
    """A running tinyproxy."""

    process: ServerProcess
    url: str
    _log: Path

    def wait_logged(self, text: str, timeout: float = 10.0) -> None:
        """Wait until tinyproxy has logged `text` ("CONNECT localhost:443", say)."""
        wait_until(lambda: text in self._log.read_text(errors="replace"), timeout, f"tinyproxy has not logged {text!r}")

    def stop(self) -> None:
        """End the proxy. Idempotent."""
        self.process.stop()


def start_tinyproxy(folder: Path) -> Tinyproxy:
    """Start tinyproxy with everything it writes in `folder`."""
    program = require_program("tinyproxy")
    (port,) = free_ports(1)
    log = folder / "tinyproxy_requests.log"
    config = folder / "tinyproxy.conf"
    config.write_text(
        f'Port {port}\nListen 127.0.0.1\nTimeout 60\nLogFile "{log}"\nLogLevel Connect\nMaxClients 100\nAllow 127.0.0.1\n',
        encoding="utf-8",
    )
    process = ServerProcess([program, "-d", "-c", str(config)], folder / "tinyproxy.log")
    try:
        process.wait_http(port)
    except BaseException:
        process.stop()
        raise
    return Tinyproxy(process, f"http://127.0.0.1:{port}", log)


def _copy_by_turns(client: ssl.SSLSocket, upstream: socket.socket) -> None:
    """Copy both ways in one thread, until either has ended."""
    with contextlib.suppress(OSError):
        while True:
            ready, _, _ = select.select([client, upstream], [], [])
            for source, target in ((client, upstream), (upstream, client)):
                if source not in ready:
                    continue
                data = source.recv(65536)
                while source is client and client.pending():
                    data += client.recv(65536)
                if not data:
                    return
                target.sendall(data)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("closed")
        data += piece
    return data


def _read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError("closed")
        data += piece
    return data
