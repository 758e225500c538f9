"""The strict front end for HTTP/3, on aioquic: what aioquic does not do by itself is flow control by what is consumed.

aioquic doubles a stream's window as data arrives, and buffers all that is sent. Here a stream's window moves as the
application takes bytes, and a sender waits while much is unacknowledged. Both need aioquic's internals (one method replaced,
two attributes read); everything that does so is in this file.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3_ALPN, ErrorCode, FrameType, H3Connection, encode_frame
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent, StopSendingReceived, StreamReset
from aioquic.quic.packet import QuicFrameType

from tests.support.certs import Certificate
from tests.support.origin.streams import WINDOW, App, Gone, RawHeaders, Scope, Stream

# Sent and not yet acknowledged, per stream; a few round trips' worth on loopback.
SEND_BUFFER = 256 * 1024
# How long a reset waits for the bytes before it to be acknowledged; a client that holds its window shut never does.
DELIVERY_TIMEOUT = 1.0
# Type, stream and offset of MAX_STREAM_DATA: one byte and two variable-length integers of at most 8.
MAX_STREAM_DATA_SIZE = 17


def make_server(app: App, certificate: Certificate) -> Callable[[], QuicServer]:
    """A factory of asyncio datagram protocols."""
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=H3_ALPN,
        max_data=64 << 20,
        max_stream_data=WINDOW,
        max_datagram_size=1350,
    )
    configuration.load_cert_chain(certificate.cert, certificate.key)

    def create(quic: QuicConnection, **_: Any) -> Http3Connection:
        return Http3Connection(app, quic)

    return lambda: QuicServer(configuration=configuration, create_protocol=create)


class Http3Connection(QuicConnectionProtocol):
    """One QUIC connection and its streams."""

    def __init__(self, app: App, quic: QuicConnection) -> None:
        super().__init__(quic)
        self._app = app
        self._h3: H3Connection | None = None
        self._streams: dict[int, Http3Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_stream: int | None = None
        self._newest = 0
        self._moved = asyncio.Event()
        quic._write_stream_limits = self._write_stream_limits  # type: ignore[method-assign]

    @property
    def h3(self) -> H3Connection:
        """The HTTP/3 layer, there as soon as a stream is."""
        assert self._h3 is not None
        return self._h3

    @property
    def quic(self) -> QuicConnection:
        """The QUIC layer."""
        return self._quic

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._h3 = H3Connection(self._quic)
        elif isinstance(event, ConnectionTerminated):
            for each in self._streams.values():
                each.feed_gone()
            self._streams.clear()
        elif isinstance(event, StreamReset | StopSendingReceived):
            stream = self._streams.get(event.stream_id)
            # A client that stops the response and one that cuts its request off have both given up the exchange.
            if stream is not None and not (isinstance(event, StopSendingReceived) and stream.response_ended):
                self._streams.pop(event.stream_id)
                stream.feed_gone()
        if self._h3 is not None:
            for h3_event in self._h3.handle_event(event):
                self._handle(h3_event)
        self.moved()

    def _handle(self, event: object) -> None:
        if isinstance(event, HeadersReceived):
            started = self._streams.get(event.stream_id) or self._start(event)
            if started is not None and event.stream_ended:
                started.feed_end()
        elif isinstance(event, DataReceived):
            stream = self._streams.get(event.stream_id)
            if stream is None:
                return
            if event.data:
                stream.feed(event.data)
            if event.stream_ended:
                stream.feed_end()

    def _start(self, event: HeadersReceived) -> "Http3Stream | None":
        if self._last_stream is not None and event.stream_id > self._last_stream:
            self.quic.reset_stream(event.stream_id, ErrorCode.H3_REQUEST_REJECTED)
            return None
        self._newest = event.stream_id
        pseudo = {name: value for name, value in event.headers if name[:1] == b":"}
        path, _, query = pseudo[b":path"].partition(b"?")
        headers = [(name, value) for name, value in event.headers if name[:1] != b":"]
        scope: Scope = {
            "type": "http",
            "http_version": "3",
            "method": pseudo[b":method"].decode(),
            "scheme": pseudo[b":scheme"].decode(),
            "path": path.decode(),
            "query_string": query,
            "headers": [(b"host", pseudo.get(b":authority", b"")), *headers],
            "client": self._quic._network_paths[0].addr[:2],
        }
        stream = self._streams[event.stream_id] = Http3Stream(self, event.stream_id, scope)
        task = asyncio.create_task(self._run(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return stream

    async def _run(self, stream: "Http3Stream") -> None:
        await stream.run(self._app)
        self._streams.pop(stream.stream_id, None)

    def goaway(self) -> None:
        """Send GOAWAY: nothing more is accepted (RFC 9114 5.2: the first stream not accepted is named)."""
        if self._last_stream is None:
            self._last_stream = self._newest
            control = self.h3._local_control_stream_id
            assert control is not None
            frame = encode_frame(FrameType.GOAWAY, encode_uint_var(self._last_stream + 4))
            self._quic.send_stream_data(control, frame)

    # Flow control

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        """In place of aioquic's: the window follows what was consumed. Called for each stream with every packet."""
        if not stream.max_stream_data_local or stream.receiver.is_finished:
            return
        request = self._streams.get(stream.stream_id)
        held = 0 if request is None else request.held
        limit = stream.receiver.highest_offset + max(0, WINDOW - held)
        # Not for each packet: when a quarter of the window has become free.
        if limit - stream.max_stream_data_local >= WINDOW // 4:
            stream.max_stream_data_local = limit
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            buf = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=MAX_STREAM_DATA_SIZE,
                handler=self._quic._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buf.push_uint_var(stream.stream_id)
            buf.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    def unacknowledged(self, stream_id: int) -> int:
        """Bytes that the peer has not acknowledged, sent or not."""
        stream = self._quic._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    def moved(self) -> None:
        """Let waiting senders look again."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait_moved(self) -> None:
        """Wait for an acknowledgement, or for a stream to go."""
        await self._moved.wait()

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.moved()  # an acknowledgement is no event


class Http3Stream(Stream):
    """One request stream of an `Http3Connection`."""

    def __init__(self, connection: Http3Connection, stream_id: int, scope: Scope) -> None:
        super().__init__(scope)
        self._connection = connection
        self.stream_id = stream_id
        self.held = 0

    def feed(self, data: bytes) -> None:
        self.held += len(data)
        super().feed(data)

    def taken(self, size: int) -> None:
        self.held -= size
        self._connection.transmit()

    def wake(self) -> None:
        self._connection.moved()

    async def send_start(self, status: int, headers: RawHeaders) -> None:
        self._connection.h3.send_headers(self.stream_id, [(b":status", b"%d" % status), *headers])
        self._connection.transmit()

    async def send_interim(self, status: int, headers: RawHeaders) -> None:
        # By hand: aioquic 1.3, the last one for Python 3.10, takes the block after it for trailers.
        block = self._connection.h3._encode_headers(self.stream_id, [(b":status", b"%d" % status), *headers])
        self._connection.quic.send_stream_data(self.stream_id, encode_frame(FrameType.HEADERS, block))
        self._connection.transmit()

    async def send_data(self, data: bytes) -> None:
        if self.scope["method"] == "HEAD":
            return
        for start in range(0, len(data), SEND_BUFFER // 4):
            if self.gone:
                raise Gone
            self._connection.h3.send_data(self.stream_id, data[start : start + SEND_BUFFER // 4], False)
            self._connection.transmit()
            while self._connection.unacknowledged(self.stream_id) >= SEND_BUFFER and not self.gone:
                await self._connection.wait_moved()

    async def send_end(self, trailers: RawHeaders) -> None:
        if trailers:
            self._connection.h3.send_headers(self.stream_id, trailers, end_stream=True)
        else:
            self._connection.h3.send_data(self.stream_id, b"", True)
        self._connection.transmit()

    async def send_stop(self) -> None:
        self._stop(ErrorCode.H3_NO_ERROR)  # RFC 9114 4.1

    async def send_reset(self) -> None:
        await self._delivered()
        self._connection.quic.reset_stream(self.stream_id, ErrorCode.H3_INTERNAL_ERROR)
        self._stop(ErrorCode.H3_INTERNAL_ERROR)

    async def send_refusal(self) -> None:
        self._connection.quic.reset_stream(self.stream_id, ErrorCode.H3_REQUEST_REJECTED)
        self._stop(ErrorCode.H3_REQUEST_REJECTED)

    async def send_goaway(self) -> None:
        self._connection.goaway()

    async def close_connection(self) -> None:
        await self._delivered()
        self._connection.close(ErrorCode.H3_INTERNAL_ERROR, "closed by a test")

    async def _delivered(self) -> None:
        """Wait until what was sent has arrived: a reset discards it, and a test wants to know what came before."""

        async def acknowledged() -> None:
            while self._connection.unacknowledged(self.stream_id) and not self.gone:
                await self._connection.wait_moved()

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(acknowledged(), DELIVERY_TIMEOUT)

    def _stop(self, code: int) -> None:
        if not self.request_ended:
            self._connection.quic.stop_stream(self.stream_id, code)
        self._connection.transmit()
