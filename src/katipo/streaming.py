"""Responses that are read as they come, in two faces over one implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

from ._face import run
from ._incoming import Incoming, as_lines, as_text, in_pieces
from .errors import StreamClosed, StreamConsumed
from .headers import received_block
from .messages import Done, Started
from .request import Request
from .response import Response

__all__ = ["AsyncStreamingResponse", "StreamingResponse", "drain", "incoming_of", "streamed"]

_T = TypeVar("_T", bound="_Streamed")
_P = TypeVar("_P")

_SMALL: Final = 64 * 1024
"""A body that is read to its end rather than cut off, to keep the connection. Arbitrary."""
_LITTLE: Final = 1 << 20
"""What such a body may stand for, decoded. Arbitrary."""


class _Streamed(Response):
    """What both faces have: a response whose headers are known and whose body is still to come.

    `content`, `text`, `json()`, `metrics`, `trailers` and `elapsed` raise ResponseNotRead until it has been read.
    """

    _incoming: Incoming | None
    _consumed: bool = False
    _closed: bool = False

    @property
    def is_stream_consumed(self) -> bool:
        """Whether the body has been read, or begun to be read."""
        return self._consumed

    @property
    def is_closed(self) -> bool:
        """Whether the body has ended, or the response was closed before."""
        return self._closed or self._incoming is None or self._incoming.ended

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """For pickles and copies: what is known by now. The rest of the body stays with the original."""
        state = {name: value for name, value in vars(self).items() if name != "_incoming"}
        state.update(_incoming=None, _closed=True)
        return state, {name: getattr(self, name) for name in Response.__slots__ if name != "__dict__"}

    def _ended(self, done: Done) -> None:
        self._trailers = done.trailers
        self._metrics = done.metrics

    def _claim(self) -> Incoming:
        if self._consumed:
            raise StreamConsumed("the body has been read, or begun to be read, already")
        if self._closed or self._incoming is None:
            raise StreamClosed("the response was closed before its body was read")
        self._consumed = True
        return self._incoming

    def _bytes(self, chunk_size: int | None) -> Callable[[], Coroutine[Any, Any, bytes | None]]:
        if self._content is not None:  # read before, by an event hook: it can be read again
            return in_pieces(_once(self._content), chunk_size)
        return in_pieces(self._claim().decoded, chunk_size)

    def _raw(self, chunk_size: int | None) -> Callable[[], Coroutine[Any, Any, bytes | None]]:
        return in_pieces(self._claim().raw, chunk_size)

    def _texts(self, chunk_size: int | None) -> Callable[[], Coroutine[Any, Any, str | None]]:
        return as_text(self._bytes(chunk_size), self.encoding)

    def _lines(self) -> Callable[[], Coroutine[Any, Any, str | None]]:
        return as_lines(self._texts(None))

    async def _read(self) -> bytes:
        if self._content is None:
            incoming = self._claim()
            pieces: list[bytes] = []
            while (piece := await incoming.decoded()) is not None:
                pieces.append(piece)
            self._content = b"".join(pieces)
        return self._content

    async def _read_small(self) -> bool:
        """Read a body of which little is to be sent; False: what that stands for is not small, and was not decoded."""
        if self._consumed:  # a hook has begun to read it
            return False
        incoming = self._claim()
        pieces: list[bytes] = []
        size = 0
        while (piece := await incoming.decoded()) is not None:
            pieces.append(piece)
            size += len(piece)
            if size > _LITTLE:
                return False
        self._content = b"".join(pieces)
        return True

    async def _close(self) -> None:
        self._closed = True
        if self._incoming is not None:
            await self._incoming.close()


def _once(content: bytes) -> Callable[[], Coroutine[Any, Any, bytes | None]]:
    left = [content] if content else []

    async def piece() -> bytes | None:
        return left.pop() if left else None

    return piece


class _Items(Iterator[_P]):
    """What a source has, one after the other. No generator: one that is left half way would have to be closed.

    An error ends it, as it ends a generator. An interrupted wait does not.
    """

    __slots__ = ("_ended", "_source")

    def __init__(self, source: Callable[[], Coroutine[Any, Any, _P | None]]) -> None:
        self._source = source
        self._ended = False

    def __next__(self) -> _P:
        try:
            item = None if self._ended else run(self._source())
        except Exception:
            self._ended = True
            raise
        if item is None:
            self._ended = True
            raise StopIteration
        return item


class _AsyncItems(AsyncIterator[_P]):
    """The same, for `async for`."""

    __slots__ = ("_ended", "_source")

    def __init__(self, source: Callable[[], Coroutine[Any, Any, _P | None]]) -> None:
        self._source = source
        self._ended = False

    async def __anext__(self) -> _P:
        try:
            item = None if self._ended else await self._source()
        except Exception:
            self._ended = True
            raise
        if item is None:
            self._ended = True
            raise StopAsyncIteration
        return item


class StreamingResponse(_Streamed):
    """A blocking client's streamed response: `with client.stream("GET", url) as response`.

    The body can be read once: by `iter_raw`, `iter_bytes`, `iter_text`, `iter_lines` or `read`. Each raises the request's
    own error in place of what is missing, StreamConsumed when it has been read already, StreamClosed after `close`.
    """

    def iter_raw(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The body as it was sent, still encoded; in pieces of `chunk_size` bytes, or as they come."""
        return _Items(self._raw(chunk_size))

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The body, decoded; in pieces of `chunk_size` bytes, or as they come."""
        return _Items(self._bytes(chunk_size))

    def iter_text(self, chunk_size: int | None = None) -> Iterator[str]:
        """The body as text, in `encoding`; of pieces of `chunk_size` bytes, or as they come."""
        return _Items(self._texts(chunk_size))

    def iter_lines(self) -> Iterator[str]:
        """The body's lines, without their ends (LF, CR LF or CR)."""
        return _Items(self._lines())

    def read(self) -> bytes:
        """Read the body to its end; `content`, `text` and `json()` have it from then on."""
        return run(self._read())

    def close(self) -> None:
        """Cancel what is still in flight: the rest of the body is not downloaded. Idempotent."""
        run(self._close())


