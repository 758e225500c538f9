"""A request in flight, as its caller holds it.

A Handle is a view of the engine's record of the transfer: it keeps nothing that the record has, and works whoever else
waits. What the record holds in the engine's form becomes public here, when it is taken: see `Delivery`, which mailboxes
use too.

A handle keeps its pool alive. Nothing keeps a handle alive: when it goes, the engine's Transfer goes with it, and the
engine deals with what is left of an unfinished body or an unread stream.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Generator, Hashable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from . import _engine, waiting
from ._compat import Buffer, Self
from ._engine import (
    CHUNK,
    DONE,
    FAILED,
    INFORMATIONAL,
    ON_FILES_CLOSED,
    ON_NEWS,
    ON_ROOM,
    ON_TERMINAL,
    RESPONDED,
    STARTED,
)
from .cookies import jar_from_lines
from .errors import (
    AwaitTimeout,
    DecodingError,
    Error,
    LocalProtocolError,
    RequestError,
    ResponseTooLarge,
    StreamClosed,
    StreamConsumed,
    StreamError,
    TransportError,
    error_from_outcome,
)
from .headers import Headers
from .messages import Chunk, Done, Failed, Informational, Message, Responded, Started
from .metrics import Metrics
from .request import Request, RequestParts, request_from_parts
from .response import Response, response_from_engine
from .url import URL, effective_url

if TYPE_CHECKING:
    from ._watch import Watch
    from .decoding import Decoder
    from .pool import Pool

__all__ = [
    "Answer",
    "Delivery",
    "Handle",
    "MessageIterator",
    "Transfer",
    "block_for_room",
    "block_until_files_closed",
    "decoder_for",
    "failure",
    "observe",
    "send_file",
    "send_now",
    "spoil",
    "until_files_closed",
    "write_to",
    "written",
]

_OUTCOMES: Final = {number: name for name, number in _engine.OUTCOMES.items()}
_CLOCKS: Final = {number: name for name, number in _engine.CLOCKS.items()}
_PENDING: Final = _engine.OUTCOMES["pending"]
_OK: Final = _engine.OUTCOMES["ok"]
_CANCELLED: Final = _engine.OUTCOMES["cancelled"]
_CURL: Final = _engine.OUTCOMES["curl"]
_TOO_LARGE: Final = _engine.OUTCOMES["too_large"]
_WORKER_DIED: Final = _engine.OUTCOMES["worker_died"]
_POOL_CLOSED: Final = _engine.OUTCOMES["pool_closed"]
_RAISED: Final = _engine.OUTCOMES["raised"]

_DELIVERY: Final = 16 * 1024
"""What libcurl hands over at a time (CURL_MAX_WRITE_SIZE). A chunk may overshoot its window by so much."""
_UNBOUNDED: Final = 1048576
"""Decoded at a time where the window is unbounded: the default window."""
_BAD_CONTENT_ENCODING: Final = 61
_FILESIZE_EXCEEDED: Final = 63


def decoder_for(headers: Headers) -> Decoder | None:
    """decoding.make_decoder. The decoders are imported when a body has a coding."""
    if "content-encoding" not in headers:
        return None
    from .decoding import make_decoder

    return make_decoder(headers)


def failure(message: _engine.Failed, request: Request) -> Error:
    """The error of a failed transfer, a new one each time: one that is raised twice collects tracebacks."""
    _, outcome, curl_code, detail, clock, sent, proxy_failed, metrics = message
    if outcome == _POOL_CLOSED:
        waiting.hold_daemon()
    if outcome == _RAISED:
        return _raised_error(detail, request, metrics)
    return error_from_outcome(
        _OUTCOMES[outcome],
        curl_code=curl_code,
        detail=detail if isinstance(detail, bytes) else b"",
        clock=_CLOCKS[clock],
        proxy_failed=proxy_failed,
        request=request,
        metrics=Metrics.unpack(metrics),
        request_sent=sent,
    )


_HANDLER_RAISED: Final = "handler_raised"


def _raised_error(raised: bytes | BaseException, request: Request, metrics: bytes) -> Error:
    """What a FakePool's handler raised, as the error of a request: one of katipo's as it is, any other as a cause."""
    if isinstance(raised, Error):
        if isinstance(raised, RequestError) and raised.request is None:
            raised.request = request
        return raised
    assert isinstance(raised, BaseException)
    text = f"the handler of the FakePool raised {type(raised).__name__}"
    error = TransportError(text, code=_HANDLER_RAISED, request=request, metrics=Metrics.unpack(metrics))
    error.__cause__ = raised
    return error


def _to_raise(error: Error) -> BaseException:
    """What a caller is to see of a request's error: what a FakePool's handler raised comes through as it is."""
    return error.__cause__ if error.code == _HANDLER_RAISED and error.__cause__ is not None else error


class Transfer(_engine.Transfer[Response]):
    """The engine's side of a handle."""

    __slots__ = ()

    def fail_overdue(self) -> None:
        if self.overdue() and not self.expire():
            self.fail(_WORKER_DIED, b"the worker is stuck inside libcurl")


