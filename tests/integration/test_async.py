"""Waiting for many requests at once, from event loops and threads: answers never cross, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

import katipo
from katipo.messages import Chunk
from tests.support.pattern import pattern
from tests.support.procs import open_descriptors
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0
BACKENDS = ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"]


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(HANG)
    assert not any(thread.is_alive() for thread in threads)


# ---------------------------------------------------------------------------------------------------- many at once


@pytest.mark.core
def test_many_requests_in_flight_never_cross(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Three hundred requests with different paths, bodies and references have each its own answer."""
    handles = [
        pool.async_post(
            endpoint("/echo", n=index), body=pattern(index, 1000 + index), ref=f"ref {index}", **endpoint.options
        )
        for index in range(300)
    ]
    for index, handle in enumerate(handles):
        response = handle.result(HANG)
        assert response.content == pattern(index, 1000 + index)
        assert response.url == endpoint("/echo", n=index)
        assert response.request.url == endpoint("/echo", n=index)
        assert handle.ref == f"ref {index}"


def test_references_are_unique_when_none_is_given(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A request without `ref` has an int of its own, before any message."""
    handles = [pool.async_get(endpoint("/count"), **endpoint.options) for _ in range(20)]
    assert len({handle.ref for handle in handles}) == 20
    assert all(isinstance(handle.ref, int) for handle in handles)
    for handle in handles:
        handle.result(HANG)


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_many_awaits_never_cross(pool: katipo.Pool, endpoint: Endpoint, anyio_backend: object) -> None:
    """A hundred tasks await a request each, in every event loop, and each has its own answer."""
    answers: dict[int, bytes] = {}

    async def one(index: int) -> None:
        response = await pool.async_post(endpoint("/echo"), body=pattern(index, 500), **endpoint.options)
        answers[index] = response.content

    if anyio_backend == "trio":
        async with trio.open_nursery() as nursery:
            for index in range(100):
                nursery.start_soon(one, index)
    else:
        await asyncio.gather(*(one(index) for index in range(100)))
    assert answers == {index: pattern(index, 500) for index in range(100)}


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_a_handle_can_be_awaited_again_and_by_several(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, anyio_backend: object
) -> None:
    """Everybody who waits for a request gets the same response, also when it has long been there."""
    gate = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options)
    seen: list[katipo.Response] = []

    async def one() -> None:
        seen.append(await handle)

    async def opener() -> None:
        origin.open_gate(gate)

    if anyio_backend == "trio":
        async with trio.open_nursery() as nursery:
            for function in (one, one, one, opener):
                nursery.start_soon(function)
    else:
        await asyncio.gather(one(), one(), one(), opener())
    await one()
    assert len(seen) == 4
    assert all(response is seen[0] for response in seen)
    assert handle.result() is seen[0]


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_an_await_raises_the_error_of_the_request(
    pool: katipo.Pool, hostile: Hostile, anyio_backend: object
) -> None:
    """A failed request raises its error each time that it is awaited, a new one each time."""
    handle = pool.async_get(f"http://127.0.0.1:{hostile.refused_port()}/")
    with pytest.raises(katipo.ConnectError) as first:
        await handle
    with pytest.raises(katipo.ConnectError) as second:
        await handle
    assert first.value is not second.value
    assert first.value.code == second.value.code == "couldnt_connect"


# ---------------------------------------------------------------------------------------------------- asyncio's own


async def test_gather_takes_handles_as_they_are(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """asyncio.gather keeps the order."""
    handles = [pool.async_get(endpoint("/drip", n=index), **endpoint.options) for index in range(1, 20)]
    responses = await asyncio.gather(*handles)
    assert [len(response.content) for response in responses] == list(range(1, 20))


async def test_as_completed_takes_handles_as_they_are(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """asyncio.as_completed yields what is first, first."""
    gate = origin.fresh_id()
    late = pool.async_get(endpoint("/drip", n=2, gate=gate), **endpoint.options)
    early = pool.async_get(endpoint("/drip", n=1), **endpoint.options)
    sizes: list[int] = []
    for first in asyncio.as_completed([late, early]):
        sizes.append(len((await first).content))
        origin.open_gate(gate, None)
    assert sizes == [1, 2]


async def test_wait_for_cancels_the_wait_alone(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """A wait_for that runs out of time leaves the request in flight."""
    gate = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(handle, 0.05)
    assert not handle.done()
    origin.open_gate(gate)
    assert (await asyncio.wait_for(handle, HANG)).content == pattern(0, 1)


async def test_shield_keeps_the_inner_wait(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """A shielded handle may be awaited by a task that is cancelled, and again by another."""
    gate = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options)

    async def shielded() -> katipo.Response:
        return await asyncio.shield(handle)

    task = asyncio.ensure_future(shielded())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    origin.open_gate(gate)
    assert (await handle).content == pattern(0, 1)


async def test_a_handle_is_no_coroutine_but_awaitable(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A handle that nobody awaits warns of nothing."""
    handle = pool.async_get(endpoint("/count"), **endpoint.options)
    assert not asyncio.iscoroutine(handle)
    wait_until(handle.done)
    del handle
    gc.collect()


async def test_trio_style_cancellation_leaves_the_loop_usable(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """Hundreds of awaits that are cancelled leave nothing behind: the next one is woken as ever."""
    gate = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options)

    async def waiting() -> None:
        await handle

    tasks = [asyncio.ensure_future(waiting()) for _ in range(300)]
    await asyncio.sleep(0)
    for task in tasks[:-1]:
        task.cancel()
    origin.open_gate(gate)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 299
    assert results[-1] is None


def test_a_trio_scope_cancels_the_wait_alone(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """move_on_after ends the await, and the request goes on."""
    gate = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options)

    async def main() -> None:
        with trio.move_on_after(0.05) as scope:
            await handle
        assert scope.cancelled_caught
        origin.open_gate(gate)
        assert (await handle).content == pattern(0, 1)

    trio.run(main)


# ---------------------------------------------------------------------------------------------------- loops and threads


@pytest.mark.core
def test_several_loops_and_threads_use_one_pool(make_pool: Callable[..., katipo.Pool], endpoint: Endpoint) -> None:
    """asyncio, trio and blocking callers in their threads share a pool of two workers: no answer goes astray."""
    pool = make_pool(workers=2)
    wrong: list[object] = []

    def check(index: int, response: katipo.Response) -> None:
        if response.content != pattern(index, 300):
            wrong.append(index)

    def ask(index: int) -> katipo.Handle:
        return pool.async_post(endpoint("/echo"), body=pattern(index, 300), **endpoint.options)

    async def one(index: int) -> None:
        check(index, await ask(index))

    async def in_asyncio(base: int) -> None:
        await asyncio.gather(*(one(base + index) for index in range(40)))

    async def in_trio(base: int) -> None:
        async with trio.open_nursery() as nursery:
            for index in range(40):
                nursery.start_soon(one, base + index)

    def run(target: Callable[[], object]) -> None:
        try:
            target()
        except BaseException as error:
            wrong.append(error)

    def blocking(base: int) -> None:
        for index in range(40):
            check(base + index, ask(base + index).result(HANG))

    targets: list[Callable[[], object]] = [
        lambda: asyncio.run(in_asyncio(100)),
        lambda: asyncio.run(in_asyncio(200)),
        lambda: trio.run(in_trio, 300),
        lambda: blocking(400),
        lambda: blocking(500),
    ]
    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    join(threads)
    assert wrong == []


@pytest.mark.core
def test_result_from_a_thread_while_the_submitting_loop_is_blocked(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Nobody needs the loop in which a request was made."""
    answered = threading.Event()
    contents: list[bytes] = []

    async def main() -> None:
        handle = pool.async_get(endpoint("/drip", n=5), **endpoint.options)

        def waiter() -> None:
            contents.append(handle.result(HANG).content)
            answered.set()

        thread = threading.Thread(target=waiter)
        thread.start()
        assert answered.wait(HANG)  # the loop stands still
        thread.join()
        contents.append((await handle).content)

    asyncio.run(main())
    assert contents == [pattern(0, 5)] * 2


@pytest.mark.core
@pytest.mark.parametrize("waited", [False, True])
def test_a_handle_is_awaited_in_another_loop_after_its_own_has_closed(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, waited: bool
) -> None:
    """Loop A submits, perhaps waits a while, and closes; loop B gets the answer."""
    gate = origin.fresh_id()

    async def submit() -> katipo.Handle:
        handle = pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options)
        if waited:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(handle, 0.02)
        return handle

    async def answer(handle: katipo.Handle) -> bytes:
        origin.open_gate(gate)
        return (await handle).content

    handle = asyncio.run(submit())
    assert asyncio.run(answer(handle)) == pattern(0, 1)


def test_a_loop_that_closes_while_somebody_waits_in_it_disturbs_nobody(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """A task left waiting in a closed loop is not woken, and the others are."""
    gate = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options)
    loop = asyncio.new_event_loop()

    async def waiting() -> None:
        await handle

    coroutine = waiting()
    task = loop.create_task(coroutine)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    origin.open_gate(gate)
    assert handle.result(HANG).content == pattern(0, 1)

    async def again() -> bytes:
        return (await handle).content

    assert asyncio.run(again()) == pattern(0, 1)
    coroutine.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be left pending


def test_done_turns_true_with_nobody_waiting(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """done() needs no result(), no loop and no mailbox, for a stream too."""
    gate = origin.fresh_id()
    buffered = pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options)
    streamed = pool.async_get(endpoint("/drip", n=1, gate=gate), stream=True, **endpoint.options)
    assert not buffered.done()
    assert not streamed.done()
    origin.open_gate(gate, None)
    wait_until(lambda: buffered.done() and streamed.done())
    assert buffered.result(0).content == pattern(0, 1)
    assert b"".join(message.data for message in streamed if isinstance(message, Chunk)) == pattern(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("loops", ["asyncio", "uvloop", "trio"])
def test_a_thousand_event_loops_leave_no_descriptor(pool: katipo.Pool, origin: Origin, loops: str) -> None:
    """What a loop waits with goes with the loop, whether it was closed in order or with waits cut off."""
    url = f"{origin.strict_http}/count"

    async def one() -> int:
        return (await pool.async_get(url)).status_code

    def run() -> int:
        if loops == "trio":
            return trio.run(one)
        if loops == "uvloop":
            import uvloop

            loop = uvloop.new_event_loop()
            try:
                return loop.run_until_complete(one())
            finally:
                loop.close()
        return asyncio.run(one())

    assert run() == 200
    gc.collect()
    before = len(open_descriptors())
    for _ in range(1000):
        assert run() == 200
    gc.collect()
    assert len(open_descriptors()) <= before + 2


def test_threads_that_waited_leave_no_descriptor(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """What a thread waits with goes with the thread."""

    def one() -> None:
        pool.get(endpoint("/count"), **endpoint.options)

    one()
    before = len(open_descriptors())
    for _ in range(20):
        threads = [threading.Thread(target=one) for _ in range(10)]
        for thread in threads:
            thread.start()
        join(threads)
    gc.collect()
    # Connections that the concurrency opened stay, idle.
    assert len(open_descriptors()) <= before + pool.statistics().connections


async def test_closing_a_pool_wakes_everybody(
    make_pool: Callable[..., katipo.Pool], endpoint: Endpoint, origin: Origin
) -> None:
    """aclose() fails what is in flight once, with PoolClosed, for threads and tasks alike, and is idempotent."""
    pool = make_pool()
    names = [origin.fresh_id() for _ in range(2)]
    handles = [pool.async_get(endpoint("/hang", id=name), **endpoint.options) for name in names]
    raised: list[type] = []

    def waiter() -> None:
        with pytest.raises(katipo.PoolClosed):
            handles[0].result(HANG)
        raised.append(katipo.PoolClosed)

    thread = threading.Thread(target=waiter)
    thread.start()

    async def awaiting() -> Any:
        return await handles[1]

    task = asyncio.ensure_future(awaiting())
    await asyncio.sleep(0)
    await pool.aclose()
    with pytest.raises(katipo.PoolClosed):
        await task
    thread.join(HANG)
    assert raised == [katipo.PoolClosed]
    with pytest.raises(katipo.PoolClosed):
        pool.async_get(endpoint("/count"), **endpoint.options)
    await pool.aclose()
    pool.close()


def test_draining_lets_what_is_in_flight_finish(
    make_pool: Callable[..., katipo.Pool], endpoint: Endpoint, origin: Origin
) -> None:
    """close(drain=...) refuses what is new, waits for the rest, and returns when that is done."""
    pool = make_pool()
    name = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=3, delay=0.1, id=name), **endpoint.options)
    origin.journal(name, until="started")
    pool.close(drain=HANG)
    assert handle.result(0).content == pattern(0, 3)
    assert pool.statistics().workers == 0
