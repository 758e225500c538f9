"""Observers: each request's start, headers and end, once and in order, whoever takes the answer and whatever goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from katipo.messages import Chunk, Done, Failed, Responded, Started
from katipo.testing import FakePool
from tests.support.hostile import response, serve
from tests.support.procs import run_python
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from tests.conftest import Hostile
    from tests.support.clients import ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0
START, HEAD, END = "started", "headers", "finished"


class Seen(katipo.Observer):
    """Keeps what it is told, and adds `headers` to every request."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self.events: list[tuple[str, Any]] = []
        self.threads: list[int] = []
        self.headers = headers

    def request_started(self, event: katipo.RequestStarted, /) -> Mapping[str, str] | None:
        self.threads.append(threading.get_ident())
        self.events.append((START, event))
        return self.headers

    def headers_received(self, event: katipo.HeadersReceived, /) -> None:
        self.events.append((HEAD, event))

    def request_finished(self, event: katipo.RequestFinished, /) -> None:
        self.events.append((END, event))

    @property
    def kinds(self) -> list[str]:
        """Which events came, in order."""
        return [kind for kind, _ in self.events]

    @property
    def ends(self) -> list[katipo.RequestFinished]:
        """What finished, in order."""
        return [event for kind, event in self.events if kind == END]

    @property
    def end(self) -> katipo.RequestFinished:
        """The one that finished."""
        (event,) = self.ends
        return event


@contextlib.contextmanager
def observing(*observers: katipo.Observer) -> Generator[None, None, None]:
    """They listen within the block."""
    for each in observers:
        katipo.add_observer(each)
    try:
        yield
    finally:
        for each in observers:
            katipo.remove_observer(each)


@pytest.fixture
def seen() -> Iterator[Seen]:
    """An observer that listens."""
    observer = Seen()
    with observing(observer):
        yield observer
    observer.events.clear()  # errors among them keep frames, and what these hold


def ended(handle: katipo.Handle) -> None:
    """Wait until it has, without taking anything."""
    wait_until(handle.done, HANG)


# ---------------------------------------------------------------------------------------------------- who takes the answer


@pytest.mark.core
def test_a_blocking_request(pool: katipo.Pool, endpoint: Endpoint, seen: Seen) -> None:
    """Start, headers and end, in the caller's thread, with what each has to say."""
    before = time.time()
    answer = pool.post(endpoint("/echo"), body=b"body", headers={"X-Own": "1"}, **endpoint.options)
    assert seen.kinds == [START, HEAD, END]
    assert seen.threads == [threading.get_ident()]
    (_, started), (_, head), (_, end) = seen.events
    assert started.pool is head.pool is end.pool is pool
    assert started.id == started.ref == head.id == end.id == end.ref
    assert before <= started.started_at == head.started_at == end.started_at <= time.time()
    assert (started.request.method, started.request.url, started.request.headers["x-own"]) == (
        "POST",
        endpoint("/echo"),
        "1",
    )
    assert (head.status_code, head.http_version) == (200, endpoint.http_version)
    assert (end.status_code, end.http_version, end.headers) == (200, endpoint.http_version, answer.headers)
    assert end.error is None
    assert end.metrics == answer.metrics
    assert end.metrics is not None
    assert end.metrics.bytes_received >= 4


@pytest.mark.core
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_an_awaited_request(pool: katipo.Pool, endpoint: Endpoint, seen: Seen) -> None:
    """The end is told where the answer is taken."""
    handle = pool.async_get(endpoint("/count"), ref="mine", **endpoint.options)
    assert seen.kinds == [START]
    await handle
    await handle
    assert seen.kinds == [START, HEAD, END]
    assert {event.ref for _, event in seen.events} == {"mine"}


@pytest.mark.core
def test_a_streamed_response(pool: katipo.Pool, endpoint: Endpoint, origin: Origin, seen: Seen) -> None:
    """Headers are told when they are taken, with the body still to come; the end with the last message."""
    gate = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", n=2, size=100, gate=gate), stream=True, **endpoint.options)
    messages = iter(handle)
    assert isinstance(next(messages), Started)
    assert seen.kinds == [START, HEAD]
    origin.open_gate(gate, None)
    rest = list(messages)
    assert seen.kinds == [START, HEAD, END]
    done = rest[-1]
    assert isinstance(done, Done)
    assert seen.end.metrics == done.metrics
    assert seen.end.status_code == 200


