"""A response's body as it comes: raw, decoded, as text, as lines. Shared by both faces.

Streams reach the client as they were sent. They are decoded here, where they are taken, a bounded piece at a time, so
that a decompression bomb costs what was asked of it.
"""

from __future__ import annotations

import codecs
import io
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from ._face import Face
from ._upload import Upload
from .errors import Cancelled, DecodingError, Error, ResponseTooLarge, StreamClosed
from .handle import Handle, MessageIterator, decoder_for, spoil
from .headers import Headers
from .messages import Chunk, Done, Informational, Started
from .request import Request

if TYPE_CHECKING:
    from .decoding import Decoder

__all__ = ["Incoming", "as_lines", "as_text", "in_pieces"]

_PIECE: Final = 256 * 1024
"""Decoded at a time: a quarter of the default window. Arbitrary."""

Next: TypeAlias = Callable[[], Coroutine[Any, Any, bytes | None]]
NextText: TypeAlias = Callable[[], Coroutine[Any, Any, str | None]]


class _OnInformational(Protocol):
    async def __call__(self, status: int, headers: Headers, /) -> None: ...


class Incoming:
    """One streamed response, and the upload beside it. One reader."""

    __slots__ = (
        "_closed",
        "_decoder",
        "_delivered",
        "_ended",
        "_error",
        "_face",
        "_handle",
        "_limit",
        "_messages",
        "_on_done",
        "_request",
        "_upload",
    )

    def __init__(self, face: Face, handle: Handle, request: Request, upload: Upload | None, *, limit: int = -1) -> None:
        """`limit`: of the bytes delivered; -1: none."""
        self._face = face
        self._handle = handle
        self._request = request
        self._messages: MessageIterator = iter(handle)
        self._upload = upload
        self._limit = limit
        self._delivered = 0
        self._decoder: Decoder | None = None
        self._ended = self._closed = False
        self._error: BaseException | None = None  # what ended it; there are no messages after that
        self._on_done: Callable[[Done], None] | None = None
        if upload is not None:
            upload.begin(handle)

    async def start(self, on_informational: _OnInformational | None = None) -> Started:
        """Wait for the headers. Raises the request's error."""
        while True:
            message = await self._next()
            if isinstance(message, Informational):
                # What waits of a request that has failed, by a timeout perhaps, holds its error back no longer.
                if on_informational is not None and not self._messages.has_failed():
                    await on_informational(message.status_code, message.headers)
                continue
            assert isinstance(message, Started)
            return message

    def expect(self, headers: Headers, *, decode: bool, on_done: Callable[[Done], None]) -> None:
        """The headers are known: how to read the body, and whom to tell of its end."""
        self._decoder = decoder_for(headers) if decode else None
        self._on_done = on_done

    async def _next(self) -> Any:
        upload, messages = self._upload, self._messages
        if self._error is not None:
            raise self._error
        try:
            while upload is not None and upload.is_stepped:
                if (message := messages.poll()) is not None:
                    return message
                if not upload.step():
                    messages.block(None, room=True)
            return await self._face.message(messages)
        except Error as error:
            if upload is not None and upload.error is not None:
                self._error = upload.error
                raise upload.error from None
            self._error = error
            if self._closed and isinstance(error, Cancelled):
                self._error = StreamClosed("the response was closed before its body was read")
                raise self._error from None
            raise

    async def raw(self) -> bytes | None:
        """The next bytes as they were sent; None: the body has ended."""
        data = await self._chunk()
        return None if data is None else self._counted(data)

    async def decoded(self) -> bytes | None:
        """The next bytes, decoded; None: the body has ended."""
        decoder = self._decoder
        if decoder is None:
            return await self.raw()
        try:
            while True:
                if not self._closed and decoder.pending and (piece := decoder.next(_PIECE)):
                    return self._counted(piece)
                data = await self._chunk()
                if data is None:
                    decoder.finish()
                    return None
                decoder.feed(data)
        except DecodingError as error:
            error.request = self._request
            spoil(self._handle, error)
            raise

    async def _chunk(self) -> bytes | None:
        if self._ended:
            return None
        message = await self._next()
        if isinstance(message, Chunk):
            return message.data
        assert isinstance(message, Done)
        await self._finish(message)
        return None

    async def _finish(self, done: Done) -> None:
        self._ended = True
        if self._on_done is not None:
            self._on_done(done)
        if self._upload is not None:
            await self._upload.stop()

    @property
    def handle(self) -> Handle:
        """The request."""
        return self._handle

    async def written_out(self, timeout: float | None) -> bool:
        """Wait for the end of a body that goes to a file; False: `timeout` seconds were over first."""
        message = await self._face.message(self._messages, timeout)
        if message is None:
            return False
        assert isinstance(message, Done)
        await self._finish(message)
        return True

    def _counted(self, data: bytes) -> bytes:
        self._delivered += len(data)
        if 0 <= self._limit < self._delivered:
            error = ResponseTooLarge("the response is larger than max_response_bytes", request=self._request)
            spoil(self._handle, error)
            raise error
        return data

    @property
    def ended(self) -> bool:
        """Whether the body has been read to its end."""
        return self._ended

    def cancel(self) -> None:
        """Cancel the request, if it is still in flight: nothing more of the body is downloaded."""
        self._handle.cancel()

    async def close(self) -> None:
        """Cancel what is in flight, and wait for the upload to end."""
        self._closed = True
        self._handle.cancel()
        if self._upload is not None:
            await self._upload.stop()


