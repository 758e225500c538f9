"""Handles that nobody keeps: an unfinished upload follows on_abandon, an unread stream is cancelled, the rest runs on."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from katipo.messages import Chunk, Done, Failed, Responded, Started
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0


def free(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The worker is free: nothing is in flight any more, and the next request is answered."""
    wait_until(lambda: pool.statistics().in_flight == 0)
    assert pool.get(endpoint("/count"), timeout_ms=20_000, **endpoint.options).status_code == 200


def half_an_upload(pool: katipo.Pool, endpoint: Endpoint, origin: Origin, name: str, **options: Any) -> katipo.Handle:
    """An upload of which the server has half, and whose end is in nobody's hands but its handle's."""
    handle = pool.async_post(endpoint("/upload", id=name), stream_body=True, **endpoint.options, **options)
    handle.send_body(b"half")
    origin.journal(name, until="received>=4")
    return handle


def by_dropping(make: Callable[[], katipo.Handle]) -> None:
    make()


def by_a_cycle(make: Callable[[], katipo.Handle]) -> None:
    cycle: list[object] = [make()]
    cycle.append(cycle)
    del cycle
    gc.collect()


def by_a_cancelled_task(make: Callable[[], katipo.Handle]) -> None:
    async def main() -> None:
        async def task() -> None:
            handle = make()
            await asyncio.sleep(HANG)
            handle.finish_body()

        running = asyncio.ensure_future(task())
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    gc.collect()


def by_a_finished_thread(make: Callable[[], katipo.Handle]) -> None:
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()


def by_an_exception(make: Callable[[], katipo.Handle]) -> None:
    def fail() -> None:
        handle = make()
        handle.send_body(b"")
        raise LookupError

    with pytest.raises(LookupError) as raised:
        fail()
    del raised
    gc.collect()


WAYS = [by_dropping, by_a_cycle, by_a_cancelled_task, by_a_finished_thread, by_an_exception]


@pytest.mark.core
@pytest.mark.parametrize("lose", WAYS)
def test_an_abandoned_upload_is_cut_off(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, lose: Callable[[Callable[[], katipo.Handle]], None]
) -> None:
    """By default the server sees a request that does not end, however the handle was lost."""
    name = origin.fresh_id()
    lose(lambda: half_an_upload(pool, endpoint, origin, name))
    assert origin.journal(name, until="disconnected").bodies == 0
    free(pool, endpoint)


@pytest.mark.core
@pytest.mark.parametrize("lose", WAYS)
def test_an_abandoned_upload_is_ended_where_that_was_asked_for(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, lose: Callable[[Callable[[], katipo.Handle]], None]
) -> None:
    """on_abandon="finish": the body ends there, and the server has a complete request."""
    name = origin.fresh_id()
    lose(lambda: half_an_upload(pool, endpoint, origin, name, on_abandon="finish"))
    entry = origin.journal(name, until="finished")
    assert (entry.bodies, entry.received) == (1, 4)
    free(pool, endpoint)
    assert pool.statistics().failed == 0


