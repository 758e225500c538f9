"""What a client's requests carry, against httpbin and against our own server; and how responses become text."""

from __future__ import annotations

import array
import hashlib
import io
import os
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import response, serve
from tests.support.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.conftest import Hostile
    from tests.support.clients import AnyClient, ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin


@pytest.fixture
def local(clients: ClientMaker) -> AnyClient:
    """A client without a version of its own."""
    return clients()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 100,000 bytes."""
    path = tmp_path / "däta.bin"
    path.write_bytes(pattern(0, 100_000))
    return path


def taken(answer: katipo.Response) -> tuple[int, str, dict[str, str]]:
    """What the origin's /upload took: length, sha256, headers."""
    seen = answer.json()
    return seen["length"], seen["sha256"], {name.lower(): value for name, value in seen["headers"]}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# json and data


@pytest.mark.core
@pytest.mark.parametrize("value", [{"ä": [1, 2.5, None, True]}, [], {}, "text", 0, False, {"big": "x" * 100_000}])
def test_json(clients: ClientMaker, web: Endpoint, value: Any) -> None:
    """Any value, falsy ones too, arrives as JSON with its content type."""
    seen = clients(**web.client_options).post(web("/anything"), json=value).json()
    assert seen["json"] == value
    assert seen["headers"]["Content-Type"] == "application/json"


def test_json_is_compact_utf8(local: AnyClient, origin: Origin) -> None:
    """As httpx writes it; the caller's own content type stays."""
    answer = local.put(f"{origin.strict_http}/echo", json={"a": "ä", "b": [1, 2]})
    assert answer.content == '{"a":"ä","b":[1,2]}'.encode()
    answer = local.post(f"{origin.strict_http}/upload", json={}, headers={"content-type": "application/vnd.api+json"})
    assert taken(answer)[2]["content-type"] == "application/vnd.api+json"


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), b"x", {"a": object()}, "\ud800"])
def test_what_is_no_json_is_refused(local: AnyClient, value: Any) -> None:
    """BadOptions before anything is sent."""
    with pytest.raises(katipo.BadOptions, match="json"):
        local.post("http://localhost/", json=value)


def test_json_of_none_is_no_body(local: AnyClient, origin: Origin) -> None:
    """As in httpx and requests; `content="null"` sends one."""
    length, _, headers = taken(local.post(f"{origin.strict_http}/upload", json=None))
    assert length == 0
    assert "content-type" not in headers


@pytest.mark.core
def test_a_form(clients: ClientMaker, web: Endpoint) -> None:
    """Mappings and pairs, with several values of a name, as httpx writes them."""
    client = clients(**web.client_options)
    seen = client.post(web("/anything"), data={"a": "ä&=", "n": 1, "t": True, "none": None, "l": ["1", 2]}).json()
    assert seen["form"] == {"a": "ä&=", "n": "1", "t": "true", "none": "", "l": ["1", "2"]}
    assert seen["headers"]["Content-Type"] == "application/x-www-form-urlencoded"
    seen = client.post(web("/anything"), data=[("a", "1"), ("a", "2"), ("b", "")]).json()
    assert seen["form"] == {"a": ["1", "2"], "b": ""}


@pytest.mark.parametrize("data", ["a=1&b=2", b"a=1&b=2", bytearray(b"a=1&b=2")])
def test_data_that_is_text_or_bytes_is_the_body(local: AnyClient, origin: Origin, data: Any) -> None:
    """As in requests: nothing is encoded and no content type is claimed."""
    answer = local.post(f"{origin.strict_http}/upload", data=data)
    assert taken(answer)[:2] == (7, digest(b"a=1&b=2"))
    assert "content-type" not in taken(answer)[2]


