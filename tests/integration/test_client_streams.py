"""Responses that clients stream: read in every shape, once; given up early; bounded; and what goes wrong in the middle."""

from __future__ import annotations

import contextlib
import gzip
import threading
import zlib
from typing import TYPE_CHECKING, Any

import brotli  # type: ignore[import-untyped]
import pytest

import katipo
from tests.support.hostile import close, read_request, response, send, serve, wait
from tests.support.pattern import pattern
from tests.support.procs import resident_bytes
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.conftest import Hostile
    from tests.support.clients import AnyClient, ClientMaker, Streamed
    from tests.support.endpoints import Endpoint
    from tests.support.hostile import Peer
    from tests.support.origin import Origin

HANG = 30.0
SWALLOWED = 40 << 20
"""More than the kernel's socket buffers, and what libcurl holds for a paused HTTP/2 or 3 stream (10 MB), can take."""
BOMB = 192 << 20
HELD = 48 << 20
"""What the decoding of a bomb may add to the process: a quarter of what it stands for."""


def idle(client: AnyClient | katipo.Client) -> None:
    """No request is in flight any more."""
    inner = client if isinstance(client, katipo.Client) else client.client
    assert inner._session.pool.statistics().in_flight == 0  # pyright: ignore[reportPrivateUsage]


def coded(coding: str, body: bytes) -> bytes:
    """A body in a content coding."""
    if coding == "gzip":
        return gzip.compress(body)
    if coding == "deflate":
        return zlib.compress(body)
    encoded: bytes = brotli.compress(body, quality=5)
    return encoded


def collect(pieces: Iterable[Any]) -> tuple[list[Any], katipo.Error | None]:
    """All pieces of a body, and the error that ended them."""
    taken: list[Any] = []
    try:
        for piece in pieces:
            taken.append(piece)
    except katipo.Error as error:
        return taken, error
    return taken, None


def chunked(body: bytes, *headers: str, ended: bool = True) -> bytes:
    """A chunked HTTP/1.1 response of one chunk."""
    head = "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *headers))
    return head.encode() + b"\r\n%x\r\n%b\r\n" % (len(body), body) + (b"0\r\n\r\n" if ended else b"")


# ---------------------------------------------------------------------------------------------------- shapes


@pytest.mark.core
def test_a_body_is_read_as_bytes_that_come_in_order(clients: ClientMaker, endpoint: Endpoint) -> None:
    """Headers first, then the body; what is known at its end only is there afterwards."""
    client = clients(**endpoint.client_options)
    size = 3 << 20
    with client.stream("GET", endpoint("/big", size=size)) as streamed:
        answer = streamed.response
        assert (answer.status_code, answer.http_version) == (200, endpoint.http_version)
        assert streamed.headers["content-type"] == "application/octet-stream"
        assert answer.url == endpoint("/big", size=size)
        for name in ("content", "text", "metrics", "trailers", "elapsed"):
            with pytest.raises(katipo.ResponseNotRead):
                getattr(answer, name)
        with pytest.raises(katipo.ResponseNotRead):
            answer.json()
        assert b"".join(streamed.pieces()) == pattern(0, size)
        assert answer.metrics.bytes_received >= size
        assert answer.elapsed.total_seconds() > 0
        assert answer.trailers == {}
        with pytest.raises(katipo.ResponseNotRead):
            _ = answer.content
    idle(client)


def test_read_keeps_the_body(clients: ClientMaker, endpoint: Endpoint) -> None:
    """After read() the response is like one that was not streamed, and can be read again and iterated."""
    client = clients(**endpoint.client_options)
    with client.stream("POST", endpoint("/upload"), content=b"some") as streamed:
        answer: Any = streamed.response
        assert not answer.is_closed
        assert not answer.is_stream_consumed
        body = streamed.read()
        assert streamed.read() is body is answer.content
        assert answer.json()["length"] == 4
        assert answer.is_closed
        assert answer.is_stream_consumed
        assert b"".join(streamed.pieces("bytes", 10)) == body
        assert "".join(streamed.pieces("text")) == answer.text == body.decode()
    assert answer.content == body


