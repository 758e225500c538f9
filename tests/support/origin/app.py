"""The application that all front ends serve: dispatch, the journal, gates. The routes are in routes.py.

Plain ASGI, so that hypercorn serves it too; what a route does beyond ASGI works on the strict front ends only (streams.py).
All front ends of a process share one application, so that a control request over one of them sees what another one did.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from tests.support.origin.streams import Gone, Message, RawHeaders, Receive, Scope, Send

Handler: TypeAlias = Callable[["Exchange"], Awaitable[None]]

# By first segment of the path: the handler, and whether it reads the request body itself, of a GET too.
ROUTES: dict[str, tuple[Handler, bool]] = {}


def route(*prefixes: str, reads: bool = False) -> Callable[[Handler], Handler]:
    """Register a handler for paths that are a prefix, or continue it after a slash."""

    def register(handler: Handler) -> Handler:
        for prefix in prefixes:
            ROUTES[prefix] = (handler, reads)
        return handler

    return register


class Entry:
    """What the journal knows of one id: sums over its requests."""

    def __init__(self) -> None:
        self.count = 0
        self.received = 0
        self.sent = 0
        self.bodies = 0
        self.finished = 0
        self.disconnected = 0
        self.versions: list[str] = []
        self.ports: list[int] = []

    def as_json(self) -> dict[str, Any]:
        """The fields, for the control route."""
        return dict(vars(self))

    def holds(self, condition: str) -> bool:
        """Whether a condition of the control route's `until` holds."""
        name, _, least = condition.partition(">=")
        if least:
            return bool(getattr(self, name) >= int(least))
        return {
            "started": self.count > 0,
            "body": self.bodies > 0,
            "disconnected": self.disconnected > 0,
            "finished": self.finished > 0,
            "over": self.finished + self.disconnected > 0,
        }[name]


class State:
    """What outlives a request: the journal, the gates."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._gates: dict[str, asyncio.Semaphore] = {}
        self._open: set[str] = set()
        self.changed = asyncio.Event()

    def entry(self, name: str) -> Entry:
        """The entry of an id."""
        return self.entries.setdefault(name, Entry())

    def note(self) -> None:
        """An entry has changed: let those who wait for one look."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def pass_gate(self, name: str) -> None:
        """Take one permit, waiting for it."""
        if name not in self._open:
            await self._gates.setdefault(name, asyncio.Semaphore(0)).acquire()

    def open_gate(self, name: str, permits: int | None) -> None:
        """Give permits; None: for ever."""
        gate = self._gates.setdefault(name, asyncio.Semaphore(0))
        if permits is None:
            self._open.add(name)
        # However many wait at an opened gate, they are fewer than this.
        for _ in range(10_000 if permits is None else permits):
            gate.release()