@pytest.mark.parametrize("options", [{"data": {}}, {"data": []}, {"data": None}, {"files": {}}, {"files": []}])
def test_nothing_in_a_form_is_no_body(local: AnyClient, origin: Origin, options: dict[str, Any]) -> None:
    """As in httpx and requests: a GET stays without a body, a POST says that there is none, and neither names a type."""
    seen = {name.lower() for name, _ in local.get(f"{origin.strict_http}/headers", **options).json()["headers"]}
    assert not seen & {"content-type", "content-length", "transfer-encoding"}
    length, _, headers = taken(local.post(f"{origin.strict_http}/upload", **options))
    assert (length, headers["content-length"]) == (0, "0")
    assert "content-type" not in headers


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"content": b"", "json": 1}, "json excludes content"),
        ({"content": b"", "data": {"a": "b"}}, "data excludes content"),
        ({"json": 1, "data": {"a": "b"}}, "data excludes json"),
        ({"json": 1, "files": {"a": b""}}, "files excludes json"),
        ({"content": b"", "files": {"a": b""}}, "files excludes content"),
        ({"data": {"a": object()}}, "data"),
        ({"data": {"a": {"b": "c"}}}, "data"),
        ({"data": 1}, "data"),
        ({"data": "\ud800"}, "data"),
        ({"data": ["ab"]}, "data"),
        ({"content": 5}, "content"),
        ({"content": {"a": 1}}, "content: a mapping"),
        ({"content": io.StringIO("text")}, "content: the file is open as text"),
        ({"files": {"a": io.StringIO("text")}}, "files: the file is open as text"),
        ({"files": {"a": 5}}, "files"),
        ({"files": 5}, "files"),
        ({"files": {"a": (1,)}}, "files"),
        ({"files": {"a": ("name", b"", "text/plain\r\nX: y")}}, "files: headers"),
        ({"files": {"a\0": b""}}, "files"),
        ({"files": {"a": b""}, "data": "text"}, "data"),
    ],
)
def test_bodies_that_are_refused(local: AnyClient, options: dict[str, Any], named: str) -> None:
    """BadOptions names the argument; nothing is sent."""
    with pytest.raises(katipo.BadOptions, match=named):
        local.post("http://localhost/", **options)


# content


@pytest.mark.core
@pytest.mark.parametrize(
    ("content", "expected", "known"),
    [
        (b"bytes", b"bytes", True),
        ("täxt", "täxt".encode(), True),
        (bytearray(b"array"), b"array", True),
        (memoryview(b"abcdef")[::2], b"ace", True),
        (array.array("B", [1, 2, 3]), b"\1\2\3", True),
        (b"", b"", True),
        ("", b"", True),
        ([b"li", b"", bytearray(b"st")], b"list", False),
        ((b"tu", b"ple"), b"tuple", False),
        ([], b"", False),
    ],
    ids="bytes str bytearray view array nothing no-text list tuple no-pieces".split(),
)
def test_each_kind_of_content(
    clients: ClientMaker, endpoint: Endpoint, content: Any, expected: bytes, known: bool
) -> None:
    """It arrives byte for byte; a length is said where it is known; no content type is made up."""
    client = clients(**endpoint.client_options)
    for _ in range(2):
        length, sha256, headers = taken(client.put(endpoint("/upload"), content=content))
        assert (length, sha256) == (len(expected), digest(expected))
        assert headers.get("content-length") == (str(len(expected)) if known else None)
        assert "content-type" not in headers
        if endpoint.version == "1.1" and not known:
            assert headers["transfer-encoding"] == "chunked"


def test_a_file_in_memory_is_sent_from_where_it_stands(local: AnyClient, origin: Origin) -> None:
    """Its length is known, and it is read to its end."""
    content = io.BytesIO(b"in memory")
    content.seek(3)
    length, sha256, headers = taken(local.put(f"{origin.strict_http}/upload", content=content))
    assert (length, sha256, headers["content-length"]) == (6, digest(b"memory"), "6")
    assert content.read() == b""


def test_a_generator_is_sent_as_it_comes(clients: ClientMaker, endpoint: Endpoint) -> None:
    """With a Content-Length of the caller's own it is kept; without one the body has no declared length."""
    client = clients(**endpoint.client_options)

    def pieces() -> Iterator[bytes]:
        for index in range(10):
            yield pattern(index * 1000, 1000)

    length, sha256, headers = taken(client.post(endpoint("/upload"), content=pieces()))
    assert (length, sha256) == (10_000, digest(pattern(0, 10_000)))
    assert "content-length" not in headers
    answer = client.post(endpoint("/upload"), content=pieces(), headers={"Content-Length": "10000"})
    assert taken(answer)[1] == sha256
    assert taken(answer)[2]["content-length"] == "10000"


