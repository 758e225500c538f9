"""Exchanges: the request's body and the response, both open, in lock step or freely."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

import katipo
from tests.support.hostile import wait_closed
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.hostile import Peer
    from tests.support.origin import Origin

HANG = 30.0
PIECE = 65536
BACKENDS = ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"]


def in_flight(client: Any) -> int:
    """How many requests the client's pool has in flight."""
    return int(client._session.pool.statistics().in_flight)


async def together(backend: object, *functions: Callable[[], Awaitable[None]]) -> None:
    """Run async functions beside each other."""
    if backend == "trio":
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)
    else:
        await asyncio.gather(*(function() for function in functions))


async def journal(backend: object, origin: Origin, name: str, until: str) -> Any:
    """The origin's journal, without blocking the loop."""
    if backend == "trio":
        return await trio.to_thread.run_sync(origin.journal, name, until)
    return await asyncio.to_thread(origin.journal, name, until)


# ---------------------------------------------------------------------------------------------------- both open


@pytest.mark.core
def test_lock_step(endpoint: Endpoint) -> None:
    """Each piece comes back before the next one is sent; the response is there long before the body has ended."""
    with (
        katipo.Client(**endpoint.client_options) as client,
        client.exchange("POST", endpoint("/echo")) as exchange,
    ):
        response = exchange.response()
        assert (response.status_code, response.http_version) == (200, endpoint.http_version)
        assert exchange.response() is response
        pieces = response.iter_bytes(100)
        for index in range(20):
            exchange.send(pattern(index * 100, 100))
            assert next(pieces) == pattern(index * 100, 100)
        exchange.finish()
        exchange.finish()
        assert list(pieces) == []
        assert response.metrics.bytes_sent >= 2000
        assert response.is_closed
        assert in_flight(client) == 0


@pytest.mark.core
@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_lock_step_in_an_event_loop(endpoint: Endpoint, anyio_backend: object) -> None:
    """The same in one task."""
    async with (
        katipo.AsyncClient(**endpoint.client_options) as client,
        client.exchange("POST", endpoint("/echo")) as exchange,
    ):
        response = await exchange.response()
        assert await exchange.response() is response
        pieces = response.aiter_bytes(100)
        for index in range(20):
            await exchange.send(pattern(index * 100, 100))
            assert await anext(pieces) == pattern(index * 100, 100)
        exchange.finish()
        assert [piece async for piece in pieces] == []
        assert in_flight(client) == 0


def test_a_thread_sends_while_another_reads(endpoint: Endpoint) -> None:
    """Freely, far beyond every window."""
    count = 160 if endpoint.version != "3" else 60
    with (
        katipo.Client(**endpoint.client_options) as client,
        client.exchange("POST", endpoint("/echo")) as exchange,
    ):

        def send() -> None:
            for index in range(count):
                exchange.send(pattern(index * PIECE, PIECE))
            exchange.finish()

        thread = threading.Thread(target=send)
        thread.start()
        at = 0
        for piece in exchange.response().iter_bytes():
            assert piece == pattern(at, len(piece))
            at += len(piece)
        thread.join(HANG)
    assert at == count * PIECE


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_a_task_sends_while_another_reads(endpoint: Endpoint, anyio_backend: object) -> None:
    """The same with tasks."""
    count = 160 if endpoint.version != "3" else 60
    at = 0
    async with (
        katipo.AsyncClient(**endpoint.client_options) as client,
        client.exchange("POST", endpoint("/echo")) as exchange,
    ):

        async def send() -> None:
            for index in range(count):
                await exchange.send(pattern(index * PIECE, PIECE))
            exchange.finish()

        async def read() -> None:
            nonlocal at
            async for piece in (await exchange.response()).aiter_bytes():
                assert piece == pattern(at, len(piece))
                at += len(piece)

        await together(anyio_backend, read, send)
    assert at == count * PIECE


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_many_exchanges_at_once(endpoint: Endpoint, anyio_backend: object) -> None:
    """Twenty of them on one client never cross."""
    answers: dict[int, bytes] = {}
    async with katipo.AsyncClient(**endpoint.client_options) as client:

        def one(number: int) -> Callable[[], Awaitable[None]]:
            async def run() -> None:
                async with client.exchange("POST", endpoint("/echo")) as exchange:
                    response = await exchange.response()
                    pieces = response.aiter_bytes(50)
                    got = []
                    for index in range(5):
                        await exchange.send(pattern(number + index, 50))
                        got.append(await anext(pieces))
                    exchange.finish()
                    got += [piece async for piece in pieces]
                    answers[number] = b"".join(got)

            return run

        await together(anyio_backend, *(one(number) for number in range(20)))
    assert answers == {n: b"".join(pattern(n + index, 50) for index in range(5)) for n in range(20)}


