"""FakePool behaves as the real pool does: the same tests on both.

"real" is a Pool and the tests' origin over a socket; "fake" and "fake async" are FakePools with handlers that answer as
the origin does.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio

import katipo
from katipo.messages import Chunk, Done, Failed, Message, Responded, Started
from katipo.testing import FakePool
from tests.support.fake_origin import fake_origin, fake_origin_async
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.support.origin import Origin

DELIVERY = 16 * 1024
HANG = 30.0


class Both(NamedTuple):
    """A pool, and where its server is."""

    pool: katipo.Pool
    base: str

    def url(self, path: str) -> str:
        return self.base + path


@pytest.fixture(params=["real", "fake", "fake async"])
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    if request.param == "real":
        origin: Origin = request.getfixturevalue("origin")
        with katipo.Pool() as pool:
            yield Both(pool, origin.strict_http)
    else:
        with FakePool(fake_origin if request.param == "fake" else fake_origin_async) as pool:
            yield Both(pool, "http://origin.test")


def body_of(messages: Iterable[Message]) -> bytes:
    return b"".join(message.data for message in messages if isinstance(message, Chunk))


def kinds(messages: Iterable[Message]) -> list[type[Message]]:
    """Which messages came, runs of chunks as one."""
    found: list[type[Message]] = []
    for message in messages:
        if not (isinstance(message, Chunk) and found and found[-1] is Chunk):
            found.append(type(message))
    return found


# ---------------------------------------------------------------------------------------------------- buffered


def test_a_response_has_what_responses_have(both: Both) -> None:
    """Every property, whichever pool it came from."""
    url = both.url("/big?size=100000")
    response = both.pool.get(url)
    assert (response.status_code, response.reason_phrase, response.http_version) == (200, "OK", "HTTP/1.1")
    assert response.content == pattern(0, 100000)
    assert response.headers["content-type"] == "application/octet-stream"
    assert (str(response.url), str(response.request.url), response.request.method) == (url, url, "GET")
    assert response.history == []
    assert isinstance(response.cookiejar, katipo.CookieJar)
    assert response.trailers == {}
    assert response.metrics.bytes_received == 100000
    assert response.elapsed.total_seconds() > 0


@pytest.mark.parametrize("code", [200, 204, 301, 304, 404, 503])
def test_statuses_come_through(both: Both, code: int) -> None:
    """With the standard reason, and no redirect is followed."""
    response = both.pool.get(both.url(f"/status/{code}"))
    assert response.status_code == code
    assert response.is_error == (code >= 400)
    assert response.content == (b"" if code in (204, 304) else response.content)


def test_a_head_has_no_body(both: Both) -> None:
    """Whatever the server would have sent to a GET."""
    assert both.pool.head(both.url("/big?size=10")).content == b""
    messages = list(both.pool.async_head(both.url("/big?size=10"), stream=True))
    assert kinds(messages) == [Started, Done]


def test_response_headers_keep_their_order_and_repeat(both: Both) -> None:
    """As the server sent them."""
    response = both.pool.get(both.url("/set-headers?X-B=1&X-A=2&X-B=3"))
    ours = [(name, value) for name, value in response.headers.multi_items() if name.startswith("x-")]
    assert ours == [("x-b", "1"), ("x-a", "2"), ("x-b", "3")]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("GET", {}),
        ("GET", {"headers": {"X-One": "1", "User-Agent": "me", "Accept": None, "X-Empty": ""}}),
        ("GET", {"username": "user", "password": "p:w"}),
        ("GET", {"decode": False}),
        ("POST", {"body": b"data"}),
        ("POST", {"body": {"a": "b c"}}),
        ("PUT", {}),
        ("DELETE", {"headers": [("X-One", "1"), ("X-One", "2")]}),
    ],
)
def test_the_server_sees_the_same_request(origin: Origin, method: str, options: dict[str, Any]) -> None:
    """Method and headers, order and Host aside."""
    seen: list[tuple[str, list[tuple[str, str]]]] = []
    with katipo.Pool() as real, FakePool(fake_origin) as fake:
        for pool, base in ((real, origin.strict_http), (fake, "http://origin.test")):
            answer = pool.request(method, base + "/headers", **options).json()
            named = [(name.lower(), value) for name, value in answer["headers"]]
            fields = sorted(field for field in named if field[0] != "host")
            seen.append((answer["method"], fields))
    assert seen[0] == seen[1]


def test_a_body_arrives(both: Both) -> None:
    """Whole."""
    data = pattern(0, 300000)
    answer = both.pool.post(both.url("/upload"), body=data).json()
    assert answer["sha256"] == hashlib.sha256(data).hexdigest()


def test_cookies_go_from_response_to_request(both: Both) -> None:
    """The jar of a response is what the next request sends."""
    first = both.pool.get(both.url("/cookies/set?a=1&b=2"))
    assert first.cookiejar is not None
    assert len(first.cookiejar) == 2
    assert first.cookies == {"a": "1", "b": "2"}
    second = both.pool.get(both.url("/cookies"), cookiejar=first.cookiejar)
    assert second.json()["cookies"] == {"a": "1", "b": "2"}
    assert second.cookiejar is not None
    assert len(second.cookiejar) == 2


def test_coded_bodies_are_decoded(both: Both) -> None:
    """Buffered and streamed; not where decode is off."""
    url, wanted = both.url("/coded?size=50000"), pattern(0, 50000)
    assert both.pool.get(url).content == wanted
    assert body_of(both.pool.async_get(url, stream=True)) == wanted
    raw = both.pool.get(url, decode=False)
    assert raw.headers["content-encoding"] == "gzip"
    assert raw.content[:2] == b"\x1f\x8b"


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_gzip_fails(both: Both, stream: bool) -> None:
    """DecodingError, with the same code."""
    handle = both.pool.async_get(both.url("/set-headers?content-encoding=gzip"), stream=stream)
    with pytest.raises(katipo.DecodingError) as caught:
        list(handle) if stream else handle.result(HANG)
    assert (caught.value.code, caught.value.curl_code) == ("bad_content_encoding", 61)
    assert caught.value.request is not None


@pytest.mark.parametrize("path", ["/big?size=1001", "/coded?size=1001&fill=zero"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_is_too_large_fails(both: Both, path: str, stream: bool) -> None:
    """Counted as delivered; one of just the size passes."""
    handle = both.pool.async_get(both.url(path), stream=stream, max_response_bytes=1000)
    with pytest.raises(katipo.ResponseTooLarge) as caught:
        list(handle) if stream else handle.result(HANG)
    assert caught.value.code == "filesize_exceeded"
    assert len(both.pool.get(both.url(path.replace("1001", "1000")), max_response_bytes=1000).content) == 1000


# ---------------------------------------------------------------------------------------------------- streamed


@pytest.mark.parametrize("window", [1, 1000, 65536, None])
def test_a_stream_comes_under_any_window(both: Both, window: int | None) -> None:
    """Every byte, in order; no chunk is larger than the window and a delivery."""
    handle = both.pool.async_get(both.url("/big?size=500000"), stream=True, stream_window=window)
    messages: list[Message] = list(handle)
    assert kinds(messages) == [Started, Chunk, Done]
    assert body_of(messages) == pattern(0, 500000)
    if window is not None:
        assert max(len(each.data) for each in messages if isinstance(each, Chunk)) <= window + DELIVERY
    started, done = messages[0], messages[-1]
    assert isinstance(started, Started)
    assert isinstance(done, Done)
    assert (started.status_code, started.http_version) == (200, "HTTP/1.1")
    assert done.metrics.bytes_received == 500000


def test_manual_flow_control_gives_no_more_than_it_was_given(both: Both) -> None:
    """A window of 0: headers, and bytes only against credit, to the end."""
    box = katipo.Mailbox()
    url = both.url("/big?size=100000")
    handle = both.pool.async_get(url, stream=True, stream_window=0, flow_control="manual", reply_to=box)
    assert isinstance(box.receive(HANG), Started)
    assert not handle.done()
    given = received = 0
    while True:
        while given <= received:  # what came beyond the credit is owed
            handle.update_flow(1000)
            given += 1000
        message = box.receive(HANG)
        if isinstance(message, Done):
            break
        assert isinstance(message, Chunk)
        received += len(message.data)
        assert received <= given + DELIVERY
    assert received == 100000


def test_a_stream_is_taken_once(both: Both) -> None:
    """result() of a stream, and iterating twice, or iterating what is buffered."""
    handle = both.pool.async_get(both.url("/big?size=10"), stream=True)
    with pytest.raises(katipo.StreamError):
        handle.result()
    list(handle)
    with pytest.raises(katipo.StreamConsumed):
        iter(handle)
    with pytest.raises(katipo.StreamError):
        iter(both.pool.async_get(both.url("/big?size=10")))


# ---------------------------------------------------------------------------------------------------- mailboxes


def test_a_mailbox_gets_every_message(both: Both) -> None:
    """Of buffered and streamed requests, each with its reference, those of one in order."""
    box = katipo.Mailbox()
    for n in range(5):
        both.pool.async_get(both.url(f"/big?size={n * 30000}"), stream=True, reply_to=box, ref=n, stream_window=5000)
        both.pool.async_get(both.url("/status/200"), reply_to=box, ref=n + 100)
    by_ref: dict[int, list[Message]] = {}
    ended = 0
    while ended < 10:
        message = box.receive(HANG)
        by_ref.setdefault(message.ref, []).append(message)
        ended += isinstance(message, (Done, Responded, Failed))
    for n in range(5):
        assert kinds(by_ref[n]) == ([Started, Chunk, Done] if n else [Started, Done])
        assert body_of(by_ref[n]) == pattern(0, n * 30000)
        assert kinds(by_ref[n + 100]) == [Responded]
    assert len(box) == 0
    with pytest.raises(katipo.AwaitTimeout):
        box.receive(0)


def test_closing_the_mailbox_cancels(both: Both) -> None:
    """What replies there and has not ended fails with Cancelled, which can still be taken."""
    box = katipo.Mailbox()
    handle = both.pool.async_post(both.url("/upload"), stream_body=True, reply_to=box)
    box.close()
    assert handle.done()
    message = box.receive(HANG)
    assert isinstance(message, Failed)
    assert isinstance(message.error, katipo.Cancelled)
    with pytest.raises(katipo.MailboxClosed):
        box.receive(0)
    with pytest.raises(katipo.BadOptions):
        both.pool.async_get(both.url("/status/200"), reply_to=box)


def test_a_mailbox_that_is_dropped_cancels(both: Both) -> None:
    """Its last reference goes: it counts as closed."""
    box = katipo.Mailbox()
    handle = both.pool.async_post(both.url("/upload"), stream_body=True, reply_to=box)
    assert not handle.done()
    del box
    gc.collect()
    assert handle.done()


# ---------------------------------------------------------------------------------------------------- cancel, abandon


def test_a_cancel_takes_effect_at_once(both: Both) -> None:
    """In the middle of a request body, and of a response."""
    handle = both.pool.async_post(both.url("/upload"), stream_body=True)
    handle.send_body(b"some")
    handle.cancel()
    handle.cancel()
    assert handle.done()
    with pytest.raises(katipo.Cancelled):
        handle.result()
    with pytest.raises(katipo.Cancelled):
        handle.send_body(b"more")
    stream = both.pool.async_get(both.url("/big?size=5000000"), stream=True, stream_window=1000)
    messages = iter(stream)
    assert isinstance(next(messages), Started)
    assert isinstance(next(messages), Chunk)
    stream.cancel()
    with pytest.raises(katipo.Cancelled):
        next(messages)


def test_a_cancel_after_the_end_changes_nothing(both: Both) -> None:
    """The outcome is set once."""
    handle = both.pool.async_get(both.url("/status/200"))
    assert handle.result(HANG).status_code == 200
    handle.cancel()
    assert handle.result().status_code == 200


def test_leaving_the_block_cancels(both: Both) -> None:
    """`with handle`."""
    with both.pool.async_get(both.url("/big?size=5000000"), stream=True, stream_window=1) as handle:
        assert not handle.done()
    assert handle.done()
    assert both.pool.statistics().failed == 1


def test_a_dropped_stream_is_cancelled(both: Both) -> None:
    """Nobody will read it."""
    handle = both.pool.async_get(both.url("/big?size=5000000"), stream=True, stream_window=1)
    assert both.pool.statistics().in_flight == 1
    del handle
    gc.collect()
    assert both.pool.statistics().in_flight == 0


@pytest.mark.parametrize(("on_abandon", "message"), [("abort", Failed), ("finish", Responded)])
def test_a_dropped_upload_follows_on_abandon(both: Both, on_abandon: Any, message: type[Message]) -> None:
    """It fails, or ends where it is."""
    box = katipo.Mailbox()
    handle = both.pool.async_post(both.url("/upload"), stream_body=True, on_abandon=on_abandon, reply_to=box)
    handle.send_body(b"12345")
    del handle
    gc.collect()
    got = box.receive(HANG)
    assert type(got) is message
    if isinstance(got, Responded):
        assert got.response.json()["length"] == 5


# ---------------------------------------------------------------------------------------------------- bodies


def test_a_streamed_body_arrives(both: Both) -> None:
    """Piece by piece; what is sent after its end is dropped."""
    handle = both.pool.async_post(both.url("/upload"), stream_body=True, upload_window=1000)
    for offset in range(0, 200000, 10000):
        handle.send_body(pattern(offset, 10000), timeout=HANG)
    handle.finish_body()
    handle.finish_body()
    handle.send_body(b"late")
    assert handle.result(HANG).json()["sha256"] == hashlib.sha256(pattern(0, 200000)).hexdigest()
    with pytest.raises(katipo.StreamClosed):
        handle.send_body(b"later")


def test_a_declared_length_is_kept(both: Both) -> None:
    """Beyond it: refused at the call. Short of it: the request fails."""
    headers = {"Content-Length": "5"}
    handle = both.pool.async_post(both.url("/upload"), stream_body=True, headers=headers)
    handle.send_body(b"123")
    with pytest.raises(katipo.LocalProtocolError):
        handle.send_body(b"456")
    handle.send_body(b"45")
    handle.finish_body()
    assert handle.result(HANG).json()["length"] == 5
    short = both.pool.async_post(both.url("/upload"), stream_body=True, headers=headers)
    short.send_body(b"123")
    short.finish_body()
    with pytest.raises(katipo.LocalProtocolError):
        short.result(HANG)


def test_only_a_streamed_body_is_sent(both: Both) -> None:
    """Without stream_body there is nothing to send."""
    handle = both.pool.async_get(both.url("/status/200"))
    with pytest.raises(katipo.StreamError):
        handle.send_body(b"x")
    with pytest.raises(katipo.StreamError):
        handle.finish_body()


# ---------------------------------------------------------------------------------------------------- waits, clocks


def test_a_wait_runs_out_and_the_request_goes_on(both: Both) -> None:
    """AwaitTimeout is the wait's."""
    handle = both.pool.async_post(both.url("/upload"), stream_body=True)
    with pytest.raises(katipo.AwaitTimeout):
        handle.result(timeout=0)
    handle.finish_body()
    assert handle.result(HANG).status_code == 200


