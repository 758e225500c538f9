"""Clients under cancelled tasks, several event loops and many threads: every slot comes back, and nothing is poisoned."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio
import uvloop

import katipo
from tests.support.hostile import read_head, wait_closed
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0
BACKENDS = ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"]


def statistics(client: Any) -> Any:
    """Those of the client's pool."""
    return client._session.pool.statistics()


async def cancelled(backend: object, run: Callable[[], Any], reached: Callable[[], object]) -> None:
    """Start `run` in a task, and cancel it when `reached` has returned, in a thread."""
    if backend == "trio":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.to_thread.run_sync(reached)
            nursery.cancel_scope.cancel()
        return
    task = asyncio.ensure_future(run())
    await asyncio.to_thread(reached)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.core
@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.parametrize("stage", ["turn", "connect", "answer", "body", "stream", "hook", "redirect", "informational"])
async def test_a_cancelled_task_gives_its_slot_back(
    origin: Origin, hostile: Hostile, anyio_backend: object, stage: str
) -> None:
    """Whatever the request was doing: nothing is in flight any more, the server sees it, and the client goes on."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    base = origin.strict_http
    hooked = threading.Event()

    async def hook(*_: object) -> None:
        hooked.set()
        await anyio.sleep_forever()

    hooks: Any = {"response": [hook]} if stage == "hook" else {"informational": [hook]}
    client = katipo.AsyncClient(
        timeout=None,
        limits=katipo.Limits(max_connections=2 if stage != "turn" else 1),
        event_hooks=hooks if stage in ("hook", "informational") else None,
        follow_redirects=True,
    )
    hole = hostile.black_hole().url
    urls = {
        "turn": f"{base}/count?id={name}",
        "connect": hole,
        "answer": f"{base}/hang?id={name}",
        "body": f"{base}/hang?stage=body&id={name}",
        "stream": f"{base}/hang?stage=body&id={name}",
        "hook": f"{base}/big?size=100000000&id={name}",
        "redirect": f"{base}/redirect/302?to=/hang?id={name}",
        "informational": f"{base}/interim?id={name}",
    }

    async def run() -> None:
        if stage in ("stream", "hook"):
            async with client.stream("GET", urls[stage]) as response:
                async for _ in response.aiter_bytes():
                    pass
        else:
            await client.get(urls[stage])
        raise AssertionError("it was to be cancelled")

    def reached() -> None:
        if stage == "turn":
            wait_until(lambda: statistics(client).queued == 1)
        elif stage == "connect":
            wait_until(lambda: statistics(client).in_flight == 1)
        elif stage in ("hook", "informational"):
            assert hooked.wait(HANG)
        else:
            origin.journal(name, until="started" if stage in ("answer", "redirect") else "sent>=1")

    if stage == "turn":
        async with client.stream("GET", f"{base}/drip?gate={gate}") as busy:
            await cancelled(anyio_backend, run, reached)
            assert statistics(client).in_flight == 1
            wait_until(lambda: statistics(client).queued == 0)  # the worker's own count
            origin.open_gate(gate)
            assert await busy.aread() == pattern(0, 1)
    else:
        await cancelled(anyio_backend, run, reached)
    assert statistics(client).in_flight == 0
    client.event_hooks = {}
    for _ in range(3):  # more than there are connections
        assert (await client.get(base + "/count")).status_code == 200
    if stage == "turn":
        assert origin.journal(name).count == 0
    elif stage in ("answer", "body", "stream", "redirect", "hook"):
        origin.journal(name, until="disconnected")
    await client.aclose()


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_a_storm_of_cancelled_tasks(endpoint: Endpoint, anyio_backend: object) -> None:
    """Hundreds of requests of which every other one is cancelled somewhere: the others are answered, each its own."""
    answers: dict[int, bytes] = {}
    async with katipo.AsyncClient(**endpoint.client_options) as client:

        async def one(number: int) -> None:
            async def content() -> AsyncIterator[bytes]:
                yield pattern(number, 300)
                await anyio.lowlevel.checkpoint()
                yield pattern(number + 300, 300)

            if not number % 2 and endpoint.version == "3":
                # libcurl 8.23 fails the whole connection when a stream goes whose body is still queued: see
                # docs/internals/libcurl.md.
                await client.get(endpoint("/drip", delay=0.01))
                return
            body: Any = pattern(number, 600) if number % 3 else content()
            answers[number] = (await client.post(endpoint("/echo"), content=body)).content

        if anyio_backend == "trio":
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    if number % 2:
                        nursery.start_soon(one, number)
                    else:
                        with trio.move_on_after(number * 0.0002):
                            await one(number)
        else:
            tasks = [asyncio.ensure_future(one(number)) for number in range(100)]
            for number in range(0, 100, 2):
                asyncio.get_running_loop().call_later(number * 0.0002, tasks[number].cancel)
            await asyncio.gather(*tasks, return_exceptions=True)
        assert statistics(client).in_flight == 0
        assert set(range(1, 100, 2)) <= set(answers)
        assert all(body == pattern(number, 600) for number, body in answers.items())


def test_one_async_client_in_several_loops_at_once(endpoint: Endpoint) -> None:
    """Loops of asyncio, uvloop and trio, each in a thread of its own: requests, streams, uploads, and cancelled ones."""
    client = katipo.AsyncClient(**endpoint.client_options)

    async def use(number: int) -> int:
        done = 0
        for index in range(5):
            body = pattern(number + index, 1000)

            async def content(body: bytes = body) -> AsyncIterator[bytes]:
                yield body[:500]
                yield body[500:]

            assert (await client.post(endpoint("/echo"), content=content())).content == body
            async with client.stream("GET", endpoint("/big", size=200_000)) as response:
                assert len(await response.aread()) == 200_000
            assert (await client.get(endpoint("/count"))).status_code == 200
            done += 3
        return done

    with ThreadPoolExecutor(4) as threads:
        running = [
            threads.submit(asyncio.run, use(1)),
            threads.submit(asyncio.run, use(2)),
            threads.submit(uvloop.run, use(3)),
            threads.submit(trio.run, use, 4),
        ]
        assert [each.result(HANG) for each in running] == [15] * 4
    assert statistics(client).in_flight == 0
    asyncio.run(client.aclose())


def test_a_loop_that_ends_in_the_middle_harms_no_other(hostile: Hostile, origin: Origin) -> None:
    """asyncio.run cancels what its loop still has; the client is used by the next loop."""
    client = katipo.AsyncClient(timeout=None)
    server = hostile([read_head(), wait_closed()])

    async def leave() -> None:
        task = asyncio.ensure_future(client.get(server.url))
        await asyncio.to_thread(
            lambda: server.peer().wait_received(b"\r\n\r\n")
        )  # or it sends nothing that the script reads
        assert not task.done()

    asyncio.run(leave())
    assert statistics(client).in_flight == 0
    assert server.peer().wait_closed() in ("eof", "reset")

    async def again() -> int:
        async with client:
            return (await client.get(origin.strict_http + "/count")).status_code

    assert asyncio.run(again()) == 200


def test_one_client_in_many_threads(endpoint: Endpoint) -> None:
    """Sixteen threads that do everything at once have each its own answers, and the cookies of all."""
    with katipo.Client(**endpoint.client_options) as client, ThreadPoolExecutor(16) as threads:

        def use(number: int) -> bool:
            body = pattern(number, 2000 + number)
            assert client.post(endpoint("/echo"), content=body).content == body
            pieces = (body[at : at + 100] for at in range(0, len(body), 100))
            with client.stream("POST", endpoint("/echo"), content=pieces) as response:
                assert b"".join(response.iter_bytes(33)) == body
            client.get(endpoint("/cookies/set", **{f"c{number}": number}))
            return bool(client.get(endpoint("/cookies")).json()["cookies"][f"c{number}"] == str(number))

        assert all(threads.map(use, range(48)))
        assert statistics(client).in_flight == 0
        assert len(client.get(endpoint("/cookies")).json()["cookies"]) == 48


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_a_stream_that_is_dropped_is_cancelled(origin: Origin, anyio_backend: object) -> None:
    """An exception between two pieces, in a task that nobody waits for: the block ends the transfer."""
    name = origin.fresh_id()
    async with katipo.AsyncClient() as client:

        async def run() -> None:
            async with client.stream("GET", f"{origin.strict_http}/big?size=1000000000&id={name}") as response:
                async for _ in response.aiter_bytes():
                    raise LookupError

        with pytest.raises(LookupError):
            await run()
        assert statistics(client).in_flight == 0
        origin.journal(name, until="disconnected")
