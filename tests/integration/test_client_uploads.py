"""Bodies from iterables: whole, or visibly cut off; never far ahead of the server; and who sees what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
import trio

import katipo
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.conftest import Hostile
    from tests.support.clients import ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.hostile import Peer
    from tests.support.origin import Origin

HANG = 30.0
PIECE = 65536
SWALLOWED = 24 << 20
"""What is between the iterable and the server at most: the window, libcurl, the kernel's buffers, the front end."""
BACKENDS = ["asyncio", "trio"]
EVERY: list[Any] = [*BACKENDS, ("asyncio", {"use_uvloop": True})]


class Broken(Exception):
    """What the caller's iterables raise."""


class Source:
    """A body that knows how much of it was taken and whether it was closed; without `pieces` it never ends."""

    def __init__(self, pieces: int | None = None, *, fails: BaseException | None = None, size: int = PIECE) -> None:
        self.taken = 0
        self.closed = threading.Event()
        self._pieces, self._size, self._fails = pieces, size, fails

    def _next(self) -> bytes:
        self.taken += self._size
        return pattern(self.taken - self._size, self._size)

    def sync(self) -> Iterator[bytes]:
        try:
            while self._pieces is None or self.taken < self._pieces * self._size:
                yield self._next()
            if self._fails is not None:
                raise self._fails
        finally:
            self.closed.set()

    async def loop(self) -> AsyncIterator[bytes]:
        try:
            for piece in self.sync():
                yield piece
        finally:
            self.closed.set()


def in_flight(client: Any) -> int:
    """How many requests the client's pool has in flight."""
    return int(client._session.pool.statistics().in_flight)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------------------------------------------- whole


@pytest.mark.core
@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "iterator"])
def test_every_piece_arrives_in_order(clients: ClientMaker, endpoint: Endpoint, kind: str) -> None:
    """From whatever gives bytes; no length was known, so none is sent, and nothing else is added."""
    body = pattern(0, 200_000)
    pieces = [body[at : at + 7777] for at in range(0, len(body), 7777)]
    content: Any = pieces
    if kind != "list":
        content = (
            tuple(pieces) if kind == "tuple" else (each for each in pieces) if kind == "generator" else iter(pieces)
        )
    answer = clients(**endpoint.client_options).post(endpoint("/upload"), content=content).json()
    assert (answer["method"], answer["length"], answer["sha256"]) == ("POST", len(body), sha256(body))
    assert not {name.lower() for name, _ in answer["headers"]} & {"content-length", "content-type", "expect"}


def test_pieces_may_be_anything_with_bytes(clients: ClientMaker, endpoint: Endpoint) -> None:
    """bytearray and memoryview too; empty pieces are nothing, and a body may have none at all."""
    client = clients(**endpoint.client_options)
    content: Any = [b"", bytearray(b"one"), memoryview(b"two"), b"", b"three", b""]
    assert client.put(endpoint("/upload"), content=content).json()["sha256"] == sha256(b"onetwothree")
    assert client.put(endpoint("/upload"), content=iter(())).json()["length"] == 0
    assert client.put(endpoint("/upload"), content=[]).json()["length"] == 0


def test_a_length_that_the_caller_gives_is_sent(clients: ClientMaker, endpoint: Endpoint) -> None:
    """Content-Length as a header: the body is not chunked then."""
    answer = (
        clients(**endpoint.client_options)
        .post(endpoint("/upload"), content=iter([b"some ", b"bytes"]), headers={"Content-Length": "10"})
        .json()
    )
    headers = {name.lower(): value for name, value in answer["headers"]}
    assert (answer["length"], headers["content-length"]) == (10, "10")
    assert "transfer-encoding" not in headers


@pytest.mark.parametrize("pieces", [[b"short"], [b"far ", b"too ", b"long ", b"a ", b"body"]], ids=["short", "long"])
def test_a_length_that_is_not_kept_fails_the_request(
    clients: ClientMaker, endpoint: Endpoint, origin: Origin, pieces: list[bytes]
) -> None:
    """More or less than Content-Length is the caller's mistake, and no server is told that it was a whole body."""
    name = origin.fresh_id()
    client = clients(**endpoint.client_options)
    closed = threading.Event()

    def content() -> Iterator[bytes]:
        try:
            yield from pieces
        finally:
            closed.set()

    with pytest.raises(katipo.LocalProtocolError, match=r"[Cc]ontent-?[Ll]ength|length"):
        client.post(endpoint("/upload", id=name), content=content(), headers={"Content-Length": "10"})
    assert closed.is_set()
    assert in_flight(client.client) == 0
    assert client.get(endpoint("/count")).status_code == 200
    assert origin.journal(name).bodies == 0