class _Source(Protocol):
    """Where a Delivery's messages come from: a Transfer, or a mailbox's Taken."""

    def consumed(self, n: int) -> None: ...
    def fail(self, outcome: int, detail: bytes = ...) -> bool: ...


class Delivery:
    """One request's messages on their way from the engine's form to the public one. One taker at a time.

    Streamed bodies are decoded here, a piece for each message asked for. `limit`: of the bytes delivered, where the
    engine does not count them; -1: none.
    """

    __slots__ = (
        "_backlog",
        "_decoder",
        "_delivered",
        "_fault",
        "_limit",
        "_owed",
        "_piece",
        "decode",
        "ref",
        "request",
    )

    def __init__(self, ref: Hashable, request: Request, *, decode: bool, window: int, limit: int) -> None:
        self.ref = ref
        self.request = request
        self.decode = decode
        self._limit = limit
        self._piece = max(window, _DELIVERY) if window >= 0 else _UNBOUNDED
        self._decoder: Decoder | None = None
        self._delivered = 0
        self._owed = 0  # bytes as sent whose decoded form has not all been delivered
        self._backlog: list[
            _engine.Message
        ] = []  # taken from the engine while decoded output was still to be delivered
        self._fault: tuple[type[RequestError], str, int] | None = None  # found here, not by the engine

    @property
    def holding(self) -> bool:
        """True while there may be a message without the engine saying more."""
        return bool(self._backlog) or (self._decoder is not None and self._decoder.pending)

    def drop(self) -> None:
        """Forget what is held: the request was cancelled."""
        self._backlog.clear()
        self._decoder = None

    def next(self, source: _Source, message: _engine.Message | None) -> Message | None:
        """The next public message, given the engine's next one; None: the engine has to say more first."""
        if message is not None:
            if message[0] == FAILED and message[1] == _CANCELLED:
                self.drop()
            self._backlog.append(message)
        while True:
            if self._decoder is not None and self._decoder.pending:
                piece = self._decoded(source, self._decoder)
                if piece:
                    return Chunk(self.ref, piece)
            if not self._backlog:
                return None
            public = self._public(source, self._backlog.pop(0))
            if public is not None:
                return public

    def _public(self, source: _Source, message: _engine.Message) -> Message | None:
        # The kind decides the tuple's shape, which no type checker can follow through an int.
        kind: int = message[0]
        parts: Any = message
        if kind == CHUNK:
            return self._chunk(source, parts[1])
        if kind == STARTED:
            return self._started(*parts[1:])
        if kind == DONE:
            return self._done(*parts[1:])
        if kind == INFORMATIONAL:
            return Informational(self.ref, parts[1], Headers.from_block(parts[2]))
        if kind == RESPONDED:
            return Responded(self.ref, response_of(parts, self.request))
        return Failed(self.ref, self.error(parts))

    def _started(self, status: int, block: bytes, cookies: tuple[bytes, ...], url: bytes | None) -> Started:
        headers = Headers.from_block(block)
        if self.decode:
            self._decoder = decoder_for(headers)
        return Started(
            self.ref,
            status,
            headers,
            jar_from_lines(cookies),
            block.partition(b" ")[0].decode("ascii", "replace"),
            self._url(url),
        )

    def _url(self, url: bytes | None) -> URL:
        if url is not None:
            try:
                return effective_url(url)
            except Error:  # libcurl followed what katipo would not have sent
                pass
        return self.request.url

    def _chunk(self, source: _Source, data: bytes) -> Chunk | None:
        if self._fault is not None:
            return None
        if self._decoder is not None:
            self._owed += len(data)
            self._decoder.feed(data)
            return None
        self._delivered += len(data)
        if 0 <= self._limit < self._delivered:
            self._too_large(source)
            return None
        source.consumed(len(data))
        return Chunk(self.ref, data)

    def _decoded(self, source: _Source, decoder: Decoder) -> bytes:
        try:
            piece = decoder.next(self._piece)
        except DecodingError as error:
            self._spoil(source, _CURL, DecodingError, error.message, _BAD_CONTENT_ENCODING)
            return b""
        self._delivered += len(piece)
        if 0 <= self._limit < self._delivered:
            self._too_large(source)
            return b""
        if self._owed and not decoder.pending:
            source.consumed(self._owed)
            self._owed = 0
        return piece

    def _done(self, trailers: bytes, cookies: tuple[bytes, ...], metrics: bytes) -> Done | Failed:
        if self._decoder is not None and self._fault is None:
            try:
                self._decoder.finish()
            except DecodingError as error:
                self._fault = (DecodingError, error.message, _BAD_CONTENT_ENCODING)
        if self._fault is not None:
            return Failed(self.ref, self._error(metrics))
        return Done(self.ref, Metrics.unpack(metrics), jar_from_lines(cookies), Headers.from_block(trailers))

    def _too_large(self, source: _Source) -> None:
        text = "the response is larger than max_response_bytes"
        self._spoil(source, _TOO_LARGE, ResponseTooLarge, text, _FILESIZE_EXCEEDED)

    def _spoil(self, source: _Source, outcome: int, error: type[RequestError], text: str, curl_code: int) -> None:
        """Fail the request for what was found here. Its terminal message follows, or is in the backlog already."""
        self._fault = (error, text, curl_code)
        self._decoder = None
        self._backlog[:] = [message for message in self._backlog if message[0] in (DONE, FAILED)]
        source.fail(outcome, text.encode())

    def _error(self, metrics: bytes) -> RequestError:
        assert self._fault is not None
        error, text, curl_code = self._fault
        return error(text, curl_code=curl_code, request=self.request, metrics=Metrics.unpack(metrics))

    def error(self, message: _engine.Failed) -> Error:
        """The error of the request, whose terminal message this is."""
        if self._fault is not None and message[1] in (_CURL, _TOO_LARGE) and message[2] < 0:
            return self._error(message[7])
        return failure(message, self.request)


