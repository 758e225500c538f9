"""A request's body, from what its caller passed as content, data, files or json.

A body is one of three kinds, by who reads it: bytes are whole, a file is read by the worker, anything else is pulled
piece by piece by the thread or loop that sends the request. Files are looked at when the request is made; what changes in
them later fails the request, and is never made to look complete.

An open file is sent from where it stands to its end. One that the worker reads keeps its position; one that is pulled is
left where reading stopped, and is put back to where it stood before it is sent again. Files of the caller's are never
closed, nor are iterators, but for generators: their `finally` blocks run when the request is over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any, Final, cast

from ._curl_options import Refused, kind_of
from ._request_headers import FORM_TYPE, checked_body
from .errors import BadOptions, StreamConsumed

__all__ = [
    "Body",
    "BytesBody",
    "FileBody",
    "StreamBody",
    "build_content",
    "check_file",
    "file_length",
    "is_async",
    "pieces_of_file",
    "position_of",
]

PIECE: Final = 64 * 1024
"""Read at a time from a file that the worker cannot read. Arbitrary."""
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Body:
    """A request's body."""

    __slots__ = ("content_type", "length")
    can_replay: bool = True
    """Whether it can be sent again, after a redirect or a 401."""
    is_async: bool = False

    def __init__(self, length: int | None, content_type: str | None) -> None:
        self.length = length
        """In bytes; None: not known."""
        self.content_type = content_type


class BytesBody(Body):
    """A body that is there as a whole."""

    __slots__ = ("data",)

    def __init__(self, data: bytes, content_type: str | None = None) -> None:
        super().__init__(len(data), content_type)
        self.data = data


class FileBody(Body):
    """A regular file, from an offset to its end, read by the worker."""

    __slots__ = ("_file", "_offset", "_path")

    def __init__(self, path: Any = None, file: Any = None, offset: int = 0) -> None:
        self._path = path
        self._file = file  # kept, so that its descriptor stays open until it has been duplicated
        self._offset = offset
        super().__init__(None, None)

    def open(self) -> tuple[int, int, int]:
        """A descriptor for the caller to close, the offset and the length.

        Raises OSError, BadOptions for a path that is not a regular file's, ValueError for a file closed since.
        """
        # O_NONBLOCK means nothing to a regular file; without it, opening a pipe would wait for somebody to write to it.
        descriptor = os.open(self._path, _READ) if self._file is None else os.dup(self._file.fileno())
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadOptions("content: the path is not that of a regular file")
            return descriptor, self._offset, max(0, status.st_size - self._offset)
        except BaseException:
            os.close(descriptor)
            raise


class StreamBody(Body):
    """Pieces from an iterable, an async one perhaps, one after the other. Each open() is one sending of it."""

    __slots__ = ("_begin", "_close", "_used", "can_replay", "is_async")

    def __init__(
        self,
        begin: Callable[[], Any],
        *,
        length: int | None = None,
        content_type: str | None = None,
        can_replay: bool = False,
        is_async: bool = False,
    ) -> None:
        """`begin`: makes the iterator; called once for each sending."""
        super().__init__(length, content_type)
        self._begin = begin
        self.can_replay = can_replay
        self.is_async = is_async
        self._used = False
        self._close: Callable[[], None] | None = None

    def open(self) -> Iterator[bytes] | AsyncIterator[bytes]:
        """The pieces, none of them empty. Raises StreamConsumed if they can be had only once, and were.

        The iterator raises TypeError for what is no piece.
        """
        if self._used and not self.can_replay:
            raise StreamConsumed("the body comes from an iterable that can be read once, and has been")
        self._used = True
        pieces = self._begin()
        if self.is_async:
            return _checked_async(cast("AsyncIterator[object]", pieces))
        self._close = pieces.close if isinstance(pieces, Generator) else None
        return _checked(cast("Iterator[object]", pieces))

    def close(self) -> None:
        """No more of it will be taken: a generator's `finally` blocks run now."""
        close, self._close = self._close, None
        if close is not None:
            close()


def _piece(piece: object) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if not isinstance(piece, str):
        try:
            return memoryview(cast("Any", piece)).tobytes()
        except TypeError:
            pass
    raise TypeError(f"content: a piece of the body must be bytes-like, not {kind_of(piece)}")


def _checked(pieces: Iterator[object]) -> Iterator[bytes]:
    return (data for piece in pieces if (data := _piece(piece)))


async def _checked_async(pieces: AsyncIterator[object]) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces:
            if data := _piece(piece):
                yield data
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


# ---------------------------------------------------------------------------------------------------- building


def build_content(*, content: Any = None, data: Any = None, files: Any = None, json: Any = None) -> Body | None:
    """The body for a call's arguments; None: there is none.

    Raises BadOptions, naming the argument, for what cannot be a body and for arguments that exclude each other.
    """
    # As httpx: no files is no multipart, no fields are no form.
    files, data = None if _is_empty(files) else files, None if _is_empty(data) else data
    given = [name for name, value in (("content", content), ("json", json), ("files", files)) if value is not None]
    if data is not None and given != ["files"]:
        given.append("data")
    if len(given) > 1:
        raise BadOptions(f"{given[-1]} excludes {given[0]}")
    if files is not None:
        from ._multipart import multipart

        return multipart(data, files)
    if json is not None:
        return _json(json)
    if data is not None:
        return _data(data)
    return None if content is None else _content(content)


def _is_empty(value: object) -> bool:
    return isinstance(value, (Mapping, list, tuple)) and not cast("Any", value)


def _json(value: object) -> BytesBody:
    from json import dumps

    try:
        text = dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadOptions(f"json: cannot be written as JSON: {type(error).__name__}") from error
    try:
        return BytesBody(text.encode(), "application/json")
    except UnicodeEncodeError:
        raise BadOptions("json: has text in it that is not encodable as UTF-8") from None


