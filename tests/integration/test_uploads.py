"""Streamed request bodies: whole and in order, or visibly cut off; never more than a window ahead of the server."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from katipo.messages import Chunk, Done, Started
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0
"""Seconds after which something hangs; nothing here takes a tenth of it."""
PIECE = 65536
# What a transfer can swallow beyond the upload window: libcurl's send buffer, the kernel's two socket buffers, what the
# front end holds. Far below what the tests try to send.
SWALLOWED = 24 << 20


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def start(
    pool: katipo.Pool, endpoint: Endpoint, path: str, query: Mapping[str, object] | None = None, **options: Any
) -> katipo.Handle:
    """A request with a streamed body: POST, unless `method` says otherwise."""
    method = options.pop("method", "POST")
    return pool.async_request(method, endpoint(path, **(query or {})), stream_body=True, **endpoint.options, **options)


def send_on(handle: katipo.Handle) -> None:
    """Send more than anything between here and the server could hold: sooner or later it raises."""
    for _ in range(4096):
        handle.send_body(bytes(PIECE), HANG)


@pytest.mark.core
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_the_server_gets_the_method_and_every_piece_in_order(
    pool: katipo.Pool, endpoint: Endpoint, method: str
) -> None:
    """A body sent in pieces of growing size arrives whole, with the method that was asked for."""
    body = pattern(0, 200_000)
    handle = start(pool, endpoint, "/upload", method=method)
    at, size = 0, 1
    while at < len(body):
        handle.send_body(body[at : at + size])
        at, size = at + size, size * 2
    handle.finish_body()
    answer = handle.result(HANG).json()
    assert (answer["method"], answer["length"], answer["sha256"]) == (method, len(body), sha256(body))


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "QUERY"])
def test_any_method_may_have_a_streamed_body(pool: katipo.Pool, endpoint: Endpoint, method: str) -> None:
    """Methods whose bodies are unusual send theirs too."""
    handle = start(pool, endpoint, "/upload", method=method)
    handle.send_body(b"unusual")
    handle.finish_body()
    answer = handle.result(HANG).json()
    assert (answer["method"], answer["length"]) == (method, 7)


def test_no_header_is_added_that_the_caller_did_not_ask_for(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A streamed POST has no form content type, and no Expect to wait a second for."""
    handle = start(pool, endpoint, "/upload", headers={"X-Mine": "yes"})
    handle.send_body(b"x" * 100_000)
    handle.finish_body()
    names = {name.lower() for name, _ in handle.result(HANG).json()["headers"]}
    assert "x-mine" in names
    assert not names & {"expect", "content-type", "content-length"}