def test_an_exchange_is_a_request_like_others(endpoint: Endpoint) -> None:
    """The client's headers, cookies, params and hooks apply; cookies that are set are kept; the body is read to read()."""
    seen: list[str] = []
    client = katipo.Client(
        **endpoint.client_options,
        headers={"X-Mine": "yes"},
        cookies={"a": "1"},
        params={"p": "q"},
        event_hooks={
            "request": [lambda request: seen.append(f"> {request.method}")],
            "response": [lambda response: seen.append(f"< {response.status_code}")],
        },
    )
    with client, client.exchange("PUT", endpoint("/upload")) as exchange:
        exchange.send(b"some")
        exchange.send(b"")
        exchange.send(memoryview(b" bytes"))
        exchange.finish()
        answer = exchange.response()
        answer.read()
        said = answer.json()
        assert (said["method"], said["length"]) == ("PUT", 10)
        headers = {name.lower(): value for name, value in said["headers"]}
        assert (headers["x-mine"], headers["cookie"]) == ("yes", "a=1")
        assert answer.request.url.params == [("p", "q")]
    assert seen == ["> PUT", "< 200"]


def test_a_given_length_is_kept(endpoint: Endpoint, origin: Origin) -> None:
    """Beyond Content-Length a send is refused and nothing taken; finishing short of it fails the exchange."""
    name = origin.fresh_id()
    with katipo.Client(**endpoint.client_options) as client:
        with client.exchange("POST", endpoint("/upload"), headers={"Content-Length": "4"}) as exchange:
            exchange.send(b"so")
            with pytest.raises(katipo.LocalProtocolError):
                exchange.send(b"much")
            exchange.send(b"me")
            exchange.finish()
            exchange.response().read()
            assert exchange.response().json()["length"] == 4
        with client.exchange("POST", endpoint("/upload", id=name), headers={"Content-Length": "4"}) as exchange:
            exchange.send(b"so")
            exchange.finish()
            with pytest.raises(katipo.LocalProtocolError):
                exchange.response()
    assert origin.journal(name).bodies == 0


# ---------------------------------------------------------------------------------------------------- early answers


@pytest.mark.core
def test_an_early_answer_closes_the_way_up(endpoint: Endpoint) -> None:
    """A server that answers and stops reading: send says StreamClosed, the response has the answer."""
    with katipo.Client(**endpoint.client_options) as client:
        with client.exchange("POST", endpoint("/early-413", read=10)) as exchange:
            exchange.send(bytes(10))
            response = exchange.response()
            assert (response.status_code, response.read()) == (413, b"early")
            with pytest.raises(katipo.StreamClosed):
                for _ in range(1000):
                    exchange.send(bytes(PIECE))
            exchange.finish()
        assert in_flight(client) == 0


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_an_early_answer_wakes_who_sends(endpoint: Endpoint, anyio_backend: object) -> None:
    """A task that waits for room hears of the answer."""
    async with (
        katipo.AsyncClient(**endpoint.client_options) as client,
        client.exchange("POST", endpoint("/early-413", read=10)) as exchange,
    ):
        raised: list[katipo.Error] = []

        async def send() -> None:
            try:
                while True:
                    await exchange.send(bytes(PIECE))
            except katipo.Error as error:
                raised.append(error)

        async def read() -> None:
            assert await (await exchange.response()).aread() == b"early"

        await together(anyio_backend, send, read)
        assert [type(error) for error in raised] == [katipo.StreamClosed]
        assert in_flight(client) == 0


