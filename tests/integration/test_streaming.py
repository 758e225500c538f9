"""Streamed responses: headers first, chunks in order, one end; never more than a window ahead of the consumer."""

from __future__ import annotations

import gzip
import hashlib
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from katipo.messages import Chunk, Done, Failed, Message, Started
from tests.support.hostile import close, read_request, send
from tests.support.pattern import pattern
from tests.support.procs import resident_bytes
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0
DELIVERY = 16 * 1024
"""What libcurl hands over at a time (CURL_MAX_WRITE_SIZE)."""
SWALLOWED = 40 << 20
"""More than the kernel's socket buffers, and what libcurl holds for a paused HTTP/2 or 3 stream (10 MB), can take."""


def stream(
    pool: katipo.Pool, endpoint: Endpoint, path: str, query: Mapping[str, object] | None = None, **options: Any
) -> katipo.Handle:
    """A GET with a streamed response."""
    return pool.async_get(endpoint(path, **(query or {})), stream=True, **endpoint.options, **options)


def body_of(messages: Iterable[Message]) -> bytes:
    return b"".join(message.data for message in messages if isinstance(message, Chunk))


def outcome_of(handle: katipo.Handle) -> tuple[list[Message], katipo.Error | None]:
    """All messages of a streamed response, and the error that ended it."""
    messages: list[Message] = []
    try:
        for message in handle:
            messages.append(message)
    except katipo.Error as error:
        return messages, error
    return messages, None


# ---------------------------------------------------------------------------------------------------- order


