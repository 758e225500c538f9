"""Cancelling and running out of time, at every stage: one terminal event, nothing after it, and the server sees the end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from katipo.messages import Chunk, Failed, Responded, Started
from tests.support.hostile import read_request, send, wait_closed
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0


@pytest.fixture
def occupied(make_pool: Callable[..., katipo.Pool], origin: Origin) -> tuple[katipo.Pool, Callable[[], None]]:
    """A pool whose only connection to the plain origin is busy, and what frees it."""
    pool = make_pool(max_host_connections=1)
    gate, name = origin.fresh_id(), origin.fresh_id()
    pool.async_get(f"{origin.strict_http}/drip?n=1&gate={gate}&id={name}")
    origin.journal(name, until="started")
    return pool, lambda: origin.open_gate(gate)


# ---------------------------------------------------------------------------------------------------- cancel


@pytest.mark.core
def test_a_request_that_waits_for_its_turn_is_never_sent(
    occupied: tuple[katipo.Pool, Callable[[], None]], origin: Origin
) -> None:
    """Cancelled before it has a connection, a request leaves the queue, and the server never hears of it."""
    pool, free = occupied
    name = origin.fresh_id()
    handle = pool.async_get(f"{origin.strict_http}/count?id={name}")
    wait_until(lambda: pool.statistics().queued == 1)
    handle.cancel()
    assert handle.done()
    with pytest.raises(katipo.Cancelled) as raised:
        handle.result()
    assert raised.value.code == "cancelled"
    assert raised.value.request_sent is False
    wait_until(lambda: pool.statistics().queued == 0)
    free()
    assert pool.get(f"{origin.strict_http}/count").status_code == 200
    assert origin.journal(name).count == 0


def test_a_connection_in_the_making_is_given_up(pool: katipo.Pool, hostile: Hostile) -> None:
    """Cancelled while it connects, a request is over at once and its socket is closed."""
    handle = pool.async_get(hostile.black_hole().url)
    wait_until(lambda: pool.statistics().connections == 1)
    handle.cancel()
    with pytest.raises(katipo.Cancelled) as raised:
        handle.result(0)
    assert raised.value.request_sent is False
    wait_until(lambda: pool.statistics().connections == 0)


@pytest.mark.core
def test_the_server_sees_a_cancel_before_its_headers(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Cancelled while the server prepares its answer."""
    name = origin.fresh_id()
    handle = pool.async_get(endpoint("/hang", stage="headers", id=name), **endpoint.options)
    origin.journal(name, until="started")
    handle.cancel()
    with pytest.raises(katipo.Cancelled) as raised:
        handle.result(0)
    assert raised.value.request_sent is True
    origin.journal(name, until="disconnected")


def test_half_a_header_block_is_no_response(pool: katipo.Pool, hostile: Hostile) -> None:
    """Cancelled in the middle of the headers: the server sees the close."""
    server = hostile([read_request(), send(b"HTTP/1.1 200 OK\r\nX-Half:"), wait_closed()])
    handle = pool.async_get(server.url)
    server.peer().wait_received(b"\r\n\r\n")
    handle.cancel()
    with pytest.raises(katipo.Cancelled):
        handle.result(0)
    server.wait_scripts()


@pytest.mark.core
@pytest.mark.parametrize("stream", [False, True])
def test_the_server_sees_a_cancel_in_its_body(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, stream: bool
) -> None:
    """Cancelled while the body arrives, buffered or streamed."""
    name = origin.fresh_id()
    options: dict[str, Any] = {"stream": True} if stream else {}
    handle = pool.async_get(endpoint("/hang", stage="body", size=5000, id=name), **endpoint.options, **options)
    origin.journal(name, until="sent>=5000")
    handle.cancel()
    origin.journal(name, until="disconnected")
    with pytest.raises(katipo.Cancelled):
        next(iter(handle)) if stream else handle.result(0)


