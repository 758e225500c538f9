"""Servers that break the rules: one clear error each, at once, and nobody else notices."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from katipo.messages import Chunk, Done, Failed, Responded, Started
from tests.support.hostile import (
    Peer,
    Step,
    close,
    half_close,
    read_head,
    read_request,
    reset,
    send,
    send_slowly,
    wait_closed,
)
from tests.support.pattern import pattern
from tests.support.procs import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

LIMIT: Any = {"timeout_ms": 15_000}
"""So that a hang is an error of the wrong class, and not a test that never ends."""
OK = b"HTTP/1.1 200 OK\r\n"

# What is said after the request, and how the server goes: the class and the code.
RULES: dict[str, tuple[list[Step], type[katipo.RequestError], str]] = {
    "closes without an answer": ([close()], katipo.RemoteProtocolError, "got_nothing"),
    "resets without an answer": ([reset()], katipo.ReadError, "recv_error"),
    "closes inside the status line": ([send(b"HTTP/1."), close()], katipo.RemoteProtocolError, ""),
    "closes inside the headers": ([send(OK + b"X-Half: "), close()], katipo.RemoteProtocolError, ""),
    "closes short of its length": (
        [send(OK + b"Content-Length: 10\r\n\r\n12345"), close()],
        katipo.RemoteProtocolError,
        "partial_file",
    ),
    "closes inside a chunk": (
        [send(OK + b"Transfer-Encoding: chunked\r\n\r\na\r\n12345"), close()],
        katipo.RemoteProtocolError,
        "partial_file",
    ),
    "closes without the last chunk": (
        [send(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"), close()],
        katipo.RemoteProtocolError,
        "partial_file",
    ),
    "sends a chunk size that is no number": (
        [send(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n12345\r\n"), wait_closed()],
        katipo.TransportError,
        "",
    ),
    "sends an endless chunk size": (
        [send(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 100 + b"\r\n"), wait_closed()],
        katipo.TransportError,
        "",
    ),
    "sends no end of a chunk": (
        [send(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n1234567890\r\n0\r\n\r\n"), wait_closed()],
        katipo.TransportError,
        "",
    ),
    "speaks HTTP/0.9": ([send(b"<html>just a body</html>\r\n"), close()], katipo.RemoteProtocolError, ""),
    "speaks another protocol": ([send(b"220 smtp.example ESMTP\r\n"), close()], katipo.RemoteProtocolError, ""),
    "sends a length that is no number": (
        [send(OK + b"Content-Length: five\r\n\r\n12345"), wait_closed()],
        katipo.RemoteProtocolError,
        "weird_server_reply",
    ),
    "sends a negative length": (
        [send(OK + b"Content-Length: -1\r\n\r\n12345"), wait_closed()],
        katipo.RemoteProtocolError,
        "weird_server_reply",
    ),
    "sends a NUL among the headers": (
        [send(OK + b"X-Nul: a\0b\r\nContent-Length: 0\r\n\r\n"), wait_closed()],
        katipo.RemoteProtocolError,
        "",
    ),
    "sends a header of a megabyte": (
        [send(OK + b"X-Long: " + b"a" * (1 << 20) + b"\r\n\r\n"), wait_closed()],
        katipo.RequestError,
        "",
    ),
}


def ignore_closed(steps: list[Step]) -> Callable[[Peer], None]:
    """A script that reads a request and then does the steps; that the client has gone in the middle of one is expected."""

    def script(peer: Peer) -> None:
        peer.read_request()
        try:
            for step in steps:
                step(peer)
        except (ConnectionError, BrokenPipeError):
            return

    return script


@pytest.mark.core
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize(("steps", "kind", "code"), RULES.values(), ids=[name.replace(" ", "-") for name in RULES])
def test_a_broken_answer_is_one_error(
    pool: katipo.Pool,
    hostile: Hostile,
    stream: bool,
    steps: list[Step],
    kind: type[katipo.RequestError],
    code: str,
) -> None:
    """Whoever breaks the rules gets its request failed, with the right class, once; and no second request."""
    server = hostile(ignore_closed(steps))
    box = katipo.Mailbox()
    options: dict[str, Any] = {"stream": True} if stream else {}
    pool.async_get(server.url, reply_to=box, **LIMIT, **options)
    messages = [box.receive(20)]
    while not isinstance(messages[-1], (Failed, Done, Responded)):
        messages.append(box.receive(20))
    failed = messages[-1]
    assert isinstance(failed, Failed), messages
    assert isinstance(failed.error, kind)
    assert not isinstance(failed.error, katipo.TimeoutException)
    assert failed.error.code == code or not code
    assert failed.error.request_sent is True
    assert all(isinstance(message, (Started, Chunk)) for message in messages[:-1])
    body = b"".join(message.data for message in messages if isinstance(message, Chunk))
    assert b"1234567890".startswith(body[:10])
    assert len(box) == 0
    assert pool.statistics().in_flight == 0
    assert server.accepted == 1


@pytest.mark.core
def test_neighbours_of_broken_connections_are_not_disturbed(
    pool: katipo.Pool, hostile: Hostile, endpoint: Endpoint
) -> None:
    """All of them at once, with honest requests in between on the same worker: every honest one is answered."""
    servers = [hostile(ignore_closed(steps)) for steps, _, _ in RULES.values()]
    broken = [pool.async_get(server.url, **LIMIT) for server in servers]
    honest = [pool.async_get(endpoint("/big", size=50_000), **LIMIT, **endpoint.options) for _ in range(20)]
    for handle in honest:
        assert handle.result(20).content == pattern(0, 50_000)
    for handle in broken:
        with pytest.raises(katipo.RequestError):
            handle.result(20)
    assert pool.statistics().restarts == 0


@pytest.mark.core
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_an_answer_a_byte_at_a_time_is_an_answer(
    pool: katipo.Pool, hostile: Hostile, certs: Certificates, tls: bool
) -> None:
    """However it is cut into packets, a response is the same."""
    answer = (
        OK
        + b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n3\r\n678\r\n0\r\nX-T: v\r\n\r\n"
    )
    server = hostile([read_request(), send_slowly(answer), wait_closed()], tls=certs.localhost if tls else None)
    options: dict[str, Any] = {"cacert": str(certs.ca)} if tls else {}
    response = pool.get(server.url, **LIMIT, **options)
    assert (response.status_code, response.content, response.trailers["x-t"]) == (200, b"12345678", "v")
    pool.close()


@pytest.mark.parametrize("separator", [b":", b": ", b":   ", b":\t"])
def test_headers_come_with_any_blank(pool: katipo.Pool, hostile: Hostile, separator: bytes) -> None:
    """`X:val` may come without a space."""
    server = hostile(
        [read_request(), send(OK + b"X-Blank" + separator + b"val\r\nContent-Length: 0\r\n\r\n"), wait_closed()]
    )
    assert pool.get(server.url, **LIMIT).headers["x-blank"] == "val"
    pool.close()


def test_a_body_without_length_ends_with_the_connection(pool: katipo.Pool, hostile: Hostile) -> None:
    """Without length and chunks, the close is the end, and no error (RFC 9112 6.3)."""
    server = hostile([read_request(), send(OK + b"\r\nto the end"), half_close(), wait_closed()])
    assert pool.get(server.url, **LIMIT).content == b"to the end"


def test_more_than_the_length_is_not_the_body(pool: katipo.Pool, hostile: Hostile) -> None:
    """What comes after the declared length belongs to no response; the connection is not used again."""
    server = hostile(
        [
            read_request(),
            send(OK + b"Content-Length: 5\r\n\r\n12345" + OK + b"Content-Length: 4\r\n\r\nevil"),
            wait_closed(),
        ],
        [read_request(), send(OK + b"Content-Length: 6\r\n\r\nhonest"), wait_closed()],
    )
    assert pool.get(server.url, **LIMIT).content == b"12345"
    assert pool.get(server.url, **LIMIT).content == b"honest"
    pool.close()


@pytest.mark.core
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize(
    "line",
    [b"X-%06d: " + b"a" * 200 + b"\r\n", b"HTTP/1.1 103 Early Hints\r\nX-%06d: v\r\n\r\n"],
    ids=["headers", "1xx"],
)
def test_a_flood_before_the_body_is_stopped(pool: katipo.Pool, hostile: Hostile, stream: bool, line: bytes) -> None:
    """Headers, and informational responses, without end: an error, and bounded memory."""
    stopped = threading.Event()

    def flood(peer: Peer) -> None:
        peer.read_request()
        if not line.startswith(b"HTTP"):
            peer.send(OK)
        try:
            for index in range(0, 4_000_000, 500):
                peer.send(b"".join(line % (number % 1_000_000) for number in range(index, index + 500)))
        except OSError:
            stopped.set()

    server = hostile(flood)
    before = resident_bytes()
    options: dict[str, Any] = {"stream": True} if stream else {}
    handle = pool.async_get(server.url, timeout_ms=15_000, **options)
    with pytest.raises(katipo.RequestError) as raised:
        list(handle) if stream else handle.result(20)
    assert not isinstance(raised.value, katipo.TimeoutException)
    assert stopped.wait(10)
    assert resident_bytes() - before < 32 << 20


def test_a_few_informational_responses_are_none(pool: katipo.Pool, hostile: Hostile) -> None:
    """100, 102, 103 before the final response leave no trace in it."""
    early = b"".join(b"HTTP/1.1 %d Early\r\nX-Early: %d\r\n\r\n" % (status, status) for status in (100, 102, 103, 103))
    server = hostile([read_request(), send(early + OK + b"Content-Length: 2\r\n\r\nok"), wait_closed()])
    response = pool.get(server.url, **LIMIT)
    assert (response.status_code, response.content) == (200, b"ok")
    assert "x-early" not in response.headers
    pool.close()


@pytest.mark.parametrize("how", [close(), reset()], ids=["close", "reset"])
def test_an_end_after_a_whole_answer_is_no_error(pool: katipo.Pool, hostile: Hostile, how: Step) -> None:
    """What has been said is said, whatever becomes of the connection."""
    taken = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(OK + b"Content-Length: 5\r\n\r\n12345")
        peer.wait(taken)
        how(peer)

    server = hostile(script)
    handle = pool.async_get(server.url, **LIMIT)
    assert handle.result(20).content == b"12345"
    taken.set()
    server.wait_scripts()
    assert handle.result(0).content == b"12345"


@pytest.mark.parametrize("moment", ["accept", "hello"])
def test_a_server_that_goes_during_the_tls_handshake_is_an_error(
    pool: katipo.Pool, hostile: Hostile, moment: str
) -> None:
    """A close before or inside the handshake: a connection that could not be made, with nothing sent."""

    def script(peer: Peer) -> None:
        if moment == "hello":
            peer.read_some()
        peer.close()

    server = hostile(then=script)
    with pytest.raises(katipo.NetworkError) as raised:
        pool.get(server.url.replace("http:", "https:"), **LIMIT)
    assert raised.value.request_sent is False


def test_plain_text_where_tls_was_expected_is_a_tls_error(pool: katipo.Pool, hostile: Hostile) -> None:
    """A server that does not speak TLS."""
    server = hostile([send(OK + b"Content-Length: 0\r\n\r\n"), wait_closed()])
    with pytest.raises(katipo.TLSError) as raised:
        pool.get(server.url.replace("http:", "https:"), **LIMIT)
    assert raised.value.request_sent is False


def test_garbage_where_http_2_was_agreed_on_is_an_error(
    pool: katipo.Pool, hostile: Hostile, certs: Certificates
) -> None:
    """A server that agrees on h2 and then speaks something else; libcurl may take it for a frame that goes on."""

    def script(peer: Peer) -> None:
        peer.read_some()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 3)
        try:
            peer.wait_closed()
        except ConnectionError:
            return

    server = hostile(then=script, tls=certs.localhost, alpn=["h2"])
    server.ignore_errors()
    with pytest.raises(katipo.TransportError):
        pool.get(server.url, cacert=str(certs.ca), http_version="2", timeout_ms=2000)


@pytest.mark.core
def test_an_upload_to_a_server_that_does_not_read_its_head_fails_clean(pool: katipo.Pool, hostile: Hostile) -> None:
    """A connection that is reset before the request was read: one error for the sender, and the same from result()."""
    server = hostile([read_head(), reset()])
    handle = pool.async_post(server.url, stream_body=True, **LIMIT)

    def send_on() -> None:
        for _ in range(4096):
            handle.send_body(bytes(65536), 20)

    with pytest.raises(katipo.NetworkError):
        send_on()
    with pytest.raises(katipo.NetworkError):
        handle.result(20)


@pytest.mark.core
@pytest.mark.parametrize("path", ["/reset-mid-body", "/cut-mid-body"])
def test_a_stream_cut_off_does_not_disturb_its_siblings(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, path: str
) -> None:
    """A reset of one stream leaves the others of its connection; a connection that closes fails them, each once."""
    pool.get(endpoint("/count"), **endpoint.options)
    gate, name = origin.fresh_id(), origin.fresh_id()
    sibling = pool.async_get(endpoint("/drip", n=2, size=10, gate=gate, id=name), **LIMIT, **endpoint.options)
    origin.journal(name, until="started")
    with pytest.raises(katipo.TransportError):
        pool.get(endpoint(path, size=1000, sent=100), **LIMIT, **endpoint.options)
    origin.open_gate(gate, None)
    if path == "/reset-mid-body" or endpoint.version == "1.1":
        assert sibling.result(20).content == pattern(0, 20)
    else:
        with pytest.raises(katipo.TransportError):
            sibling.result(20)
    assert pool.get(endpoint("/count"), **LIMIT, **endpoint.options).status_code == 200
