"""A server small enough to be read, for tests of what stands on one: HTTP/1.1, a thread per connection, gates to open.

Routes; `gate=NAME` in a query waits for one `open(NAME)` before each piece:

    /ok                   "METHOD target", or the request's body where there is one
    /status?code=&gate=   an empty response
    /stream?n=&size=&gate=    n pieces, the i-th all digit i; a trailer
    /echo                 each piece of a chunked request body as it comes
    /coded?size=&how=whole|cut|bad    size zeros in gzip
    /cut                  "before", then the connection closes, short of its Content-Length
    /hang                 never answers
"""

import contextlib
import gzip
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import parse_qsl, urlsplit


class TinyServer:
    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._gates: dict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(0))
        self._connections: set[socket.socket] = set()
        self.seen: list[str] = []
        """Targets of the requests so far."""
        self.arrived: dict[str, threading.Event] = defaultdict(threading.Event)
        """By target: a request for it is here."""
        self.gone: dict[str, threading.Event] = defaultdict(threading.Event)
        """By target: its client has closed the connection before the response was over."""
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def open(self, gate: str, times: int = 1) -> None:
        self._gates[gate].release(times)

    def wait_idle(self) -> None:
        """Until no connection is left. For a test that counts what the process has: the server is part of it."""
        for thread in self._threads[1:]:
            thread.join(10)

    def close(self) -> None:
        """End every thread and close every socket."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        self._listener.close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()
            self._threads = [each for each in self._threads if each.is_alive()] + [thread]

    def _serve(self, connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        target = ""
        try:
            while line := reader.readline():
                method, target, _ = line.decode().split()
                headers: dict[str, str] = {}
                while (line := reader.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                self.seen.append(target)
                self.arrived[target].set()
                if not self._answer(connection, reader, method, target, headers):
                    break
        except (OSError, ValueError):
            self.gone[target].set()
        finally:
            self._connections.discard(connection)
            reader.close()
            connection.close()

    def _wait(self, connection: socket.socket, query: dict[str, str], target: str) -> None:
        """For the gate, or the end of the connection."""
        if "gate" not in query:
            return
        gate = self._gates[query["gate"]]
        while not gate.acquire(timeout=0.02):
            connection.settimeout(0)
            try:
                if connection.recv(1, socket.MSG_PEEK) == b"":
                    raise OSError("the client has gone")
            except BlockingIOError:
                pass
            finally:
                connection.settimeout(None)

    def _answer(
        self, connection: socket.socket, reader: BinaryIO, method: str, target: str, headers: dict[str, str]
    ) -> bool:
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        body = _body(reader, headers)
        if url.path == "/echo":
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in body:
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\n\r\n")
        elif url.path == "/stream":
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n")
            size = int(query.get("size", 1))
            for i in range(int(query.get("n", 3))):
                self._wait(connection, query, target)
                connection.sendall(b"%x\r\n%s\r\n" % (size, b"%d" % (i % 10) * size))
            connection.sendall(b"0\r\nX-End: yes\r\n\r\n")
        elif url.path == "/coded":
            coded = gzip.compress(bytes(int(query.get("size", 1000))))
            if query.get("how") == "cut":
                coded = coded[:-12]
            elif query.get("how") == "bad":
                coded = coded[: len(coded) // 2] + b"not what it should be" + coded[len(coded) // 2 :]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(coded))
            connection.sendall(coded)
        elif url.path == "/cut":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbefore")
            return False
        elif url.path == "/hang":
            self._wait(connection, {"gate": "never"}, target)
        else:
            self._wait(connection, query, target)
            sent = b"".join(body)
            content = b"" if url.path == "/status" else sent or f"{method} {target}".encode()
            head = b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n" % (int(query.get("code", 200)), len(content))
            connection.sendall(head + (b"" if method == "HEAD" else content))
        return True


def _body(reader: BinaryIO, headers: dict[str, str]) -> Iterator[bytes]:
    if headers.get("transfer-encoding") == "chunked":
        while size := int(reader.readline(), 16):
            yield reader.read(size)
            reader.readline()
        reader.readline()
    elif length := int(headers.get("content-length", 0)):
        yield reader.read(length)