def response_of(message: _engine.Responded, request: Request | RequestParts) -> Response:
    _, status, block, body, trailers, cookies, url, metrics = message
    return response_from_engine(request, status, block, body, trailers, cookies, url, metrics)


class Answer(enum.Enum):
    """Where a request's answer goes, which decides what its handle can do."""

    BUFFERED = "result() has it"
    STREAMED = "iterating the handle has it, message by message"
    MAILED = "the mailbox given as reply_to has it"


class Handle:
    """A request in flight. Made by a pool's `async_` methods; any thread or event loop may wait on it, several times.

    When the last reference to it goes: an unfinished streamed body follows `on_abandon`; a streamed response without
    `reply_to` is cancelled; any other request runs to its end.
    """

    # What every handle has stands in slots; the rest has its default in the class, and costs nothing until it is set.
    __slots__ = ("__dict__", "__weakref__", "_asked", "_pool", "_transfer", "ref")
    _answer: Answer = Answer.BUFFERED
    _sends: bool = False
    _delivery: Delivery | None = None
    _flush: Callable[[], None] | None = None
    _watch: Watch | None = None  # somebody observes it, and no mailbox has its answer
    _response: Response | None = None
    _iterated: bool = False
    _ended: bool = False  # finish_body() was called

    ref: Any
    """The caller's `ref`, or a unique int. Every message of the request carries it."""

    def __init__(
        self,
        pool: Pool,
        transfer: Transfer,
        request: Request | RequestParts,
        ref: Hashable,
        answer: Answer = Answer.BUFFERED,
        sends: bool = False,
        delivery: Delivery | None = None,
        flush: Callable[[], None] | None = None,
    ) -> None:
        self.ref = ref
        self._pool = pool
        self._transfer = transfer
        self._asked = request
        if answer is not Answer.BUFFERED:
            self._answer = answer
        if sends:
            self._sends = True
        if delivery is not None:
            self._delivery = delivery
        if flush is not None:
            self._flush = flush

    @property
    def _request(self) -> Request:
        if isinstance(self._asked, tuple):
            self._asked = request_from_parts(*self._asked)
        return self._asked

    def __repr__(self) -> str:
        outcome = self._transfer.outcome()
        state = "in flight" if outcome == 0 else _OUTCOMES[outcome]
        return f"<Handle ref={self.ref!r} {self._request!r} {state}>"

    # ------------------------------------------------------------------------------------------------ the answer

    def done(self) -> bool:
        """Whether the request has ended, well or not. A stream may still have messages to be taken."""
        return self._transfer.done()

    def cancel(self) -> None:
        """Cancel the request: what has not been taken of it is dropped, and its error is Cancelled.

        Returns at once, and does nothing to a request that has ended.
        """
        self._transfer.cancel()
        if self._watch is not None:
            self._watch.look()

    def result(self, timeout: float | None = None) -> Response:
        """The response; blocks the calling thread, but not the GIL, until it is there.

        `timeout`: seconds to wait; None: as long as the request takes, 0: not at all.

        Raises:
            AwaitTimeout: `timeout` is over. The request goes on, and result() may be called again.
            StreamError: the response is streamed, or goes to a mailbox.
            Error: the request's own, when it failed.
        """
        if self._response is not None:
            return self._response
        if self._answer is not Answer.BUFFERED:
            raise self._elsewhere("there is no result()")
        transfer = self._transfer
        while (terminal := transfer.terminal()) is None:
            if not waiting.block(transfer.register, ON_TERMINAL, timeout, transfer):
                raise AwaitTimeout(f"no response within {timeout} s: the request goes on")
        return self._settled(terminal)

    def __await__(self) -> Generator[Any, Any, Response]:
        """The response, as result(); cancelling the wait does not cancel the request."""
        if self._response is not None:
            return self._response
        if self._answer is not Answer.BUFFERED:
            raise self._elsewhere("it cannot be awaited")
        transfer = self._transfer
        while (terminal := transfer.terminal()) is None:
            # waiting.steps, in line but for trio: this is where programs that do much HTTP spend their time.
            if "trio" in sys.modules and waiting.in_trio():
                yield from waiting.steps(transfer.register, ON_TERMINAL, transfer)
            elif (waiter := waiting.enter(transfer.register, ON_TERMINAL, transfer)) is not None:
                try:
                    yield from waiter.token
                except BaseException:
                    waiting.leave(waiter)
                    raise
        return self._settled(terminal)

    def _settled(self, terminal: _engine.Responded | _engine.Done | _engine.Failed) -> Response:
        if self._flush is not None:
            self._flush()
        parts: Any = terminal
        if parts[0] == FAILED:
            error = failure(parts, self._request)
            if self._watch is not None:
                self._watch.failed(error)
            raise _to_raise(error)
        # Threads that come here at once all get the response of the first.
        self._response = response = self._transfer.keep(response_of(parts, self._asked))
        if self._watch is not None:
            self._watch.saw(Responded(self.ref, response))
        return response

    def _elsewhere(self, what: str) -> StreamError:
        return StreamError(f"{what}: {self._answer.value}")

    # ----------------------------------------------------------------------------------------------- the request's body

    def send_body(self, data: Buffer, timeout: float | None = None) -> None:
        """Send a piece of the request's body: a copy of all of `data` is taken once fewer than `upload_window` bytes
        wait.

        `timeout`: seconds to wait for that; 0: not at all. After finish_body() the data is dropped silently.

        Raises:
            AwaitTimeout: `timeout` is over; nothing was taken.
            StreamClosed: the request has been answered.
            LocalProtocolError: `data` goes beyond the Content-Length that was given; nothing was taken.
            StreamError: the request has no `stream_body`.
            Error: the request's own, when it failed.
        """
        transfer = self._sending()
        deadline = None if timeout is None else monotonic() + timeout
        while not self._accepted(transfer.send(data)):
            left = None if deadline is None else max(0.0, deadline - monotonic())
            if not waiting.block(transfer.register, ON_ROOM | ON_TERMINAL, left, transfer):
                raise AwaitTimeout(f"upload_window is full, and was for {timeout} s: nothing was taken")

    async def asend_body(self, data: Buffer) -> None:
        """As send_body(), waiting in the running event loop. Cancelled, nothing was taken."""
        transfer = self._sending()
        while not self._accepted(transfer.send(data)):
            await waiting.until(transfer.register, ON_ROOM | ON_TERMINAL, transfer)

    def finish_body(self) -> None:
        """The request's body ends here. Idempotent.

        Raises:
            StreamError: the request has no `stream_body`.
        """
        self._sending().finish()
        self._ended = True

    def _send_file(self, fd: int, offset: int, length: int) -> None:
        """The rest of the request's body is `length` bytes of an open file from `offset` on, and there it ends.

        The worker reads them when they are to be sent, through a descriptor of its own: `fd` may be closed at once. It may
        read them again, where libcurl sends the request again. A file that turns out shorter, or cannot be read, fails the
        request ("read_error").

        Raises:
            OSError: it cannot be read at an offset, a pipe for instance; nothing was taken.
            Others as send_body().
        """
        transfer = self._sending()
        self._accepted(transfer.send_file(fd, offset, length))
        self._ended = True

    def _sending(self) -> Transfer:
        if not self._sends:
            raise StreamError("there is no body to send: the request was made without stream_body")
        return self._transfer

    def _accepted(self, answer: int) -> bool:
        if answer in (_engine.SENT, _engine.BODY_ENDED):
            return True
        if answer == _engine.NO_ROOM:
            return False
        if answer == _engine.BEYOND_LENGTH:
            raise LocalProtocolError(
                "the body is longer than its Content-Length", request=self._request, request_sent=True
            )
        terminal: Any = self._transfer.terminal()
        if terminal[0] != FAILED:
            if self._ended and self._response is None:
                return True  # dropped: that the answer came in between is nothing that the caller has seen
            raise StreamClosed(f"the request has been answered: {self._answer.value}")
        error = failure(terminal, self._request) if self._delivery is None else self._delivery.error(terminal)
        raise _to_raise(error)

    # ---------------------------------------------------------------------------------------------- the response's body

    def update_flow(self, n: int) -> None:
        """Under `flow_control="manual"`: `n` more bytes may be delivered. Harmless on a request that has ended."""
        if n < 0:
            raise ValueError("n must not be negative")
        self._transfer.credit(n)

    def __iter__(self) -> MessageIterator:
        """A streamed response: one Started, the Chunks, one Done. Blocks the calling thread for each, but not the GIL.

        Raises:
            StreamError: the response is not streamed, or goes to a mailbox.
            StreamConsumed: it has been iterated already.
            Error: the request's own, in place of what is missing.
        """
        if self._delivery is None:
            raise self._elsewhere("it cannot be iterated")
        if self._iterated:
            raise StreamConsumed("the response has been iterated already")
        self._iterated = True
        return MessageIterator(self, self._transfer, self._delivery, self._flush)

    def __aiter__(self) -> MessageIterator:
        """As iteration, waiting in the running event loop."""
        return self.__iter__()

    def _write_to(self, fd: int, offset: int) -> None:
        """The rest of a streamed response's body goes to an open file from `offset` on, written by the worker.

        The request was made with `decode=False`. Iterating then has no more chunks: Done follows when all is written, or
        the request's error, "write_error" where the file was what failed. The worker has a descriptor of its own, and may
        be in the middle of a last write after cancel(): `files_closed` tells. No window pauses the transfer.

        Raises:
            OSError: it cannot be written at an offset: a pipe, or opened to append. The request goes on.
            StreamError: the response is not streamed, or goes to a mailbox.
        """
        if self._delivery is None:
            raise self._elsewhere("it cannot be written to a file")
        if self._delivery.decode:
            raise StreamError("what is written to a file is not decoded: the request was made without decode=False")
        self._transfer.write_to(fd, offset)

    def _written(self) -> int:
        """Bytes written so far, from `_write_to`'s offset on."""
        return self._transfer.written()

    # ------------------------------------------------------------------------------------------------ blocks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel what is still in flight."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel what is still in flight."""
        self.cancel()


