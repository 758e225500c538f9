"""A scripted server on raw sockets: it says exactly the bytes that a test wants, and tells how the client took them.

A script is a callable that gets a `Peer`, or a sequence of steps, which are such callables made by the functions at the end
of this file. Each connection runs its own script in its own thread, in the order in which connections are accepted. Nothing
here sleeps; everything that waits has a timeout, after which it raises, and what a script raises fails the test at its end.
"""

import contextlib
import functools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tests.support.certs import Certificate
from tests.support.processes import listening_socket

TIMEOUT = 10.0

Step: TypeAlias = Callable[["Peer"], object]
Script: TypeAlias = Step | Sequence[Step]


class PeerClosed(ConnectionError):
    """The client closed or reset the connection while a script was reading."""


@dataclass(frozen=True)
class RequestHead:
    """The head of a request as it came."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes

    def get(self, name: str) -> str | None:
        """The value of the first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def get_all(self, name: str) -> list[str]:
        """The values of all headers of that name, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Peer:
    """One connection, as its script sees it, and afterwards as the test does.

    Reading and sending belong to the script's thread; `received`, `wait_received`, `wait_closed` to any, once the script has
    ended or does not read.
    """

    def __init__(self, sock: socket.socket, index: int, *, timeout: float = TIMEOUT) -> None:
        self.index = index
        self.address: tuple[str, int] = sock.getpeername()[:2]
        self.head: RequestHead | None = None
        self.script_ended = threading.Event()
        self.alpn: str | None = None
        self._sock = sock
        self._timeout = timeout
        self._received = bytearray()
        self._taken = 0
        self._changed = threading.Condition()
        self._reading = threading.Lock()
        self._closed: str | None = None
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def received(self) -> bytes:
        """All bytes that have come so far."""
        with self._changed:
            return bytes(self._received)

    @property
    def closed(self) -> str | None:
        """How the client went, "eof" or "reset"; None while it has not been seen to."""
        return self._closed

    def secure(self, context: ssl.SSLContext) -> None:
        """Do the TLS handshake."""
        self._sock = context.wrap_socket(self._sock, server_side=True, suppress_ragged_eofs=True)
        self.alpn = self._sock.selected_alpn_protocol()

    # Reading

    def read_some(self) -> bytes:
        """What has come and was not taken yet, at least a byte. Raises PeerClosed at the client's end."""
        if self._taken == len(self._received) and not self._read_more():
            raise PeerClosed(f"the client has closed ({self._closed}) after {len(self._received)} bytes")
        return self._take(len(self._received) - self._taken)

    def read_exactly(self, size: int) -> bytes:
        """The next `size` bytes. Raises PeerClosed when they do not come."""
        while len(self._received) - self._taken < size:
            if not self._read_more():
                raise PeerClosed(f"the client has closed ({self._closed}), {size} bytes were to come")
        return self._take(size)

    def read_until(self, end: bytes) -> bytes:
        """The next bytes up to and with `end`. Raises PeerClosed when it does not come."""
        while (found := self._received.find(end, self._taken)) < 0:
            if not self._read_more():
                raise PeerClosed(f"the client has closed ({self._closed}) before {end!r}")
        return self._take(found + len(end) - self._taken)

    def read_head(self) -> RequestHead:
        """The head of the next request; the body is not read."""
        raw = self.read_until(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ", 2)
        fields = (line.partition(":") for line in lines)
        headers = tuple((name, value.strip()) for name, _, value in fields)
        self.head = RequestHead(method, target, version, headers, raw)
        return self.head

    def read_body(self, head: RequestHead | None = None) -> bytes:
        """The body that belongs to `head` (the last one read), by its length or its chunks."""
        head = head or self.head
        assert head is not None
        if "chunked" in (head.get("Transfer-Encoding") or "").lower():
            return self.read_chunked()
        return self.read_exactly(int(head.get("Content-Length") or 0))

    def read_request(self) -> tuple[RequestHead, bytes]:
        """The next request, whole."""
        head = self.read_head()
        return head, self.read_body(head)

    def read_chunk(self) -> bytes:
        """The next chunk of a chunked body; b"" for the last one, whose trailers have then been read."""
        size = int(self.read_until(b"\r\n").split(b";")[0], 16)
        if size == 0:
            while self.read_until(b"\r\n") != b"\r\n":
                pass
            return b""
        return self.read_exactly(size + 2)[:-2]

    def read_chunked(self) -> bytes:
        """A chunked body, whole."""
        return b"".join(iter(self.read_chunk, b""))

    # Sending

    def send(self, data: bytes) -> None:
        """Send all of it. Raises when the client does not take it within the time."""
        self._sock.sendall(data)

    def send_records(self, *pieces: bytes) -> None:
        """Send the pieces, each in a TLS record of its own, so that all arrive at once: the kernel holds them back."""
        cork: int = getattr(socket, "TCP_CORK", 4)  # elsewhere it is TCP_NOPUSH, which has no name in Python
        self._sock.setsockopt(socket.IPPROTO_TCP, cork, 1)
        for piece in pieces:
            self._sock.sendall(piece)
        self._sock.setsockopt(socket.IPPROTO_TCP, cork, 0)

    def send_slowly(self, data: bytes, piece: int = 1, between: Callable[[], object] | None = None) -> None:
        """Send in pieces of `piece` bytes, each in a packet of its own (no Nagle); `between` is called before each."""
        for start in range(0, len(data), piece):
            if between is not None:
                between()
            self._sock.sendall(data[start : start + piece])

    def send_chunk(self, data: bytes) -> None:
        """Send a chunk of a chunked body; an empty one ends it."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def wait(self, event: threading.Event, timeout: float | None = None) -> None:
        """Wait for an event of the test's; raise TimeoutError when it does not come."""
        limit = self._timeout if timeout is None else timeout
        if not event.wait(limit):
            raise TimeoutError(f"the event was not set within {limit} s")

    # Ending

    def half_close(self) -> None:
        """Send a FIN and go on reading. Without TLS: a FIN is all there is. With TLS: a FIN and no close_notify."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Send a FIN; if the client has sent what was not read, the kernel makes it a RST. Idempotent."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._sock.close()

    def reset(self) -> None:
        """Send a RST (SO_LINGER with no time). What the kernel has not sent yet is lost."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    # What the test asks

    def wait_closed(self, timeout: float = TIMEOUT) -> str:
        """How the client went, "eof" or "reset": reads what still comes until then. TimeoutError when it stays."""
        self._sock.settimeout(timeout)
        while self._closed is None:
            self._read_more()
        return self._closed

    def wait_received(self, what: bytes | int, timeout: float = TIMEOUT) -> bytes:
        """All that has come, once it contains `what`, or is so many bytes; the script must be reading (or have ended)."""
        if self.script_ended.is_set():
            self._sock.settimeout(timeout)
            while not self._has(what) and self._read_more():
                pass
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._has(what) or self._closed is not None, timeout
            ) or not self._has(what):
                raise TimeoutError(f"the client has not sent {what!r}; received: {bytes(self._received[-500:])!r}")
            return bytes(self._received)

    def _has(self, what: bytes | int) -> bool:
        return len(self._received) >= what if isinstance(what, int) else what in self._received

    def _take(self, size: int) -> bytes:
        data = bytes(self._received[self._taken : self._taken + size])
        self._taken += size
        return data

    def _read_more(self) -> bool:
        """Read once; False at the client's end. Raises TimeoutError when nothing comes."""
        with self._reading:
            if self._closed is not None:
                return False
            data = b""
            ended: str | None = None
            try:
                data = self._sock.recv(65536)
                ended = None if data else "eof"
            except (ConnectionResetError, BrokenPipeError):
                ended = "reset"
            except ssl.SSLError as error:
                if isinstance(error, ssl.SSLWantReadError):
                    raise
                ended = "eof" if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) else "reset"
            with self._changed:
                self._received += data
                self._closed = ended
                self._changed.notify_all()
            return ended is None


