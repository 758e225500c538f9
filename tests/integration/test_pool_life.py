"""What a pool says of itself, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from typing import TYPE_CHECKING

import pytest

import katipo
from tests.support.hostile import response, serve
from tests.support.procs import run_python, thread_count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

    MakePool = Callable[..., katipo.Pool]


pytestmark = pytest.mark.core


def test_nothing_starts_before_the_first_request(make_pool: MakePool, origin: Origin) -> None:
    """Threads start with a request that is sent, as many as `workers` at most."""
    before = thread_count()
    pool = make_pool(4)
    with pytest.raises(katipo.BadOptions):
        pool.get(origin.strict_http, timeout_ms=-1)
    assert thread_count() <= before  # an earlier test's may end meanwhile
    assert pool.statistics().workers == 0
    pool.get(origin.strict_http + "/count")
    assert 1 <= pool.statistics().workers <= 4


def test_statistics_follow_the_requests(make_pool: MakePool, endpoint: Endpoint, origin: Origin) -> None:
    """In flight, queued, completed and failed, each counted once when it happens."""
    pool = make_pool(max_host_connections=1, max_concurrent_streams=1)
    assert pool.statistics() == katipo.PoolStatistics(0, 0, 0, 0, 0, 0, 0)
    name, gate = origin.fresh_id(), origin.fresh_id()
    handles = [pool.async_get(endpoint("/drip", id=name, gate=gate), **endpoint.options) for _ in range(4)]
    origin.journal(name, until="started")
    wait_until(lambda: pool.statistics().queued == 3)
    counts = pool.statistics()
    assert (counts.workers, counts.in_flight, counts.connections, counts.restarts) == (1, 4, 1, 0)
    handles[3].cancel()
    wait_until(lambda: pool.statistics().failed == 1)
    wait_until(lambda: pool.statistics().queued == 2)
    assert pool.statistics().in_flight == 3
    origin.open_gate(gate, None)
    for handle in handles[:3]:
        handle.result(30)
    counts = pool.statistics()
    assert (counts.in_flight, counts.queued, counts.completed, counts.failed) == (0, 0, 3, 1)


def test_statistics_are_frozen(pool: katipo.Pool) -> None:
    """What was counted then stays as it was."""
    with pytest.raises(AttributeError):
        pool.statistics().workers = 5  # type: ignore[misc]


def test_the_repr_says_what_is_going_on(make_pool: MakePool, origin: Origin) -> None:
    """Name, workers, requests, connections."""
    pool = make_pool(name="crawler")
    pool.get(origin.strict_http + "/count")
    assert repr(pool) == "<Pool 'crawler' 1 workers, 0 in flight, 1 connections>"
    pool.close()
    assert repr(pool).startswith("<Pool 'crawler' closed")


def test_a_closed_pool_refuses_and_closing_again_is_harmless(make_pool: MakePool, origin: Origin) -> None:
    """After close every call raises PoolClosed; a second close does nothing."""
    pool = make_pool()
    pool.get(origin.strict_http + "/count")
    pool.close()
    pool.close(drain=5)
    for call in (pool.get, pool.async_get):
        with pytest.raises(katipo.PoolClosed) as caught:
            call(origin.strict_http + "/count")
        assert caught.value.code == "pool_closed"
    assert pool.statistics().workers == 0


def test_a_pool_that_was_never_used_closes(make_pool: MakePool) -> None:
    """There is nothing to stop."""
    pool = make_pool(3)
    pool.close()
    with pytest.raises(katipo.PoolClosed):
        pool.get("http://localhost/")


async def test_closing_in_an_event_loop(make_pool: MakePool, origin: Origin) -> None:
    """`async with` and `aclose` do as `with` and `close`."""
    async with katipo.Pool() as pool:
        assert (await pool.async_get(origin.strict_http + "/count")).status_code == 200
    with pytest.raises(katipo.PoolClosed):
        pool.async_get(origin.strict_http + "/count")
    await pool.aclose()


@pytest.mark.parametrize("workers", [1, 3])
def test_closing_fails_everything_in_flight_once(
    make_pool: MakePool, endpoint: Endpoint, origin: Origin, workers: int
) -> None:
    """Running, queued, streamed and uploading requests all end with PoolClosed, and the server sees them go."""
    pool = make_pool(workers, max_host_connections=2, max_concurrent_streams=4)
    box = katipo.Mailbox()
    name = origin.fresh_id()
    url = endpoint("/hang", id=name)
    plain = [pool.async_get(url, **endpoint.options) for _ in range(8)]
    streamed = pool.async_get(endpoint("/hang", id=name, stage="body"), stream=True, **endpoint.options)
    upload = pool.async_post(url, stream_body=True, **endpoint.options)
    for number in range(3):
        pool.async_get(url, reply_to=box, ref=number, **endpoint.options)
    origin.journal(name, until="count>=2")
    pool.close()
    for handle in [*plain, upload]:
        assert handle.done()
        with pytest.raises(katipo.PoolClosed):
            handle.result(0)
    with pytest.raises(katipo.PoolClosed):
        list(streamed)
    failed = [box.receive(10) for _ in range(3)]
    assert sorted(message.ref for message in failed) == [0, 1, 2]
    assert all(isinstance(each, katipo.Failed) and isinstance(each.error, katipo.PoolClosed) for each in failed)
    assert len(box) == 0
    with pytest.raises(katipo.PoolClosed):
        upload.send_body(b"more")
    started = origin.journal(name).count
    origin.journal(name, until=f"disconnected>={started}")
    assert (pool.statistics().in_flight, pool.statistics().failed) == (0, 13)


def test_a_drained_pool_lets_its_requests_finish(make_pool: MakePool, endpoint: Endpoint, origin: Origin) -> None:
    """During the drain new requests are refused, and those in flight get their answers."""
    pool = make_pool(max_host_connections=1, max_concurrent_streams=1)
    name, gate = origin.fresh_id(), origin.fresh_id()
    handles = [pool.async_get(endpoint("/drip", id=name, gate=gate), **endpoint.options) for _ in range(3)]
    origin.journal(name, until="started")
    closing = threading.Thread(target=pool.close, kwargs={"drain": 60})
    closing.start()

    def refuses() -> bool:
        try:
            pool.async_get(endpoint("/count"), **endpoint.options).cancel()
        except katipo.PoolClosed:
            return True
        return False

    wait_until(refuses)
    assert not any(handle.done() for handle in handles)
    origin.open_gate(gate, None)
    closing.join(30)
    assert not closing.is_alive()
    assert [handle.result(0).status_code for handle in handles] == [200, 200, 200]


def test_what_is_not_done_by_the_end_of_the_drain_fails(make_pool: MakePool, origin: Origin) -> None:
    """The drain's time is kept: what still runs then fails with PoolClosed."""
    pool = make_pool()
    name = origin.fresh_id()
    handle = pool.async_get(f"{origin.strict_http}/hang?id={name}")
    origin.journal(name, until="started")
    began = time.monotonic()
    pool.close(drain=0.3)
    assert 0.3 <= time.monotonic() - began < 10
    with pytest.raises(katipo.PoolClosed):
        handle.result(0)
    origin.journal(name, until="disconnected")