def test_the_server_sees_a_cancel_of_a_paused_stream(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Cancelled while its window is full: nothing has to be taken for that."""
    name = origin.fresh_id()
    handle = pool.async_get(endpoint("/big", size=1 << 30, id=name), stream=True, stream_window=1, **endpoint.options)
    origin.journal(name, until="sent>=65536")
    handle.cancel()
    origin.journal(name, until="disconnected")


def test_a_cancel_drops_the_chunks_that_wait(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """After cancel() the iteration has no chunk more, although some had arrived: it raises, and then it is over."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=3, size=100, id=name, gate=gate), stream=True, **endpoint.options)
    messages = iter(handle)
    assert isinstance(next(messages), Started)
    origin.open_gate(gate, 2)
    assert isinstance(next(messages), Chunk)
    origin.journal(name, until="sent>=200")
    handle.cancel()
    with pytest.raises(katipo.Cancelled):
        next(messages)
    assert list(messages) == []


@pytest.mark.core
def test_after_a_cancel_a_mailbox_gets_the_terminal_and_nothing_else(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """What was queued is dropped: one Failed follows, and it is the last."""
    box, name = katipo.Mailbox(), origin.fresh_id()
    handle = pool.async_get(
        endpoint("/big", size=1 << 30, id=name), stream=True, reply_to=box, ref="it", **endpoint.options
    )
    wait_until(lambda: len(box) >= 2)
    handle.cancel()
    assert len(box) == 1
    message = box.receive(0)
    assert isinstance(message, Failed)
    assert message.ref == "it"
    assert isinstance(message.error, katipo.Cancelled)
    origin.journal(name, until="disconnected")
    pool.get(endpoint("/count"), **endpoint.options)
    with pytest.raises(katipo.AwaitTimeout):
        box.receive(0)


def test_cancelling_twice_is_cancelling_once(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """The second cancel is nothing, and counts as nothing."""
    name = origin.fresh_id()
    handle = pool.async_get(endpoint("/hang", id=name), **endpoint.options)
    origin.journal(name, until="started")
    handle.cancel()
    handle.cancel()
    assert pool.statistics().failed == 1


@pytest.mark.core
def test_a_finished_request_keeps_its_answer(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """cancel() after completion does nothing, before result() and after it."""
    handle = pool.async_get(endpoint("/status/404"), **endpoint.options)
    wait_until(handle.done)
    handle.cancel()
    assert handle.result(0).status_code == 404
    handle.cancel()
    assert handle.result(0).status_code == 404
    assert pool.statistics().failed == 0


def test_a_cancel_wakes_who_waits(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Threads blocked in result() and in an iteration raise Cancelled."""
    buffered = pool.async_get(endpoint("/hang"), **endpoint.options)
    streamed = pool.async_get(endpoint("/hang"), stream=True, **endpoint.options)
    raised: list[str] = []

    def wait(call: Callable[[], object]) -> None:
        with pytest.raises(katipo.Cancelled) as caught:
            call()
        raised.append(caught.value.code)

    calls: list[Callable[[], object]] = [buffered.result, lambda: list(streamed)]
    threads = [threading.Thread(target=wait, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    buffered.cancel()
    streamed.cancel()
    for thread in threads:
        thread.join(HANG)
    assert raised == ["cancelled", "cancelled"]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_cancel_wakes_who_awaits(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, anyio_backend: object
) -> None:
    """So does an await, when another thread cancels."""
    name = origin.fresh_id()
    handle = pool.async_get(endpoint("/hang", id=name), **endpoint.options)

    def cancel() -> None:
        origin.journal(name, until="started")
        handle.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(katipo.Cancelled):
        await handle
    thread.join()


async def test_cancelling_an_await_does_not_cancel_the_request(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """The request goes on, and can be awaited again."""
    gate = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options)
    waiting = asyncio.ensure_future(asyncio.wait_for(handle, HANG))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not handle.done()
    origin.open_gate(gate)
    assert (await handle).content == pattern(0, 1)


def test_a_neighbour_on_the_same_connection_is_not_disturbed(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """Cancelling one of two requests leaves the other whole; over HTTP/2 and 3 they share a connection."""
    pool.get(endpoint("/count"), **endpoint.options)
    gate, name = origin.fresh_id(), origin.fresh_id()
    stays = pool.async_get(endpoint("/drip", n=2, size=1000, gate=gate, id=name), **endpoint.options)
    goes = pool.async_get(endpoint("/hang", stage="body", size=70_000, id=name), **endpoint.options)
    origin.journal(name, until="count>=2")
    goes.cancel()
    origin.open_gate(gate, 2)
    assert stays.result(HANG).content == pattern(0, 2000)
    ports = origin.journal(name).ports
    assert (ports[0] == ports[1]) == (endpoint.version != "1.1")


def test_a_storm_of_cancels_has_one_terminal_each(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Requests cancelled at any moment of their life end once each, answered or cancelled, and none is lost."""
    box = katipo.Mailbox()
    handles = [
        pool.async_get(endpoint("/big", size=20_000), reply_to=box, ref=index, **endpoint.options)
        for index in range(200)
    ]
    ends: dict[int, int] = dict.fromkeys(range(200), 0)
    for index in range(0, 200, 2):
        if index % 20 == 0:  # let some be answered in between
            message = box.receive(HANG)
            ends[message.ref] += 1
        handles[index].cancel()
    for _ in range(200 - sum(ends.values())):
        message = box.receive(HANG)
        assert isinstance(message, (Responded, Failed))
        ends[message.ref] += 1
        if isinstance(message, Failed):
            assert isinstance(message.error, katipo.Cancelled)
        else:
            assert message.response.content == pattern(0, 20_000)
    assert set(ends.values()) == {1}
    statistics = pool.statistics()
    assert (statistics.in_flight, statistics.completed + statistics.failed) == (0, 200)


# ---------------------------------------------------------------------------------------------------- clocks


def check(error: katipo.Error, kind: type[katipo.TimeoutException], *, sent: bool) -> None:
    assert type(error) is kind
    assert isinstance(error, katipo.TimeoutException)
    assert isinstance(error, TimeoutError)
    assert (error.code, error.curl_code) == ("operation_timedout", 28)
    assert error.request_sent is sent


@pytest.mark.core
def test_connecting_for_too_long_is_a_connect_timeout(pool: katipo.Pool, hostile: Hostile) -> None:
    """The connect clock ends a connection that is never accepted."""
    with pytest.raises(katipo.ConnectTimeout) as raised:
        pool.get(hostile.black_hole().url, connecttimeout_ms=200)
    check(raised.value, katipo.ConnectTimeout, sent=False)


def test_a_tls_handshake_that_never_ends_is_a_connect_timeout(pool: katipo.Pool, hostile: Hostile) -> None:
    """The connect clock runs until the connection is ready to be used."""
    server = hostile([wait_closed()])
    with pytest.raises(katipo.ConnectTimeout) as raised:
        pool.get(server.url.replace("http:", "https:"), connecttimeout_ms=200)
    check(raised.value, katipo.ConnectTimeout, sent=False)


@pytest.mark.core
def test_a_silent_server_is_a_read_timeout(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """The read clock ends a request that is not answered, and the server sees it."""
    name = origin.fresh_id()
    with pytest.raises(katipo.ReadTimeout) as raised:
        pool.get(endpoint("/hang", id=name), read_timeout_ms=200, **endpoint.options)
    check(raised.value, katipo.ReadTimeout, sent=True)
    origin.journal(name, until="disconnected")


@pytest.mark.core
@pytest.mark.parametrize("clock", ["read_timeout_ms", "timeout_ms"])
def test_a_server_that_falls_silent_delivers_what_came_before(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, clock: str
) -> None:
    """A stream that runs out of time has its headers, its chunks, then one error, and then nothing."""
    name = origin.fresh_id()
    options: dict[str, Any] = {clock: 500}
    handle = pool.async_get(
        endpoint("/hang", stage="body", size=3000, id=name), stream=True, **endpoint.options, **options
    )
    messages = iter(handle)
    assert isinstance(next(messages), Started)
    received = b""
    while len(received) < 3000:
        message = next(messages)
        assert isinstance(message, Chunk)
        received += message.data
    with pytest.raises(katipo.TimeoutException) as raised:
        next(messages)
    check(raised.value, katipo.ReadTimeout if clock == "read_timeout_ms" else katipo.TotalTimeout, sent=True)
    assert received == pattern(0, 3000)
    assert list(messages) == []
    origin.journal(name, until="disconnected")


def test_chunks_that_wait_survive_a_timeout(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A consumer that comes after the timeout gets what had arrived before it."""
    handle = pool.async_get(
        endpoint("/hang", stage="body", size=3000), stream=True, read_timeout_ms=300, **endpoint.options
    )
    wait_until(handle.done)
    received: list[bytes] = []

    def read() -> None:
        received.extend(message.data for message in handle if isinstance(message, Chunk))

    with pytest.raises(katipo.ReadTimeout):
        read()
    assert b"".join(received) == pattern(0, 3000)


@pytest.mark.core
def test_a_server_that_takes_nothing_is_a_write_timeout(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """The write clock ends an upload that stands still."""
    gate = origin.fresh_id()
    with pytest.raises(katipo.WriteTimeout) as raised:
        pool.post(
            endpoint("/upload", gate=gate),
            body=bytes(64 << 20),
            write_timeout_ms=500,
            timeout_ms=20_000,
            **endpoint.options,
        )
    check(raised.value, katipo.WriteTimeout, sent=True)


def test_a_caller_that_sends_nothing_is_no_write_timeout(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Neither the read nor the write clock runs while katipo waits for the caller."""
    name = origin.fresh_id()
    handle = pool.async_post(
        endpoint("/upload", id=name),
        stream_body=True,
        write_timeout_ms=300,
        read_timeout_ms=300,
        **endpoint.options,
    )
    handle.send_body(b"first")
    origin.journal(name, until="received>=5")
    pool.get(endpoint("/drip", n=1, delay=1.0), **endpoint.options)
    handle.send_body(b"second")
    handle.finish_body()
    assert handle.result(HANG).json()["length"] == 11


@pytest.mark.core
def test_waiting_too_long_for_a_turn_is_a_pool_timeout(
    occupied: tuple[katipo.Pool, Callable[[], None]], origin: Origin
) -> None:
    """The pool clock ends a request that gets no connection; the connect clock does not run for it."""
    pool, _ = occupied
    with pytest.raises(katipo.PoolTimeout) as raised:
        pool.get(f"{origin.strict_http}/count", pool_timeout_ms=300, connecttimeout_ms=100)
    check(raised.value, katipo.PoolTimeout, sent=False)


@pytest.mark.core
def test_everything_together_is_a_total_timeout(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, hostile: Hostile
) -> None:
    """The total clock ends a request wherever it is: connecting or waiting for an answer."""
    with pytest.raises(katipo.TotalTimeout) as raised:
        pool.get(hostile.black_hole().url, timeout_ms=200)
    check(raised.value, katipo.TotalTimeout, sent=False)
    with pytest.raises(katipo.TotalTimeout) as raised:
        pool.get(endpoint("/hang"), timeout_ms=500, **endpoint.options)
    check(raised.value, katipo.TotalTimeout, sent=True)


def test_the_total_clock_runs_from_submission(occupied: tuple[katipo.Pool, Callable[[], None]], origin: Origin) -> None:
    """A request that waits for its turn is within its time too."""
    pool, _ = occupied
    with pytest.raises(katipo.TotalTimeout) as raised:
        pool.get(f"{origin.strict_http}/count", timeout_ms=300)
    check(raised.value, katipo.TotalTimeout, sent=False)


def test_a_slow_but_steady_server_is_not_silent(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The read clock measures inactivity: a body that takes longer than it, but never stops for long, is whole."""
    response = pool.get(endpoint("/drip", n=10, size=10, delay=0.1), read_timeout_ms=700, **endpoint.options)
    assert response.content == pattern(0, 100)


def test_result_that_runs_out_of_its_own_time_can_be_called_again(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """AwaitTimeout is the waiter's, not the request's: the request goes on."""
    gate = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options)
    for timeout in (0, 0.05):
        with pytest.raises(katipo.AwaitTimeout) as raised:
            handle.result(timeout)
        assert raised.value.code == "await_timeout"
        assert isinstance(raised.value, TimeoutError)
    origin.open_gate(gate)
    assert handle.result(HANG).content == pattern(0, 1)
    assert handle.result(0) is handle.result(0)
