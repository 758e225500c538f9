"""What a call's content, data, files and json become."""

from __future__ import annotations

import array
import asyncio
import gzip
import io
import json
import mmap
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from katipo import BadOptions, StreamConsumed
from katipo._content import PIECE, Body, BytesBody, FileBody, StreamBody, build_content

DATA = bytes(range(256)) * 700
"""More than two pieces."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of DATA."""
    made = tmp_path / "data.bin"
    made.write_bytes(DATA)
    return made


def stream(body: Body | None) -> StreamBody:
    assert isinstance(body, StreamBody)
    return body


def pulled(body: Body | None) -> list[bytes]:
    """One sending of a body that is not async."""
    pieces = stream(body).open()
    assert isinstance(pieces, Iterator)
    return list(pieces)


def read_file(body: Body | None) -> bytes:
    """What the worker reads of a file body."""
    assert isinstance(body, FileBody)
    descriptor, offset, length = body.open()
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def test_nothing_is_no_body() -> None:
    """Nor are no fields and no files, as httpx has it."""
    assert build_content() is None
    assert build_content(data={}) is None
    assert build_content(data=[], files={}) is None
    assert build_content(files=[]) is None
    other = build_content(data={}, files=(), json=1)
    assert isinstance(other, BytesBody)
    assert other.data == b"1"


@pytest.mark.parametrize(
    ("content", "data"),
    [
        (b"", b""),
        (b"abc", b"abc"),
        ("", b""),
        ("äbc", "äbc".encode()),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcd")[::2], b"ac"),
    ],
)
@pytest.mark.parametrize("argument", ["content", "data"])
def test_bytes_and_text_are_the_body(argument: str, content: Any, data: bytes) -> None:
    """Without a content type of their own; in data too, as requests has it."""
    body = build_content(**{argument: content})
    assert isinstance(body, BytesBody)
    assert (body.data, body.length, body.content_type, body.can_replay, body.is_async) == (
        data,
        len(data),
        None,
        True,
        False,
    )


def test_anything_with_a_buffer_is_bytes() -> None:
    """Its bytes, not its items."""
    body = build_content(content=array.array("H", [1, 2]))
    assert isinstance(body, BytesBody)
    assert body.data == array.array("H", [1, 2]).tobytes()


def test_bytes_that_change_later_are_sent_as_they_were() -> None:
    """The body is a copy."""
    content = bytearray(b"abc")
    body = build_content(content=content)
    content[0] = 0
    assert isinstance(body, BytesBody)
    assert body.data == b"abc"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"content": b"", "data": {"a": 1}}, ("content", "data")),
        ({"content": b"", "files": {"a": b""}}, ("content", "files")),
        ({"content": b"", "json": 1}, ("content", "json")),
        ({"json": 1, "data": {"a": 1}}, ("json", "data")),
        ({"json": 1, "files": {"a": b""}}, ("json", "files")),
        ({"json": 1, "files": {"a": b""}, "data": {"a": 1}}, ("json",)),
        ({"content": 1}, ("content", "int")),
        ({"content": object()}, ("content", "object")),
        ({"content": {"a": "b"}}, ("content", "data", "json")),
        ({"content": "\ud800"}, ("content", "UTF-8")),
        ({"data": "\ud800"}, ("data", "UTF-8")),
        ({"data": 1}, ("data", "int")),
        ({"data": {"a": object()}}, ("data", "object")),
        ({"data": [b"a", b"b"]}, ("data", "pair")),
        ({"data": {"a": "\ud800"}}, ("data", "UTF-8")),
        ({"json": object()}, ("json", "TypeError")),
        ({"json": float("nan")}, ("json", "ValueError")),
        ({"json": {"a": {1, 2}}}, ("json", "TypeError")),
        ({"json": "\ud800"}, ("json", "UTF-8")),
        ({"files": 0}, ("files", "int")),
        ({"files": ""}, ("files", "str")),
        ({"files": b"x"}, ("files", "bytes")),
        ({"data": "hunter2", "files": {"a": b""}}, ("data", "str")),
        ({"content": io.StringIO("hunter2")}, ("content", "text")),
        ({"data": io.StringIO("hunter2")}, ("data", "text")),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], words: tuple[str, ...]) -> None:
    """With the name of the argument."""
    with pytest.raises(BadOptions) as caught:
        build_content(**arguments)
    for word in words:
        assert word in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_json_that_never_ends_is_refused() -> None:
    """A list in itself."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(BadOptions, match="json"):
        build_content(json=value)


@pytest.mark.parametrize("value", [{}, [], 0, False, "", {"a": ["ä", None, 1.5, {"b": True}]}])
def test_json(value: Any) -> None:
    """As httpx writes it: compact, UTF-8, with its content type."""
    body = build_content(json=value)
    assert isinstance(body, BytesBody)
    assert body.content_type == "application/json"
    assert json.loads(body.data) == value
    assert b" " not in body.data
    assert b"\\u" not in body.data


@pytest.mark.parametrize(
    ("data", "form"),
    [
        ({"a": "1", "b": "x y&z"}, b"a=1&b=x+y%26z"),
        ({"a": ["1", 2], "b": None, "c": True}, b"a=1&a=2&b=&c=true"),
        ([("a", "1"), ("a", "2")], b"a=1&a=2"),
        ((("ä", "ö"),), b"%C3%A4=%C3%B6"),
    ],
)
def test_a_form(data: Any, form: bytes) -> None:
    """By the pool's rules."""
    body = build_content(data=data)
    assert isinstance(body, BytesBody)
    assert (body.data, body.content_type) == (form, "application/x-www-form-urlencoded")
    other = build_content(data=data, files={})
    assert isinstance(other, BytesBody)
    assert other.data == form