def test_the_total_clock_runs(both: Both) -> None:
    """A body that never ends."""
    handle = both.pool.async_post(both.url("/upload"), stream_body=True, timeout_ms=50)
    with pytest.raises(katipo.TotalTimeout) as caught:
        handle.result(HANG)
    assert caught.value.code == "operation_timedout"
    assert "50 ms" in caught.value.message


async def _use(both: Both) -> None:
    """What a program does with a pool in an event loop."""
    assert (await both.pool.async_get(both.url("/big?size=100000"))).content == pattern(0, 100000)
    handle = both.pool.async_get(both.url("/big?size=100000"), stream=True, stream_window=1000)
    messages = [message async for message in handle]
    assert kinds(messages) == [Started, Chunk, Done]
    assert body_of(messages) == pattern(0, 100000)
    upload = both.pool.async_post(both.url("/upload"), stream_body=True)
    await upload.asend_body(b"12345")
    upload.finish_body()
    assert (await upload).json()["length"] == 5
    assert (await upload).json()["length"] == 5
    box = katipo.Mailbox()
    both.pool.async_get(both.url("/status/201"), reply_to=box)
    message = await box.areceive()
    assert isinstance(message, Responded)
    async with both.pool.async_get(both.url("/big?size=5000000"), stream=True, stream_window=1) as left:
        pass
    with pytest.raises(katipo.Cancelled):
        [each async for each in left]
    blocking = both.pool.get(both.url("/status/200"))
    assert blocking.status_code == 200
    await both.pool.aclose(drain=HANG)