def test_what_was_sent_before_it_was_abandoned_arrives(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Pieces that libcurl has not taken yet when the handle goes belong to the body that is finished."""
    box, body = katipo.Mailbox(), pattern(0, 700_000)

    def make() -> None:
        handle = pool.async_post(
            endpoint("/upload"), stream_body=True, on_abandon="finish", reply_to=box, **endpoint.options
        )
        for offset in range(0, len(body), 70_000):
            handle.send_body(body[offset : offset + 70_000])

    make()
    message = box.receive(HANG)
    assert isinstance(message, Responded)
    assert message.response.json()["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("on_abandon", ["abort", "finish"])
def test_an_upload_that_was_finished_is_not_abandoned(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, on_abandon: Any
) -> None:
    """After finish_body() the handle may go: the request runs to its end."""
    name = origin.fresh_id()
    handle = half_an_upload(pool, endpoint, origin, name, on_abandon=on_abandon)
    handle.finish_body()
    del handle
    assert origin.journal(name, until="finished").bodies == 1
    free(pool, endpoint)
    assert pool.statistics().failed == 0


def test_a_mailbox_is_told_of_an_abandoned_upload(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """An upload that replies to a mailbox is still its handle's to send: dropped, it is Failed with Cancelled."""
    box, name = katipo.Mailbox(), origin.fresh_id()
    half_an_upload(pool, endpoint, origin, name, reply_to=box)
    message = box.receive(HANG)
    assert isinstance(message, Failed)
    assert isinstance(message.error, katipo.Cancelled)
    origin.journal(name, until="disconnected")


def test_an_abandoned_upload_short_of_its_length_is_never_made_complete(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """With a Content-Length that was not reached, "finish" cannot end the body: the server sees it cut off."""
    name = origin.fresh_id()
    half_an_upload(pool, endpoint, origin, name, on_abandon="finish", headers={"Content-Length": "10"})
    assert origin.journal(name, until="disconnected").bodies == 0
    free(pool, endpoint)


@pytest.mark.core
@pytest.mark.parametrize("lose", WAYS[:2] + WAYS[3:4])
def test_an_abandoned_stream_is_cancelled(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, lose: Callable[[Callable[[], katipo.Handle]], None]
) -> None:
    """Nobody will read it: the server sees the end, and is not held for ever by a full window."""
    name = origin.fresh_id()

    def make() -> katipo.Handle:
        handle = pool.async_get(
            endpoint("/big", size=1 << 30, id=name), stream=True, stream_window=1, **endpoint.options
        )
        origin.journal(name, until="sent>=1")
        return handle

    lose(make)
    origin.journal(name, until="disconnected")
    free(pool, endpoint)


def test_a_stream_that_is_no_longer_iterated_is_cancelled(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """A loop that breaks off and lets go of the handle ends the request."""
    name = origin.fresh_id()
    for message in pool.async_get(endpoint("/big", size=1 << 30, id=name), stream=True, **endpoint.options):
        if isinstance(message, Chunk):
            break
    origin.journal(name, until="disconnected")
    free(pool, endpoint)


def test_an_iterator_keeps_its_request(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """While somebody iterates, the handle need not be kept."""
    gate = origin.fresh_id()
    messages = iter(pool.async_get(endpoint("/drip", n=3, gate=gate), stream=True, **endpoint.options))
    assert isinstance(next(messages), Started)
    gc.collect()
    origin.open_gate(gate, None)
    rest = list(messages)
    assert b"".join(message.data for message in rest if isinstance(message, Chunk)) == pattern(0, 3)
    assert isinstance(rest[-1], Done)


@pytest.mark.core
def test_an_abandoned_plain_request_runs_to_its_end(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """A buffered request without its handle is fire and forget: the server answers it."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    pool.async_post(endpoint("/drip", n=2, id=name, gate=gate), body=b"x", **endpoint.options)
    gc.collect()
    origin.open_gate(gate, None)
    origin.journal(name, until="finished")
    free(pool, endpoint)
    assert (pool.statistics().completed, pool.statistics().failed) == (2, 0)


def test_an_abandoned_exchange_that_is_to_finish_reads_its_answer(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """Both directions streamed, handle gone, "finish": the body ends, and the answer is read and dropped, whatever its
    size."""
    name, body = origin.fresh_id(), bytes(500_000)

    def make() -> None:
        handle = pool.async_post(
            endpoint("/echo", id=name),
            stream=True,
            stream_window=1,
            stream_body=True,
            on_abandon="finish",
            **endpoint.options,
        )
        handle.send_body(body)

    make()
    gc.collect()
    entry = origin.journal(name, until="finished")
    assert (entry.bodies, entry.received, entry.sent) == (1, len(body), len(body))
    free(pool, endpoint)


def test_finalizers_may_run_at_any_moment(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Handles in garbage cycles, collected while other threads submit and wait, block nobody."""
    threshold = gc.get_threshold()
    gc.set_threshold(20, 2, 2)
    try:

        def work() -> None:
            for _ in range(60):
                cycle: list[object] = [pool.async_get(endpoint("/big"), stream=True, **endpoint.options)]
                cycle.append(cycle)
                pool.get(endpoint("/count"), timeout_ms=20_000, **endpoint.options)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * HANG)
        assert not any(thread.is_alive() for thread in threads)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    free(pool, endpoint)