# -------------------------------------------------------------------------------------------------- files


def test_a_path_is_read_by_the_worker(path: Path) -> None:
    """From its beginning, as often as it is needed; a descriptor each time, the caller's to close."""
    body = build_content(content=path)
    assert isinstance(body, FileBody)
    assert (body.can_replay, body.is_async, body.content_type) == (True, False, None)
    assert read_file(body) == read_file(body) == DATA
    descriptor, _, _ = body.open()
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_path_as_text_is_the_body(path: Path) -> None:
    """Only an os.PathLike is a path."""
    body = build_content(content=str(path))
    assert isinstance(body, BytesBody)
    assert body.data == str(path).encode()


def test_a_path_that_is_no_regular_file_s_fails(tmp_path: Path) -> None:
    """Without waiting for somebody to write to a pipe."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = len(os.listdir("/dev/fd"))
    for wrong in (tmp_path, fifo, Path(os.devnull)):
        body = build_content(content=wrong)
        assert isinstance(body, FileBody)
        with pytest.raises(BadOptions, match="regular"):
            body.open()
        with pytest.raises(BadOptions, match="regular"):
            build_content(files={"a": wrong})
    assert len(os.listdir("/dev/fd")) == before
    missing = build_content(content=tmp_path / "missing")
    assert isinstance(missing, FileBody)
    with pytest.raises(FileNotFoundError):
        missing.open()


@pytest.mark.parametrize("mode", ["rb", "r+b"])
@pytest.mark.parametrize("buffering", [-1, 0])
def test_an_open_file_is_sent_from_where_it_stands(path: Path, mode: str, buffering: int) -> None:
    """By the worker; the position stays."""
    with open(path, mode, buffering=buffering) as file:
        assert file.read(10) == DATA[:10]
        body = build_content(content=file)
        assert read_file(body) == read_file(body) == DATA[10:]
        assert file.tell() == 10
        assert not file.closed


def test_what_was_written_to_an_open_file_is_sent(path: Path) -> None:
    """Out of its buffer too."""
    with open(path, "r+b") as file:
        file.write(b"xyz")
        file.seek(0)
        file.write(b"123")
        file.seek(1)
        assert read_file(build_content(content=file)) == b"23" + DATA[3:]


def test_an_open_file_at_or_beyond_its_end_is_empty(path: Path) -> None:
    """A length is never below 0."""
    with open(path, "rb") as file:
        for offset in (len(DATA), len(DATA) + 5):
            file.seek(offset)
            assert read_file(build_content(content=file)) == b""


def test_files_that_cannot_be_read_from_are_refused(path: Path, tmp_path: Path) -> None:
    """Some of them would be sent as if they were empty."""
    with open(tmp_path / "new", "wb") as written, open(path, encoding="utf-8") as text, open(path, "rb") as closed:
        closed.close()
        for wrong, word in ((written, "reading"), (text, "text"), (closed, "closed")):
            with pytest.raises(BadOptions, match=f"content: .*{word}"):
                build_content(content=wrong)
            with pytest.raises(BadOptions, match=f"files: .*{word}"):
                build_content(files={"a": wrong})


def test_a_file_closed_before_it_is_sent_fails(path: Path) -> None:
    """Not another file that got its descriptor."""
    with open(path, "rb") as file:
        body = build_content(content=file)
    assert isinstance(body, FileBody)
    with pytest.raises(ValueError, match="closed"):
        body.open()


def test_a_file_that_decodes_is_read_through_itself(tmp_path: Path) -> None:
    """Its descriptor gives something else."""
    with gzip.open(tmp_path / "x.gz", "wb") as file:
        file.write(DATA)
    with gzip.open(tmp_path / "x.gz", "rb") as file:
        body = build_content(content=file)
        assert b"".join(pulled(body)) == DATA


def test_a_subclass_of_a_file_is_read_through_itself(path: Path) -> None:
    """Its read() may count, or change, what it gives."""

    class Loud(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
            data = super().read(-1 if size is None else size)
            return None if data is None else bytes(byte ^ 255 for byte in data)

    with Loud(path) as file:
        assert b"".join(pulled(build_content(content=file))) == bytes(byte ^ 255 for byte in DATA)


def test_bytes_in_a_file_object_have_a_length_and_can_be_sent_again() -> None:
    """From where it stood, in pieces."""
    file = io.BytesIO(DATA)
    file.seek(7)
    body = build_content(content=file)
    assert stream(body).length == len(DATA) - 7
    assert stream(body).can_replay
    assert file.tell() == 7
    for _ in range(2):
        pieces = pulled(body)
        assert b"".join(pieces) == DATA[7:]
        assert max(map(len, pieces)) == PIECE
    stream(body).close()
    assert not file.closed


def test_a_temporary_file_and_a_memory_map(path: Path) -> None:
    """Other things that read."""
    with tempfile.NamedTemporaryFile() as named, tempfile.SpooledTemporaryFile() as spooled:
        for file in (named, spooled):
            file.write(DATA)
            file.seek(3)
            body = build_content(content=file)
            assert b"".join(pulled(body)) == DATA[3:]
            assert b"".join(pulled(body)) == DATA[3:]
    with open(path, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        body = build_content(content=mapped)
        assert stream(body).length == len(DATA)
        assert b"".join(pulled(body)) == b"".join(pulled(body)) == DATA


def test_a_file_that_became_shorter_fails() -> None:
    """Never silently."""
    file = io.BytesIO(DATA)
    body = build_content(content=file)
    file.truncate(len(DATA) - 1)
    with pytest.raises(OSError, match="1 bytes short"):
        pulled(body)


def test_a_file_that_became_longer_is_sent_as_long_as_it_was() -> None:
    """The length has been told."""
    file = io.BytesIO(b"abc")
    body = build_content(content=file)
    file.seek(0, os.SEEK_END)
    file.write(b"def")
    assert pulled(body) == [b"abc"]


def test_a_pipe_is_sent_as_it_comes_and_once() -> None:
    """What is there is not held back until there is more."""
    reading, writing = os.pipe()
    with open(reading, "rb") as file, open(writing, "wb", buffering=0) as end:
        body = stream(build_content(content=file))
        assert (body.length, body.can_replay) == (None, False)
        pieces = body.open()
        assert isinstance(pieces, Iterator)
        for data in (b"abc", b"d"):
            end.write(data)
            assert next(pieces) == data
        end.close()
        assert next(pieces, None) is None
        with pytest.raises(StreamConsumed):
            body.open()


@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_pipe_that_does_not_block_is_no_end(buffering: int) -> None:
    """Nothing there yet is not the end of it."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=buffering) as file, open(writing, "wb", buffering=0) as end:
        end.write(b"abc")
        pieces = stream(build_content(content=file)).open()
        assert isinstance(pieces, Iterator)
        assert next(pieces) == b"abc"
        with pytest.raises(BlockingIOError):
            next(pieces)