def test_a_coded_stream(pool: katipo.Pool, endpoint: Endpoint, seen: Seen) -> None:
    """Decoding changes nothing of the order."""
    url = endpoint("/coded", coding="gzip", size=300_000, fill="zero")
    body = b"".join(m.data for m in pool.async_get(url, stream=True, **endpoint.options) if isinstance(m, Chunk))
    assert len(body) == 300_000
    assert seen.kinds == [START, HEAD, END]


@pytest.mark.core
@pytest.mark.parametrize("stream", [False, True])
def test_a_mailed_request(pool: katipo.Pool, endpoint: Endpoint, seen: Seen, stream: bool) -> None:
    """Whoever takes from the mailbox learns of it, though no handle is kept."""
    box = katipo.Mailbox()
    pool.async_get(endpoint("/drip", n=3), reply_to=box, stream=stream, ref="mine", **endpoint.options)
    gc.collect()
    assert seen.kinds == [START]
    while not isinstance(box.receive(HANG), (Responded, Done)):
        pass
    assert seen.kinds == [START, HEAD, END]
    assert seen.end.ref == "mine"
    assert seen.end.metrics is not None


def test_many_at_once(pool: katipo.Pool, endpoint: Endpoint, seen: Seen) -> None:
    """From several threads, under the same ref: every request has its own three events, in order."""

    def work() -> None:
        for handle in [pool.async_get(endpoint("/count"), ref="same", **endpoint.options) for _ in range(10)]:
            handle.result(HANG)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    by_id: dict[int, list[str]] = {}
    for kind, event in seen.events:
        by_id.setdefault(event.id, []).append(kind)
    assert list(by_id.values()) == [[START, HEAD, END]] * 40