def block_for_room(handle: Handle) -> None:
    """Block the calling thread until more of the request's body can be sent, or the request has ended."""
    transfer = handle._transfer  # pyright: ignore[reportPrivateUsage]
    waiting.block(transfer.register, ON_ROOM | ON_TERMINAL, None, transfer)


def send_now(handle: Handle, data: Buffer) -> bool:
    """As `send_body`, without waiting; False: there is no room, and nothing was taken."""
    transfer = handle._sending()  # pyright: ignore[reportPrivateUsage]
    return handle._accepted(transfer.send(data))  # pyright: ignore[reportPrivateUsage]


def spoil(handle: Handle, error: Error) -> None:
    """Cancel the request for what its client has found wrong with the response."""
    if handle._watch is not None:  # pyright: ignore[reportPrivateUsage]
        handle._watch.failed(error)  # pyright: ignore[reportPrivateUsage]
    handle.cancel()


def observe(handle: Handle, watch: Watch) -> None:
    """The handle's request is observed."""
    handle._watch = watch  # pyright: ignore[reportPrivateUsage]


def send_file(handle: Handle, fd: int, offset: int, length: int) -> None:
    """Handle._send_file, for the clients."""
    handle._send_file(fd, offset, length)  # pyright: ignore[reportPrivateUsage]