def test_a_socket_s_file_is_sent_as_it_comes() -> None:
    """To its end."""
    left, right = socket.socketpair()
    with left, right, left.makefile("rb") as file:
        body = stream(build_content(content=file))
        pieces = body.open()
        assert isinstance(pieces, Iterator)
        right.sendall(b"abc")
        assert next(pieces) == b"abc"
        right.shutdown(socket.SHUT_WR)
        assert next(pieces, None) is None


def test_a_read_that_gives_text_is_a_type_error() -> None:
    """When it comes."""

    class Odd:
        def read(self, size: int = -1) -> str:
            return "hunter2"

    with pytest.raises(TypeError, match="not str") as caught:
        pulled(build_content(content=Odd()))
    assert "hunter2" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- iterables


class Again:
    """Can be iterated as often as one likes."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        yield b""
        yield bytearray(b"b")  # type: ignore[misc]


@pytest.mark.parametrize("argument", ["content"])
@pytest.mark.parametrize(
    ("content", "again"),
    [
        ([b"a", b"", bytearray(b"b")], True),
        ((b"a", memoryview(b"b")), True),
        (Again(), True),
        ({b"a": 1, b"b": 2}.keys(), True),
        (iter([b"a", b"b"]), False),
        ((each for each in (b"a", b"b")), False),
        (map(bytes, ([97], [98])), False),
    ],
)
def test_iterables(argument: str, content: Any, again: bool) -> None:
    """Empty pieces are left out; what is its own iterator can be sent once."""
    body = stream(build_content(**{argument: content}))
    assert (body.length, body.content_type, body.can_replay, body.is_async) == (None, None, again, False)
    assert pulled(body) == [b"a", b"b"]
    if again:
        assert pulled(body) == [b"a", b"b"]
    else:
        with pytest.raises(StreamConsumed):
            body.open()


def test_what_is_pulled_may_be_data_as_well() -> None:
    """As in requests."""
    assert pulled(build_content(data=iter([b"a"]))) == [b"a"]
    assert pulled(build_content(data=io.BytesIO(b"a"))) == [b"a"]
    assert stream(build_content(data=Slow())).is_async


@pytest.mark.parametrize("piece", ["hunter2", 7, None, ("hunter2",), ["x"]])
def test_a_piece_that_is_not_bytes_is_a_type_error_when_it_comes(piece: Any) -> None:
    """What came before it was good; the message has its type and not what it is."""
    pieces = stream(build_content(content=[b"a", piece])).open()
    assert isinstance(pieces, Iterator)
    assert next(pieces) == b"a"
    with pytest.raises(TypeError, match=r"must be bytes-like, not (str|int|None|tuple|list)") as caught:
        next(pieces)
    assert "hunter2" not in str(caught.value)


def test_an_exception_of_the_iterable_comes_through() -> None:
    """As it is."""

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        pulled(build_content(content=broken()))


def test_closing_ends_generators_and_leaves_other_iterators_alone() -> None:
    """Those are the caller's."""
    ended: list[str] = []

    def generator() -> Iterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            ended.append("generator")

    class Own:
        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            return b"a"

        def close(self) -> None:
            ended.append("own")

    for content in (generator(), Own()):
        body = stream(build_content(content=content))
        pieces = body.open()
        assert isinstance(pieces, Iterator)
        assert next(pieces) == b"a"
        body.close()
        body.close()
    assert ended == ["generator"]