@pytest.mark.parametrize("how", ["bytes", "raw"])
def test_pieces_have_the_size_that_was_asked_for(clients: ClientMaker, endpoint: Endpoint, how: Any) -> None:
    """All but the last are of chunk_size, however the bytes came."""
    client = clients(**endpoint.client_options)
    with client.stream("GET", endpoint("/drip", n=70, size=1000)) as streamed:
        pieces = list(streamed.pieces(how, 3333))
    assert [len(piece) for piece in pieces] == [3333] * 21 + [7]
    assert b"".join(pieces) == pattern(0, 70_000)


def test_a_chunk_size_below_one_is_refused(clients: ClientMaker, origin: Origin) -> None:
    """0 bytes at a time would never end."""
    with (
        clients().stream("GET", origin.strict_http + "/drip") as streamed,
        pytest.raises(ValueError, match="chunk_size"),
    ):
        list(streamed.pieces("bytes", 0))


@pytest.mark.core
def test_each_line_is_there_when_it_was_sent(clients: ClientMaker, endpoint: Endpoint, origin: Origin) -> None:
    """Server-sent events: the headers before the first event, every event before the next one is made."""
    gate = origin.fresh_id()
    client = clients(**endpoint.client_options)
    with client.stream("GET", endpoint("/sse", n=3, gate=gate)) as streamed:
        assert streamed.headers["content-type"] == "text/event-stream"
        lines = streamed.pieces("lines")
        for index in range(3):
            origin.open_gate(gate)
            assert [next(lines) for _ in range(3)] == [f"id: {index}", f"data: event {index}", ""]
        assert list(lines) == []


def test_lines_end_at_lf_cr_and_crlf_only(clients: ClientMaker, hostile: Hostile) -> None:
    """Wherever the pieces are cut; U+2028 and its like are within a line, and the last line needs no end."""
    text = "one\r\ntwo\nthree\r\r\nfour\u2028five\x85six\x0bseven\n\nöäü\r"
    body = text.encode()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n")
        peer.send_slowly(body)
        peer.close()

    with clients().stream("GET", hostile(script).url) as streamed:
        lines = list(streamed.pieces("lines"))
    assert lines == ["one", "two", "three", "", "four\u2028five\x85six\x0bseven", "", "öäü"]


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain", "häßlich".encode(), "häßlich"),
        ("text/plain; charset=iso-8859-1", "häßlich".encode("latin-1"), "häßlich"),
        ("text/plain; charset=utf-16", "häßlich".encode("utf-16"), "häßlich"),
        ("text/plain; charset=nothing-known", "häßlich".encode(), "häßlich"),
        ("text/plain; charset=idna", "h\xe4\xdflich".encode(), "häßlich"),
        ("text/plain; charset=punycode", b"plain-", "plain-"),
        ("text/plain; charset=utf-16", "häßlich".encode("utf-16-le"), "häßlich"),
        ("text/plain; charset=utf-32", "häßlich".encode("utf-32-le"), "häßlich"),
        ("text/plain; charset=utf-8", b"cut \xc3", "cut \ufffd"),
    ],
)
def test_text_follows_the_charset(
    clients: ClientMaker, hostile: Hostile, content_type: str, body: bytes, text: str
) -> None:
    """Characters that are cut by the pieces are whole; what a server says wrongly never raises, and is as in `text`."""
    answer = response(body, headers=[("Content-Type", content_type)])
    server = hostile(serve(answer, answer))
    client = clients()
    with client.stream("GET", server.url) as streamed:
        pieces = "".join(streamed.pieces("text", 1))
    assert pieces == text
    assert client.get(server.url).text == text


