"""The strict front end for HTTP/1.1, on h11: full duplex, trailers, informational blocks, lingering close, RST."""

import asyncio
import contextlib
import http.client
import socket
import struct

import h11

from tests.support.origin.streams import WINDOW, App, Gone, RawHeaders, Scope, Stream

# How long a connection whose request body was not wanted is read on, so that the response is not lost to a RST; as nginx's
# lingering_timeout.
LINGER = 5.0


class Http1Connection:
    """One connection, request after request. The reading half; `Http1Stream` writes."""

    def __init__(
        self, app: App, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, secure: bool, first: bytes = b""
    ) -> None:
        # A drain returns when the kernel has everything, so that a reset after it loses nothing.
        writer.transport.set_write_buffer_limits(high=1, low=0)
        self.writer = writer
        self.machine = h11.Connection(h11.SERVER, max_incomplete_event_size=256 * 1024)
        self.say_close = False
        self._app = app
        self._reader = reader
        self._secure = secure
        self._stream: Http1Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self._discard = False
        self._changed = asyncio.Event()
        self._first = first

    async def serve(self) -> None:
        """Serve until either side closes."""
        try:
            self.machine.receive_data(self._first)  # never empty: an empty piece would mean the end
            while await self._handle_events():
                data = await self._reader.read(65536)
                if not self._discard:
                    self.machine.receive_data(data)
                elif not data:
                    break
        except (OSError, h11.RemoteProtocolError):
            pass
        finally:
            if self._stream is not None:
                self._stream.feed_gone()
            if self._task is not None:
                await self._task
            self.writer.close()

    async def _handle_events(self) -> bool:
        """Handle what h11 has parsed; False when nothing more can come."""
        while not self._discard:
            event = self.machine.next_event()
            if event is h11.NEED_DATA:
                return True
            if event is h11.PAUSED:  # the next request is here already
                assert self._task is not None
                await asyncio.wait((self._task,))
                if self.machine.their_state is h11.DONE:
                    return self._discard
            elif isinstance(event, h11.Request):
                self._start(event)
            elif isinstance(event, h11.Data):
                await self._feed(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert self._stream is not None
                self._stream.feed_end()
            else:
                return False  # h11.ConnectionClosed
        return True

    def _start(self, event: h11.Request) -> None:
        path, _, query = event.target.partition(b"?")
        scope: Scope = {
            "type": "http",
            "http_version": event.http_version.decode(),
            "method": event.method.decode(),
            "scheme": "https" if self._secure else "http",
            "path": path.decode(),
            "query_string": query,
            "headers": [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()],
            "client": self.writer.get_extra_info("peername")[:2],
        }
        self._stream = Http1Stream(self, scope)
        self._task = asyncio.create_task(self._run(self._stream))

    async def _run(self, stream: "Http1Stream") -> None:
        await stream.run(self._app)
        if stream.gone or stream.aborted:
            pass
        elif self.machine.our_state is h11.DONE and self.machine.their_state is h11.DONE:
            self._stream = None
            self.machine.start_next_cycle()
        elif stream.response_ended and not stream.request_ended:
            self._linger()
        else:
            self.writer.close()
        self._changed.set()

    def _linger(self) -> None:
        # The connection cannot be used again, but closing it now would turn the unread body into a RST that can overtake
        # the response (RFC 9112 9.6): read on, and close when the client has, or after LINGER.
        self._discard = True
        if self.writer.can_write_eof():  # TLS cannot
            with contextlib.suppress(OSError):
                self.writer.write_eof()
        asyncio.get_running_loop().call_later(LINGER, self.writer.close)

    async def _feed(self, data: bytes) -> None:
        assert self._stream is not None
        assert self._task is not None
        self._stream.feed(data)
        while self._stream.held > WINDOW and not self._task.done() and not self._discard:
            self._changed.clear()
            await self._changed.wait()

    def changed(self) -> None:
        """The application has taken something, or has ended."""
        self._changed.set()


class Http1Stream(Stream):
    """One request on an `Http1Connection`."""

    def __init__(self, connection: Http1Connection, scope: Scope) -> None:
        super().__init__(scope)
        self._connection = connection
        self._status = 0
        self.held = 0

    def feed(self, data: bytes) -> None:
        self.held += len(data)
        super().feed(data)

    def taken(self, size: int) -> None:
        self.held -= size
        self._connection.changed()

    def wake(self) -> None:
        pass  # a write to a closed connection fails by itself

    async def want(self) -> None:
        if self._connection.machine.they_are_waiting_for_100_continue:
            await self.send_interim(100, [])

    async def send_start(self, status: int, headers: RawHeaders) -> None:
        self._status = status
        if self._connection.say_close:
            headers.append((b"connection", b"close"))
        reason = self.scope["katipo"].get("reason", http.client.responses.get(status, "").encode())
        await self._write(h11.Response(status_code=status, headers=headers, reason=reason))

    async def send_interim(self, status: int, headers: RawHeaders) -> None:
        await self._write(h11.InformationalResponse(status_code=status, headers=headers))

    async def send_data(self, data: bytes) -> None:
        if self.scope["method"] != "HEAD" and self._status not in (204, 304):
            await self._write(h11.Data(data=data))

    async def send_end(self, trailers: RawHeaders) -> None:
        await self._write(h11.EndOfMessage(headers=trailers))

    async def send_stop(self) -> None:
        pass  # the connection lingers when the application has ended

    async def send_reset(self) -> None:
        sock = self._connection.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.writer.transport.abort()

    async def send_refusal(self) -> None:
        await self.close_connection()

    async def send_goaway(self) -> None:
        self._connection.say_close = True

    async def close_connection(self) -> None:
        self._connection.writer.close()

    async def _write(self, event: h11.Event) -> None:
        writer = self._connection.writer
        if writer.is_closing():
            raise Gone
        data = self._connection.machine.send(event)
        try:
            if data:
                writer.write(data)
            await writer.drain()
        except OSError as error:
            raise Gone from error
        # A drain with nothing to wait for does not yield, and what is written after a client's close_notify vanishes without
        # an error: let the reading half see the end.
        await asyncio.sleep(0)