class Slow:
    """Async, again and again."""

    def __init__(self) -> None:
        self.ended = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for piece in (b"a", b"", b"b"):
                await asyncio.sleep(0)
                yield piece
        finally:
            self.ended += 1


async def all_of(body: Body | None) -> list[bytes]:
    pieces = stream(body).open()
    assert isinstance(pieces, AsyncIterator)
    return [piece async for piece in pieces]


async def test_async_iterables() -> None:
    """A class can be sent again, a generator not."""
    body = stream(build_content(content=Slow()))
    assert (body.length, body.can_replay, body.is_async) == (None, True, True)
    assert await all_of(body) == await all_of(body) == [b"a", b"b"]
    once = stream(build_content(content=Slow().__aiter__()))
    assert not once.can_replay
    assert await all_of(once) == [b"a", b"b"]
    with pytest.raises(StreamConsumed):
        once.open()


async def test_an_async_piece_that_is_not_bytes_is_a_type_error() -> None:
    """And the generator is ended."""

    async def bad() -> AsyncIterator[Any]:
        yield b"a"
        yield "hunter2"

    with pytest.raises(TypeError, match="not str") as caught:
        await all_of(build_content(content=bad()))
    assert "hunter2" not in str(caught.value)


async def test_an_async_generator_is_ended_with_its_sending_and_other_iterators_are_not() -> None:
    """Whoever made them ends them."""
    slow = Slow()
    pieces: Any = stream(build_content(content=slow)).open()
    assert await pieces.__anext__() == b"a"
    await pieces.aclose()
    assert slow.ended == 1

    class Own:
        closed = False

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            return b"a"

        async def aclose(self) -> None:
            self.closed = True

    own = Own()
    pieces = stream(build_content(content=own)).open()
    assert await pieces.__anext__() == b"a"
    await pieces.aclose()
    assert not own.closed


async def test_an_async_file_is_pulled_and_not_sent_twice(path: Path) -> None:
    """Its position would have moved."""
    import anyio

    async with await anyio.open_file(path, "rb") as file:
        body = stream(build_content(content=file))
        assert (body.is_async, body.can_replay) == (True, False)
        assert b"".join(await all_of(body)) == DATA
        with pytest.raises(BadOptions, match=r"files: .*async"):
            build_content(files={"a": file})


def test_what_can_be_iterated_both_ways_is_plain() -> None:
    """So that both clients take it."""

    class Both(Slow, Again):
        pass

    body = build_content(content=Both())
    assert not stream(body).is_async
    assert pulled(body) == [b"a", b"b"]