@pytest.mark.parametrize("anyio_backend", EVERY)
async def test_an_async_iterable_arrives_whole(endpoint: Endpoint, anyio_backend: object) -> None:
    """A generator's pieces and an iterable's, larger than every window; the generator is closed by then."""
    source = Source(100)
    async with katipo.AsyncClient(**endpoint.client_options) as client:
        answer = (await client.post(endpoint("/upload"), content=source.loop())).json()
        assert (answer["length"], answer["sha256"]) == (100 * PIECE, sha256(pattern(0, 100 * PIECE)))
        assert source.closed.is_set()

        class Pieces:
            def __aiter__(self) -> AsyncIterator[bytes]:
                return Source(3).loop()

        for _ in range(2):
            assert (await client.post(endpoint("/upload"), content=Pieces())).json()["length"] == 3 * PIECE


async def test_an_async_iterator_without_aclose_is_enough(origin: Origin) -> None:
    """What only has __anext__ is a body too."""

    class Pieces:
        left = 3

        def __aiter__(self) -> Pieces:
            return self

        async def __anext__(self) -> bytes:
            await asyncio.sleep(0)
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return b"piece"

    async with katipo.AsyncClient() as client:
        assert (await client.post(origin.strict_http + "/upload", content=Pieces())).json()["length"] == 15


def test_a_blocking_client_takes_no_async_iterable(origin: Origin) -> None:
    """It says so before anything is sent."""
    content: Any = Source(1).loop()
    with katipo.Client() as client, pytest.raises(katipo.BadOptions, match="AsyncClient"):
        client.post(origin.strict_http + "/upload", content=content)


# ---------------------------------------------------------------------------------------------------- backpressure


@pytest.mark.parametrize("streamed", [False, True])
def test_a_slow_server_holds_the_iterable_back(endpoint: Endpoint, origin: Origin, streamed: bool) -> None:
    """While the server reads nothing, a bounded part of an endless body is taken; it is closed when the request ends."""
    gate = origin.fresh_id()
    source = Source()
    raised: list[BaseException] = []

    def post(client: katipo.Client) -> None:
        url = endpoint("/upload", gate=gate, id=gate)
        try:
            if streamed:
                with client.stream("POST", url, content=source.sync()):
                    pass
            else:
                client.post(url, content=source.sync())
        except katipo.Error as error:
            raised.append(error)

    with katipo.Client(**endpoint.client_options, timeout=None) as client:
        thread = threading.Thread(target=post, args=(client,))
        thread.start()
        taken: list[int] = []

        def settled() -> bool:
            taken.append(source.taken)
            return taken[-1] > 0 and len(taken) > 20 and len(set(taken[-20:])) == 1

        wait_until(settled)
        assert taken[-1] < SWALLOWED
    thread.join(HANG)
    assert [type(each) for each in raised] == [katipo.PoolClosed]
    assert source.closed.is_set()
    origin.open_gate(gate, None)
    assert origin.journal(gate, until="disconnected").bodies == 0


async def test_a_slow_server_holds_the_async_iterable_back(endpoint: Endpoint, origin: Origin) -> None:
    """The same in an event loop, where the task is cancelled in the end."""
    gate = origin.fresh_id()
    source = Source()
    async with katipo.AsyncClient(**endpoint.client_options, timeout=None) as client:
        task = asyncio.ensure_future(client.post(endpoint("/upload", gate=gate, id=gate), content=source.loop()))
        taken: list[int] = []
        while len(taken) < 20 or len(set(taken[-20:])) != 1 or not taken[-1]:
            await asyncio.sleep(0.01)  # between two looks: that nothing more is taken is seen by looking again
            taken.append(source.taken)
        assert taken[-1] < SWALLOWED
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert source.closed.is_set()
        assert in_flight(client) == 0
    origin.open_gate(gate, None)
    assert origin.journal(gate, until="disconnected").bodies == 0


