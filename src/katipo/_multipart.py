"""multipart/form-data (RFC 7578), made piece by piece. Names are escaped as the HTML standard has browsers do it.

Files are read in pieces of 64 KiB by the thread, or in the loop, that sends the request: an AsyncClient's loop waits for
the disk meanwhile. An open file is sent from where it stood when the request was made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from ._content import Body, BytesBody, StreamBody, check_file, file_length, is_async, pieces_of_file, position_of
from ._curl_options import Refused, kind_of
from ._pattern import pattern
from ._request_headers import checked_headers
from .errors import BadOptions

__all__ = ["multipart"]

_SMALL: Final = 64 * 1024
"""A body up to this, of bytes only, is made at once. Arbitrary."""
_ESCAPES: Final = {"\r": "%0D", "\n": "%0A", '"': "%22"}
_TO_ESCAPE: Final = pattern(r'[\r\n"]')
_BAD: Final = pattern(r"\x00")


class _Part(NamedTuple):
    head: bytes
    data: bytes | None
    path: Any
    file: Any
    offset: int | None
    length: int | None

    @property
    def can_replay(self) -> bool:
        return self.file is None or self.offset is not None

    def pieces(self) -> Iterator[bytes]:
        yield self.head
        if self.data is not None:
            yield self.data
        elif self.file is not None:
            yield from pieces_of_file(self.file, self.offset, self.length)
        else:
            with open(self.path, "rb") as file:
                yield from pieces_of_file(file, None, self.length)
        yield b"\r\n"


def multipart(data: Any, files: Any) -> Body:
    """The body for `data` and `files`, fields first.

    Raises BadOptions for what is neither; OSError for a path that cannot be looked at.
    """
    boundary = os.urandom(16).hex()
    parts = [_field(boundary, name, value) for name, value in _fields(data)]
    parts += [_file(boundary, name, value) for name, value in _pairs(files, "files")]
    end = f"--{boundary}--\r\n".encode()
    content_type = f"multipart/form-data; boundary={boundary}"

    def pieces() -> Iterator[bytes]:
        for part in parts:
            yield from part.pieces()
        yield end

    length: int | None = len(end)
    for part in parts:
        length = None if part.length is None or length is None else length + len(part.head) + part.length + 2
    if length is not None and length <= _SMALL and all(part.data is not None for part in parts):
        return BytesBody(b"".join(pieces()), content_type)
    can_replay = all(part.can_replay for part in parts)
    return StreamBody(pieces, length=length, content_type=content_type, can_replay=can_replay)


def _pairs(value: object, what: str) -> list[tuple[Any, Any]]:
    pairs: object = list(cast("Mapping[object, object]", value).items()) if isinstance(value, Mapping) else value
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        raise BadOptions(f"{what}: must be a mapping or pairs, not {kind_of(cast(Any, value))}")
    found: list[tuple[Any, Any]] = []
    for pair in cast("Iterable[object]", pairs):
        if not isinstance(pair, (tuple, list)) or len(cast("Sequence[Any]", pair)) != 2:
            raise BadOptions(f"{what}: every item must be a pair")
        found.append(cast("tuple[Any, Any]", tuple(cast("Sequence[Any]", pair))))
    return found


def _fields(data: Any) -> Iterator[tuple[Any, Any]]:
    for name, value in [] if data is None else _pairs(data, "data"):
        if isinstance(value, (list, tuple)):
            yield from ((name, each) for each in cast("Sequence[Any]", value))
        else:
            yield name, value


def _text(value: Any, what: str) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise BadOptions(f"{what} is not UTF-8") from None
    if not isinstance(value, str):
        raise BadOptions(f"{what} must be str, not {kind_of(value)}")
    if _BAD.search(value):
        raise BadOptions(f"{what} must not contain NUL")
    return value


def _quoted(value: str) -> str:
    return '"' + _TO_ESCAPE.sub(lambda match: _ESCAPES[match[0]], value) + '"'


def _head(boundary: str, name: Any, filename: str | None, lines: Iterable[bytes], what: str) -> bytes:
    disposition = f"form-data; name={_quoted(_text(name, f'{what}: a name'))}"
    if filename is not None:
        disposition += f"; filename={_quoted(filename)}"
    try:
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n".encode()
    except UnicodeEncodeError:
        raise BadOptions(f"{what}: a name is not encodable as UTF-8") from None
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _field(boundary: str, name: Any, value: Any) -> _Part:
    if value is None:
        raw = b""
    elif isinstance(value, bool):
        raw = b"true" if value else b"false"
    elif isinstance(value, (int, float)):
        raw = str(value).encode()
    elif isinstance(value, (str, bytes)):
        raw = _encoded(value, "data: a value")
    else:
        raise BadOptions(f"data: a field must be str, bytes, int, float, bool or None, not {kind_of(value)}")
    return _Part(_head(boundary, name, None, (), "data"), raw, None, None, None, len(raw))


def _encoded(value: str | bytes, what: str) -> bytes:
    try:
        return value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise BadOptions(f"{what} is not encodable as UTF-8") from None


def _file(boundary: str, name: Any, value: Any) -> _Part:
    filename: Any = None
    content_type: Any = None
    headers: Any = None
    named = isinstance(value, tuple)
    if named:
        parts = cast("tuple[Any, ...]", value)
        if not 2 <= len(parts) <= 4:
            raise BadOptions("files: a tuple is (filename, file), and perhaps a content type and headers")
        filename, value, content_type, headers = (*parts, None, None)[:4]
    if filename is None and not named:
        filename = _name_of(value)
    if filename is not None:
        filename = _text(filename, "files: a filename")
    lines = _headers(headers)
    if not any(line.lower().startswith(b"content-type:") for line in lines):
        content_type = content_type or _guess(filename)
        if content_type is not None:
            lines += _headers({"Content-Type": content_type})
    head = _head(boundary, name, filename, lines, "files")
    return _part(head, value)


def _part(head: bytes, value: Any) -> _Part:
    if isinstance(value, (str, bytes)):
        data = _encoded(value, "files: a content")
        return _Part(head, data, None, None, None, len(data))
    if isinstance(value, os.PathLike):
        path = os.fspath(cast("os.PathLike[str]", value))
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise BadOptions("files: the path is not that of a regular file")
        return _Part(head, None, path, None, None, status.st_size)
    if is_async(value):
        raise BadOptions(f"files: {kind_of(value)} is async; a part's file must be a plain one")
    if not hasattr(value, "read"):
        try:
            data = memoryview(value).tobytes()
        except TypeError:
            raise BadOptions(
                f"files: a file must be bytes-like, str, a path or a binary file, not {kind_of(value)}"
            ) from None
        return _Part(head, data, None, None, None, len(data))
    check_file(value, "files")
    offset = position_of(value)
    length = None if offset is None else file_length(value, offset)
    return _Part(head, None, None, value, offset, length)


def _name_of(value: object) -> str:
    """As httpx: the file's own name, without folders; else "upload"."""
    path = isinstance(value, os.PathLike)
    name: object = os.fspath(cast("os.PathLike[Any]", value)) if path else getattr(value, "name", None)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    return os.path.basename(name) if isinstance(name, str) and os.path.basename(name) else "upload"


def _guess(filename: str | None) -> str | None:
    if filename is None:
        return None
    from mimetypes import guess_type

    return guess_type(filename)[0] or "application/octet-stream"


def _headers(headers: Any) -> list[bytes]:
    if headers is None:
        return []
    try:
        checked = checked_headers(headers)
    except Refused as refused:
        raise BadOptions(f"files: headers: {refused.text}") from None
    if any(lower == b"content-disposition" for _, lower, _ in checked or ()):
        raise BadOptions("files: headers: Content-Disposition is made of the name and the filename")
    return [name + b": " + value for name, _, value in checked or () if value is not None]