class AsyncStreamingResponse(_Streamed):
    """An asynchronous client's streamed response: `async with client.stream("GET", url) as response`.

    The body can be read once: by `aiter_raw`, `aiter_bytes`, `aiter_text`, `aiter_lines` or `aread`. Each raises as
    StreamingResponse's do.
    """

    def aiter_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """The body as it was sent, still encoded; in pieces of `chunk_size` bytes, or as they come."""
        return _AsyncItems(self._raw(chunk_size))

    def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """The body, decoded; in pieces of `chunk_size` bytes, or as they come."""
        return _AsyncItems(self._bytes(chunk_size))

    def aiter_text(self, chunk_size: int | None = None) -> AsyncIterator[str]:
        """The body as text, in `encoding`; of pieces of `chunk_size` bytes, or as they come."""
        return _AsyncItems(self._texts(chunk_size))

    def aiter_lines(self) -> AsyncIterator[str]:
        """The body's lines, without their ends (LF, CR LF or CR)."""
        return _AsyncItems(self._lines())

    async def aread(self) -> bytes:
        """Read the body to its end; `content`, `text` and `json()` have it from then on."""
        return await self._read()

    async def aclose(self) -> None:
        """Cancel what is still in flight: the rest of the body is not downloaded. Idempotent."""
        await self._close()


# For the shared code of the clients.


def streamed(cls: type[_T], started: Started, request: Request, incoming: Incoming, *, decode: bool) -> _T:
    """The response whose headers have come."""
    block = received_block(started.headers)
    response = cls._from_engine(  # pyright: ignore[reportPrivateUsage]
        request, started.status_code, block, None, None, None, None, None
    )
    response._url = started.url  # pyright: ignore[reportPrivateUsage]
    response._incoming = incoming  # pyright: ignore[reportPrivateUsage]
    incoming.expect(response.headers, decode=decode, on_done=response._ended)  # pyright: ignore[reportPrivateUsage]
    return response


def incoming_of(response: Response, *, claim: bool = False) -> Incoming:
    """Where a streamed response's body comes from. `claim`: the caller is its one reader; raises as reading does."""
    assert isinstance(response, _Streamed)
    if claim:
        response._claim()  # pyright: ignore[reportPrivateUsage]
    incoming = response._incoming  # pyright: ignore[reportPrivateUsage]
    assert incoming is not None  # only a copy has none, and that is nobody's to read
    return incoming


async def read_whole(response: Response) -> None:
    """Read a response to its end, if it has not been."""
    if isinstance(response, _Streamed):
        await response._read()  # pyright: ignore[reportPrivateUsage]


async def drain(response: Response) -> None:
    """Be done with a response that is not the caller's last: read a small body, which keeps the connection, else cancel."""
    if not isinstance(response, _Streamed) or response.is_closed:
        return
    length = response.headers.get("content-length", "0" if response.status_code == 304 else "")
    if not (length.isdigit() and int(length) <= _SMALL and await response._read_small()):  # pyright: ignore[reportPrivateUsage]
        await response._close()  # pyright: ignore[reportPrivateUsage]


async def dismiss(response: Response) -> None:
    """Close a response that nobody will get."""
    if isinstance(response, _Streamed):
        await response._close()  # pyright: ignore[reportPrivateUsage]
