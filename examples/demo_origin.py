"""The demonstration's server: HTTP/1.1 on the loopback interface, in plain asyncio, in a process of its own.

    GET  /wait?ms=M&n=N   answers N after M milliseconds
    GET  /parts?ms=M      four pieces, the first after M milliseconds, the others M milliseconds apart
    GET  /flood?size=S    S bytes, as fast as they are taken
    GET  /drip            a piece every 20 milliseconds, without end
    POST /item            the request's JSON comes back, with a number
    GET  /login           a cookie, and a redirect to /who
    GET  /who             "you", if the cookie came; else 401
    POST /deaf            reads nothing and says nothing for 10 seconds
    POST /echo            every piece of the request's body comes back before the next one is read
    GET  /counters        {"flood_bytes": sent by /flood so far, "hung_up": connections that were closed under /drip}

Prints its port, and runs until standard input is closed.
"""

import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

_SEND_BUFFER_BYTES = 256 * 1024  # of the server's sockets: what it has "sent" is then not far from what has arrived
_BLOCK = bytes(64 * 1024)


@dataclass
class Counters:
    """What the server has seen."""

    flood_bytes: int = 0
    hung_up: int = 0


@dataclass
class Exchange:
    """One request, and the way to answer it."""

    target: str
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    counters: Counters
    query: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.query = parse_qs(urlsplit(self.target).query)

    def number(self, name: str) -> int:
        """Return a number from the query, 0 when it is not there."""
        return int(self.query.get(name, ["0"])[0])

    async def answer(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        """Send a whole response."""
        lines = "\r\n".join([f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"])
        self.writer.write(lines.encode("ascii") + b"\r\n\r\n" + body)
        await self.writer.drain()

    async def start_pieces(self) -> None:
        """Send the head of a response of unknown length."""
        self.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await self.writer.drain()

    async def piece(self, data: bytes) -> None:
        """Send one piece of it; an empty one is its end."""
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the request's body piece by piece as it comes, its length not known."""
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)


async def _wait(exchange: Exchange) -> None:
    await asyncio.sleep(exchange.number("ms") / 1000)
    await exchange.answer(b"%d" % exchange.number("n"))


async def _parts(exchange: Exchange) -> None:
    pause = exchange.number("ms") / 1000
    await asyncio.sleep(pause)
    await exchange.start_pieces()
    for _ in range(3):
        await exchange.piece(_BLOCK)
        await asyncio.sleep(pause)
    await exchange.piece(_BLOCK)
    await exchange.piece(b"")


async def _flood(exchange: Exchange) -> None:
    left = exchange.number("size")
    connection = exchange.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    exchange.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
    while left:
        block = _BLOCK[:left]
        exchange.writer.write(block)
        await exchange.writer.drain()
        exchange.counters.flood_bytes += len(block)
        left -= len(block)


async def _drip(exchange: Exchange) -> None:
    hung_up = asyncio.ensure_future(exchange.reader.read(1))
    await exchange.start_pieces()
    with contextlib.suppress(ConnectionError):
        while not hung_up.done():
            await exchange.piece(b"drip\n")
            await asyncio.wait([hung_up], timeout=0.02)
        await hung_up
    exchange.counters.hung_up += 1
    raise ConnectionResetError


async def _item(exchange: Exchange) -> None:
    item = json.loads(await exchange.reader.readexactly(int(exchange.headers["content-length"])))
    await exchange.answer(json.dumps({"number": 1, **item}).encode(), "201 Created", "Content-Type: application/json")


async def _login(exchange: Exchange) -> None:
    await exchange.answer(b"", "303 See Other", "Set-Cookie: session=secret; HttpOnly; Path=/", "Location: /who")


async def _who(exchange: Exchange) -> None:
    if exchange.headers.get("cookie") == "session=secret":
        await exchange.answer(b"you")
    else:
        await exchange.answer(b"nobody", "401 Unauthorized")


async def _deaf(exchange: Exchange) -> None:
    exchange.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(10)
    raise ConnectionResetError


async def _echo(exchange: Exchange) -> None:
    await exchange.start_pieces()
    async for data in exchange.body():
        await exchange.piece(data)
    await exchange.piece(b"")


async def _counters(exchange: Exchange) -> None:
    await exchange.answer(json.dumps(exchange.counters.__dict__).encode())


_ROUTES = {
    "/wait": _wait,
    "/parts": _parts,
    "/flood": _flood,
    "/drip": _drip,
    "/item": _item,
    "/login": _login,
    "/who": _who,
    "/deaf": _deaf,
    "/echo": _echo,
    "/counters": _counters,
}


async def _serve(counters: Counters, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection's requests until the client closes it."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            target = head[0].split(" ")[1]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            await _ROUTES[urlsplit(target).path](Exchange(target, headers, reader, writer, counters))
    writer.close()


async def _main() -> None:
    counters = Counters()
    server = await asyncio.start_server(lambda r, w: _serve(counters, r, w), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    os._exit(0)  # what connections are left need not be cancelled one by one


@contextlib.contextmanager
def running() -> Generator[str, None, None]:
    """Run the server in a child process and yield its base URL."""
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