def test_text_without_a_charset_is_in_the_default_encoding(clients: ClientMaker, hostile: Hostile) -> None:
    """default_encoding is the client's; a response's own `encoding` can be set before it is read."""
    answer = response("ß".encode("latin-1"))
    server = hostile(serve(answer, answer))
    client = clients(default_encoding="latin-1")
    with client.stream("GET", server.url) as streamed:
        assert "".join(streamed.pieces("text")) == "ß"
    with client.stream("GET", server.url) as streamed:
        streamed.response.encoding = "cp437"
        assert "".join(streamed.pieces("lines")) == "▀"


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_without_a_body_ends_at_once(clients: ClientMaker, endpoint: Endpoint, status: int) -> None:
    """204, 304 and answers to HEAD are streams of nothing."""
    client = clients(**endpoint.client_options)
    with client.stream("GET", endpoint(f"/status/{status}")) as streamed:
        assert list(streamed.pieces()) == []
    with client.stream("HEAD", endpoint("/big", size=1000)) as streamed:
        assert streamed.headers["content-length"] == "1000"
        assert streamed.read() == b""


def test_trailers_are_there_at_the_end(clients: ClientMaker, endpoint: Endpoint) -> None:
    """After the body, by iteration and by read, and of responses that are not streamed."""
    client = clients(**endpoint.client_options)
    url = endpoint("/trailers", n=2)
    wanted = {"x-trailer-1": "value-1", "x-trailer-2": "value-2"}
    with client.stream("GET", url) as streamed:
        assert b"".join(streamed.pieces()) == pattern(0, 10)
        assert dict(streamed.response.trailers) == wanted
    with client.stream("GET", url) as streamed:
        streamed.read()
        assert dict(streamed.response.trailers) == wanted
    assert dict(client.get(url).trailers) == wanted


# ---------------------------------------------------------------------------------------------------- once


@pytest.mark.core
def test_a_body_is_read_once(clients: ClientMaker, origin: Origin) -> None:
    """A second way to read it is StreamConsumed, while the first goes on and after it."""
    client = clients()
    with client.stream("GET", origin.strict_http + "/drip?n=3&size=10") as streamed:
        pieces = streamed.pieces("bytes", 10)
        assert next(pieces) == pattern(0, 10)
        for how in ("raw", "bytes", "text", "lines"):
            with pytest.raises(katipo.StreamConsumed):
                next(streamed.pieces(how))
        with pytest.raises(katipo.StreamConsumed):
            streamed.read()
        assert b"".join(pieces) == pattern(10, 20)
        with pytest.raises(katipo.StreamConsumed):
            streamed.read()
        assert issubclass(katipo.StreamConsumed, katipo.StreamError)


def test_after_close_there_is_nothing_to_read(clients: ClientMaker, endpoint: Endpoint) -> None:
    """StreamClosed, for who begins to read and for who had begun; closing twice is closing once."""
    client = clients(**endpoint.client_options)
    with client.stream("GET", endpoint("/big", size=1 << 30)) as streamed:
        pieces = streamed.pieces()
        next(pieces)
        streamed.close()
        streamed.close()
        with pytest.raises(katipo.StreamClosed):
            next(pieces)
        answer: Any = streamed.response
        assert answer.is_closed
    with client.stream("GET", endpoint("/big", size=1 << 30)) as streamed:
        pass
    for read in (streamed.read, lambda: next(streamed.pieces()), lambda: next(streamed.pieces("lines"))):
        with pytest.raises(katipo.StreamClosed):
            read()
    with pytest.raises(katipo.ResponseNotRead):
        _ = streamed.response.content
    idle(client)


def test_closing_wakes_another_thread_that_reads(origin: Origin) -> None:
    """A thread that waits for the next piece gets StreamClosed when the response is closed under it."""
    name = origin.fresh_id()
    seen: list[BaseException] = []
    with katipo.Client() as client, client.stream("GET", f"{origin.strict_http}/hang?stage=body&id={name}") as streamed:
        pieces = streamed.iter_bytes()
        assert next(pieces) == pattern(0, 1)

        def read() -> None:
            try:
                next(pieces)
            except katipo.Error as error:
                seen.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        streamed.close()
        thread.join(HANG)
    assert [type(error) for error in seen] == [katipo.StreamClosed]
    origin.journal(name, until="disconnected")