@pytest.mark.core
def test_the_messages_are_started_chunks_done(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """One Started, the body in order in Chunks that are never empty, one Done; each with the caller's reference."""
    size = 3 << 20
    messages = list(stream(pool, endpoint, "/big", {"size": size}, ref="mine"))
    first, *chunks, last = messages
    assert isinstance(first, Started)
    assert (first.status_code, first.http_version) == (200, endpoint.http_version)
    assert first.headers["content-type"] == "application/octet-stream"
    assert first.url == endpoint("/big", size=size)
    assert all(isinstance(chunk, Chunk) and chunk.data for chunk in chunks)
    assert body_of(chunks) == pattern(0, size)
    assert isinstance(last, Done)
    assert {message.ref for message in messages} == {"mine"}


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"])
async def test_the_messages_come_in_order_in_an_event_loop(
    pool: katipo.Pool, endpoint: Endpoint, anyio_backend: object
) -> None:
    """The same by async iteration."""
    messages = [message async for message in stream(pool, endpoint, "/big", {"size": 300_000})]
    assert isinstance(messages[0], Started)
    assert body_of(messages) == pattern(0, 300_000)
    assert isinstance(messages[-1], Done)


@pytest.mark.core
def test_the_headers_come_before_the_first_byte_of_the_body(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """Server-sent events: Started is there while the server still waits to send its first event, then each at its time."""
    gate = origin.fresh_id()
    messages = iter(stream(pool, endpoint, "/sse", {"n": 3, "gate": gate}))
    started = next(messages)
    assert isinstance(started, Started)
    assert started.headers["content-type"] == "text/event-stream"
    for index in range(3):
        origin.open_gate(gate)
        wanted, received = b"id: %d\ndata: event %d\n\n" % (index, index), b""
        while len(received) < len(wanted):
            message = next(messages)
            assert isinstance(message, Chunk)
            received += message.data
        assert received == wanted
    assert isinstance(next(messages), Done)


def test_every_piece_is_delivered_when_it_arrives(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Nothing is held back to fill a buffer: single bytes come one by one."""
    gate = origin.fresh_id()
    messages = iter(stream(pool, endpoint, "/drip", {"n": 20, "size": 1, "gate": gate}))
    assert isinstance(next(messages), Started)
    for index in range(20):
        origin.open_gate(gate)
        message = next(messages)
        assert isinstance(message, Chunk)
        assert message.data == pattern(index, 1)
    assert isinstance(next(messages), Done)


@pytest.mark.core
@pytest.mark.parametrize(("method", "path"), [("GET", "/status/204"), ("GET", "/status/304"), ("HEAD", "/big")])
def test_a_response_without_a_body_is_started_and_done(
    pool: katipo.Pool, endpoint: Endpoint, method: str, path: str
) -> None:
    """204, 304 and HEAD have no Chunk."""
    messages = list(pool.async_request(method, endpoint(path), stream=True, **endpoint.options))
    assert [type(message) for message in messages] == [Started, Done]


def test_informational_responses_are_not_shown(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """After three 103s there is one Started, for the final response, with its headers alone."""
    messages = list(stream(pool, endpoint, "/interim", {"n": 3}))
    started = [message for message in messages if isinstance(message, Started)]
    assert [message.status_code for message in started] == [200]
    assert started[0].headers["x-final"] == "yes"
    assert "link" not in started[0].headers


def test_a_followed_redirect_is_started_once(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Only the response that a redirect leads to is shown, with its URL; the redirect's body is not."""
    messages = list(
        stream(pool, endpoint, "/redirect/302", {"to": "/drip?n=3&size=5"}, followlocation=True, maxredirs=3)
    )
    started = [message for message in messages if isinstance(message, Started)]
    assert [message.status_code for message in started] == [200]
    assert started[0].url == endpoint("/drip") + "?n=3&size=5"
    assert "location" not in started[0].headers
    assert body_of(messages) == pattern(0, 15)


def test_a_redirect_that_is_not_followed_has_its_body(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Without followlocation the 302 is the response."""
    messages = list(stream(pool, endpoint, "/redirect/302", {"to": "/count"}))
    assert isinstance(messages[0], Started)
    assert messages[0].status_code == 302
    assert body_of(messages) == b"elsewhere"


def test_a_redirect_without_a_target_is_the_response_although_redirects_are_followed(
    pool: katipo.Pool, endpoint: Endpoint
) -> None:
    """A 302 without Location cannot be followed: it is shown, with its body."""
    messages = list(stream(pool, endpoint, "/status/302", followlocation=True))
    assert isinstance(messages[0], Started)
    assert messages[0].status_code == 302
    assert body_of(messages) == b"status 302"


@pytest.mark.core
def test_trailers_come_with_done(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Fields after the body are in Done, not among the headers."""
    started, *_, done = list(stream(pool, endpoint, "/trailers", {"n": 2, "size": 100}))
    assert isinstance(started, Started)
    assert isinstance(done, Done)
    assert (done.trailers["x-trailer-1"], done.trailers["x-trailer-2"]) == ("value-1", "value-2")
    assert "x-trailer-1" not in started.headers


def test_done_has_the_metrics_of_the_whole_transfer(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Bytes, addresses and times are there when the body has ended."""
    done = list(stream(pool, endpoint, "/big", {"size": 100_000}))[-1]
    assert isinstance(done, Done)
    metrics = done.metrics
    assert metrics.bytes_received == 100_000
    assert metrics.connections_opened == 1
    assert metrics.primary_ip in ("127.0.0.1", "::1")
    assert 0 < metrics.starttransfer_time <= metrics.total_time < HANG


# ---------------------------------------------------------------------------------------------------- windows


@pytest.mark.core
def test_a_window_of_one_byte_delivers_everything(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The smallest window still lets the transfer go on, a delivery at a time."""
    messages = list(stream(pool, endpoint, "/big", {"size": 500_000}, stream_window=1))
    assert body_of(messages) == pattern(0, 500_000)
    assert max(len(message.data) for message in messages if isinstance(message, Chunk)) <= 1 + DELIVERY


@pytest.mark.parametrize("window", [1000, 65536, None])
def test_any_window_delivers_everything(pool: katipo.Pool, endpoint: Endpoint, window: int | None) -> None:
    """Windows between the smallest and none at all."""
    assert body_of(stream(pool, endpoint, "/big", {"size": 2 << 20}, stream_window=window)) == pattern(0, 2 << 20)


@pytest.mark.core
def test_a_consumer_that_does_not_take_holds_the_server_back(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """While nothing is taken the server stops; what was sent by then and what follows arrives in order."""
    name = origin.fresh_id()
    messages = iter(stream(pool, endpoint, "/big", {"size": 1 << 30, "id": name}, stream_window=65536))
    next(messages)
    # The server has stopped when it has sent nothing more while another request waited out its delay.
    sent, before = origin.journal(name, until="sent>=65536").sent, -1
    while sent != before:
        pool.get(endpoint("/drip", n=1, delay=0.5), **endpoint.options)
        sent, before = origin.journal(name).sent, sent
    assert sent < SWALLOWED
    offset = 0
    for message in messages:
        assert isinstance(message, Chunk)
        assert message.data == pattern(offset, len(message.data))
        offset += len(message.data)
        if offset > sent:
            break


@pytest.mark.slow
def test_a_consumer_that_stops_for_ten_seconds_loses_nothing(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """Ten seconds are longer than any timer that is not ours: the stream goes on where it stopped, the clocks for inactivity
    notwithstanding."""
    name, size = origin.fresh_id(), 24 << 20
    handle = stream(pool, endpoint, "/big", {"size": size, "id": name}, stream_window=65536, read_timeout_ms=2000)
    messages = iter(handle)
    digest, taken = hashlib.sha256(), 0
    for message in messages:
        if isinstance(message, Chunk):
            if taken == 0:
                time.sleep(10)  # this is the test, not a wait for something
            digest.update(message.data)
            taken += len(message.data)
    assert taken == size
    assert digest.hexdigest() == hashlib.sha256(pattern(0, size)).hexdigest()


def test_a_full_window_is_not_inactivity(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The read timeout does not run while the consumer leaves its window full."""
    messages = iter(stream(pool, endpoint, "/big", {"size": 1 << 20}, stream_window=1, read_timeout_ms=300))
    next(messages)
    pool.get(endpoint("/drip", n=1, delay=1.0), **endpoint.options)
    assert body_of(messages) == pattern(0, 1 << 20)


@pytest.mark.core
def test_starvation_ends_in_the_timeout(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """The total clock runs on while nobody takes: what is there is delivered, then one TotalTimeout, and the server sees the
    end."""
    name = origin.fresh_id()
    handle = stream(pool, endpoint, "/big", {"size": 1 << 30, "id": name}, stream_window=100_000, timeout_ms=700)
    wait_until(handle.done)
    messages, error = outcome_of(handle)
    assert isinstance(messages[0], Started)
    body = body_of(messages)
    assert 100_000 <= len(body) <= 100_000 + DELIVERY
    assert body == pattern(0, len(body))
    assert isinstance(error, katipo.TotalTimeout)
    origin.journal(name, until="disconnected")


def test_manual_credit_is_all_that_is_delivered(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Under manual flow control taking returns nothing: a debt is paid first, then a byte of credit gets a delivery."""
    box = katipo.Mailbox()
    window, size = 1000, 200_000
    handle = stream(pool, endpoint, "/big", {"size": size}, stream_window=window, flow_control="manual", reply_to=box)
    assert isinstance(box.receive(HANG), Started)
    body, credit = b"", window
    while len(body) < size:
        while credit > 0 and len(body) < size:
            message = box.receive(HANG)
            assert isinstance(message, Chunk)
            body += message.data
            credit -= len(message.data)
        if len(body) < 3 * DELIVERY:  # a few times are enough: each costs the time for which nothing must come
            with pytest.raises(katipo.AwaitTimeout):
                box.receive(0.2)
            handle.update_flow(-credit)
            with pytest.raises(katipo.AwaitTimeout):
                box.receive(0.2)
            credit = 0
        handle.update_flow(1 - credit)
        credit = 1
    assert body == pattern(0, size)
    # The end needs no credit of the body's.
    handle.update_flow(1)
    assert isinstance(box.receive(HANG), Done)
    handle.update_flow(1000)


def test_update_flow_is_harmless_where_it_means_nothing(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """On a buffered request, and on a finished one."""
    handle = pool.async_get(endpoint("/count"), **endpoint.options)
    handle.update_flow(10)
    handle.result(HANG)
    handle.update_flow(10)


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.core
@pytest.mark.parametrize("path", ["/reset-mid-body", "/cut-mid-body"])
@pytest.mark.parametrize("chunked", [0, 1])
def test_an_error_in_the_body_comes_after_the_chunks_before_it(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, path: str, chunked: int
) -> None:
    """What had arrived is delivered, then the error, once; it is never an end that looks complete."""
    gate = origin.fresh_id()
    messages = iter(stream(pool, endpoint, path, {"size": 100_000, "sent": 1000, "gate": gate, "chunked": chunked}))
    assert isinstance(next(messages), Started)
    received = b""
    while len(received) < 1000:
        message = next(messages)
        assert isinstance(message, Chunk)
        received += message.data
    origin.open_gate(gate)
    with pytest.raises(katipo.TransportError) as raised:
        next(messages)
    assert received == pattern(0, 1000)
    assert raised.value.request_sent is True
    assert isinstance(raised.value, (katipo.NetworkError, katipo.RemoteProtocolError))
    assert list(messages) == []


def test_chunks_not_yet_taken_survive_the_error(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """A consumer that comes when everything is over still gets what had arrived."""
    gate, name = origin.fresh_id(), origin.fresh_id()
    box = katipo.Mailbox()
    stream(pool, endpoint, "/reset-mid-body", {"size": 9999, "sent": 1000, "gate": gate, "id": name}, reply_to=box)
    wait_until(lambda: len(box) >= 2)
    origin.open_gate(gate)
    wait_until(lambda: pool.statistics().failed == 1)
    messages = [box.receive(HANG) for _ in range(len(box))]
    assert isinstance(messages[0], Started)
    assert body_of(messages) == pattern(0, 1000)
    assert isinstance(messages[-1], Failed)
    assert len(box) == 0


def test_a_limit_on_a_stream_stops_it(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Beyond max_response_bytes the stream fails, with no more than the limit delivered."""
    handle = stream(pool, endpoint, "/big", {"size": 300_000, "chunked": 1}, max_response_bytes=100_000)
    messages, error = outcome_of(handle)
    assert isinstance(error, katipo.ResponseTooLarge)
    assert error.code == "filesize_exceeded"
    body = body_of(messages)
    assert len(body) <= 100_000
    assert body == pattern(0, len(body))


def test_a_limit_that_is_met_exactly_is_no_error(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A body of just so many bytes is delivered whole."""
    handle = stream(pool, endpoint, "/big", {"size": 300_000, "chunked": 1}, max_response_bytes=300_000)
    messages, error = outcome_of(handle)
    assert error is None
    assert len(body_of(messages)) == 300_000


def test_a_stream_is_iterated_once(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A second iteration, while the first goes on or after it, is StreamConsumed."""
    handle = stream(pool, endpoint, "/drip", {"n": 1})
    messages = iter(handle)
    with pytest.raises(katipo.StreamConsumed):
        iter(handle)
    list(messages)
    with pytest.raises(katipo.StreamConsumed):
        aiter(handle)


def test_what_a_stream_does_not_have_is_a_stream_error(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """result() of a stream, and iterating a buffered response, say so; the requests go on."""
    handle = stream(pool, endpoint, "/drip", {"n": 1})
    with pytest.raises(katipo.StreamError):
        handle.result()
    assert body_of(handle) == pattern(0, 1)
    buffered = pool.async_get(endpoint("/drip"), **endpoint.options)
    with pytest.raises(katipo.StreamError):
        iter(buffered)
    assert buffered.result(HANG).content == pattern(0, 1)


def test_leaving_the_block_cancels_the_stream(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """`with handle` ends the request when the consumer leaves, and the server sees it."""
    name = origin.fresh_id()
    with stream(pool, endpoint, "/big", {"size": 1 << 30, "id": name}) as handle:
        for message in handle:
            if isinstance(message, Chunk):
                break
    assert handle.done()
    origin.journal(name, until="disconnected")


async def test_leaving_the_block_cancels_the_stream_in_an_event_loop(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """`async with handle` does the same."""
    name = origin.fresh_id()
    async with stream(pool, endpoint, "/big", {"size": 1 << 30, "id": name}) as handle:
        async for message in handle:
            if isinstance(message, Chunk):
                break
    assert handle.done()
    origin.journal(name, until="disconnected")


# ---------------------------------------------------------------------------------------------------- codings


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_coded_stream_is_decoded_in_chunks_of_about_a_window(
    pool: katipo.Pool, endpoint: Endpoint, coding: str
) -> None:
    """However well a body compresses, no chunk is much larger than the window; the headers stay as they were."""
    window, size = 65536, 8 << 20
    messages = list(
        stream(pool, endpoint, "/coded", {"coding": coding, "size": size, "fill": "zero"}, stream_window=window)
    )
    assert isinstance(messages[0], Started)
    assert messages[0].headers["content-encoding"] == coding
    chunks = [message.data for message in messages if isinstance(message, Chunk)]
    assert max(len(chunk) for chunk in chunks) <= window + DELIVERY
    assert all(chunks)
    assert b"".join(chunks) == bytes(size)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_coded_stream_with_a_window_of_one_byte_is_whole(pool: katipo.Pool, endpoint: Endpoint, coding: str) -> None:
    """Credit counts the bytes as sent: what the decoder holds does not stall the stream."""
    query = {"coding": coding, "size": 1 << 20, "fill": "pattern"}
    assert body_of(stream(pool, endpoint, "/coded", query, stream_window=1)) == pattern(0, 1 << 20)


def test_undecoded_streams_are_delivered_as_sent(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """decode=False offers nothing and touches nothing."""
    query = {"coding": "gzip", "size": 100_000, "fill": "pattern"}
    body = body_of(stream(pool, endpoint, "/coded", query, decode=False))
    assert zlib.decompress(body, 31) == pattern(0, 100_000)


def test_a_bomb_in_a_stream_stops_at_the_limit(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The limit counts decoded bytes, and no memory is spent on what lies beyond."""
    list(stream(pool, endpoint, "/coded", {"size": 1000}))
    before, limit = resident_bytes(), 1 << 20
    handle = stream(
        pool, endpoint, "/coded", {"coding": "gzip", "size": 256 << 20, "fill": "zero"}, max_response_bytes=limit
    )
    total, error = 0, None
    try:
        for message in handle:
            total += len(message.data) if isinstance(message, Chunk) else 0
    except katipo.ResponseTooLarge as caught:
        error = caught
    assert error is not None
    assert error.code == "filesize_exceeded"
    assert total <= limit
    assert resident_bytes() - before < 32 << 20


@pytest.mark.parametrize("body", [b"this is no gzip", gzip.compress(pattern(0, 5000))[:-20]], ids=["no", "cut"])
def test_a_coded_stream_that_cannot_be_decoded_fails(pool: katipo.Pool, hostile: Hostile, body: bytes) -> None:
    """What could be decoded is delivered, then DecodingError: a cut-off coding is not an end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    server = hostile([read_request(), send(head + body), close()])
    messages, error = outcome_of(pool.async_get(server.url, stream=True))
    assert isinstance(messages[0], Started)
    assert isinstance(error, katipo.DecodingError)
    assert error.code == "bad_content_encoding"
    got = body_of(messages)
    assert got == pattern(0, len(got))


# ---------------------------------------------------------------------------------------------------- many


def test_many_streams_at_once_do_not_mix(make_pool: Callable[..., katipo.Pool], endpoint: Endpoint) -> None:
    """Fifty streams taken in turns, a message of each, on few connections: each has its own body."""
    pool = make_pool(max_host_connections=50 if endpoint.version == "1.1" else 2)
    sizes = [10_000 + 777 * index for index in range(50)]
    iterators = [iter(stream(pool, endpoint, "/big", {"size": size}, stream_window=5000, ref=size)) for size in sizes]
    bodies = dict.fromkeys(sizes, b"")
    while iterators:
        for iterator in list(iterators):
            message = next(iterator)
            if isinstance(message, Chunk):
                bodies[message.ref] += message.data
            elif isinstance(message, Done):
                iterators.remove(iterator)
    assert all(body == pattern(0, size) for size, body in bodies.items())