def test_a_generator_can_be_sent_once(local: AnyClient, origin: Origin) -> None:
    """A generator that has been used up is an empty body; nothing can know."""
    pieces = iter([b"abc"])
    assert taken(local.post(f"{origin.strict_http}/upload", content=pieces))[0] == 3
    assert taken(local.post(f"{origin.strict_http}/upload", content=pieces))[0] == 0


@pytest.mark.parametrize("bad", ["text", 5, None, [b"x"]])
def test_a_piece_that_is_no_bytes(clients: ClientMaker, hostile: Hostile, bad: Any) -> None:
    """TypeError for the caller, and the server never sees a complete body."""
    server = hostile(lambda peer: peer.wait_closed())

    def pieces() -> Iterator[Any]:
        yield b"abc"
        server.peer(0).wait_received(b"abc")
        yield bad
        yield b"ghi"

    with pytest.raises(TypeError, match="bytes-like"):
        clients().post(server.url, content=pieces())
    server.peer(0).wait_closed()
    assert b"\r\n0\r\n\r\n" not in server.peer(0).received
    assert b"ghi" not in server.peer(0).received


def test_async_iterables(clients: ClientMaker, endpoint: Endpoint) -> None:
    """An AsyncClient takes them; a Client says which client does."""

    async def pieces() -> AsyncIterator[bytes]:
        for index in range(10):
            yield pattern(index * 1000, 1000)

    client = clients(**endpoint.client_options)
    if client.face == "sync":
        with pytest.raises(katipo.BadOptions, match="AsyncClient"):
            client.post(endpoint("/upload"), content=pieces())
    else:
        answer = client.post(endpoint("/upload"), content=pieces())
        assert taken(answer)[:2] == (10_000, digest(pattern(0, 10_000)))


@pytest.mark.core
@pytest.mark.parametrize("how", ["path", "file", "unbuffered", "writable"])
def test_files_are_read_by_the_worker(clients: ClientMaker, endpoint: Endpoint, file: Path, how: str) -> None:
    """A path is opened, an open file read from where it stands, and left there; the length is said."""
    client = clients(**endpoint.client_options)
    data = file.read_bytes()
    if how == "path":
        length, sha256, headers = taken(client.put(endpoint("/upload"), content=file))
        assert (length, sha256, headers["content-length"]) == (len(data), digest(data), str(len(data)))
        return
    with open(file, {"writable": "r+b"}.get(how, "rb"), 0 if how == "unbuffered" else -1) as opened:
        opened.seek(12_345)
        for _ in range(2):
            length, sha256, headers = taken(client.put(endpoint("/upload"), content=opened))
            assert (length, sha256) == (len(data) - 12_345, digest(data[12_345:]))
            assert headers["content-length"] == str(length)
            assert opened.tell() == 12_345


def test_what_a_file_buffers_is_sent(local: AnyClient, origin: Origin, file: Path) -> None:
    """A file that is open for writing is flushed first."""
    with open(file, "r+b") as opened:
        opened.write(b"new")
        opened.seek(0)
        _, sha256, _ = taken(local.put(f"{origin.strict_http}/upload", content=opened))
    assert sha256 == digest(file.read_bytes())
    assert file.read_bytes().startswith(b"new")


def test_an_empty_file(local: AnyClient, origin: Origin, tmp_path: Path) -> None:
    """Its length is 0, and it is a body: a PUT of it arrives."""
    path = tmp_path / "empty"
    path.touch()
    length, _, headers = taken(local.put(f"{origin.strict_http}/upload", content=path))
    assert (length, headers["content-length"]) == (0, "0")


def test_files_that_cannot_be_read(local: AnyClient, origin: Origin, tmp_path: Path) -> None:
    """The error is Python's own where there is one; nothing is sent, and nothing is left open."""
    name = origin.fresh_id()
    url = f"{origin.strict_http}/upload?id={name}"
    with pytest.raises(FileNotFoundError):
        local.put(url, content=tmp_path / "missing")
    with pytest.raises((katipo.BadOptions, IsADirectoryError)):
        local.put(url, content=tmp_path)
    with pytest.raises(FileNotFoundError):
        local.put(url, files={"a": tmp_path / "missing"})
    closed = open(tmp_path / "closed", "wb+")  # noqa: SIM115
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        local.put(url, content=closed)
    assert origin.journal(name).count == 0