def test_a_hook_may_read_the_response(clients: ClientMaker, origin: Origin) -> None:
    """What a "response" hook has read can be read again by the caller."""
    client = clients()

    async def read_async(answer: katipo.AsyncStreamingResponse) -> None:
        await answer.aread()

    def read(answer: katipo.StreamingResponse) -> None:
        answer.read()

    client.client.event_hooks["response"].append(read if client.face == "sync" else read_async)
    with client.stream("GET", origin.strict_http + "/drip?n=2&size=5") as streamed:
        assert streamed.response.content == pattern(0, 10)
        assert b"".join(streamed.pieces("bytes", 3)) == pattern(0, 10)
        assert streamed.read() == pattern(0, 10)


# ---------------------------------------------------------------------------------------------------- early exit


@pytest.mark.core
@pytest.mark.parametrize("when", ["headers", "piece", "exception"])
def test_leaving_early_ends_the_transfer_at_once(
    clients: ClientMaker, endpoint: Endpoint, origin: Origin, when: str
) -> None:
    """The server sees it and has not sent the rest; the client goes on working."""
    name = origin.fresh_id()
    size = 1 << 30
    client = clients(**endpoint.client_options)

    def leave(streamed: Streamed) -> None:
        if when != "headers":
            assert next(streamed.pieces())
        if when == "exception":
            raise LookupError("the caller's own")

    with (
        pytest.raises(LookupError, match="the caller's own") if when == "exception" else contextlib.nullcontext(),
        client.stream("GET", endpoint("/big", size=size, id=name)) as streamed,
    ):
        leave(streamed)
    idle(client)
    assert origin.journal(name, until="disconnected").sent < SWALLOWED
    assert client.get(endpoint("/count")).status_code == 200


def test_a_body_that_has_ended_leaves_its_connection(clients: ClientMaker, endpoint: Endpoint) -> None:
    """The next request uses it again, and it does not matter in which shape the body was read."""
    client = clients(**endpoint.client_options)
    client.get(endpoint("/count"))
    for how in ("raw", "bytes", "text", "lines"):
        with client.stream("GET", endpoint("/drip", n=3)) as streamed:
            list(streamed.pieces(how))
            assert streamed.response.metrics.connections_opened == 0


def test_a_reader_that_takes_nothing_holds_the_server_back(
    clients: ClientMaker, endpoint: Endpoint, origin: Origin
) -> None:
    """Nobody reads: the server gets rid of a bounded part of the body only, and the rest comes when it is read."""
    name = origin.fresh_id()
    client = clients(**endpoint.client_options)
    size = 64 << 20 if endpoint.version != "3" else 16 << 20
    sent = []
    with client.stream("GET", endpoint("/big", size=size, id=name)) as streamed:
        pieces = streamed.pieces("bytes", 1 << 20)
        assert len(next(pieces)) == 1 << 20

        def settled() -> bool:
            sent.append(origin.journal(name).sent)
            return len(sent) > 20 and len(set(sent[-20:])) == 1

        wait_until(settled)
        assert sent[-1] < min(size, SWALLOWED)
        if endpoint.version != "3":
            assert sum(map(len, pieces)) == size - (1 << 20)


def test_streams_beside_each_other(clients: ClientMaker, endpoint: Endpoint) -> None:
    """One that is not read does not keep others from coming, on one connection or several."""
    count = 8 if endpoint.version != "3" else 3
    client = clients(**endpoint.client_options)
    with (
        client.stream("GET", endpoint("/big", size=count << 20)) as first,
        client.stream("GET", endpoint("/big", size=count << 20)) as second,
    ):
        assert client.get(endpoint("/count")).status_code == 200
        pieces = [first.pieces("bytes", 1 << 20), second.pieces("bytes", 1 << 20)]
        for index in range(count):
            for each in pieces:
                assert next(each) == pattern(index << 20, 1 << 20)
    idle(client)


# ---------------------------------------------------------------------------------------------------- mid-stream errors