class Exchange:
    """One request and its response, as the routes see it."""

    def __init__(self, state: State, scope: Scope, receive: Receive, send: Send) -> None:
        self.state = state
        self.scope = scope
        self.query: dict[str, str] = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        self.version: str = scope["http_version"]
        self.strict = "katipo" in scope
        self._body_complete = asyncio.Event()
        self._receive = receive
        self._send = send
        self._entry = state.entry(self.query["id"]) if "id" in self.query else None

    # Arguments

    @property
    def rest(self) -> str:
        """What follows the first segment of the path."""
        return str(self.scope["path"]).lstrip("/").partition("/")[2]

    def number(self, name: str, default: int = 0) -> int:
        """A whole number of the query."""
        return int(self.query.get(name, default))

    def seconds(self, name: str) -> float:
        """A time of the query."""
        return float(self.query.get(name, 0))

    def header(self, name: str) -> str:
        """The first request header of that name, or ""."""
        wanted = name.encode().lower()
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key.lower() == wanted), "")

    # The journal

    @property
    def entry(self) -> Entry:
        """The journal's entry; a throw-away one without an id."""
        if self._entry is None:
            self._entry = Entry()
        return self._entry

    def note_start(self) -> None:
        """The request has arrived."""
        self.entry.count += 1
        self.entry.versions.append(self.version)
        client = self.scope.get("client")
        self.entry.ports.append(client[1] if client else 0)
        self.state.note()

    def note_gone(self) -> None:
        """The client has gone."""
        self.entry.disconnected += 1
        self.state.note()

    # The request body

    async def pieces(self, limit: int | None = None) -> AsyncIterator[bytes]:
        """The request body as it comes, to its end or until `limit` bytes have been read. Raises Gone."""
        total = 0
        while not self._body_complete.is_set() and (limit is None or total < limit):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            data: bytes = message.get("body", b"")
            total += len(data)
            self.entry.received += len(data)
            if not message.get("more_body", False):
                self._body_complete.set()
                self.entry.bodies += 1
            self.state.note()
            if data:
                yield data

    async def read(self) -> bytes:
        """The whole request body, or the rest of it."""
        return b"".join([piece async for piece in self.pieces()])

    async def watch(self) -> None:
        """Return when the client goes; looked at only once the body has been read to its end."""
        await self._body_complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # The response

    async def send(self, message: Message) -> None:
        """Send an ASGI message."""
        await self._send(message)

    async def start(self, status: int = 200, headers: RawHeaders | None = None, *, trailers: bool = False) -> None:
        """Send the head."""
        await self._send(
            {"type": "http.response.start", "status": status, "headers": headers or [], "trailers": trailers}
        )

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self.entry.sent += len(data)
        self.state.note()

    async def end(self, data: bytes = b"", trailers: RawHeaders | None = None) -> None:
        """Send the last piece and the end."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
        if trailers is not None:
            await self._send({"type": "http.response.trailers", "headers": trailers})
        self.entry.sent += len(data)
        self.entry.finished += 1
        self.state.note()

    async def answer(self, status: int, body: bytes = b"", headers: RawHeaders | None = None) -> None:
        """Send a whole response; with a length, except where there must be no body."""
        fixed = list(headers or [])
        if status not in (204, 304) and status >= 200:
            fixed.append((b"content-length", b"%d" % len(body)))
        else:
            body = b""
        await self.start(status, fixed)
        await self.end(body)

    async def answer_json(self, value: object, status: int = 200) -> None:
        """Send a whole response as JSON."""
        await self.answer(status, json.dumps(value).encode(), [(b"content-type", b"application/json")])


class Application:
    """The ASGI application."""

    def __init__(self) -> None:
        self.state = State()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await _lifespan(receive, send)
            return
        exchange = Exchange(self.state, scope, receive, send)
        first = "/" + str(scope["path"]).lstrip("/").partition("/")[0]
        if first == "/control":
            await _control(exchange)
            return
        handler, reads = ROUTES.get(first, (_unknown, False))
        exchange.note_start()
        try:
            if not reads and scope["method"] in ("GET", "HEAD"):
                await exchange.read()
            await _guarded(exchange, handler)
        except Gone:
            exchange.note_gone()


async def _guarded(exchange: Exchange, handler: Handler) -> None:
    """Run the handler, and cut it off when the client goes after the end of its body: a handler need not look."""
    working = asyncio.ensure_future(handler(exchange))
    watching = asyncio.ensure_future(exchange.watch())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        await working
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.wait((working, watching))


async def _unknown(exchange: Exchange) -> None:
    await exchange.answer(404, b"no such route")


async def _control(exchange: Exchange) -> None:
    command, _, name = exchange.rest.partition("/")
    if command == "gate":
        permits = exchange.query["permits"]
        exchange.state.open_gate(name, None if permits == "all" else int(permits))
        await exchange.answer(204)
    elif command == "journal":
        await _journal(exchange, name)
    else:
        await _unknown(exchange)


async def _journal(exchange: Exchange, name: str) -> None:
    state = exchange.state
    until = exchange.query.get("until", "")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + exchange.seconds("timeout")
    entry = state.entry(name)
    while until and not entry.holds(until):
        try:
            await asyncio.wait_for(state.changed.wait(), deadline - loop.time())
        except asyncio.TimeoutError:
            await exchange.answer_json(entry.as_json(), 504)
            return
    await exchange.answer_json(entry.as_json())


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