def test_several_waiters_are_told_once(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """Threads that wait for one request do not multiply it."""
    gate = origin.fresh_id()
    handle = pool.async_get(f"{origin.strict_http}/drip?n=1&gate={gate}")
    threads = [threading.Thread(target=handle.result) for _ in range(8)]
    for thread in threads:
        thread.start()
    origin.open_gate(gate, None)
    for thread in threads:
        thread.join(HANG)
    assert seen.kinds == [START, HEAD, END]


# ---------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.core
def test_a_request_that_fails(pool: katipo.Pool, hostile: Hostile, seen: Seen) -> None:
    """It ends with the very error that its caller gets, and with its metrics."""
    with pytest.raises(katipo.ConnectError) as caught:
        pool.get(f"http://127.0.0.1:{hostile.refused_port()}/")
    assert seen.kinds == [START, END]
    assert seen.end.error is caught.value
    assert seen.end.metrics == caught.value.metrics
    assert seen.end.metrics is not None
    assert (seen.end.status_code, seen.end.headers, seen.end.http_version) == (None, None, None)


def test_a_stream_that_breaks(pool: katipo.Pool, endpoint: Endpoint, seen: Seen) -> None:
    """The end has both: what the headers said, and the error."""
    handle = pool.async_get(
        endpoint("/reset-mid-body", size=1000, sent=100), stream=True, timeout_ms=10_000, **endpoint.options
    )
    with pytest.raises(katipo.TransportError) as caught:
        list(handle)
    assert seen.kinds == [START, HEAD, END]
    assert seen.end.status_code == 200
    assert seen.end.error is caught.value


def test_a_stream_that_cannot_be_decoded(pool: katipo.Pool, hostile: Hostile, seen: Seen) -> None:
    """What is found while decoding is the error."""
    server = hostile(serve(response(b"no gzip at all", headers=[("Content-Encoding", "gzip")])))
    with pytest.raises(katipo.DecodingError):
        list(pool.async_get(server.url, stream=True))
    assert seen.kinds == [START, HEAD, END]
    assert isinstance(seen.end.error, katipo.DecodingError)


def test_a_mailed_request_that_fails(pool: katipo.Pool, hostile: Hostile, seen: Seen) -> None:
    """The end has the error of the message."""
    box = katipo.Mailbox()
    pool.async_get(f"http://127.0.0.1:{hostile.refused_port()}/", reply_to=box)
    message = box.receive(HANG)
    assert isinstance(message, Failed)
    assert seen.kinds == [START, END]
    assert seen.end.error is message.error


def test_a_refused_request(make_pool: Callable[..., katipo.Pool], origin: Origin, seen: Seen) -> None:
    """One that there is no room for has started, and ended with Overload."""
    pool = make_pool(max_in_flight=1)
    first = pool.async_get(f"{origin.strict_http}/hang?stage=headers")
    for url in (f"{origin.strict_http}/count", katipo.URL(f"{origin.strict_http}/count")):
        seen.events.clear()
        with pytest.raises(katipo.Overload) as caught:
            pool.async_get(url)
        assert seen.kinds == [START, END]
        assert seen.end.error is caught.value
    first.cancel()


def test_requests_to_what_is_closed(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """A pool that is closed, and a mailbox that is closed while the request starts."""
    url = f"{origin.strict_http}/count"

    class Closing(katipo.Observer):
        def request_started(self, event: katipo.RequestStarted, /) -> None:
            box.close()

    box = katipo.Mailbox()
    with observing(Closing()), pytest.raises(katipo.BadOptions, match="mailbox"):
        pool.async_get(url, reply_to=box)
    pool.close()
    with pytest.raises(katipo.PoolClosed):
        pool.get(url)
    assert seen.kinds == [START, END] * 2
    assert [type(event.error) for event in seen.ends] == [katipo.BadOptions, katipo.PoolClosed]


def test_wrong_arguments_are_not_observed(pool: katipo.Pool, seen: Seen) -> None:
    """What is no request has not started."""
    with pytest.raises(katipo.BadOptions):
        pool.get("http://localhost/", timeout_ms="x")  # type: ignore[arg-type]
    for url in ("http://[", "ftp://localhost/"):
        with pytest.raises((katipo.InvalidURL, katipo.UnsupportedProtocol)):
            pool.get(url)
    assert seen.events == []


def test_waiting_in_vain_is_no_end(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """AwaitTimeout is the wait's, not the request's."""
    gate = origin.fresh_id()
    handle = pool.async_get(f"{origin.strict_http}/drip?n=1&gate={gate}")
    with pytest.raises(katipo.AwaitTimeout):
        handle.result(0)
    assert seen.kinds == [START]
    origin.open_gate(gate, None)
    handle.result(HANG)
    assert seen.kinds == [START, HEAD, END]


def test_closing_the_pool_fails_what_is_in_flight(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """The end is told when the caller learns of it."""
    handle = pool.async_get(f"{origin.strict_http}/hang?stage=headers")
    pool.close()
    assert seen.kinds == [START]
    with pytest.raises(katipo.PoolClosed) as caught:
        handle.result()
    assert seen.end.error is caught.value


# ---------------------------------------------------------------------------------------------------- cancelled, dropped


@pytest.mark.core
@pytest.mark.parametrize("stream", [False, True])
def test_cancelling_is_the_end(pool: katipo.Pool, origin: Origin, seen: Seen, stream: bool) -> None:
    """It is told at once, though the handle is kept; once, whoever asks later."""
    handle = pool.async_get(f"{origin.strict_http}/hang?stage=headers", stream=stream)
    handle.cancel()
    assert seen.kinds == [START, END]
    assert isinstance(seen.end.error, katipo.Cancelled)
    handle.cancel()
    with pytest.raises(katipo.Cancelled):
        list(handle) if stream else handle.result()
    assert seen.kinds == [START, END]


@pytest.mark.parametrize("stream", [False, True])
def test_cancelling_too_late(pool: katipo.Pool, origin: Origin, seen: Seen, stream: bool) -> None:
    """What has ended well stays to be taken, and is told then."""
    handle = pool.async_get(f"{origin.strict_http}/count", stream=stream)
    ended(handle)
    handle.cancel()
    assert seen.kinds == [START]
    if stream:
        list(handle)
    else:
        handle.result()
    assert seen.kinds == [START, HEAD, END]
    assert seen.end.error is None


def test_leaving_a_block_is_the_end(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """A stream that is left early has been cancelled."""
    with pool.async_get(f"{origin.strict_http}/hang?stage=body&size=10", stream=True) as handle:
        assert isinstance(next(iter(handle)), Started)
    assert seen.kinds == [START, HEAD, END]
    assert isinstance(seen.end.error, katipo.Cancelled)
    assert seen.end.status_code == 200
    assert handle.done()


def test_an_observer_that_cancels(pool: katipo.Pool, origin: Origin) -> None:
    """From within its own call: the end follows when the stream is read on."""

    class Cancelling(Seen):
        def headers_received(self, event: katipo.HeadersReceived, /) -> None:
            handle.cancel()
            super().headers_received(event)

    observer = Cancelling()
    with observing(observer):
        handle = pool.async_get(f"{origin.strict_http}/hang?stage=body&size=10", stream=True)
        messages = iter(handle)
        assert isinstance(next(messages), Started)
        assert observer.kinds == [START, HEAD]
        with pytest.raises(katipo.Cancelled):
            next(messages)
    assert observer.kinds == [START, HEAD, END]


def test_a_handle_dropped_in_flight(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """The request goes on, and nobody will know how it ends."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    handle = pool.async_get(f"{origin.strict_http}/drip?n=1&gate={gate}&id={name}")
    del handle
    gc.collect()
    assert seen.kinds == [START, END]
    assert (seen.end.error, seen.end.metrics, seen.end.status_code) == (None, None, None)
    origin.open_gate(gate, None)
    origin.journal(name, until="finished")


@pytest.mark.parametrize("stream", [False, True])
def test_a_handle_dropped_with_an_answer(pool: katipo.Pool, origin: Origin, seen: Seen, stream: bool) -> None:
    """How it ended is known, and told; of a stream that nobody read, the headers are not."""
    handle = pool.async_get(f"{origin.strict_http}/count", stream=stream)
    ended(handle)
    del handle
    gc.collect()
    assert seen.kinds == ([START, END] if stream else [START, HEAD, END])
    assert seen.end.error is None
    assert seen.end.metrics is not None
    assert seen.end.status_code == (None if stream else 200)


def test_a_handle_dropped_with_an_error(pool: katipo.Pool, hostile: Hostile, seen: Seen) -> None:
    """The error is told though nobody raised it."""
    handle = pool.async_get(f"http://127.0.0.1:{hostile.refused_port()}/")
    ended(handle)
    del handle
    gc.collect()
    assert seen.kinds == [START, END]
    assert isinstance(seen.end.error, katipo.ConnectError)


def test_a_stream_dropped_on_the_way(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """The headers are known, the end is not."""
    messages = iter(pool.async_get(f"{origin.strict_http}/hang?stage=body&size=10", stream=True))
    next(messages)
    del messages
    gc.collect()
    assert seen.kinds == [START, HEAD, END]
    assert (seen.end.error, seen.end.metrics, seen.end.status_code) == (None, None, 200)


def test_a_dropped_mailbox(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """With it goes all that could be known."""
    box = katipo.Mailbox()
    handle = pool.async_get(f"{origin.strict_http}/hang?stage=headers", reply_to=box)
    assert seen.kinds == [START]
    del box
    gc.collect()
    assert seen.kinds == [START, END]
    assert (seen.end.error, seen.end.metrics) == (None, None)
    ended(handle)


def test_observing_leaves_an_abandoned_upload_as_it_is(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """`on_abandon` decides when the handle goes, with a mailbox too: nothing keeps the request."""
    box, name = katipo.Mailbox(), origin.fresh_id()
    url = f"{origin.strict_http}/upload?id={name}"
    handle = pool.async_post(url, stream_body=True, on_abandon="finish", reply_to=box)
    handle.send_body(b"abc")
    del handle
    gc.collect()
    message = box.receive(HANG)
    assert isinstance(message, Responded)
    assert message.response.json()["length"] == 3
    assert seen.kinds == [START, HEAD, END]


# ---------------------------------------------------------------------------------------------------- observers


class Raising(katipo.Observer):
    """One that always does."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def request_started(self, event: katipo.RequestStarted, /) -> None:
        raise self.error

    def headers_received(self, event: katipo.HeadersReceived, /) -> None:
        raise self.error

    def request_finished(self, event: katipo.RequestFinished, /) -> None:
        raise self.error


@pytest.mark.core
def test_an_observer_that_raises(
    pool: katipo.Pool, endpoint: Endpoint, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, the request goes on, and those after it are told all the same."""
    late = Seen()
    with observing(Raising(ZeroDivisionError("mine")), late), caplog.at_level(logging.ERROR):
        assert pool.get(endpoint("/count"), **endpoint.options).status_code == 200
    assert seen.kinds == late.kinds == [START, HEAD, END]
    assert [record.name for record in caplog.records] == ["katipo"] * 3
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"the observer Raising raised in {name}" for name in ("request_started", "headers_received", "request_finished")
    ]
    assert all(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


def test_ctrl_c_in_an_observer(pool: katipo.Pool, origin: Origin) -> None:
    """It comes through. Nothing is sent, and those who saw the request start see it finish."""
    first, last, name = Seen(), Seen(), origin.fresh_id()

    def call() -> None:
        pool.get(f"{origin.strict_http}/count?id={name}")

    class Interrupted(Raising):
        def request_finished(self, event: katipo.RequestFinished, /) -> None:
            first.events.append(("interrupted", event))

    with observing(first, Interrupted(KeyboardInterrupt()), last):
        with pytest.raises(KeyboardInterrupt) as caught:
            call()
        caught.value.__traceback__ = None
        del caught
        gc.collect()
    assert first.kinds == [START, END, "interrupted"]
    assert last.events == []
    assert origin.journal(name).count == 0


def test_ctrl_c_at_the_end(pool: katipo.Pool, origin: Origin) -> None:
    """The observers after the one that it hit are told all the same."""

    class Interrupted(katipo.Observer):
        def request_finished(self, event: katipo.RequestFinished, /) -> None:
            raise KeyboardInterrupt

    last = Seen()
    with observing(Interrupted(), last), pytest.raises(KeyboardInterrupt):
        pool.get(f"{origin.strict_http}/count")
    assert last.kinds == [START, HEAD, END]


def test_who_listens_when_a_request_starts_sees_all_of_it(pool: katipo.Pool, origin: Origin) -> None:
    """One that is removed meanwhile sees the end; one that is added sees nothing of it."""
    early, late = Seen(), Seen()
    with observing(early):
        handle = pool.async_get(f"{origin.strict_http}/count")
    with observing(late):
        handle.result(HANG)
    pool.get(f"{origin.strict_http}/count")
    assert early.kinds == [START, HEAD, END]
    assert late.events == []


def test_adding_and_removing_are_idempotent(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """An observer is told once, however often it was added; removing one that is not there is nothing."""
    katipo.add_observer(seen)
    pool.get(f"{origin.strict_http}/count")
    assert seen.kinds == [START, HEAD, END]
    katipo.remove_observer(seen)
    katipo.remove_observer(seen)
    pool.get(f"{origin.strict_http}/count")
    assert seen.kinds == [START, HEAD, END]


@pytest.mark.parametrize("function", [katipo.add_observer, katipo.remove_observer])
def test_what_is_no_observer_is_refused(function: Callable[[Any], None]) -> None:
    """BadOptions names the type."""
    with pytest.raises(katipo.BadOptions, match="observer: must be an Observer, not type"):
        function(Seen)


def test_the_base_does_nothing(pool: katipo.Pool, origin: Origin) -> None:
    """Its methods may be left as they are."""
    with observing(katipo.Observer()):
        assert pool.get(f"{origin.strict_http}/count").status_code == 200


def test_events_are_immutable_and_hide_secrets(pool: katipo.Pool, origin: Origin, seen: Seen) -> None:
    """Their reprs may be logged."""
    pool.get(
        f"{origin.strict_http}/set-headers?set-cookie=a%3Dsecret1",
        headers={"Authorization": "Bearer secret2"},
        username="user",
        password="secret3",
    )
    for _, event in seen.events:
        assert "secret" not in repr(event)
        with pytest.raises(AttributeError, match="immutable"):
            event.ref = 1


# ---------------------------------------------------------------------------------------------------- context


def received(answer: katipo.Response) -> dict[str, str]:
    """The request's headers as the origin's /headers received them."""
    return {name.lower(): value for name, value in answer.json()["headers"]}


@pytest.mark.core
def test_headers_that_an_observer_adds(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """They go out with the request, beside its own and the pool's, and are no part of what the request shows."""
    with observing(Seen({"traceparent": "00-aa", "X-Empty": ""}), Seen({"TraceParent": "00-bb", "X-Second": "2"})):
        answer = pool.get(endpoint("/headers"), headers={"X-Own": "1"}, **endpoint.options)
        plain = pool.get(endpoint("/headers"), **endpoint.options)
    for headers in (received(answer), received(plain)):
        assert (headers["traceparent"], headers["x-empty"], headers["x-second"]) == ("00-aa", "", "2")
        assert headers["user-agent"].startswith("katipo/")
    assert received(answer)["x-own"] == "1"
    assert answer.request.headers == {"X-Own": "1"}
    assert "traceparent" not in received(pool.get(endpoint("/headers"), **endpoint.options))


def test_the_caller_s_own_header_stays(pool: katipo.Pool, origin: Origin) -> None:
    """Whatever its case, and also where the caller does not want it sent."""
    with observing(Seen({"traceparent": "00-aa", "accept": "text/x"})):
        own = {"TRACEPARENT": "00-own", "Accept": None}
        headers = received(pool.get(f"{origin.strict_http}/headers", headers=own))
    assert headers["traceparent"] == "00-own"
    assert "accept" not in headers


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({"traceparent": "a\r\nX-Evil: secret"}, "control characters"),
        ({"no token": "secret"}, "valid header name"),
        ({"Host": "secret"}, "'Host' is not an observer's to add"),
        ({"Content-Length": "7"}, "'Content-Length' is not an observer's to add"),
        ({"X-Own": None}, "'X-Own' is not an observer's to take"),
        (7, "must be a mapping"),
    ],
)
def test_headers_that_cannot_be_added(
    pool: katipo.Pool, origin: Origin, caplog: pytest.LogCaptureFixture, headers: Any, what: str
) -> None:
    """They are the observer's mistake: logged without the value, and the request goes on without them."""
    with observing(Seen(headers), Seen({"X-Second": "2"})), caplog.at_level(logging.ERROR):
        sent = received(pool.get(f"{origin.strict_http}/headers", headers={"X-Own": "1"}))
    assert (sent["x-own"], sent["x-second"]) == ("1", "2")
    assert "x-evil" not in sent
    assert what in caplog.text
    assert "X-Evil" not in caplog.text
    assert [record.name for record in caplog.records] == ["katipo"]


def test_the_start_is_told_in_the_caller_s_context(origin: Origin) -> None:
    """Context variables of the task are there, so that a span finds its parent."""
    span: contextvars.ContextVar[str] = contextvars.ContextVar("span", default="none")

    class Propagating(katipo.Observer):
        def request_started(self, event: katipo.RequestStarted, /) -> dict[str, str]:
            return {"traceparent": span.get()}

    async def task(client: katipo.AsyncClient, name: str) -> str:
        span.set(name)
        await asyncio.sleep(0)
        return received(await client.get(f"{origin.strict_http}/headers"))["traceparent"]

    async def main() -> list[str]:
        async with katipo.AsyncClient(trust_env=False) as client:
            return await asyncio.gather(*(task(client, f"span-{n}") for n in range(5)))

    with observing(Propagating()):
        assert asyncio.run(main()) == [f"span-{n}" for n in range(5)]


# ---------------------------------------------------------------------------------------------------- clients


@pytest.mark.core
def test_a_client_s_request(clients: ClientMaker, endpoint: Endpoint, seen: Seen) -> None:
    """Quick or not, it is one transfer, and shows what the client sends."""
    client = clients(**endpoint.client_options)
    client.get(endpoint("/count"))
    client.post(endpoint("/echo"), content=b"x", headers={"X-Own": "1"}, auth=("user", "secret"))
    assert seen.kinds == [START, HEAD, END] * 2
    assert [event.request.method for event in seen.ends] == ["GET", "POST"]
    assert seen.ends[0].request.headers["user-agent"].startswith("katipo/")
    assert seen.ends[1].request.headers["x-own"] == "1"
    assert len({event.id for event in seen.ends}) == 2


def test_headers_go_with_a_client_s_quick_requests(clients: ClientMaker, origin: Origin) -> None:
    """Those that are compiled once for all of a client's, too; and with none after the observer has gone."""
    client = clients()
    url = f"{origin.strict_http}/headers"
    client.get(url)
    observer = Seen({"traceparent": "00-aa"})
    with observing(observer):
        assert received(client.get(url))["traceparent"] == "00-aa"
        assert received(client.get(url.upper().replace("/HEADERS", "/headers")))["traceparent"] == "00-aa"
    assert "traceparent" not in received(client.get(url))
    assert len(observer.ends) == 2


def test_a_transfer_for_every_hop(clients: ClientMaker, origin: Origin) -> None:
    """Redirects and rounds of authentication are requests of their own, and carry the observer's headers."""

    class Rounds(katipo.Auth):
        def auth_flow(self, request: katipo.Request) -> Generator[katipo.Request, katipo.Response, None]:
            yield request
            request.headers["X-Round"] = "2"
            yield request

    client, observer = clients(follow_redirects=True), Seen({"traceparent": "00-aa"})
    with observing(observer):
        answer = client.get(f"{origin.strict_http}/redirect/302?to=/headers", auth=Rounds())
    assert [event.status_code for event in observer.ends] == [302, 302, 200, 200]
    assert observer.kinds == [START, HEAD, END] * 4
    assert (received(answer)["traceparent"], received(answer)["x-round"]) == ("00-aa", "2")


def test_a_client_s_upload(clients: ClientMaker, endpoint: Endpoint, seen: Seen) -> None:
    """A body that comes in pieces is part of its one request."""
    answer = clients(**endpoint.client_options).post(endpoint("/upload"), content=iter([b"abc"] * 10))
    assert answer.json()["length"] == 30
    assert seen.kinds == [START, HEAD, END]


def test_an_upload_that_raises(clients: ClientMaker, origin: Origin, seen: Seen) -> None:
    """The caller sees its own exception, the observer that the request was cancelled."""

    def pieces() -> Iterator[bytes]:
        yield b"abc"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        clients().post(f"{origin.strict_http}/upload", content=pieces())
    assert seen.kinds == [START, END]
    assert isinstance(seen.end.error, katipo.Cancelled)


@pytest.mark.core
def test_a_client_s_stream(clients: ClientMaker, endpoint: Endpoint, origin: Origin, seen: Seen) -> None:
    """Read to its end, it ends well; left early, it was cancelled, which is told at once."""
    client = clients(**endpoint.client_options)
    with client.stream("GET", endpoint("/drip", n=2)) as streamed:
        assert seen.kinds == [START, HEAD]
        streamed.read()
        assert seen.kinds == [START, HEAD, END]
    assert seen.end.error is None
    gate = origin.fresh_id()
    with client.stream("GET", endpoint("/drip", n=2, gate=gate)) as streamed:
        pass
    assert seen.kinds == [START, HEAD, END] * 2
    assert isinstance(seen.ends[1].error, katipo.Cancelled)


def test_what_a_client_finds_wrong_with_a_stream(clients: ClientMaker, hostile: Hostile, seen: Seen) -> None:
    """Too large, or not what its coding says: that is the error, and not the cancel that follows from it."""
    coded = hostile(serve(response(b"no gzip at all", headers=[("Content-Encoding", "gzip")])))
    large = hostile(serve(response(b"too much")))
    client = clients()
    for url, kind, limit in ((coded.url, katipo.DecodingError, None), (large.url, katipo.ResponseTooLarge, 3)):
        seen.events.clear()
        with client.stream("GET", url, max_response_bytes=limit) as streamed, pytest.raises(kind) as caught:
            streamed.read()
        assert seen.kinds == [START, HEAD, END]
        assert seen.end.error is caught.value


def test_a_client_that_fails(clients: ClientMaker, hostile: Hostile, seen: Seen) -> None:
    """The client's error is the observer's."""
    client = clients()
    for options in ({}, {"headers": {"X-Own": "1"}}):
        seen.events.clear()
        with pytest.raises(katipo.ConnectError) as caught:
            client.get(f"http://127.0.0.1:{hostile.refused_port()}/", **options)
        assert seen.kinds == [START, END]
        assert seen.end.error is caught.value


def test_a_cancelled_task(origin: Origin, seen: Seen) -> None:
    """Its request was cancelled."""
    name = origin.fresh_id()

    async def main() -> None:
        async with katipo.AsyncClient(trust_env=False) as client:
            task = asyncio.ensure_future(client.get(f"{origin.strict_http}/hang?stage=headers&id={name}"))
            await asyncio.to_thread(origin.journal, name, "started")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert seen.kinds == [START, END]
    assert isinstance(seen.end.error, katipo.Cancelled)


def test_an_exchange(origin: Origin, seen: Seen) -> None:
    """Both directions of it are one request."""
    with katipo.Client(trust_env=False) as client, client.exchange("POST", f"{origin.strict_http}/echo") as exchange:
        exchange.send(b"ping")
        answer = exchange.response()
        assert seen.kinds == [START, HEAD]
        exchange.finish()
        assert answer.read() == b"ping"
    assert seen.kinds == [START, HEAD, END]


# ---------------------------------------------------------------------------------------------------- other processes, pools


def test_a_fake_pool_is_observed(seen: Seen) -> None:
    """As a real one: what its handler raises is the request's error, and the handler sees added headers."""

    def handler(request: katipo.Request) -> katipo.Response:
        if request.url.path == "/raise":
            raise ZeroDivisionError
        return katipo.Response(200, text=request.headers["traceparent"])

    with observing(Seen({"traceparent": "00-aa"})), FakePool(handler) as fake:
        assert fake.get("http://example.com/").text == "00-aa"
        assert seen.kinds == [START, HEAD, END]
        with pytest.raises(ZeroDivisionError):
            fake.get("http://example.com/raise")
        assert isinstance(seen.ends[1].error, katipo.TransportError)
        assert isinstance(seen.ends[1].error.__cause__, ZeroDivisionError)
        with pytest.raises(katipo.BadOptions):
            fake.get("http://example.com/", followlocation=True)
        assert isinstance(seen.ends[2].error, katipo.BadOptions)
    assert seen.kinds == [START, HEAD, END, START, END, START, END]


PROGRAM = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # what Python 3.12 says of forks is another test's
import katipo
base = sys.argv[1]

class Seen(katipo.Observer):
    def __init__(self):
        self.kinds = []
    def request_started(self, event):
        self.kinds.append("started")
    def headers_received(self, event):
        self.kinds.append("headers")
    def request_finished(self, event):
        self.kinds.append("finished")

seen = Seen()
katipo.add_observer(seen)
pool = katipo.Pool()
"""


@pytest.mark.core
def test_a_forked_child(origin: Origin) -> None:
    """It reports its own requests, and none of its parent's: neither their failure in the child, nor their end."""
    program = """
taken = pool.async_get(base + "/hang?stage=headers")
dropped = pool.async_get(base + "/hang?stage=headers")
stream = iter(pool.async_get(base + "/hang?stage=body&size=10", stream=True))
next(stream)
seen.kinds.clear()
pid = os.fork()
if pid == 0:
    status = 1
    try:
        try:
            taken.result()
        except katipo.WorkerDied:
            pass
        taken.cancel()
        del dropped
        try:
            next(stream)
        except katipo.WorkerDied:
            pass
        assert seen.kinds == [], seen.kinds
        pool.get(base + "/count")
        assert seen.kinds == ["started", "headers", "finished"], seen.kinds
        status = 0
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert seen.kinds == []
for handle in (taken, dropped):
    handle.cancel()
assert seen.kinds == ["finished"] * 2, seen.kinds
pool.close()
"""
    finished = run_python(PROGRAM + program, timeout=60, args=[origin.strict_http])
    assert (finished.status, finished.stdout, finished.stderr) == (0, "", "")


def test_the_interpreter_s_end(origin: Origin) -> None:
    """What is in flight then is not told of, and nothing is printed."""
    program = """
def finished(event):
    print("finished")
seen.request_finished = finished
handle = pool.async_get(base + "/hang?stage=headers")
kept = [handle]
kept.append(kept)  # the last reference goes when the interpreter does
import builtins
builtins.kept = kept
"""
    finished = run_python(PROGRAM + program, timeout=60, args=[origin.strict_http])
    assert (finished.status, finished.stdout) == (0, "")
    assert "Exception ignored" not in finished.stderr