class ScriptedServer:
    """Listens on a loopback port and runs a script for each connection. A context manager; `close()` reports errors.

    `scripts` are taken in the order of connections; `then` runs for each one beyond, and without it such a connection is an
    error of the test: it is reset, and `close()` raises.
    """

    def __init__(
        self,
        *scripts: Script,
        then: Script | None = None,
        tls: Certificate | None = None,
        alpn: Sequence[str] | None = None,
        client_ca: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._scripts = list(scripts)
        self._then = then
        self._timeout = timeout
        self._context = _context(tls, alpn, client_ca) if tls is not None else None
        self._peers: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._errors_count = True
        self._changed = threading.Condition()
        self._closing = False  # no connections any more
        self._ended = False  # no errors any more
        self._sock = listening_socket()
        self.port: int = self._sock.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}"
        self._thread = threading.Thread(target=self._accept, name="hostile-accept", daemon=True)
        self._thread.start()

    @property
    def accepted(self) -> int:
        """How many connections have been accepted so far."""
        with self._changed:
            return len(self._peers)

    def peer(self, index: int = 0, timeout: float = TIMEOUT) -> Peer:
        """The connection of that number, once it has been accepted (and TLS has been agreed on, or refused)."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._peers) > index, timeout):
                raise TimeoutError(f"connection {index} was not made within {timeout} s; {len(self._peers)} were")
            return self._peers[index]

    def wait_scripts(self, timeout: float = TIMEOUT) -> None:
        """Wait until every accepted connection's script has ended."""
        for thread in list(self._threads):
            thread.join(timeout)
            if thread.is_alive():
                raise TimeoutError(f"{thread.name} did not end within {timeout} s")

    def ignore_errors(self) -> None:
        """What scripts raise, PeerClosed above all, is no error of this test."""
        self._errors_count = False

    def stop_listening(self) -> None:
        """Refuse further connections; those accepted go on."""
        if not self._closing:
            self._closing = True
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
            self._thread.join(TIMEOUT)
            self._sock.close()

    def close(self) -> None:
        """Stop listening, close every connection, and raise what scripts raised. Idempotent."""
        self.stop_listening()
        self._ended = True
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer._sock.shutdown(socket.SHUT_RDWR)  # wakes a script in recv()
        for thread in self._threads:
            thread.join(self._timeout + 1)
        for peer in self._peers:
            peer._sock.close()
        errors, self._errors = self._errors, []
        if errors and self._errors_count:
            raise errors[0]

    def __enter__(self) -> "ScriptedServer":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self.ignore_errors()  # the test has failed already; what the script says comes of it
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            if self._closing:
                sock.close()
                return
            index = len(self._peers)
            try:
                peer = Peer(sock, index, timeout=self._timeout)
            except OSError:  # gone before it could be looked at
                sock.close()
                continue
            script = self._scripts[index] if index < len(self._scripts) else self._then
            thread = threading.Thread(target=self._run, args=(peer, script), name=f"hostile-{index}", daemon=True)
            with self._changed:
                self._peers.append(peer)
                self._threads.append(thread)
                self._changed.notify_all()
                thread.start()  # who sees the peer may join the thread

    def _run(self, peer: Peer, script: Script | None) -> None:
        try:
            if script is None:
                peer.reset()
                raise AssertionError(f"connection {peer.index} was not expected")
            if self._context is not None:
                peer.secure(self._context)
            for step in [script] if callable(script) else script:
                step(peer)
        except BaseException as error:
            if not self._ended:  # by then the test has had all it wanted
                self._errors.append(error)
        finally:
            peer.script_ended.set()