# ---------------------------------------------------------------------------------------------------- exceptions


@pytest.mark.core
@pytest.mark.parametrize("pieces", [0, 1, 40])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_exception_of_the_iterable_is_what_the_caller_sees(
    clients: ClientMaker, endpoint: Endpoint, origin: Origin, pieces: int, streamed: bool
) -> None:
    """The very exception; the server sees the request cut off, never a whole body; the client goes on working."""
    name = origin.fresh_id()
    client = clients(**endpoint.client_options)
    error = Broken("the caller's own")
    source = Source(pieces, fails=error)
    content: Any = source.sync() if client.face == "sync" else source.loop()

    def post() -> None:
        if streamed:
            with client.stream("POST", endpoint("/upload", id=name), content=content):
                pass
        else:
            client.post(endpoint("/upload", id=name), content=content)

    with pytest.raises(Broken) as raised:
        post()
    assert raised.value is error
    assert source.closed.is_set()
    assert in_flight(client.client) == 0
    assert client.get(endpoint("/count")).status_code == 200
    seen = origin.journal(name, until="over" if origin.journal(name).count else None)
    assert (seen.bodies, seen.finished) == (0, 0)


@pytest.mark.parametrize("piece", ["text", 7, [b"nested"]])
def test_what_is_no_piece_is_a_type_error(clients: ClientMaker, origin: Origin, piece: object) -> None:
    """A str is not guessed to be UTF-8: TypeError says what was given, and the request is cut off."""
    name = origin.fresh_id()
    client = clients()
    content: Any = iter([b"good", piece])
    with pytest.raises(TypeError, match=f"not {type(piece).__name__}"):
        client.post(f"{origin.strict_http}/upload?id={name}", content=content)
    assert in_flight(client.client) == 0
    assert origin.journal(name).bodies == 0


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_an_exception_while_the_response_is_read(
    endpoint: Endpoint, origin: Origin, anyio_backend: object
) -> None:
    """An iterable that fails after the headers have come: who reads the response sees its exception, not Cancelled."""
    name = origin.fresh_id()
    error = Broken("late")
    go = asyncio.Event() if anyio_backend != "trio" else trio.Event()

    async def content() -> AsyncIterator[bytes]:
        yield b"first"
        await go.wait()
        raise error

    async with (
        katipo.AsyncClient(**endpoint.client_options) as client,
        client.stream("POST", endpoint("/echo", id=name), content=content()) as streamed,
    ):
        pieces = streamed.aiter_bytes()
        assert await anext(pieces) == b"first"
        go.set()
        with pytest.raises(Broken) as raised:
            await anext(pieces)
        assert raised.value is error
        assert in_flight(client) == 0
    assert origin.journal(name, until="disconnected").bodies == 0


def test_an_exception_while_the_response_is_read_by_a_thread(endpoint: Endpoint, origin: Origin) -> None:
    """The same where reading steps the upload."""
    name = origin.fresh_id()
    error = Broken("late")
    entered = threading.Event()

    def content() -> Iterator[bytes]:
        while not entered.is_set():
            yield b"piece"
        raise error

    with (
        katipo.Client(**endpoint.client_options) as client,
        client.stream("POST", endpoint("/echo", id=name), content=content()) as streamed,
    ):
        entered.set()
        with pytest.raises(Broken) as raised:
            streamed.read()
        assert raised.value is error
    assert origin.journal(name, until="disconnected").bodies == 0


@pytest.mark.parametrize("anyio_backend", EVERY)
async def test_an_exception_of_the_clean_up_is_seen(origin: Origin, anyio_backend: object) -> None:
    """A generator whose `finally` raises: it comes out of the call, and harms nothing else in the loop."""
    error = Broken("while cleaning up")

    async def content() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(PIECE)
        finally:
            raise error

    async with katipo.AsyncClient() as client:
        with pytest.raises(Broken) as raised:
            await client.post(origin.strict_http + "/early-413?read=1000", content=content())
        assert raised.value is error
        assert (await client.get(origin.strict_http + "/count")).status_code == 200


def test_an_exception_of_the_clean_up_is_seen_by_a_thread(origin: Origin) -> None:
    """The same of a blocking client."""
    error = Broken("while cleaning up")

    def content() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(PIECE)
        finally:
            raise error

    with katipo.Client() as client:
        with pytest.raises(Broken) as raised:
            client.post(origin.strict_http + "/early-413?read=1000", content=content())
        assert raised.value is error
        assert in_flight(client) == 0