def _data(data: object) -> Body:
    if _is_content(data):
        return _content(data, "data")  # as requests has it
    try:
        return BytesBody(checked_body(data).data, FORM_TYPE.decode())
    except Refused as refused:
        raise BadOptions(f"data: {refused.text}") from None


def _is_content(data: object) -> bool:
    if isinstance(data, (str, bytes, bytearray, memoryview)):
        return True
    pulled = hasattr(data, "__aiter__") or hasattr(data, "read") or hasattr(data, "__next__")
    return pulled and not isinstance(data, Mapping)


def is_async(value: object) -> bool:
    """Whether it can be read in no other way. Its type says so: some async files pass on every attribute they are asked."""
    return isinstance(value, AsyncIterable) and not isinstance(value, Iterable)


def _content(content: object, what: str = "content") -> Body:
    if isinstance(content, str):
        try:
            return BytesBody(content.encode())
        except UnicodeEncodeError:
            raise BadOptions(f"{what}: is not encodable as UTF-8") from None
    if isinstance(content, bytes):
        return BytesBody(content)
    if isinstance(content, os.PathLike):
        return FileBody(path=os.fspath(cast("os.PathLike[str]", content)))
    if isinstance(content, Mapping):
        raise BadOptions(f"{what}: a mapping is no body; use data for a form, json for JSON")
    if is_async(content):
        # An async file has a position, which a second iteration would go on from.
        pieces = cast("AsyncIterable[object]", content)
        once = isinstance(pieces, AsyncIterator) or hasattr(pieces, "read")
        return StreamBody(lambda: aiter(pieces), can_replay=not once, is_async=True)
    if hasattr(content, "read"):
        return _file(content, what)
    try:
        return BytesBody(memoryview(cast("Any", content)).tobytes())
    except TypeError:
        pass
    if isinstance(content, Iterable):
        once = isinstance(content, Iterator)
        return StreamBody(lambda: iter(cast("Iterable[object]", content)), can_replay=not once)
    raise BadOptions(
        f"{what}: must be bytes-like, str, a path, a binary file or an iterable of bytes, not {kind_of(content)}"
    )


def check_file(file: Any, what: str) -> None:
    """Raises BadOptions for a file that no bytes can be read from. Without this, some would be sent as if empty."""
    if isinstance(getattr(file, "encoding", None), str) or hasattr(file, "newlines"):
        raise BadOptions(f"{what}: the file is open as text; open it in binary mode")
    if getattr(file, "closed", False) is True:
        raise BadOptions(f"{what}: the file is closed")
    readable = getattr(file, "readable", None)
    if callable(readable) and readable() is False:
        raise BadOptions(f"{what}: the file is not open for reading")


def _file(file: Any, what: str) -> Body:
    """An open file, from where it stands to its end. A regular one is read by the worker, and its position stays."""
    check_file(file, what)
    offset = position_of(file)
    if offset is not None and _is_plain(file):
        return FileBody(file=file, offset=offset)
    length = None if offset is None else file_length(file, offset)
    return StreamBody(lambda: pieces_of_file(file, offset, length), length=length, can_replay=offset is not None)


def _is_plain(file: Any) -> bool:
    """Whether what a descriptor gives is what read() would: a regular file, opened by open(), not one that decodes.

    Nor a subclass, whose read() may do more.
    """
    import io

    if type(file) not in (io.BufferedReader, io.BufferedRandom, io.FileIO):
        return False
    try:
        if type(file) is io.BufferedRandom:
            file.flush()
        raw = file if type(file) is io.FileIO else file.raw
        return type(raw) is io.FileIO and stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def position_of(file: Any) -> int | None:
    """Where a file stands; None for what cannot be sought in."""
    try:
        # Memory maps and some temporary files have no seekable() in older Pythons, and can be sought in.
        if not hasattr(file, "seek") or (hasattr(file, "seekable") and not file.seekable()):
            return None
        return int(file.tell())
    except (AttributeError, OSError, ValueError):
        return None


def file_length(file: Any, offset: int) -> int | None:
    """The bytes from `offset` to the end of a file that can be sought in; None where it does not say."""
    try:
        file.seek(0, os.SEEK_END)
        end = file.tell()  # not every seek() says it
        file.seek(offset)
    except (AttributeError, OSError, ValueError):
        return None
    return max(0, end - offset) if isinstance(end, int) else None


def pieces_of_file(file: Any, offset: int | None, length: int | None) -> Iterator[bytes]:
    """A file piece by piece; from `offset` if that is given.

    Raises OSError where it ends short of `length`, BlockingIOError where it has nothing now and may have more later.
    """
    read = _reader(file) if length is None else file.read
    if offset is not None:
        file.seek(offset)
    left = length
    while left is None or left > 0:
        piece = read(PIECE if left is None else min(PIECE, left))
        if piece is None:
            raise BlockingIOError("a file of the request's body does not block, and has no data to read")
        if not piece:
            if left is None:
                return
            raise OSError(f"a file of the request's body ended {left} bytes short of its length")
        if left is not None:
            left -= len(piece)
        yield piece


def _reader(file: Any) -> Callable[[int], Any]:
    """Reads what is there instead of waiting for a whole piece of it: from a pipe, from a socket."""
    import io

    if type(file) is not io.BufferedReader:
        return cast("Callable[[int], Any]", file.read)

    def read(size: int) -> bytes | None:
        # read1() says b"" at the end, and also where a file that does not block has nothing now; read() tells them apart.
        # A terminal would have to be told its end twice.
        return file.read1(size) or (b"" if file.isatty() else file.read(1))

    return read