def test_an_idle_pool_does_not_wait_for_its_drain(make_pool: MakePool, origin: Origin) -> None:
    """With nothing in flight `drain` takes no time."""
    pool = make_pool()
    pool.get(origin.strict_http + "/count")
    began = time.monotonic()
    pool.close(drain=60)
    assert time.monotonic() - began < 30


async def test_a_drain_in_an_event_loop(make_pool: MakePool, endpoint: Endpoint, origin: Origin) -> None:
    """`aclose(drain=...)` lets the loop run meanwhile."""
    pool = make_pool()
    name, gate = origin.fresh_id(), origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", id=name, gate=gate), **endpoint.options)
    await asyncio.to_thread(origin.journal, name, "started")
    closing = asyncio.create_task(pool.aclose(drain=60))
    await asyncio.to_thread(origin.open_gate, gate)
    assert (await handle).status_code == 200
    await asyncio.wait_for(closing, 30)


def test_closing_while_threads_wait_and_submit(make_pool: MakePool, origin: Origin) -> None:
    """Threads blocked in requests, and threads that keep sending, all come back with PoolClosed."""
    pool = make_pool(2)
    name = origin.fresh_id()
    ends: list[type[BaseException]] = []

    def hang() -> None:
        try:
            pool.get(f"{origin.strict_http}/hang?id={name}")
        except BaseException as error:
            ends.append(type(error))

    def send() -> None:
        try:
            while True:
                pool.get(origin.strict_http + "/count")
        except BaseException as error:
            ends.append(type(error))

    threads = [threading.Thread(target=target) for target in [hang] * 4 + [send] * 4]
    for thread in threads:
        thread.start()
    origin.journal(name, until="count>=4")
    pool.close()
    for thread in threads:
        thread.join(30)
    assert ends == [katipo.PoolClosed] * 8