@pytest.mark.parametrize("anyio_backend", EVERY)
async def test_an_exception_that_is_no_exception(origin: Origin, anyio_backend: object) -> None:
    """What derives from BaseException comes out of the call too, and does not tear the event loop down."""

    class Final(BaseException):
        pass

    error = Final("not an Exception")
    async with katipo.AsyncClient() as client:
        with pytest.raises(Final) as raised:
            await client.post(origin.strict_http + "/upload", content=Source(2, fails=error).loop())
        assert raised.value is error
        assert (await client.get(origin.strict_http + "/count")).status_code == 200


def test_a_body_whose_request_cannot_connect_is_closed(clients: ClientMaker, hostile: Hostile) -> None:
    """The error is the request's, and the iterable is not left open."""
    client = clients()
    source = Source()
    content: Any = source.sync() if client.face == "sync" else source.loop()
    with pytest.raises(katipo.ConnectError):
        client.post(f"http://127.0.0.1:{hostile.refused_port()}/", content=content)
    assert source.closed.is_set() or not source.taken


# ---------------------------------------------------------------------------------------------------- early answers


@pytest.mark.core
@pytest.mark.parametrize("status", [413, 401, 200])
def test_an_early_answer_ends_an_endless_body(
    clients: ClientMaker, endpoint: Endpoint, origin: Origin, status: int
) -> None:
    """A server that answers and stops reading: the answer is there, the iterable closed, the client works."""
    name = origin.fresh_id()
    client = clients(**endpoint.client_options)
    source = Source()
    content: Any = source.sync() if client.face == "sync" else source.loop()
    answer = client.post(endpoint(f"/early-{status}", read=PIECE, id=name), content=content)
    assert (answer.status_code, answer.content) == (status, b"early")
    assert source.closed.is_set()
    assert in_flight(client.client) == 0
    assert origin.journal(name).bodies == 0
    assert client.get(endpoint("/count")).status_code == 200


def test_an_early_answer_is_streamed(clients: ClientMaker, endpoint: Endpoint) -> None:
    """The same where the response is streamed: reading it to its end needs no more of the body."""
    client = clients(**endpoint.client_options)
    source = Source()
    content: Any = source.sync() if client.face == "sync" else source.loop()
    with client.stream("POST", endpoint("/early-413", read=PIECE), content=content) as streamed:
        assert streamed.response.status_code == 413
        assert streamed.read() == b"early"
    assert source.closed.is_set()
    assert in_flight(client.client) == 0


def test_no_piece_is_asked_for_when_the_answer_is_there(hostile: Hostile) -> None:
    """An iterable that would wait for more is not asked again once the request has ended."""
    answered = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.read_chunk()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly")
        peer.close()

    with katipo.Client() as client:

        def content() -> Iterator[bytes]:
            yield b"first"
            wait_until(lambda: in_flight(client) == 0)
            answered.set()
            yield b"second"
            raise AssertionError("nobody wants a third piece")

        assert client.post(hostile(script).url, content=content()).content == b"early"
    assert answered.is_set()


# ---------------------------------------------------------------------------------------------------- cancelled


@pytest.mark.core
@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.parametrize("stage", ["waiting for a piece", "waiting for room", "swallowing", "waiting for the answer"])
async def test_a_cancelled_task_cancels_everything(
    endpoint: Endpoint, origin: Origin, anyio_backend: object, stage: str
) -> None:
    """Wherever the upload is: the server sees it cut off, the generator is closed, the slot is free; and a generator that
    swallows its own cancellation cannot make the body look whole."""
    name = origin.fresh_id()
    closed = threading.Event()

    async def forever() -> None:
        await anyio.sleep_forever()

    async def content() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            if stage == "waiting for a piece":
                await forever()
            elif stage == "waiting for room":
                while True:
                    yield bytes(PIECE)
            elif stage == "swallowing":
                with contextlib.suppress(asyncio.CancelledError, trio.Cancelled):
                    await forever()
        finally:
            closed.set()

    client = katipo.AsyncClient(**endpoint.client_options, timeout=None)
    gate = {"gate": name, "first": 5}
    url = endpoint("/hang", id=name) if stage == "waiting for the answer" else endpoint("/upload", id=name, **gate)

    async def post() -> None:
        await client.post(url, content=content())
        raise AssertionError("it was to be cancelled")

    until = "body" if stage == "waiting for the answer" else "received>=5"
    if anyio_backend == "trio":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post)
            await trio.to_thread.run_sync(origin.journal, name, until)
            nursery.cancel_scope.cancel()
    else:
        task = asyncio.ensure_future(post())
        await asyncio.to_thread(origin.journal, name, until)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert closed.is_set()
    assert in_flight(client) == 0
    origin.open_gate(name, None)
    seen = await anyio.to_thread.run_sync(origin.journal, name, "disconnected")
    assert (seen.bodies, seen.finished) == (1 if stage == "waiting for the answer" else 0, 0)
    assert (await client.get(endpoint("/count"))).status_code == 200
    await client.aclose()


