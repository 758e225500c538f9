"""Informational (1xx) responses: as they come, before the final one, for who asked; bounded while nobody takes them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import katipo
from katipo.messages import Chunk, Done, Informational, Message, Started
from tests.support.hostile import Peer, read_request, reset, response, send, wait_closed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.clients import ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin


def hints(messages: list[Message]) -> list[tuple[int, str]]:
    return [
        (message.status_code, message.headers.get("link", ""))
        for message in messages
        if isinstance(message, Informational)
    ]


WANTED = [(103, f"</style-{index}.css>; rel=preload") for index in range(3)]


@pytest.mark.core
def test_they_come_in_order_before_the_start(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Three 103s, each with its own headers, then the response as ever."""
    handle = pool.async_get(endpoint("/interim", n=3), stream=True, informational=True, ref="mine", **endpoint.options)
    messages: list[Message] = list(handle)
    assert hints(messages) == WANTED
    assert [type(message) for message in messages] == [Informational] * 3 + [Started, Chunk, Done]
    assert {message.ref for message in messages} == {"mine"}
    started = messages[3]
    assert isinstance(started, Started)
    assert started.headers["x-final"] == "yes"
    assert "link" not in started.headers


def test_they_go_to_the_mailbox(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """With reply_to they arrive there, in the same order."""
    box = katipo.Mailbox()
    url = endpoint("/interim", n=3, status=102)
    handle = pool.async_get(url, stream=True, informational=True, reply_to=box, **endpoint.options)
    messages: list[Message] = []
    while not messages or not isinstance(messages[-1], (Done, katipo.Failed)):
        messages.append(box.receive(timeout=30))
    assert [status for status, _ in hints(messages)] == [102] * 3
    assert [type(message) for message in messages[3:]] == [Started, Chunk, Done]
    assert handle.done()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_they_are_iterated_in_a_loop(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """`async for` has them, too."""
    handle = pool.async_get(endpoint("/interim", n=2), stream=True, informational=True, **endpoint.options)
    assert [type(message) async for message in handle] == [Informational] * 2 + [Started, Chunk, Done]


def test_one_comes_before_the_server_says_more(pool: katipo.Pool, hostile: Hostile) -> None:
    """It is delivered when it arrives: the server answers only once the hint has been seen."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n")
        peer.read_until(b"POSTED")
        peer.send(response(b"done"))

    server = hostile(script)
    with pool.async_post(server.url, stream=True, stream_body=True, informational=True) as handle:
        messages = iter(handle)
        assert hints([next(messages)]) == [(103, "<a>")]
        handle.send_body(b"POSTED")
        handle.finish_body()
        assert [type(message) for message in messages] == [Started, Chunk, Done]


def test_a_100_that_was_expected_is_one(pool: katipo.Pool, hostile: Hostile) -> None:
    """Expect: 100-continue of the caller's: the 100 is shown."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.read_until(b"body")
        peer.send(response(b"ok"))

    server = hostile(script)
    handle = pool.async_post(
        server.url, body=b"body", headers={"Expect": "100-continue"}, stream=True, informational=True
    )
    assert [getattr(message, "status_code", None) for message in handle] == [100, 200, None, None]


def test_the_change_to_http2_is_one(pool: katipo.Pool, hostile: Hostile) -> None:
    """libcurl asks a plain server for HTTP/2 with Upgrade: a 101 is no final response then, and Started comes after it."""

    def script(peer: Peer) -> None:
        head = peer.read_head()
        assert head.get("upgrade") == "h2c"
        settings = b"\0\0\0\x04\0\0\0\0\0"
        block = b"\x88"  # RFC 7541: the static table's ":status: 200"
        answer = len(block).to_bytes(3, "big") + b"\x01\x05\0\0\0\x01" + block  # HEADERS, END_HEADERS, END_STREAM
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + settings)
        peer.read_until(b"PRI * HTTP/2.0")
        peer.send(answer)
        peer.wait_closed()

    server = hostile(script)
    handle = pool.async_get(server.url, http_version="2", stream=True, informational=True)
    messages = list(handle)
    assert [type(message) for message in messages] == [Informational, Started, Done]
    assert isinstance(messages[0], Informational)
    assert isinstance(messages[1], Started)
    assert (messages[0].status_code, messages[0].headers["upgrade"]) == (101, "h2c")
    assert (messages[1].status_code, messages[1].http_version) == (200, "HTTP/2")
    pool.close()


def test_the_oldest_are_dropped(pool: katipo.Pool, hostile: Hostile) -> None:
    """Nobody takes them: what is kept is bounded, and the newest are there."""
    count = 200
    blocks = b"".join(
        b"HTTP/1.1 103 Early Hints\r\nX-N: %d\r\nX-Fill: %s\r\n\r\n" % (n, b"x" * 1000) for n in range(count)
    )
    server = hostile([read_request(), send(blocks), send(response(b"end"))])
    handle = pool.async_get(server.url, stream=True, informational=True, stream_window=None)
    wait_until(handle.done)
    messages: list[Message] = list(handle)
    numbers = [int(message.headers["x-n"]) for message in messages if isinstance(message, Informational)]
    assert numbers == list(range(count - len(numbers), count))
    assert 50 <= len(numbers) <= 64
    assert isinstance(messages[-1], Done)


def test_a_failure_comes_after_them(pool: katipo.Pool, hostile: Hostile) -> None:
    """The server breaks off after a hint: the hint, then the error."""
    server = hostile([read_request(), send(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"), reset()])
    messages = iter(pool.async_get(server.url, stream=True, informational=True))
    assert hints([next(messages)]) == [(103, "<a>")]
    with pytest.raises(katipo.TransportError):
        next(messages)


def test_they_are_no_part_of_a_buffered_request(pool: katipo.Pool, origin: Origin) -> None:
    """The option takes a stream."""
    with pytest.raises(katipo.BadOptions, match="informational requires stream"):
        pool.async_get(f"{origin.strict_http}/interim", informational=True)


def test_hooks_do_not_hold_an_error_back(clients: ClientMaker, hostile: Hostile) -> None:
    """1xx responses that wait for a slow hook are not shown when the request has failed meanwhile."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 50
    server = hostile([read_request(), send(hints), wait_closed()])
    shown, closed = threading.Event(), threading.Event()
    calls: list[int] = []

    def hook(_: katipo.Request, status: int, __: katipo.Headers) -> None:
        calls.append(status)
        shown.set()
        closed.wait(10)

    client = clients()
    client.client.event_hooks["informational"].append(client.hook(hook))

    def close() -> None:
        shown.wait(10)
        client.client._session.pool.close()
        closed.set()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(katipo.PoolClosed):
        client.get(server.url)
    closing.join()
    assert calls == [103]