# ---------------------------------------------------------------------------------------------------- shapes


def in_pieces(source: Next, size: int | None) -> Next:
    """The same bytes in pieces of `size`, but for the last, also before an error; None: as they come."""
    if size is None:
        return source
    if size < 1:
        raise ValueError("chunk_size must be at least 1")
    held = bytearray()
    ended = False
    failure: Error | None = None

    async def piece() -> bytes | None:
        nonlocal ended, failure
        while len(held) < size and not ended:
            try:
                data = await source()
            except Error as error:
                failure, data = error, None
            if data is None:
                ended = True
            else:
                held.extend(data)
        if not held:
            if failure is not None:
                raise failure
            return None
        out = bytes(held[:size])
        del held[:size]
        return out

    return piece


def as_text(source: Next, encoding: str) -> NextText:
    """The bytes as text; what does not decode is replaced by U+FFFD."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    ended = False

    async def text() -> str | None:
        nonlocal decoder, ended
        while not ended:
            data = await source()
            ended = data is None
            try:
                out = decoder.decode(data or b"", ended)
            except UnicodeError:
                # UTF-16 or 32 without a byte order mark, which only the incremental decoders want: as bytes.decode().
                begun = decoder.getstate()[0]
                decoder = codecs.getincrementaldecoder(f"{encoding}-{sys.byteorder[0]}e")("replace")
                out = decoder.decode(begun + (data or b""), ended)
            if out:
                return out
        return None

    return text


def as_lines(source: NextText) -> NextText:
    """The text's lines without their ends: LF, CR LF or CR. Unlike str.splitlines, U+2028 and its like end none: JSON
    lines and server-sent events may have them within a line.
    """
    ends = io.IncrementalNewlineDecoder(None, translate=True)
    lines: deque[str] = deque()
    begun: list[str] = []  # parts of a line whose end has not come: joined once, however long it is
    ended = False

    async def line() -> str | None:
        nonlocal ended
        while not lines:
            if ended:
                return None
            text = await source()
            ended = text is None
            first, *rest = ends.decode(text or "", ended).split("\n")
            begun.append(first)
            for each in rest:
                lines.append("".join(begun))
                begun[:] = [each]
            if ended and (last := "".join(begun)):
                lines.append(last)
        return lines.popleft()

    return line