# ---------------------------------------------------------------------------------------------------- both directions


@pytest.mark.core
def test_an_echo_larger_than_all_windows(clients: ClientMaker, endpoint: Endpoint) -> None:
    """The upload goes on while the response is read: neither waits for the other."""
    client = clients(**endpoint.client_options)
    pieces = 100 if endpoint.version != "3" else 40
    source = Source(pieces)
    content: Any = source.sync() if client.face == "sync" else source.loop()
    at = 0
    with client.stream("POST", endpoint("/echo"), content=content) as streamed:
        for piece in streamed.pieces():
            assert piece == pattern(at, len(piece))
            at += len(piece)
    assert at == pieces * PIECE
    assert source.closed.is_set()


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_an_iterable_that_waits_for_the_response(endpoint: Endpoint, anyio_backend: object) -> None:
    """A piece that is made of what the response has said so far."""
    heard: list[bytes] = []
    news: Any = asyncio.Event() if anyio_backend != "trio" else trio.Event()

    async def content() -> AsyncIterator[bytes]:
        yield b"ping"
        await news.wait()
        yield heard[0] + b" pong"

    async with (
        katipo.AsyncClient(**endpoint.client_options) as client,
        client.stream("POST", endpoint("/echo"), content=content()) as streamed,
    ):
        pieces = streamed.aiter_bytes()
        heard.append(await anext(pieces))
        news.set()
        assert b"".join([piece async for piece in pieces]) == b"ping pong"


def test_a_download_is_the_body_of_an_upload(clients: ClientMaker, endpoint: Endpoint) -> None:
    """What one request streams down, another one streams up, on the same client."""
    client = clients(**endpoint.client_options)
    size = 3 << 20
    with client.stream("GET", endpoint("/big", size=size)) as streamed:
        answer: Any = streamed.response
        content = answer.iter_bytes() if client.face == "sync" else answer.aiter_bytes()
        received = client.post(endpoint("/upload"), content=content).json()
    assert (received["length"], received["sha256"]) == (size, sha256(pattern(0, size)))


def test_leaving_early_ends_the_upload_too(clients: ClientMaker, endpoint: Endpoint, origin: Origin) -> None:
    """A streamed response that is left while its body goes up: the server sees it cut off, the iterable is closed."""
    name = origin.fresh_id()
    client = clients(**endpoint.client_options)
    source = Source()
    content: Any = source.sync() if client.face == "sync" else source.loop()
    with client.stream("POST", endpoint("/echo", id=name), content=content) as streamed:
        assert next(streamed.pieces())
    assert source.closed.is_set()
    assert in_flight(client.client) == 0
    assert origin.journal(name, until="disconnected").bodies == 0


def test_sixteen_uploads_from_threads_never_cross(endpoint: Endpoint) -> None:
    """Each has its own body, whole."""
    results: dict[int, tuple[int, str]] = {}

    def post(client: katipo.Client, number: int) -> None:
        body = pattern(number, 100_000 + number)
        pieces = (body[at : at + 3000] for at in range(0, len(body), 3000))
        answer = client.post(endpoint("/upload"), content=pieces).json()
        results[number] = (answer["length"], answer["sha256"])

    with katipo.Client(**endpoint.client_options) as client:
        threads = [threading.Thread(target=post, args=(client, number)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
    assert results == {n: (100_000 + n, sha256(pattern(n, 100_000 + n))) for n in range(16)}