def test_several_threads_may_close_at_once(make_pool: MakePool, origin: Origin) -> None:
    """Each close returns when the pool has ended."""
    pool = make_pool(2)
    name = origin.fresh_id()
    handle = pool.async_get(f"{origin.strict_http}/hang?id={name}")
    origin.journal(name, until="started")
    threads = [threading.Thread(target=pool.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    with pytest.raises(katipo.PoolClosed):
        handle.result(0)
    assert pool.statistics().workers == 0


def test_closing_ends_the_threads_and_the_connections(make_pool: MakePool, endpoint: Endpoint, origin: Origin) -> None:
    """When close returns, the workers' threads are gone."""
    before = thread_count()
    pool = make_pool(3)
    name = origin.fresh_id()
    for _ in range(3):
        pool.get(endpoint("/count", id=name), **endpoint.options)
    pool.close()
    assert thread_count() <= before
    assert pool.statistics().connections == 0


def test_closing_reaches_an_idle_server(make_pool: MakePool, hostile: Hostile) -> None:
    """A server with a kept connection sees it end."""
    pool = make_pool()
    server = hostile(serve(response(b"ok")))
    pool.get(server.url)
    pool.close()
    assert server.peer(0).wait_closed() == "eof"


def test_a_forgotten_pool_warns_and_stops(origin: Origin) -> None:
    """A pool dropped without close says so and ends its threads."""
    before = thread_count()
    pool = katipo.Pool(name="forgotten")
    pool.get(f"{origin.strict_http}/count")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del pool
        gc.collect()
    assert next(str(each.message) for each in caught if each.category is ResourceWarning).startswith("unclosed <Pool")
    wait_until(lambda: thread_count() <= before, message="the threads are still there")


def test_a_pool_never_used_may_be_forgotten() -> None:
    """There is nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        katipo.Pool()
        gc.collect()


def test_the_pool_lives_as_long_as_its_handles(origin: Origin) -> None:
    """A handle keeps its pool: the answer comes although the name is gone."""
    name, gate = origin.fresh_id(), origin.fresh_id()

    def send() -> katipo.Handle:
        return katipo.Pool().async_get(f"{origin.strict_http}/drip?id={name}&gate={gate}")

    handle = send()
    gc.collect()
    origin.journal(name, until="started")
    origin.open_gate(gate)
    assert handle.result(30).status_code == 200
    held = [handle]
    del handle
    with pytest.warns(ResourceWarning, match="unclosed"):
        held.clear()


EXIT = """
import sys, katipo
pool = katipo.Pool(2)
handles = [pool.async_get(sys.argv[1] + "/hang") for _ in range(10)]
upload = pool.async_post(sys.argv[1] + "/upload", stream_body=True)
upload.send_body(b"half")
stream = pool.async_get(sys.argv[1] + "/big?size=100000000", stream=True)
print(type(next(iter(stream))).__name__, flush=True)
"""


def test_the_interpreter_ends_with_requests_in_flight(origin: Origin) -> None:
    """A program that ends without closing exits with status 0, at once, and without a word."""
    ended = run_python(EXIT, args=[origin.strict_http])
    assert (ended.status, ended.stdout, ended.stderr) == (0, "Started\n", "")
