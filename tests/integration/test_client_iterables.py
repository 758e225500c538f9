"""Bodies from iterables that go wrong while they are sent, and the clients' answers to that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import katipo
from tests.support.hostile import read_head, response, send, wait_closed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.conftest import Hostile
    from tests.support.origin import Origin

BACKENDS = ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"]
LARGE = b"x" * 3_000_000


class Broken(Exception):
    """What iterables raise here."""


async def _raising(error: type[BaseException]) -> AsyncIterator[bytes]:
    yield b"a piece"
    raise error


@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.parametrize("error", [Broken, SystemExit, asyncio.CancelledError])
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
async def test_whatever_an_async_iterable_raises_is_what_the_caller_gets(
    anyio_backend: Any, origin: Origin, error: type[BaseException], stream: bool
) -> None:
    """And the event loop goes on: a foreign cancellation in trio, too."""
    url = origin.strict_http + "/upload"
    async with katipo.AsyncClient(trust_env=False) as client:

        async def send() -> None:
            if not stream:
                await client.post(url, content=_raising(error))
                return
            async with client.stream("POST", url, content=_raising(error)):
                pass

        with pytest.raises(error):
            await send()
        assert (await client.get(origin.strict_http + "/headers")).is_success


async def _fails_to_close() -> AsyncIterator[bytes]:
    try:
        while True:
            yield LARGE
    finally:
        raise Broken


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_an_async_iterable_that_fails_to_close_is_heard_of(anyio_backend: Any, hostile: Hostile) -> None:
    """It is closed when the response is left, while a piece waits for room: as in a blocking client, the block raises."""
    server = hostile([read_head(), send(response(b"")), wait_closed()])
    server.ignore_errors()
    async with katipo.AsyncClient(trust_env=False) as client:
        with pytest.raises(Broken):
            async with client.stream("POST", server.url, content=_fails_to_close()):
                await anyio.wait_all_tasks_blocked()
        assert not client.is_closed


def test_an_iterable_that_fails_to_close_is_heard_of(hostile: Hostile) -> None:
    """The blocking client's side of it."""

    def pieces() -> Iterator[bytes]:
        try:
            while True:
                yield LARGE
        finally:
            raise Broken

    server = hostile([read_head(), send(response(b"")), wait_closed()])
    server.ignore_errors()
    with (
        katipo.Client(trust_env=False) as client,
        pytest.raises(Broken),
        client.stream("POST", server.url, content=pieces()),
    ):
        pass