def test_a_pipe_is_sent_piece_by_piece(local: AnyClient, origin: Origin) -> None:
    """A file that cannot be sought in has no length and is read where the request is made."""
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe")
    os.close(writing)
    with open(reading, "rb") as pipe:
        length, sha256, headers = taken(local.post(f"{origin.strict_http}/upload", content=pipe))
    assert (length, sha256) == (14, digest(b"through a pipe"))
    assert "content-length" not in headers


# files


@pytest.mark.core
def test_multipart(clients: ClientMaker, web: Endpoint, file: Path) -> None:
    """Fields and files of each kind arrive as httpbin reads them, with a length that is known before."""
    client = clients(**web.client_options)
    with open(file, "rb") as opened:
        opened.seek(99_990)
        files = [
            ("bytes", b"abc"),
            ("text", "däf"),
            ("named", ("x.txt", b"ghi")),
            ("typed", ("y", io.BytesIO(b"jkl"), "text/csv")),
            ("path", file),
            ("opened", opened),
            ("plain", (None, b"no file")),
        ]
        seen = client.post(web("/anything"), data={"field": "välue", "many": ["1", "2"]}, files=files).json()
    assert seen["form"] == {"field": "välue", "many": ["1", "2"], "plain": "no file"}
    assert (seen["files"]["bytes"], seen["files"]["text"], seen["files"]["named"]) == ("abc", "däf", "ghi")
    assert seen["files"]["typed"] == "jkl"
    assert "base64" in seen["files"]["path"]
    assert len(seen["files"]["path"]) > 100_000
    assert seen["headers"]["Content-Type"].startswith("multipart/form-data; boundary=")
    assert int(seen["headers"]["Content-Length"]) > 100_000


def test_multipart_on_the_wire(local: AnyClient, origin: Origin, file: Path) -> None:
    """Names, file names and content types as browsers and httpx write them."""
    body = local.post(
        f"{origin.strict_http}/echo",
        data={'a"b\r\n': b"1"},
        files={"f": ('ü"x.html', b"<p>", None, {"X-Extra": "y"}), "g": file, "h": io.BytesIO(b"z")},
        headers={"Content-Type": None},
    ).content
    boundary = body.partition(b"\r\n")[0]
    head = boundary + b'\r\nContent-Disposition: form-data; name="a%22b%0D%0A"\r\n\r\n1\r\n'
    assert body.startswith(head)
    assert 'name="f"; filename="ü%22x.html"\r\nX-Extra: y\r\nContent-Type: text/html\r\n\r\n<p>\r\n'.encode() in body
    assert 'name="g"; filename="däta.bin"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode() in body
    assert b'name="h"; filename="upload"\r\nContent-Type: application/octet-stream\r\n\r\nz\r\n' in body
    assert body.endswith(boundary + b"--\r\n")


def test_a_multipart_of_unknown_length(local: AnyClient, origin: Origin) -> None:
    """A part that cannot say how long it is makes the body chunked."""
    reading, writing = os.pipe()
    os.write(writing, b"piped")
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = local.post(f"{origin.strict_http}/echo", files={"p": ("p", pipe)})
    assert b"\r\n\r\npiped\r\n--" in answer.content
    assert "content-length" not in answer.request.headers


def test_a_multipart_goes_up_beside_a_stream(clients: ClientMaker, endpoint: Endpoint, file: Path) -> None:
    """A body of pieces and a response that is read as it comes."""
    client = clients(**endpoint.client_options)
    with client.stream("POST", endpoint("/echo"), files={"f": file}) as streamed:
        body = b"".join(streamed.pieces())
    assert file.read_bytes() in body


