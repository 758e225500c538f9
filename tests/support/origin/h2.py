"""The strict front end for HTTP/2, on the h2 library: windows by what the application takes, resets, refusals, GOAWAY."""

import asyncio
import contextlib
from collections.abc import Generator

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from tests.support.origin.streams import WINDOW, App, Gone, RawHeaders, Scope, Stream

# A stalled stream must not stall its siblings: the connection's window holds the windows of all streams.
MAX_STREAMS = 128


class Http2Connection:
    """One connection and its streams. The reading half; `Http2Stream` writes."""

    def __init__(
        self, app: App, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, secure: bool, first: bytes = b""
    ) -> None:
        writer.transport.set_write_buffer_limits(high=1, low=0)
        self.writer = writer
        self.machine = h2.connection.H2Connection(
            config=h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        codes = h2.settings.SettingCodes
        self.machine.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.INITIAL_WINDOW_SIZE: WINDOW,
                codes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                codes.MAX_HEADER_LIST_SIZE: 256 * 1024,
            },
        )
        self._app = app
        self._reader = reader
        self._secure = secure
        self._first = first
        self._streams: dict[int, Http2Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_stream: int | None = None
        self._newest = 0
        # Set and replaced when a window opens or a stream goes: senders wait on it.
        self._moved = asyncio.Event()

    async def serve(self) -> None:
        """Serve until either side closes."""
        try:
            self.machine.initiate_connection()
            self.machine.increment_flow_control_window(WINDOW * MAX_STREAMS)
            self.write()
            data = self._first or await self._reader.read(65536)
            while data:
                for event in self.machine.receive_data(data):
                    self._handle(event)
                # Never wait for the client to read here: it may be waiting for the credit that it has just asked for.
                self.write()
                if self._last_stream is not None and not self._streams:
                    break
                data = await self._reader.read(65536)
        except (OSError, h2.exceptions.ProtocolError):
            self.write()
        finally:
            for stream in list(self._streams.values()):
                stream.feed_gone()
            if self._tasks:
                await asyncio.wait(self._tasks)
            self.writer.close()

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._start(event)
        elif isinstance(event, h2.events.DataReceived):
            stream = self._streams.get(event.stream_id)
            padding = event.flow_controlled_length
            if stream is not None and event.data:
                stream.feed(event.data)
                padding -= len(event.data)
            if padding:
                self.credit(event.stream_id, padding)
        elif isinstance(event, h2.events.StreamEnded):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.feed_end()
        elif isinstance(event, h2.events.StreamReset):
            stream = self._streams.pop(event.stream_id, None)
            if stream is not None:
                stream.feed_gone()
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self.moved()

    def _start(self, event: h2.events.RequestReceived) -> None:
        if self._last_stream is not None and event.stream_id > self._last_stream:
            return  # after our GOAWAY: ignored, and the client knows
        self._newest = event.stream_id
        pseudo = {bytes(name): bytes(value) for name, value in event.headers if name[:1] == b":"}
        path, _, query = pseudo[b":path"].partition(b"?")
        headers = [(bytes(name), bytes(value)) for name, value in event.headers if name[:1] != b":"]
        scope: Scope = {
            "type": "http",
            "http_version": "2",
            "method": pseudo[b":method"].decode(),
            "scheme": pseudo[b":scheme"].decode(),
            "path": path.decode(),
            "query_string": query,
            "headers": [(b"host", pseudo.get(b":authority", b"")), *headers],
            "client": self.writer.get_extra_info("peername")[:2],
        }
        stream = self._streams[event.stream_id] = Http2Stream(self, event.stream_id, scope)
        task = asyncio.create_task(self._run(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, stream: "Http2Stream") -> None:
        await stream.run(self._app)
        self._streams.pop(stream.stream_id, None)
        if self._last_stream is not None and not self._streams:
            self.writer.close()

    def credit(self, stream_id: int, size: int) -> None:
        """Give the peer `size` bytes of window back; sent with the next write."""
        with contextlib.suppress(h2.exceptions.ProtocolError):  # the stream has ended: the connection's part is given
            self.machine.acknowledge_received_data(size, stream_id)

    def credit_soon(self, stream_id: int, size: int) -> None:
        """The same from outside of the reading half."""
        self.credit(stream_id, size)
        self.write()

    def write(self) -> None:
        """Write what h2 has to send."""
        data = self.machine.data_to_send()
        if data and not self.writer.is_closing():
            self.writer.write(data)

    async def flush(self) -> None:
        """The same, and wait until the kernel has it."""
        if self.writer.is_closing():
            raise Gone
        self.write()
        try:
            await self.writer.drain()
        except OSError as error:
            raise Gone from error
        # A drain with nothing to wait for does not yield, and what is written after a client's close_notify vanishes without
        # an error: let the reading half see the end.
        await asyncio.sleep(0)

    def goaway(self) -> int:
        """Accept nothing more; the last stream that was accepted (it runs: to name an earlier one would be a lie)."""
        if self._last_stream is None:
            self._last_stream = self._newest
        return self._last_stream

    def moved(self) -> None:
        """Let waiting senders look again."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait_moved(self) -> None:
        """Wait for a window to open or a stream to go."""
        await self._moved.wait()


class Http2Stream(Stream):
    """One stream of an `Http2Connection`."""

    def __init__(self, connection: Http2Connection, stream_id: int, scope: Scope) -> None:
        super().__init__(scope)
        self._connection = connection
        self._machine = connection.machine
        self.stream_id = stream_id

    def taken(self, size: int) -> None:
        self._connection.credit_soon(self.stream_id, size)

    def wake(self) -> None:
        self._connection.moved()

    async def send_start(self, status: int, headers: RawHeaders) -> None:
        await self._send_headers(status, headers)

    async def send_interim(self, status: int, headers: RawHeaders) -> None:
        await self._send_headers(status, headers)

    async def send_data(self, data: bytes) -> None:
        if self.scope["method"] == "HEAD":
            return
        rest = memoryview(data)
        while rest:
            try:
                room = self._machine.local_flow_control_window(self.stream_id)
                size = min(room, self._machine.max_outbound_frame_size, len(rest))
                if size > 0:
                    self._machine.send_data(self.stream_id, bytes(rest[:size]))
            except h2.exceptions.ProtocolError as error:
                raise Gone from error
            if size > 0:
                rest = rest[size:]
                await self._connection.flush()
            else:
                await self._connection.wait_moved()
            if self.gone:
                raise Gone

    async def send_end(self, trailers: RawHeaders) -> None:
        with _gone():
            if trailers:
                self._machine.send_headers(self.stream_id, trailers, end_stream=True)
            else:
                self._machine.end_stream(self.stream_id)
        await self._connection.flush()

    async def send_stop(self) -> None:
        await self._send_reset(h2.errors.ErrorCodes.NO_ERROR)  # RFC 9113 8.1

    async def send_reset(self) -> None:
        await self._send_reset(h2.errors.ErrorCodes.INTERNAL_ERROR)

    async def send_refusal(self) -> None:
        await self._send_reset(h2.errors.ErrorCodes.REFUSED_STREAM)

    async def send_goaway(self) -> None:
        last_stream = self._connection.goaway()
        # close_connection() of h2 would refuse to send the response that is still to come: the frame is written by hand,
        # GOAWAY with the last stream and NO_ERROR (RFC 9113 6.8).
        frame = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last_stream.to_bytes(4, "big") + bytes(4)
        await self._connection.flush()
        self._connection.writer.write(frame)

    async def close_connection(self) -> None:
        self._connection.writer.close()

    async def _send_headers(self, status: int, headers: RawHeaders) -> None:
        with _gone():
            self._machine.send_headers(self.stream_id, [(b":status", b"%d" % status), *headers])
        await self._connection.flush()

    async def _send_reset(self, code: h2.errors.ErrorCodes) -> None:
        with _gone():
            self._machine.reset_stream(self.stream_id, code)
        await self._connection.flush()


@contextlib.contextmanager
def _gone() -> Generator[None, None, None]:
    try:
        yield
    except h2.exceptions.ProtocolError as error:
        raise Gone from error