# ---------------------------------------------------------------------------------------------------- given up


@pytest.mark.core
@pytest.mark.parametrize("when", ["at once", "sent", "answered", "exception"])
def test_leaving_early_cuts_the_request_off(endpoint: Endpoint, origin: Origin, when: str) -> None:
    """The body does not look whole to the server, whatever was sent or read of it."""
    name = origin.fresh_id()
    with katipo.Client(**endpoint.client_options) as client:
        with (
            contextlib.suppress(LookupError),
            client.exchange("POST", endpoint("/echo", id=name)) as exchange,
        ):
            if when != "at once":
                exchange.send(b"some")
                origin.journal(name, until="received>=4")
            if when == "answered":
                assert next(exchange.response().iter_bytes()) == b"some"
            if when == "exception":
                raise LookupError
        assert in_flight(client) == 0
        with pytest.raises(katipo.Cancelled):
            exchange.send(b"more")
        assert client.get(endpoint("/count")).status_code == 200
        seen = origin.journal(name, until=None if when == "at once" else "disconnected")
        assert (seen.bodies, seen.finished) == (0, 0)


@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.parametrize("stage", ["response", "reading", "sending"])
async def test_a_cancelled_task_cuts_the_request_off(
    endpoint: Endpoint, origin: Origin, anyio_backend: object, stage: str
) -> None:
    """Wherever it waits; the slot is free at once."""
    name = origin.fresh_id()
    async with katipo.AsyncClient(**endpoint.client_options, timeout=None) as client:

        async def run() -> None:
            path = "/echo" if stage == "reading" else "/upload"
            gate = {"gate": name} if stage == "sending" else {}
            async with client.exchange("POST", endpoint(path, id=name, **gate)) as exchange:
                await exchange.send(b"some")
                if stage == "sending":
                    while True:
                        await exchange.send(bytes(PIECE))
                response = await exchange.response()
                await response.aread()

        if anyio_backend == "trio":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await journal(anyio_backend, origin, name, "started" if stage == "sending" else "received>=4")
                nursery.cancel_scope.cancel()
        else:
            task = asyncio.ensure_future(run())
            await journal(anyio_backend, origin, name, "started" if stage == "sending" else "received>=4")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert in_flight(client) == 0
        origin.open_gate(name, None)
        assert (await journal(anyio_backend, origin, name, "disconnected")).bodies == 0


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_waiting_for_the_response_can_be_given_up(endpoint: Endpoint, anyio_backend: object) -> None:
    """A cancelled response() loses nothing: the exchange goes on, and may be asked again."""
    async with (
        katipo.AsyncClient(**endpoint.client_options) as client,
        client.exchange("POST", endpoint("/upload")) as exchange,
    ):
        for _ in range(2):
            await exchange.send(b"some")
            if anyio_backend == "trio":
                with trio.move_on_after(0.02) as scope:
                    await exchange.response()
                assert scope.cancelled_caught
            else:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(exchange.response(), 0.02)
        exchange.finish()
        response = await exchange.response()
        await response.aread()
        assert response.json()["length"] == 8


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_one_task_at_a_time_waits_for_the_response(endpoint: Endpoint, anyio_backend: object) -> None:
    """Of several that ask at once one gets it, the others are told so; afterwards it is there for everybody."""
    async with (
        katipo.AsyncClient(**endpoint.client_options) as client,
        client.exchange("POST", endpoint("/upload")) as exchange,
    ):
        got: list[object] = []

        async def ask() -> None:
            try:
                got.append(await exchange.response())
            except katipo.StreamError as error:
                got.append(type(error))

        async def finish() -> None:
            await exchange.send(b"some")
            while got.count(katipo.StreamError) < 2:
                await (trio.lowlevel.checkpoint() if anyio_backend == "trio" else asyncio.sleep(0))
            exchange.finish()

        await together(anyio_backend, ask, ask, ask, finish)
        response = await exchange.response()
        assert got == [katipo.StreamError, katipo.StreamError, response]
        assert len(await response.aread()) > 10