@pytest.mark.core
@pytest.mark.parametrize("how", ["reset", "cut"])
def test_what_came_before_an_error_is_delivered_first(
    clients: ClientMaker, endpoint: Endpoint, origin: Origin, how: str
) -> None:
    """Then the error, and after it nothing: neither a hang nor what looks like an end."""
    gate = origin.fresh_id()
    client = clients(**endpoint.client_options)
    with client.stream("GET", endpoint(f"/{how}-mid-body", size=9999, sent=1000, gate=gate)) as streamed:
        pieces = streamed.pieces("bytes")
        taken = b""
        while len(taken) < 1000:
            taken += next(pieces)
        origin.open_gate(gate)
        with pytest.raises(katipo.TransportError) as raised:
            next(pieces)
        assert taken == pattern(0, 1000)
        assert isinstance(raised.value, (katipo.NetworkError, katipo.RemoteProtocolError))
        assert raised.value.request is not None
        assert raised.value.request.url == streamed.response.url
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(pieces)
        with pytest.raises(katipo.ResponseNotRead):
            _ = streamed.response.metrics
    idle(client)


def test_an_error_ends_the_iterator_and_no_other_way_to_read_helps(origin: Origin) -> None:
    """The very iterator that raised has ended; the response says StreamConsumed."""
    url = f"{origin.strict_http}/cut-mid-body?size=9999&sent=1000"
    with katipo.Client() as client, client.stream("GET", url) as streamed:
        pieces = streamed.iter_bytes()
        with pytest.raises(katipo.RemoteProtocolError):
            for _ in pieces:
                pass
        assert list(pieces) == []
        with pytest.raises(katipo.StreamConsumed):
            streamed.read()


async def test_an_error_ends_the_async_iterator(origin: Origin) -> None:
    """The same for `async for`."""
    url = f"{origin.strict_http}/cut-mid-body?size=9999&sent=1000"
    async with katipo.AsyncClient() as client, client.stream("GET", url) as streamed:
        pieces = streamed.aiter_bytes()
        with pytest.raises(katipo.RemoteProtocolError):
            async for _ in pieces:
                pass
        assert [piece async for piece in pieces] == []
        with pytest.raises(katipo.StreamConsumed):
            await streamed.aread()