@pytest.mark.core
def test_a_body_that_is_finished_at_once_is_empty(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """finish_body() without a send_body() is a complete request with an empty body."""
    handle = start(pool, endpoint, "/upload")
    handle.finish_body()
    assert handle.result(HANG).json()["length"] == 0


def test_pieces_of_no_bytes_do_not_end_the_body(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """An empty piece is nothing: the body goes on after it."""
    handle = start(pool, endpoint, "/upload")
    for piece in (b"", b"one", b"", b"two", b""):
        handle.send_body(piece)
    handle.finish_body()
    assert handle.result(HANG).json()["sha256"] == sha256(b"onetwo")


def test_one_byte_at_a_time_arrives_in_order(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Each byte is sent when the server has the one before it, and none is held back, lost or doubled."""
    name = origin.fresh_id()
    handle = start(pool, endpoint, "/upload", {"id": name})
    body = pattern(0, 60)
    for index in range(len(body)):
        handle.send_body(body[index : index + 1])
        origin.journal(name, until=f"received>={index + 1}")
    handle.finish_body()
    assert handle.result(HANG).json()["sha256"] == sha256(body)


def test_many_single_bytes_sent_at_once_arrive_in_order(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Thousands of pieces of one byte that overtake libcurl are one body."""
    body = pattern(0, 5000)
    handle = start(pool, endpoint, "/upload")
    for index in range(len(body)):
        handle.send_body(body[index : index + 1])
    handle.finish_body()
    assert handle.result(HANG).json()["sha256"] == sha256(body)


@pytest.mark.slow
def test_64_mib_in_pieces_of_4_kib_have_the_checksum_that_the_server_computes(
    pool: katipo.Pool, endpoint: Endpoint
) -> None:
    """A long body in small pieces arrives whole."""
    size, piece = 64 << 20, 4096
    digest = hashlib.sha256()
    handle = start(pool, endpoint, "/upload")
    for offset in range(0, size, piece):
        data = pattern(offset, piece)
        digest.update(data)
        handle.send_body(data, HANG)
    handle.finish_body()
    answer = handle.result(4 * HANG).json()
    assert (answer["length"], answer["sha256"]) == (size, digest.hexdigest())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_piece_may_be_anything_with_bytes(
    pool: katipo.Pool, endpoint: Endpoint, kind: Callable[[bytes], Any]
) -> None:
    """send_body takes any bytes-like object."""
    handle = start(pool, endpoint, "/upload")
    handle.send_body(kind(b"some bytes"))
    handle.finish_body()
    assert handle.result(HANG).json()["sha256"] == sha256(b"some bytes")


def test_a_piece_is_copied_when_it_is_sent(make_pool: Callable[..., katipo.Pool], origin: Origin) -> None:
    """What the caller does to a bytearray after send_body does not reach the server."""
    pool = make_pool(max_host_connections=1)
    name = origin.fresh_id()
    busy = pool.async_get(f"{origin.strict_http}/drip?n=1&gate={name}")
    handle = pool.async_post(f"{origin.strict_http}/upload", stream_body=True)
    piece = bytearray(b"before")
    handle.send_body(piece)
    piece[:] = b"after!"
    handle.finish_body()
    origin.open_gate(name)
    busy.result(HANG)
    assert handle.result(HANG).json()["sha256"] == sha256(b"before")


def test_finishing_twice_is_finishing_once(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """finish_body() is idempotent, before the answer and after it."""
    handle = start(pool, endpoint, "/upload")
    handle.send_body(b"once")
    handle.finish_body()
    handle.finish_body()
    assert handle.result(HANG).json()["length"] == 4
    handle.finish_body()


def test_what_is_sent_after_the_end_is_dropped(
    make_pool: Callable[..., katipo.Pool], endpoint: Endpoint, origin: Origin
) -> None:
    """After finish_body() a send neither raises nor reaches the server, although the request is still in flight."""
    pool = make_pool()
    gate = origin.fresh_id()
    handle = start(pool, endpoint, "/upload", {"gate": gate})
    handle.send_body(b"body")
    handle.finish_body()
    assert not handle.done()
    handle.send_body(b"too late", timeout=0)
    origin.open_gate(gate, None)
    assert handle.result(HANG).json()["sha256"] == sha256(b"body")


@pytest.mark.core
def test_sending_on_an_answered_request_is_stream_closed(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Once the request is answered, send_body says that result() has the answer, and it has."""
    handle = start(pool, endpoint, "/early/200", {"how": "stop"})
    handle.send_body(b"some")
    handle.result(HANG)
    with pytest.raises(katipo.StreamClosed):
        handle.send_body(b"more")
    assert handle.result().status_code == 200


def test_sending_on_a_cancelled_request_raises_cancelled(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """send_body on a request that has failed raises its error."""
    handle = start(pool, endpoint, "/upload")
    handle.cancel()
    with pytest.raises(katipo.Cancelled):
        handle.send_body(b"more")


def test_sending_on_a_request_that_could_not_connect_raises_its_error(pool: katipo.Pool, hostile: Hostile) -> None:
    """send_body on a request that failed by itself raises that error, and so does asend_body."""
    handle = pool.async_post(f"http://127.0.0.1:{hostile.refused_port()}/", stream_body=True)
    wait_until(handle.done)
    with pytest.raises(katipo.ConnectError) as first:
        handle.send_body(b"x")
    with pytest.raises(katipo.ConnectError) as second:
        asyncio.run(handle.asend_body(b"x"))
    assert first.value.code == second.value.code == "couldnt_connect"
    assert first.value.request_sent is False


def test_sending_without_stream_body_is_a_stream_error(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A request whose body was given, or that has none, takes no pieces and no end."""
    handle = pool.async_post(endpoint("/upload"), body=b"whole", **endpoint.options)
    with pytest.raises(katipo.StreamError):
        handle.send_body(b"more")
    with pytest.raises(katipo.StreamError):
        handle.finish_body()
    assert handle.result(HANG).json()["length"] == 5


# ---------------------------------------------------------------------------------------------------- early answers


@pytest.mark.core
@pytest.mark.parametrize("how", ["stop", "close"])
def test_an_early_413_is_delivered(pool: katipo.Pool, endpoint: Endpoint, how: str) -> None:
    """A server that answers 413 in the middle of the body and stops listening, or closes, has its answer heard."""
    if endpoint.version == "3" and how == "close":
        how = "reset"  # closing a QUIC connection discards what is on its way (RFC 9000 10.2)
    handle = start(pool, endpoint, "/early-413", {"how": how, "read": PIECE})
    handle.send_body(bytes(PIECE))
    response = handle.result(HANG)
    assert (response.status_code, response.content) == (413, b"early")
    with pytest.raises(katipo.StreamClosed):
        handle.send_body(bytes(PIECE))


@pytest.mark.core
def test_a_sender_that_goes_on_hears_of_an_early_413(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """send_body in full swing says that the request has been answered, and the answer is there."""
    handle = start(pool, endpoint, "/early-413", {"how": "stop", "read": PIECE})
    with pytest.raises(katipo.StreamClosed):
        send_on(handle)
    response = handle.result(HANG)
    assert (response.status_code, response.content) == (413, b"early")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_torn_down_after_an_early_413_is_an_answer_or_an_error(
    pool: katipo.Pool, endpoint: Endpoint, how: str
) -> None:
    """A reset may overtake the answer, and a close while data is on its way is one: the sender then hears of that."""
    handle = start(pool, endpoint, "/early-413", {"how": how, "read": PIECE})
    with pytest.raises((katipo.StreamClosed, katipo.TransportError)):
        send_on(handle)
    try:
        status = handle.result(HANG).status_code
    except katipo.TransportError:
        return
    assert status == 413


def test_an_early_answer_is_streamed_while_the_body_goes_on(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """A server that answers early and reads on gets the rest of the body, and Started does not wait for it."""
    name = origin.fresh_id()
    handle = start(pool, endpoint, "/early-200", {"how": "drain", "read": 1000, "id": name}, stream=True)
    messages = iter(handle)
    handle.send_body(bytes(1000))
    started = next(messages)
    assert isinstance(started, Started)
    assert started.status_code == 200
    if not handle.done():  # libcurl may take a complete answer for the end
        handle.send_body(bytes(1000))
        handle.finish_body()
    rest = list(messages)
    assert b"".join(message.data for message in rest if isinstance(message, Chunk)) == b"early"
    assert isinstance(rest[-1], Done)


def test_a_307_that_comes_before_the_body_is_followed_with_the_whole_body(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """Nothing was consumed when the redirect came, so the body goes to its target, all of it."""
    name = origin.fresh_id()
    target = f"/upload?id={name}"
    handle = start(pool, endpoint, "/redirect-307", {"to": target, "how": "stop"}, followlocation=True)
    origin.journal(name, until="started")
    body = pattern(0, 3 * PIECE)
    for offset in range(0, len(body), PIECE):
        handle.send_body(body[offset : offset + PIECE])
    handle.finish_body()
    assert handle.result(HANG).json()["sha256"] == sha256(body)


def test_a_307_in_the_middle_of_the_body_is_a_clear_error(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """What was sent is gone, so the request fails instead of sending the rest to the redirect's target."""
    name = origin.fresh_id()
    query = {"to": f"/upload?id={name}", "read": PIECE, "how": "stop"}
    handle = start(pool, endpoint, "/redirect-307", query, followlocation=True)
    with pytest.raises(katipo.WriteError) as raised:
        send_on(handle)
    assert raised.value.code == "send_fail_rewind"
    with pytest.raises(katipo.WriteError):
        handle.result(HANG)
    entry = origin.journal(name)
    assert entry.bodies == 0
    assert entry.received == 0


def test_a_307_in_the_middle_of_the_body_that_is_not_followed_is_the_answer(
    pool: katipo.Pool, endpoint: Endpoint
) -> None:
    """Without followlocation a redirect is an answer like any other."""
    handle = start(pool, endpoint, "/redirect-307", {"to": "/count", "read": PIECE, "how": "stop"})
    with pytest.raises(katipo.StreamClosed):
        send_on(handle)
    assert handle.result(HANG).status_code == 307


def test_a_401_in_the_middle_of_the_body_is_the_answer(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Without credentials an early 401 is delivered."""
    handle = start(pool, endpoint, "/early-401", {"read": PIECE})
    with pytest.raises(katipo.StreamClosed):
        send_on(handle)
    assert handle.result(HANG).status_code == 401


def test_a_digest_challenge_does_not_cost_the_body(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The body goes out once, whole, with the request that answers the challenge."""
    body = pattern(0, 2 * PIECE)
    handle = start(pool, endpoint, "/digest", {"early": 1}, http_auth="digest", username="user", password="secret")
    for offset in range(0, len(body), 4096):
        handle.send_body(body[offset : offset + 4096], HANG)
    handle.finish_body()
    response = handle.result(HANG)
    assert response.status_code == 200
    assert sha256(response.content) == sha256(body)


# ---------------------------------------------------------------------------------------------------- backpressure


@pytest.mark.core
def test_a_server_that_does_not_read_makes_the_sender_wait(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """Against a closed gate only so much is accepted, then send_body waits; once it opens, everything arrives."""
    gate = origin.fresh_id()
    handle = start(pool, endpoint, "/upload", {"gate": gate, "every": PIECE}, upload_window=4 * PIECE)
    accepted = 0

    def send_while_there_is_room() -> None:
        nonlocal accepted
        while accepted < 16 * SWALLOWED:
            handle.send_body(pattern(accepted, PIECE), timeout=1.0)
            accepted += PIECE

    with pytest.raises(katipo.AwaitTimeout):
        send_while_there_is_room()
    assert accepted < SWALLOWED
    origin.open_gate(gate, None)
    handle.send_body(pattern(accepted, PIECE), HANG)
    handle.finish_body()
    answer = handle.result(HANG).json()
    assert (answer["length"], answer["sha256"]) == (accepted + PIECE, sha256(pattern(0, accepted + PIECE)))


@pytest.fixture
def queued(make_pool: Callable[..., katipo.Pool], origin: Origin) -> Any:
    """Make a streamed upload that waits behind another request, so that libcurl takes nothing of it."""
    pool = make_pool(max_host_connections=1)
    gate = origin.fresh_id()
    pool.async_get(f"{origin.strict_http}/drip?n=1&gate={gate}")

    def make(**options: Any) -> tuple[Any, Callable[[], None]]:
        handle = pool.async_post(f"{origin.strict_http}/upload", stream_body=True, **options)
        return handle, lambda: origin.open_gate(gate)

    return make


def test_pieces_are_accepted_while_fewer_than_a_window_wait(queued: Any) -> None:
    """A piece is taken whole or not at all: the fourth overshoots a window of 100, the fifth waits, and is not lost."""
    handle, go = queued(upload_window=100)
    for index in range(4):
        handle.send_body(pattern(index * 30, 30), timeout=0)
    with pytest.raises(katipo.AwaitTimeout) as raised:
        handle.send_body(b"nothing of this is taken", timeout=0)
    assert raised.value.code == "await_timeout"
    go()
    handle.send_body(pattern(120, 30), HANG)
    handle.finish_body()
    assert handle.result(HANG).json()["sha256"] == sha256(pattern(0, 150))


def test_a_waiting_sender_goes_on_when_there_is_room(queued: Any) -> None:
    """A thread blocked in send_body is woken by the room that libcurl makes."""
    handle, go = queued(upload_window=1)
    handle.send_body(b"1")
    sent = threading.Event()

    def sender() -> None:
        handle.send_body(b"2")
        sent.set()

    thread = threading.Thread(target=sender)
    thread.start()
    go()
    assert sent.wait(HANG)
    thread.join()
    handle.finish_body()
    assert handle.result(HANG).json()["sha256"] == sha256(b"12")


def test_a_waiting_sender_is_told_of_a_cancel(queued: Any) -> None:
    """A thread blocked in send_body raises the error of the request when that fails."""
    handle, _ = queued(upload_window=1)
    handle.send_body(b"1")
    raised: list[katipo.Error] = []

    def sender() -> None:
        try:
            handle.send_body(b"2")
        except katipo.Error as error:
            raised.append(error)

    thread = threading.Thread(target=sender)
    thread.start()
    handle.cancel()
    thread.join(HANG)
    assert [type(error) for error in raised] == [katipo.Cancelled]


async def test_a_cancelled_asend_body_took_nothing(queued: Any) -> None:
    """Of a send that was cancelled while it waited, no byte arrives."""
    handle, go = queued(upload_window=1)
    await handle.asend_body(b"1")
    waiting = asyncio.ensure_future(handle.asend_body(b"cancelled"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go()
    await handle.asend_body(b"2")
    handle.finish_body()
    assert (await handle).json()["sha256"] == sha256(b"12")


def test_several_threads_may_send_on_one_request(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Pieces of concurrent senders are not torn: every line arrives as it was sent."""
    handle = start(pool, endpoint, "/echo", upload_window=1000)
    lines = [b"%d-%d\n" % (sender, index) for sender in range(4) for index in range(500)]

    def sender(number: int) -> None:
        for line in lines[number * 500 : (number + 1) * 500]:
            handle.send_body(line, HANG)

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handle.finish_body()
    received = handle.result(HANG).content.splitlines(keepends=True)
    assert sorted(received) == sorted(lines)
    for number in range(4):
        mine = [line for line in received if line.startswith(b"%d-" % number)]
        assert mine == lines[number * 500 : (number + 1) * 500]


# ---------------------------------------------------------------------------------------------------- both directions


@pytest.mark.core
def test_both_directions_go_in_lock_step(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The headers come before anything is sent, and the echo of piece n before piece n+1 is sent."""
    handle = start(pool, endpoint, "/echo", stream=True)
    messages = iter(handle)
    started = next(messages)
    assert isinstance(started, Started)
    assert started.http_version == endpoint.http_version
    for index in range(50):
        piece = b"piece %d" % index
        handle.send_body(piece)
        received = b""
        while len(received) < len(piece):
            message = next(messages)
            assert isinstance(message, Chunk)
            received += message.data
        assert received == piece
    handle.finish_body()
    assert isinstance(next(messages), Done)
    assert next(messages, None) is None


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"])
async def test_both_directions_go_in_lock_step_in_an_event_loop(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The same with asend_body and async iteration."""
    handle = start(pool, endpoint, "/echo", stream=True)
    messages = aiter(handle)
    assert isinstance(await anext(messages), Started)
    for index in range(20):
        piece = b"piece %d" % index
        await handle.asend_body(piece)
        received = b""
        while len(received) < len(piece):
            message = await anext(messages)
            assert isinstance(message, Chunk)
            received += message.data
        assert received == piece
    handle.finish_body()
    assert isinstance(await anext(messages), Done)


def test_both_directions_at_full_speed(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A sender and a reader in two threads pass a few megabytes through the echo, with windows smaller than the body."""
    size = 4 << 20
    handle = start(pool, endpoint, "/echo", stream=True, stream_window=PIECE, upload_window=PIECE)

    def sender() -> None:
        for offset in range(0, size, 16384):
            handle.send_body(pattern(offset, 16384), HANG)
        handle.finish_body()

    thread = threading.Thread(target=sender)
    thread.start()
    received = bytearray()
    for message in handle:
        if isinstance(message, Chunk):
            received += message.data
    thread.join()
    assert sha256(bytes(received)) == sha256(pattern(0, size))


def test_a_paused_reader_does_not_stop_the_upload(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Resuming one direction leaves the other as it is: with the response's window full, the body still goes out."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    query = {"id": name, "gate": gate, "size": PIECE}
    handle = start(pool, endpoint, "/echo", query, stream=True, stream_window=1)
    # The first echo fills the window, and nobody takes it; the server must still see the second and the third piece.
    for index in range(3):
        handle.send_body(pattern(index * 100, 100))
        origin.journal(name, until=f"received>={(index + 1) * 100}")
    handle.finish_body()
    received = b"".join(message.data for message in handle if isinstance(message, Chunk))
    assert received == pattern(0, 300)


# ---------------------------------------------------------------------------------------------------- length, end


@pytest.mark.core
def test_a_declared_length_is_sent_and_kept(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """With a Content-Length header the server sees that length, and no chunked coding."""
    handle = start(pool, endpoint, "/upload", headers={"Content-Length": "10"})
    handle.send_body(b"01234")
    handle.send_body(b"56789")
    handle.finish_body()
    answer = handle.result(HANG).json()
    headers = {name.lower(): value for name, value in answer["headers"]}
    assert answer["length"] == 10
    assert headers["content-length"] == "10"
    assert "transfer-encoding" not in headers


def test_a_body_of_its_declared_length_is_complete_without_being_finished(
    pool: katipo.Pool, endpoint: Endpoint
) -> None:
    """The last declared byte ends the body for the server: the answer does not wait for finish_body()."""
    handle = start(pool, endpoint, "/upload", headers={"Content-Length": "10"})
    handle.send_body(b"0123456789")
    assert handle.result(HANG).json()["length"] == 10


def test_a_declared_length_of_zero_is_an_empty_body(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Content-Length: 0 with a streamed body is an empty request."""
    handle = start(pool, endpoint, "/upload", headers={"Content-Length": "0"})
    handle.finish_body()
    assert handle.result(HANG).json()["length"] == 0


def test_sending_beyond_the_declared_length_raises_at_the_call(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The piece that goes beyond is refused whole, and the body can still be completed."""
    handle = start(pool, endpoint, "/upload", headers={"Content-Length": "10"})
    handle.send_body(b"01234")
    with pytest.raises(katipo.LocalProtocolError):
        handle.send_body(b"567890")
    handle.send_body(b"56789")
    handle.finish_body()
    assert handle.result(HANG).json()["sha256"] == sha256(b"0123456789")


def test_finishing_short_of_the_declared_length_fails_and_the_server_sees_it(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """A body that is shorter than it said is never made to look complete."""
    name = origin.fresh_id()
    handle = start(pool, endpoint, "/upload", {"id": name}, headers={"Content-Length": "10"})
    handle.send_body(b"01234")
    origin.journal(name, until="received>=5")
    handle.finish_body()
    with pytest.raises(katipo.LocalProtocolError):
        handle.result(HANG)
    entry = origin.journal(name, until="disconnected")
    assert entry.bodies == 0


@pytest.mark.core
def test_an_end_that_comes_alone_is_sent_at_once(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """An end of body after a pause, with no byte before it, is not held back: over HTTP/3 it was, for 30 seconds."""
    for _ in range(5):
        name = origin.fresh_id()
        handle = start(pool, endpoint, "/upload", {"id": name})
        handle.send_body(b"all of it")
        origin.journal(name, until="received>=9")
        handle.finish_body()
        origin.journal(name, until="body")
        assert handle.result(HANG).json()["length"] == 9


def test_a_server_that_goes_without_an_answer_fails_the_upload(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """A connection that closes in the middle of the body is an error of the transport, and the body is not sent again."""
    name = origin.fresh_id()
    handle = start(pool, endpoint, "/drop", {"id": name, "read": "none"})
    with pytest.raises(katipo.TransportError):
        send_on(handle)
    with pytest.raises(katipo.TransportError):
        handle.result(HANG)
    assert origin.journal(name).count == 1


def test_a_cancelled_upload_is_cut_off(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """The server sees a request that does not end, and not a shorter one."""
    name = origin.fresh_id()
    handle = start(pool, endpoint, "/upload", {"id": name})
    handle.send_body(b"half")
    origin.journal(name, until="received>=4")
    handle.cancel()
    assert origin.journal(name, until="disconnected").bodies == 0
    with pytest.raises(katipo.Cancelled):
        handle.result()