class BlackHole:
    """An address on loopback whose connects never complete: its backlog is full. A context manager."""

    def __init__(self) -> None:
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        self._sock.listen(0)
        self.port: int = self._sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._filling: list[socket.socket] = []
        # Linux completes backlog + 1 handshakes; one more, to be sure, stays in SYN-SENT for ever.
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self._filling.append(filler)

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        for sock in (*self._filling, self._sock):
            sock.close()

    def __enter__(self) -> "BlackHole":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def refused_port() -> Generator[int, None, None]:
    """A port that refuses connections and cannot become anybody else's meanwhile: bound, and nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


def _context(certificate: Certificate, alpn: Sequence[str] | None, client_ca: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(certificate.cert, certificate.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


# Steps


def _step(method: Callable[..., object]) -> Callable[..., Step]:
    """The step that calls a method of `Peer` with the given arguments."""

    @functools.wraps(method)
    def make(*args: object, **keywords: object) -> Step:
        return lambda peer: method(peer, *args, **keywords)

    return make


read_head = _step(Peer.read_head)
read_body = _step(Peer.read_body)
read_request = _step(Peer.read_request)
read_exactly = _step(Peer.read_exactly)
read_until = _step(Peer.read_until)
send = _step(Peer.send)
send_slowly = _step(Peer.send_slowly)
send_chunk = _step(Peer.send_chunk)
wait = _step(Peer.wait)
half_close = _step(Peer.half_close)
close = _step(Peer.close)
reset = _step(Peer.reset)
wait_closed = _step(Peer.wait_closed)


def signal(event: threading.Event) -> Step:
    """Set an event, so that the test knows that the script has come here."""
    return lambda peer: event.set()


def response(
    body: bytes = b"", status: int = 200, headers: Iterable[tuple[str, str]] = (), *, length: bool = True
) -> bytes:
    """The bytes of a plain HTTP/1.1 response, with its Content-Length unless `length` is False."""
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers)]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def serve(*answers: bytes) -> Step:
    """Read a request and send the answer, once for each, on one connection; then wait for the client to go."""

    def script(peer: Peer) -> None:
        for answer in answers:
            peer.read_request()
            peer.send(answer)
        with contextlib.suppress(TimeoutError):
            peer.wait_closed()

    return script


def serve_forever(answer: bytes) -> Step:
    """Answer every request on the connection the same, until the client goes."""

    def script(peer: Peer) -> None:
        with contextlib.suppress(PeerClosed, TimeoutError):
            while True:
                peer.read_request()
                peer.send(answer)

    return script