def test_a_body_cut_short_is_never_whole_text_or_lines(clients: ClientMaker, hostile: Hostile) -> None:
    """read, lines and text raise the error too, and `content` stays unread."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nline one\nline t"
    server = hostile(*([read_request(), send(answer), close()] for _ in range(3)))
    client = clients()
    with client.stream("GET", server.url) as streamed:
        with pytest.raises(katipo.RemoteProtocolError):
            streamed.read()
        with pytest.raises(katipo.ResponseNotRead):
            _ = streamed.response.content
    with client.stream("GET", server.url) as streamed:
        taken, error = collect(streamed.pieces("lines"))
        assert taken == ["line one"]
        assert isinstance(error, katipo.RemoteProtocolError)
    with client.stream("GET", server.url) as streamed:
        taken, error = collect(streamed.pieces("text"))
        assert "".join(taken) == "line one\nline t"
        assert isinstance(error, katipo.RemoteProtocolError)


# ---------------------------------------------------------------------------------------------------- codings


@pytest.mark.core
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_coded_body_is_decoded_or_as_it_was_sent(clients: ClientMaker, endpoint: Endpoint, coding: str) -> None:
    """Bytes are decoded, raw ones are not, and with decode=False neither are bytes; the headers stay as received."""
    client = clients(**endpoint.client_options)
    size = 400_000
    url = endpoint("/coded", coding=coding, size=size)
    with client.stream("GET", url) as streamed:
        assert streamed.headers["content-encoding"] == coding
        assert b"".join(streamed.pieces("bytes", 5000)) == pattern(0, size)
    with client.stream("GET", url) as streamed:
        raw = b"".join(streamed.pieces("raw"))
    with client.stream("GET", url, decode=False) as streamed:
        assert streamed.read() == raw
    assert len(raw) < size // 2
    decoded = {"gzip": gzip.decompress, "deflate": zlib.decompress, "br": brotli.decompress}[coding](raw)
    assert decoded == pattern(0, size)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_bomb_costs_what_is_asked_of_it(origin: Origin, coding: str) -> None:
    """Megabytes of zeros from kilobytes: a piece is bounded, and so is what the process holds meanwhile."""
    with (
        katipo.Client() as client,
        client.stream("GET", f"{origin.strict_http}/coded?coding={coding}&fill=zero&size={BOMB}") as streamed,
    ):
        before = most = resident_bytes()
        total = largest = 0
        for piece in streamed.iter_bytes():
            total += len(piece)
            largest = max(largest, len(piece))
            most = max(most, resident_bytes())
    assert total == BOMB
    assert largest <= 1 << 20
    assert most - before < HELD


def test_a_body_that_is_not_what_it_says_is_a_decoding_error(clients: ClientMaker, hostile: Hostile) -> None:
    """Bytes that are no gzip fail the request at once; raw, they can be read all the same."""
    answer = chunked(b"this is no gzip", "Content-Encoding: gzip", ended=False)
    go = threading.Event()
    server = hostile(
        [read_request(), send(answer), lambda peer: peer.wait_closed()],
        [read_request(), send(answer), wait(go), send(b"0\r\n\r\n")],
    )
    client = clients()
    with client.stream("GET", server.url) as streamed:
        with pytest.raises(katipo.DecodingError) as raised:
            streamed.read()
        assert raised.value.request is not None
        assert raised.value.request.url == streamed.response.url
        assert raised.value.code == "bad_content_encoding"
        idle(client)
    with client.stream("GET", server.url) as streamed:
        go.set()
        assert b"".join(streamed.pieces("raw")) == b"this is no gzip"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_coded_body_cut_short_is_a_decoding_error(clients: ClientMaker, hostile: Hostile, coding: str) -> None:
    """A whole HTTP body that is half of a gzip one: what it stands for comes first."""
    body = pattern(0, 300_000)
    half = coded(coding, body)[:-5]
    server = hostile([read_request(), send(chunked(half, f"Content-Encoding: {coding}"))])
    with clients().stream("GET", server.url) as streamed:
        taken, error = collect(streamed.pieces())
    assert isinstance(error, katipo.DecodingError)
    got = b"".join(taken)
    assert body.startswith(got)
    assert coding == "br" or len(got) > 250_000


# ---------------------------------------------------------------------------------------------------- limits


@pytest.mark.core
@pytest.mark.parametrize("own", [True, False])
def test_more_than_max_response_bytes_is_refused(clients: ClientMaker, endpoint: Endpoint, own: bool) -> None:
    """Buffered or streamed, of the client or of the request: no more than that is ever delivered."""
    limits: dict[str, Any] = {"max_response_bytes": 100_000}
    client = clients(**endpoint.client_options, **({} if own else limits))
    options = limits if own else {}
    for path in (endpoint("/big", size=300_000), endpoint("/big", size=300_000, chunked=1)):
        with pytest.raises(katipo.ResponseTooLarge) as raised:
            client.get(path, **options)
        assert raised.value.code == "filesize_exceeded"
        with client.stream("GET", path, **options) as streamed:
            taken, error = collect(streamed.pieces())
            assert isinstance(error, katipo.ResponseTooLarge)
            assert error.request is not None
            assert error.request.url == path
            assert len(b"".join(taken)) <= 100_000
            idle(client)
    assert len(client.get(endpoint("/big", size=100_000), **options).content) == 100_000
    with client.stream("GET", endpoint("/big", size=100_000), **options) as streamed:
        assert len(streamed.read()) == 100_000


def test_a_request_may_lift_the_clients_limit(clients: ClientMaker, origin: Origin) -> None:
    """None switches it off for one request."""
    client = clients(max_response_bytes=10)
    url = origin.strict_http + "/big?size=1000"
    assert len(client.get(url, max_response_bytes=None).content) == 1000
    with client.stream("GET", url, max_response_bytes=None) as streamed:
        assert len(streamed.read()) == 1000
    with pytest.raises(katipo.ResponseTooLarge):
        client.get(url)


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_the_limit_counts_what_is_delivered(clients: ClientMaker, origin: Origin, coding: str) -> None:
    """Decoded bytes where they are decoded, those sent where they are not."""
    client = clients(max_response_bytes=100_000)
    url = f"{origin.strict_http}/coded?coding={coding}&size=1000000&fill=zero"
    with pytest.raises(katipo.ResponseTooLarge):
        client.get(url)
    for how in ("bytes", "text", "lines"):
        with client.stream("GET", url) as streamed:
            taken, error = collect(streamed.pieces(how))
            assert isinstance(error, katipo.ResponseTooLarge)
            assert sum(map(len, taken)) <= 100_000
    with client.stream("GET", url) as streamed:
        assert 0 < len(b"".join(streamed.pieces("raw"))) < 100_000


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (b"X-Long: " + b"a" * 150_000 + b"\r\n", "too_large"),
        (b"".join(b"X-Many-%d: %b\r\n" % (index, b"a" * 1000) for index in range(400)), "recv_error"),
        (b"".join(b"X: %d\r\n" % index for index in range(6000)), "too_large"),
    ],
    ids=["long", "large", "many"],
)
def test_headers_beyond_all_bounds_are_refused(
    clients: ClientMaker, hostile: Hostile, headers: bytes, code: str
) -> None:
    """A header of 100 kB, headers of 300 kB, or 5000 of them, are the most that is taken."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\n" + headers + b"Content-Length: 2\r\n\r\nok")

    server = hostile(*[script] * 2)
    server.ignore_errors()
    client = clients()
    with pytest.raises(katipo.RequestError) as raised:
        client.get(server.url)
    assert raised.value.code == code
    with pytest.raises(type(raised.value)), client.stream("GET", server.url):
        pass
    idle(client)