def test_one_thread_at_a_time_waits_for_the_response(endpoint: Endpoint) -> None:
    """The same with threads: nobody hangs, and nothing is taken twice."""
    got: list[object] = []
    with (
        katipo.Client(**endpoint.client_options) as client,
        client.exchange("POST", endpoint("/upload")) as exchange,
    ):

        def ask() -> None:
            try:
                got.append(exchange.response())
            except katipo.StreamError as error:
                got.append(type(error))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(got) == 3)
        exchange.send(b"some")
        exchange.finish()
        for thread in threads:
            thread.join(HANG)
        response = exchange.response()
        assert got == [katipo.StreamError] * 3 + [response]
        assert len(response.read()) > 10


# ---------------------------------------------------------------------------------------------------- failing


def test_a_failed_exchange_says_why_wherever_it_is_asked(hostile: Hostile) -> None:
    """send and response raise the request's own error, each time."""
    with (
        katipo.Client() as client,
        client.exchange("POST", f"http://127.0.0.1:{hostile.refused_port()}/") as exchange,
    ):
        for _ in range(2):
            with pytest.raises(katipo.ConnectError):
                exchange.response()
        with pytest.raises(katipo.ConnectError):
            exchange.send(b"some")


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_a_failed_exchange_says_why_in_an_event_loop(hostile: Hostile, anyio_backend: object) -> None:
    """The same, and not StopAsyncIteration or a hang the second time."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.reset()

    async with katipo.AsyncClient() as client, client.exchange("POST", hostile(script).url) as exchange:
        for _ in range(2):
            with pytest.raises(katipo.NetworkError):
                await exchange.response()
        with pytest.raises(katipo.NetworkError):
            await exchange.send(b"some")


def test_a_silent_caller_does_not_run_out_of_time(endpoint: Endpoint, origin: Origin) -> None:
    """While nothing is sent, read and write clocks stand still; after finish() the server has its time to answer."""
    name = origin.fresh_id()
    timeout = katipo.Timeout(5, read=0.2, write=0.2)
    with katipo.Client(**endpoint.client_options, timeout=timeout) as client:
        with client.exchange("POST", endpoint("/upload", id=name)) as exchange:
            exchange.send(b"some")
            origin.journal(name, until="received>=4")
            assert client.get(endpoint("/drip", delay=0.6), timeout=None).status_code == 200
            exchange.finish()
            assert exchange.response().status_code == 200
        with client.exchange("POST", endpoint("/hang")) as exchange:
            exchange.finish()
            with pytest.raises(katipo.ReadTimeout):
                exchange.response()
        assert in_flight(client) == 0


def test_the_total_timeout_runs_whoever_is_slow(endpoint: Endpoint, origin: Origin) -> None:
    """The caller may send nothing: in the end it is TotalTimeout, in response() and in send()."""
    with (
        katipo.Client(**endpoint.client_options) as client,
        client.exchange("POST", endpoint("/upload"), timeout=katipo.Timeout(total=0.3)) as exchange,
    ):
        exchange.send(b"some")
        with pytest.raises(katipo.TotalTimeout):
            exchange.response()
        with pytest.raises(katipo.TotalTimeout):
            exchange.send(b"more")


def test_what_cannot_be_an_exchange_is_refused(origin: Origin) -> None:
    """Arguments for bodies and redirects are none of its own; a closed client has none."""
    with katipo.Client() as client:
        for name, value in (("content", b"x"), ("json", {}), ("follow_redirects", True)):
            options: Any = {name: value}
            with (
                pytest.raises(katipo.BadOptions, match=name),
                client.exchange("POST", origin.strict_http, **options),
            ):
                raise AssertionError("not refused")
    with pytest.raises(katipo.PoolClosed), client.exchange("POST", origin.strict_http):
        raise AssertionError("not refused")


def test_an_exchange_outlives_no_client(hostile: Hostile) -> None:
    """Closing the client fails what is in flight with PoolClosed."""
    server = hostile([wait_closed()])
    client = katipo.Client(timeout=None)
    with client.exchange("POST", server.url) as exchange:
        server.peer()
        threading.Thread(target=client.close).start()
        with pytest.raises(katipo.PoolClosed):
            exchange.response()