def write_to(handle: Handle, fd: int, offset: int) -> None:
    """Handle._write_to, for the clients."""
    handle._write_to(fd, offset)  # pyright: ignore[reportPrivateUsage]


def written(handle: Handle) -> int:
    """Handle._written, for the clients."""
    return handle._written()  # pyright: ignore[reportPrivateUsage]


def block_until_files_closed(handle: Handle, timeout: float | None) -> bool:
    """Block the calling thread until the worker has let go of the request's files; the request must have ended.

    False: `timeout` seconds were over first.
    """
    return waiting.block(handle._transfer.register, ON_FILES_CLOSED, timeout)  # pyright: ignore[reportPrivateUsage]


async def until_files_closed(handle: Handle, timeout: float | None) -> bool:
    """As block_until_files_closed, waiting in the running event loop."""
    register = handle._transfer.register  # pyright: ignore[reportPrivateUsage]
    return await waiting.until_or_timeout(register, ON_FILES_CLOSED, timeout)


class MessageIterator:
    """The messages of a streamed response, for one consumer. It keeps the handle, so that the request goes on."""

    __slots__ = ("_delivery", "_flush", "_handle", "_transfer")

    def __init__(
        self, handle: Handle, transfer: Transfer, delivery: Delivery, flush: Callable[[], None] | None
    ) -> None:
        self._handle: Handle | None = handle  # None: the terminal message has been taken
        self._transfer = transfer
        self._delivery = delivery
        self._flush = flush

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> Informational | Started | Chunk | Done:
        if self._handle is None:
            raise StopIteration
        transfer = self._transfer
        while (message := self._take()) is None:
            waiting.block(transfer.register, ON_NEWS, None, transfer)
        return self._checked(message)

    async def __anext__(self) -> Informational | Started | Chunk | Done:
        if self._handle is None:
            raise StopAsyncIteration
        transfer = self._transfer
        while (message := self._take()) is None:
            await waiting.until(transfer.register, ON_NEWS, transfer)
        return self._checked(message)

    def has_failed(self) -> bool:
        """Whether the request has ended, and not well: its error comes after what is still to be taken."""
        return self._transfer.outcome() not in (_PENDING, _OK)

    def poll(self) -> Informational | Started | Chunk | Done | None:
        """The next message if it is there; None: not yet. Not to be asked after the last one."""
        message = self._take()
        return None if message is None else self._checked(message)

    def block(self, timeout: float | None, *, room: bool = False) -> bool:
        """Block the calling thread until there may be a message, or (`room`) room for more of the request's body.

        False: `timeout` seconds were over first.
        """
        transfer = self._transfer
        return waiting.block(transfer.register, ON_NEWS | ON_ROOM if room else ON_NEWS, timeout, transfer)

    async def until(self, timeout: float | None) -> bool:
        """As block(), waiting in the running event loop."""
        return await waiting.until_or_timeout(self._transfer.register, ON_NEWS, timeout)

    def _take(self) -> Message | None:
        """The next message; None: wait for news."""
        transfer, delivery = self._transfer, self._delivery
        if delivery.holding:
            if transfer.outcome() == _CANCELLED:
                delivery.drop()
            elif (message := delivery.next(transfer, None)) is not None:
                return message
        while (news := transfer.take()) is not None:
            if (message := delivery.next(transfer, news)) is not None:
                return message
        return None

    def _checked(self, message: Message) -> Informational | Started | Chunk | Done:
        if isinstance(message, (Chunk, Started, Informational)):
            return message
        self._handle = None
        if self._flush is not None:
            self._flush()
        if isinstance(message, Failed):
            raise _to_raise(message.error)
        assert isinstance(message, Done)
        return message