def test_a_file_that_shrinks_fails_the_request(local: AnyClient, hostile: Hostile, tmp_path: Path) -> None:
    """OSError for the caller; the server never sees a body that looks complete."""
    path = tmp_path / "shrinking"
    path.write_bytes(bytes(1000))
    server = hostile(lambda peer: peer.wait_closed())

    class Shrinking(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                server.peer(0).wait_received(b"\r\n\r\n--")  # the body has begun
                return b""
            return super().read(10) or b""

    with Shrinking(path) as opened, pytest.raises(OSError, match="short of its length"):
        local.post(server.url, files={"f": opened})
    server.peer(0).wait_closed()
    assert not server.peer(0).received.endswith(b"--\r\n")


# Text


@pytest.mark.parametrize(
    ("content_type", "raw", "options", "text", "encoding"),
    [
        ("text/plain", "grün".encode(), {}, "grün", "utf-8"),
        ("text/plain; charset=iso-8859-1", "grün".encode("latin-1"), {}, "grün", "iso-8859-1"),
        ('text/plain; CHARSET="windows-1252"', "€".encode("cp1252"), {}, "€", "windows-1252"),
        ("text/plain; charset=utf-16", "ü".encode("utf-16"), {}, "ü", "utf-16"),
        ("text/plain; charset=klingon", "ü".encode(), {}, "ü", "utf-8"),
        ("text/plain; charset=rot13", b"abc", {}, "abc", "utf-8"),
        ("text/plain", "grün".encode("latin-1"), {}, "gr\ufffdn", "utf-8"),
        ("text/plain", "grün".encode("cp1252"), {"default_encoding": "cp1252"}, "grün", "cp1252"),
        ("text/plain; charset=utf-8", "grün".encode(), {"default_encoding": "cp1252"}, "grün", "utf-8"),
        (None, b"plain", {"default_encoding": "ascii"}, "plain", "ascii"),
    ],
)
def test_text_is_decoded_by_charset(
    clients: ClientMaker,
    hostile: Hostile,
    content_type: str | None,
    raw: bytes,
    options: dict[str, Any],
    text: str,
    encoding: str,
) -> None:
    """Content-Type's charset if Python knows it, else the client's; buffered by either way, and streamed."""
    headers = [("Content-Type", content_type)] if content_type else []
    answer = response(raw, headers=headers)
    server = hostile(serve(answer, answer, answer, answer))
    client = clients(**options)
    for arguments in ({}, {"headers": {"x-long": "1"}}):
        got = client.get(server.url, **arguments)
        assert (got.text, got.encoding) == (text, encoding)
    with client.stream("GET", server.url) as streamed:
        assert "".join(streamed.pieces("text", 1)) == text
        assert streamed.response.encoding == encoding
    with client.stream("GET", server.url) as streamed:
        streamed.read()
        assert streamed.response.text == text


def test_the_encoding_may_be_set(local: AnyClient, hostile: Hostile) -> None:
    """Before `text` is read, and before a streamed body is read as text."""
    answer = response("grün".encode("latin-1"))
    server = hostile(serve(answer, answer))
    got = local.get(server.url)
    got.encoding = "latin-1"
    assert got.text == "grün"
    with local.stream("GET", server.url) as streamed:
        streamed.response.encoding = "latin-1"
        assert "".join(streamed.pieces("text")) == "grün"


def test_json_of_a_response(clients: ClientMaker, web: Endpoint) -> None:
    """UTF-8, UTF-16 and UTF-32 are told apart; what is none is ValueError."""
    client = clients(**web.client_options)
    assert client.get(web("/json")).json()["slideshow"]["title"] == "Sample Slide Show"
    with pytest.raises(ValueError, match="Expecting value"):
        client.get(web("/html")).json()
    for encoding in ("utf-8", "utf-16", "utf-32"):
        assert katipo.Response(200, content='{"ü": 1}'.encode(encoding)).json() == {"ü": 1}


def test_content_codings_are_undone(clients: ClientMaker, web: Endpoint) -> None:
    """gzip, deflate and brotli of httpbin's; `decode=False` gives the bytes as they were sent."""
    client = clients(**web.client_options)
    for coding in ("gzip", "deflate", "brotli"):
        answer = client.get(web(f"/{coding}"))
        assert answer.json()[{"gzip": "gzipped", "deflate": "deflated"}.get(coding, coding)] is True
        assert "content-encoding" in answer.headers
    raw = client.get(web("/gzip"), decode=False)
    assert raw.content[:2] == b"\x1f\x8b"