def test_it_is_awaited_in_asyncio(both: Both) -> None:
    """Also gather, and wait_for, which cancels the wait alone."""

    async def main() -> None:
        handles = [both.pool.async_get(both.url(f"/big?size={n}")) for n in range(20)]
        responses = await asyncio.gather(*handles)
        assert [len(response.content) for response in responses] == list(range(20))
        waiting = both.pool.async_post(both.url("/upload"), stream_body=True)

        async def wait() -> katipo.Response:
            return await waiting

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait(), 0.01)
        waiting.finish_body()
        assert (await waiting).status_code == 200
        await _use(both)

    asyncio.run(main())


def test_it_is_awaited_in_trio(both: Both) -> None:
    """As in asyncio."""

    async def main() -> None:
        waiting = both.pool.async_post(both.url("/upload"), stream_body=True)
        with trio.move_on_after(0.01) as scope:
            await waiting
        assert scope.cancelled_caught
        waiting.finish_body()
        assert (await waiting).status_code == 200
        await _use(both)

    trio.run(main)


def test_threads_share_it(both: Both) -> None:
    """Eight at once, all with their own answers; one waits for what another sends."""
    wrong: list[object] = []

    def work(index: int) -> None:
        for n in range(20):
            size = index * 100 + n
            if both.pool.get(both.url(f"/big?size={size}")).content != pattern(0, size):
                wrong.append(size)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    handle = both.pool.async_post(both.url("/upload"), stream_body=True)
    sender = threading.Thread(target=handle.finish_body)
    sender.start()
    assert handle.result(HANG).status_code == 200
    for thread in [*threads, sender]:
        thread.join()
    assert not wrong
    assert both.pool.statistics().completed == 161