# ---------------------------------------------------------------------------------------------------- redirects


def test_a_redirects_body_is_not_downloaded(clients: ClientMaker, hostile: Hostile, origin: Origin) -> None:
    """A redirect whose body would never end, or never be small, is followed at once."""
    gone = threading.Event()

    def endless(peer: Peer) -> None:
        peer.read_request()
        head = f"HTTP/1.1 302 Found\r\nLocation: {origin.strict_http}/drip?n=4\r\nContent-Length: 100000000\r\n\r\n"
        peer.send(head.encode() + b"some")
        peer.wait_closed()
        gone.set()

    with clients().stream("GET", hostile(endless).url, follow_redirects=True) as streamed:
        assert gone.wait(HANG)
        assert streamed.read() == pattern(0, 4)
        assert [each.status_code for each in streamed.response.history] == [302]


def test_a_small_redirect_keeps_its_connection_and_its_body(clients: ClientMaker, origin: Origin) -> None:
    """What little it says is in the history, and the next hop needs no new connection."""
    client = clients()
    url = origin.strict_http + "/redirect/302?to=/drip?n=4"
    with client.stream("GET", url, follow_redirects=True) as streamed:
        assert streamed.read() == pattern(0, 4)
        assert [each.content for each in streamed.response.history] == [b"elsewhere"]
        assert streamed.response.metrics.connections_opened == 0


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_a_redirects_bomb_is_not_set_off(clients: ClientMaker, hostile: Hostile, origin: Origin, coding: str) -> None:
    """A small body that stands for a large one is not decoded for the sake of a connection."""
    bomb = coded(coding, bytes(48 << 20))
    location = ("Location", origin.strict_http + "/drip?n=4")
    answer = response(bomb, 302, [location, ("Content-Encoding", coding)])
    assert len(bomb) < 64 << 10
    before = resident_bytes()
    with clients().stream("GET", hostile(serve(answer)).url, follow_redirects=True) as streamed:
        assert resident_bytes() - before < 24 << 20
        assert streamed.read() == pattern(0, 4)
        with pytest.raises(katipo.ResponseNotRead):
            _ = streamed.response.history[0].content
