"""One request on a strict front end: the ASGI application on one side, the frames of a protocol on the other.

A front end makes a `Stream` per request, feeds it with what arrives, and implements the sending half. It learns through
`taken` how many bytes the application has taken, and gives the peer that much credit and no more.

Beyond ASGI the scope has `scope["katipo"]`, and the application may send:

    {"type": "katipo.interim", "status", "headers"}   an informational block
    {"type": "katipo.reset"}                          end this exchange as an internal error does: TCP RST, or a stream reset
    {"type": "katipo.refuse"}                         refuse the stream as unprocessed (HTTP/1.1 has none: close)
    {"type": "katipo.goaway"}                         accept nothing after this stream (HTTP/1.1: Connection: close)
    {"type": "katipo.close"}                          close the whole connection, without a goodbye
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

log = logging.getLogger("origin")

# What a front end holds for an application that does not take it, per stream.
WINDOW = 256 * 1024


class Gone(ConnectionError):
    """The peer reset the stream or closed the connection: nothing can be sent any more."""


class Stream(ABC):
    """Runs the application for one request. Belongs to one event loop."""

    def __init__(self, scope: Scope) -> None:
        scope["katipo"] = {}
        scope["extensions"] = {"http.response.trailers": {}}
        self.scope = scope
        self.gone = False
        self.request_ended = False
        self.response_ended = False
        self.aborted = False  # by the application: reset, refused, closed
        self._started = False
        self._trailers_follow = False
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()

    # What a front end calls

    def feed(self, data: bytes) -> None:
        """A piece of the request body has arrived."""
        self._inbox.put_nowait({"type": "http.request", "body": data, "more_body": True})

    def feed_end(self) -> None:
        """The request body is complete."""
        self.request_ended = True
        self._inbox.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    def feed_gone(self) -> None:
        """The peer has reset this stream, or its connection has ended. Idempotent."""
        if not self.gone:
            self.gone = True
            self._inbox.put_nowait({"type": "http.disconnect"})
            self.wake()

    async def run(self, app: App) -> None:
        """Run the application to its end, then settle what it left open."""
        try:
            await app(self.scope, self._receive, self._send)
        except Gone:
            pass
        except Exception:
            log.exception("the application failed")
        if self.gone or self.aborted:
            return
        try:
            if not self.response_ended:
                await self.send_reset()
            elif not self.request_ended:
                await self.send_stop()
        except Gone:
            pass

    async def want(self) -> None:  # noqa: B027 - most front ends have nothing to do
        """The application asks for the request body: the moment for a 100 (Continue), where a front end has one."""

    # What a front end implements. All may raise Gone.

    @abstractmethod
    def taken(self, size: int) -> None:
        """The application has taken `size` bytes of the request body."""

    @abstractmethod
    def wake(self) -> None:
        """Let a sender that waits for the peer look at `gone`."""

    @abstractmethod
    async def send_start(self, status: int, headers: RawHeaders) -> None:
        """Send the response's head at once."""

    @abstractmethod
    async def send_interim(self, status: int, headers: RawHeaders) -> None:
        """Send an informational head at once."""

    @abstractmethod
    async def send_data(self, data: bytes) -> None:
        """Send a piece of the body at once; returns when the peer has room for more."""

    @abstractmethod
    async def send_end(self, trailers: RawHeaders) -> None:
        """End the response."""

    @abstractmethod
    async def send_stop(self) -> None:
        """The response is complete and the rest of the request is not wanted."""

    @abstractmethod
    async def send_reset(self) -> None:
        """Cut the response off."""

    @abstractmethod
    async def send_refusal(self) -> None:
        """Say that the request was not processed."""

    @abstractmethod
    async def send_goaway(self) -> None:
        """Say that this is the last request on the connection."""

    @abstractmethod
    async def close_connection(self) -> None:
        """Close the connection under all its streams."""

    # The application's side

    async def _receive(self) -> Message:
        await self.want()
        message = await self._inbox.get()
        if message.get("body"):
            self.taken(len(message["body"]))
        return message

    async def _send(self, message: Message) -> None:
        if self.gone:
            raise Gone
        kind = message["type"]
        if kind == "http.response.start":
            self._started = True
            self._trailers_follow = bool(message.get("trailers", False))
            await self.send_start(message["status"], list(message.get("headers", [])))
        elif kind == "http.response.body":
            if message.get("body"):
                await self.send_data(message["body"])
            if not message.get("more_body", False) and not self._trailers_follow:
                await self._end([])
        elif kind == "http.response.trailers":
            await self._end(list(message["headers"]))
        elif kind == "katipo.interim":
            await self.send_interim(message["status"], list(message.get("headers", [])))
        elif kind == "katipo.goaway":
            await self.send_goaway()
        elif kind in ("katipo.reset", "katipo.refuse", "katipo.close"):
            self.aborted = True
            await {
                "katipo.reset": self.send_reset,
                "katipo.refuse": self.send_refusal,
                "katipo.close": self.close_connection,
            }[kind]()
        else:
            raise ValueError(f"the application sent {kind!r}")

    async def _end(self, trailers: RawHeaders) -> None:
        await self.send_end(trailers)
        self.response_ended = True