# ---------------------------------------------------------------------------------------------------- the pool


def test_closing_fails_what_is_in_flight(both: Both) -> None:
    """And refuses what comes after; idempotent."""
    handle = both.pool.async_post(both.url("/upload"), stream_body=True)
    both.pool.close()
    both.pool.close()
    with pytest.raises(katipo.PoolClosed):
        handle.result()
    with pytest.raises(katipo.PoolClosed):
        both.pool.get(both.url("/status/200"))
    statistics = both.pool.statistics()
    assert (statistics.in_flight, statistics.workers, statistics.failed) == (0, 0, 1)


def test_closing_waits_for_what_ends_in_time(both: Both) -> None:
    """With drain, a request that ends meanwhile ends well."""
    handle = both.pool.async_post(both.url("/upload"), stream_body=True)
    closing = threading.Thread(target=both.pool.close, kwargs={"drain": HANG})
    closing.start()

    def refused() -> bool:
        try:
            both.pool.get(both.url("/status/200"))
        except katipo.PoolClosed:
            return True
        return False

    wait_until(refused)
    handle.finish_body()
    assert handle.result(HANG).status_code == 200
    closing.join(HANG)
    assert not closing.is_alive()


def test_statistics_count(both: Both) -> None:
    """What ended well, what did not, and what is in flight."""
    both.pool.get(both.url("/status/200"))
    both.pool.get(both.url("/status/500"))
    handle = both.pool.async_post(both.url("/upload"), stream_body=True)
    statistics = both.pool.statistics()
    assert (statistics.completed, statistics.failed, statistics.in_flight) == (2, 0, 1)
    handle.cancel()
    statistics = both.pool.statistics()
    assert (statistics.completed, statistics.failed, statistics.in_flight) == (2, 1, 0)


def test_bad_arguments_are_refused_at_the_call(both: Both) -> None:
    """With the same errors, and nothing is sent."""
    with pytest.raises(katipo.BadOptions, match="timeout_ms"):
        both.pool.get(both.url("/"), timeout=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(katipo.BadOptions, match="stream requires async_request"):
        both.pool.get(both.url("/"), stream=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(katipo.UnsupportedProtocol):
        both.pool.get("ftp://origin.test/")
    with pytest.raises(katipo.InvalidURL):
        both.pool.get("http://origin.test:99999/")
    assert both.pool.statistics().completed + both.pool.statistics().failed == 0
