"""Handle: waiting, cancelling, sending and iterating, from threads and from event loops."""

import asyncio
import gc
import threading
import traceback
from collections.abc import Iterable

import pytest

import katipo
from katipo import (
    AwaitTimeout,
    Cancelled,
    Chunk,
    DecodingError,
    Done,
    LocalProtocolError,
    RemoteProtocolError,
    Response,
    ResponseTooLarge,
    Started,
    StreamClosed,
    StreamConsumed,
    StreamError,
)
from tests.support.waiting import wait_until
from tests.unit.tiny_server import TinyServer


def data_of(messages: Iterable[katipo.Message]) -> bytes:
    return b"".join(message.data for message in messages if isinstance(message, Chunk))


# ---------------------------------------------------------------------------------------------------- the answer


def test_result_runs_out_of_time_and_succeeds_when_called_again(pool: katipo.Pool, tiny: TinyServer) -> None:
    """AwaitTimeout ends the wait, not the request."""
    handle = pool.async_get(f"{tiny.url}/ok?gate=again")
    for timeout in (0, 0.05):
        with pytest.raises(AwaitTimeout) as caught:
            handle.result(timeout)
        assert caught.value.code == "await_timeout"
    assert not handle.done()
    tiny.open("again")
    assert handle.result(10).status_code == 200


def test_everybody_gets_the_same_response(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Several threads, an event loop, and again later: one Response object."""
    handle = pool.async_get(f"{tiny.url}/ok?gate=same")
    found: list[Response] = []
    threads = [threading.Thread(target=lambda: found.append(handle.result())) for _ in range(4)]
    for thread in threads:
        thread.start()

    async def wait() -> Response:
        waits = [asyncio.ensure_future(handle) for _ in range(3)]
        await asyncio.sleep(0)
        tiny.open("same")
        found.extend(await asyncio.gather(*waits))
        return await handle

    found.append(asyncio.run(wait()))
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(response is handle.result() for response in found)


def test_done_turns_true_with_nobody_waiting(pool: katipo.Pool, tiny: TinyServer) -> None:
    """The record is settled by the worker, not by whoever waits."""
    handle = pool.async_get(f"{tiny.url}/ok")
    other = pool.async_get(f"{tiny.url}/ok")
    other.result()
    wait_until(handle.done)


def test_an_error_is_a_new_one_each_time(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Raising one object again and again would let its traceback grow."""
    handle = pool.async_get(f"{tiny.url}/cut")
    lengths = []
    errors = []
    for _ in range(3):
        with pytest.raises(RemoteProtocolError) as caught:
            handle.result()
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
        errors.append(caught.value)
    assert len(set(lengths)) == 1
    assert len(set(map(id, errors))) == 3
    error = errors[0]
    assert (error.code, error.curl_code, error.request_sent) == ("partial_file", 18, True)
    assert error.request is not None
    assert error.request.method == "GET"
    assert error.metrics is not None
    assert error.metrics.connections_opened == 1


def test_the_original_katipo_s_await_from_another_loop(pool: katipo.Pool, tiny: TinyServer) -> None:
    """A handle belongs to no loop: submitted in one that has been closed, awaited in another."""

    async def submit() -> katipo.Handle:
        handle = pool.async_get(f"{tiny.url}/ok?gate=loops")
        task = asyncio.ensure_future(handle)
        await asyncio.sleep(0)
        task.cancel()
        return handle

    handle = asyncio.run(submit())
    tiny.open("loops")

    async def wait() -> Response:
        return await handle

    assert asyncio.run(wait()).status_code == 200


def test_cancelling_the_await_does_not_cancel_the_request(pool: katipo.Pool, tiny: TinyServer) -> None:
    """wait_for gives up, the request goes on."""

    async def main() -> None:
        handle = pool.async_get(f"{tiny.url}/ok?gate=wait_for")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(handle, 0.05)
        assert not handle.done()
        tiny.open("wait_for")
        assert (await handle).status_code == 200

    asyncio.run(main())


def test_takes_part_in_gather_as_completed_and_shield(pool: katipo.Pool, tiny: TinyServer) -> None:
    """It is awaitable, and no coroutine."""

    async def main() -> None:
        responses = await asyncio.gather(*(pool.async_get(f"{tiny.url}/ok?i={i}") for i in range(100)))
        assert [response.content for response in responses] == [f"GET /ok?i={i}".encode() for i in range(100)]
        for each in asyncio.as_completed([pool.async_get(f"{tiny.url}/ok") for _ in range(3)]):
            assert (await each).status_code == 200
        assert (await asyncio.shield(pool.async_get(f"{tiny.url}/ok"))).status_code == 200
        assert not asyncio.iscoroutine(pool.async_get(f"{tiny.url}/ok"))

    asyncio.run(main())


# ---------------------------------------------------------------------------------------------------- cancelling


def test_cancel_is_idempotent_and_result_raises(pool: katipo.Pool, tiny: TinyServer) -> None:
    """The server sees the connection close."""
    handle = pool.async_get(f"{tiny.url}/hang?cancel")
    assert tiny.arrived["/hang?cancel"].wait(10)
    handle.cancel()
    assert handle.done()
    handle.cancel()
    with pytest.raises(Cancelled) as caught:
        handle.result()
    assert caught.value.code == "cancelled"
    assert tiny.gone["/hang?cancel"].wait(10)


def test_cancel_after_the_end_changes_nothing(pool: katipo.Pool, tiny: TinyServer) -> None:
    """A request that is settled keeps its outcome."""
    handle = pool.async_get(f"{tiny.url}/ok")
    response = handle.result()
    handle.cancel()
    assert handle.result() is response


def test_cancel_drops_what_has_not_been_taken(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Decoded output that is waiting counts as not taken."""
    handle = pool.async_get(f"{tiny.url}/coded?size=50000000", stream=True, stream_window=1)
    messages = iter(handle)
    assert isinstance(next(messages), Started)
    assert isinstance(next(messages), Chunk)
    handle.cancel()
    with pytest.raises(Cancelled):
        next(messages)
    assert list(messages) == []


def test_leaving_a_block_cancels(pool: katipo.Pool, tiny: TinyServer) -> None:
    """with and async with."""
    with pool.async_get(f"{tiny.url}/hang") as handle:
        assert not handle.done()
    with pytest.raises(Cancelled):
        handle.result()

    async def main() -> None:
        async with pool.async_get(f"{tiny.url}/hang") as handle:
            pass
        with pytest.raises(Cancelled):
            await handle

    asyncio.run(main())


# ---------------------------------------------------------------------------------------------------- sending


def test_send_body_waits_for_room_and_takes_all_or_nothing(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Beyond upload_window nothing is taken; what was taken arrives whole."""
    handle = pool.async_post(f"{tiny.url}/echo", stream_body=True, stream=True, upload_window=1000, stream_window=1)
    sent = 0
    piece = bytes(1000000)

    def send_until_full() -> None:
        nonlocal sent
        while True:
            handle.send_body(piece, timeout=0.3)
            sent += len(piece)

    # The other side's consumer stands still: sooner or later the way is full.
    with pytest.raises(AwaitTimeout):
        send_until_full()
    with pytest.raises(AwaitTimeout):
        handle.send_body(b"x", timeout=0)
    handle.finish_body()
    handle.finish_body()
    handle.send_body(b"dropped")
    assert len(data_of(list(handle))) == sent


def test_asend_body_cancelled_took_nothing(pool: katipo.Pool, tiny: TinyServer) -> None:
    """A task that gave up waiting for room may send the same piece again."""

    async def main() -> None:
        handle = pool.async_post(f"{tiny.url}/echo", stream_body=True, stream=True, upload_window=1, stream_window=1)
        sent = 0
        piece = bytes(1000000)

        async def send_until_full() -> None:
            nonlocal sent
            while True:
                await asyncio.wait_for(handle.asend_body(piece), 0.3)
                sent += len(piece)

        with pytest.raises(asyncio.TimeoutError):
            await send_until_full()
        received = 0
        finish = asyncio.ensure_future(handle.asend_body(b"end"))
        async for message in handle:
            if isinstance(message, Chunk):
                received += len(message.data)
            if finish.done():
                handle.finish_body()
        assert received == sent + 3

    asyncio.run(main())


def test_echo_in_lock_step(pool: katipo.Pool, tiny: TinyServer) -> None:
    """The answer to piece n is here before piece n + 1 is sent."""
    with pool.async_post(f"{tiny.url}/echo", stream_body=True, stream=True) as handle:
        messages = iter(handle)
        assert isinstance(next(messages), Started)
        for i in range(20):
            piece = b"piece %d" % i
            handle.send_body(piece)
            got = b""
            while len(got) < len(piece):
                message = next(messages)
                assert isinstance(message, Chunk)
                got += message.data
            assert got == piece
        handle.finish_body()
        assert isinstance(next(messages), Done)


def test_sending_without_stream_body(pool: katipo.Pool, tiny: TinyServer) -> None:
    """StreamError, before anything is looked at."""
    handle = pool.async_get(f"{tiny.url}/ok")
    with pytest.raises(StreamError, match="stream_body"):
        handle.send_body(b"")
    with pytest.raises(StreamError, match="stream_body"):
        handle.finish_body()


def test_sending_on_an_answered_request(pool: katipo.Pool, tiny: TinyServer) -> None:
    """StreamClosed says that result() has the answer; on a failed one its error is raised."""
    handle = pool.async_post(f"{tiny.url}/ok", stream_body=True)
    handle.finish_body()
    assert handle.result().status_code == 200
    with pytest.raises(StreamClosed, match="result"):
        handle.send_body(b"x")
    failed = pool.async_post(f"{tiny.url}/cut", stream_body=True)
    with pytest.raises(RemoteProtocolError):
        failed.result()
    with pytest.raises(RemoteProtocolError):
        failed.send_body(b"x")


def test_sending_beyond_content_length(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Raises at the call and takes nothing of it."""
    handle = pool.async_post(f"{tiny.url}/ok", stream_body=True, headers={"Content-Length": "3"})
    handle.send_body(b"ab")
    with pytest.raises(LocalProtocolError):
        handle.send_body(b"cd")
    handle.send_body(b"c")
    handle.finish_body()
    assert handle.result().content == b"abc"


def test_finishing_short_of_content_length(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Fails the request."""
    handle = pool.async_post(f"{tiny.url}/ok", stream_body=True, headers={"Content-Length": "3"})
    handle.send_body(b"ab")
    handle.finish_body()
    with pytest.raises(LocalProtocolError):
        handle.result()


# ---------------------------------------------------------------------------------------------------- iterating


@pytest.mark.parametrize("asynchronous", [False, True], ids=["for", "async for"])
def test_a_stream_is_started_chunks_done(pool: katipo.Pool, tiny: TinyServer, asynchronous: bool) -> None:
    """In order, each with the request's reference."""
    handle = pool.async_get(f"{tiny.url}/stream?n=5&size=1000", stream=True, ref="mine")
    if asynchronous:

        async def collect() -> list[katipo.Message]:
            return [message async for message in handle]

        messages = asyncio.run(collect())
    else:
        messages = list(handle)
    started, *chunks, done = messages
    assert isinstance(started, Started)
    assert isinstance(done, Done)
    assert all(isinstance(chunk, Chunk) and chunk.data for chunk in chunks)
    assert {message.ref for message in messages} == {"mine"} == {handle.ref}
    assert data_of(messages) == b"".join(b"%d" % i * 1000 for i in range(5))
    assert (started.status_code, started.http_version) == (200, "HTTP/1.1")
    assert str(started.url) == f"{tiny.url}/stream?n=5&size=1000"
    assert started.headers["Trailer"] == "X-End"
    assert done.trailers["X-End"] == "yes"
    assert done.metrics.bytes_received == 5000


def test_a_chunk_comes_as_soon_as_it_is_there(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Nothing is held back to fill a buffer, headers neither."""
    messages = iter(pool.async_get(f"{tiny.url}/stream?n=2&gate=soon", stream=True))
    assert isinstance(next(messages), Started)
    for i in range(2):
        tiny.open("soon")
        assert next(messages) == Chunk(ref=pytest.approx(0, abs=float("inf")), data=b"%d" % i)
    assert isinstance(next(messages), Done)


def test_one_consumer_once(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Also where the first left early."""
    handle = pool.async_get(f"{tiny.url}/stream", stream=True)
    for _ in handle:
        break
    for again in (iter, aiter) if hasattr(__builtins__, "aiter") else (iter, type(handle).__aiter__):
        with pytest.raises(StreamConsumed):
            again(handle)


def test_result_of_a_stream_and_iterating_a_buffered_one(pool: katipo.Pool, tiny: TinyServer) -> None:
    """StreamError says where the answer is."""
    streamed = pool.async_get(f"{tiny.url}/stream", stream=True)
    with pytest.raises(StreamError):
        streamed.result()
    buffered = pool.async_get(f"{tiny.url}/ok")
    with pytest.raises(StreamError):
        iter(buffered)

    async def main() -> None:
        with pytest.raises(StreamError):
            await streamed

    asyncio.run(main())


def test_a_failure_comes_after_the_chunks_before_it(pool: katipo.Pool, tiny: TinyServer) -> None:
    """And iteration is over then."""
    messages = iter(pool.async_get(f"{tiny.url}/cut", stream=True))
    assert isinstance(next(messages), Started)
    chunk = next(messages)
    assert isinstance(chunk, Chunk)
    assert chunk.data == b"before"
    with pytest.raises(RemoteProtocolError) as caught:
        next(messages)
    assert caught.value.metrics is not None
    assert list(messages) == []


def test_manual_flow_control(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Nothing beyond the credit, but for one delivery; update_flow on a finished request is harmless."""
    handle = pool.async_get(f"{tiny.url}/stream?n=50&size=100000", stream=True, stream_window=1, flow_control="manual")
    messages = iter(handle)
    assert isinstance(next(messages), Started)
    received = 0
    while not isinstance(message := next(messages), Done):
        assert isinstance(message, Chunk)
        received += len(message.data)
        handle.update_flow(len(message.data))
    assert received == 5000000
    handle.update_flow(10)
    with pytest.raises(ValueError, match="negative"):
        handle.update_flow(-1)


@pytest.mark.parametrize("window", [1, 1000, 1048576, None])
def test_decoded_in_pieces_no_larger_than_a_window(pool: katipo.Pool, tiny: TinyServer, window: int | None) -> None:
    """A few bytes on the wire are many chunks."""
    handle = pool.async_get(f"{tiny.url}/coded?size=3000000", stream=True, stream_window=window)
    started, *chunks, done = handle
    assert isinstance(started, Started)
    assert isinstance(done, Done)
    assert started.headers["Content-Encoding"] == "gzip"
    sizes = [len(chunk.data) for chunk in chunks if isinstance(chunk, Chunk)]
    assert sum(sizes) == 3000000
    assert max(sizes) <= max(window or 1048576, 16384)
    assert done.metrics.bytes_received < 10000


def test_decode_false_delivers_what_was_sent(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Bytes as sent."""
    messages = list(pool.async_get(f"{tiny.url}/coded?size=3000", stream=True, decode=False))
    assert data_of(messages)[:2] == b"\x1f\x8b"


@pytest.mark.parametrize("how", ["cut", "bad"])
def test_a_stream_that_cannot_be_decoded(pool: katipo.Pool, tiny: TinyServer, how: str) -> None:
    """DecodingError in its place, once, with what a request's error carries."""
    messages = iter(pool.async_get(f"{tiny.url}/coded?size=300000&how={how}", stream=True))
    assert isinstance(next(messages), Started)
    with pytest.raises(DecodingError) as caught:
        list(messages)
    assert (caught.value.code, caught.value.curl_code) == ("bad_content_encoding", 61)
    assert caught.value.request is not None
    assert caught.value.metrics is not None
    assert list(messages) == []


@pytest.mark.parametrize("options", [{}, {"decode": False}], ids=["decode", "as sent"])
@pytest.mark.parametrize("path", ["/stream?n=3&size=1000", "/coded?size=100000000"])
def test_max_response_bytes_counts_what_is_delivered(
    pool: katipo.Pool, tiny: TinyServer, path: str, options: dict[str, bool]
) -> None:
    """In streams too, decoded or not."""
    handle = pool.async_get(tiny.url + path, stream=True, max_response_bytes=2500, **options)  # type: ignore[arg-type]
    received = 0

    def take() -> None:
        nonlocal received
        for message in handle:
            if isinstance(message, Chunk):
                received += len(message.data)

    with pytest.raises(ResponseTooLarge) as caught:
        take()
    assert caught.value.code == "filesize_exceeded"
    assert received <= 2500
    assert handle.done()


# ---------------------------------------------------------------------------------------------------- the end of a handle


def test_a_dropped_stream_is_cancelled(pool: katipo.Pool, tiny: TinyServer) -> None:
    """The server sees it go, and the pool has it no more."""
    handle = pool.async_get(f"{tiny.url}/stream?n=2&gate=dropped", stream=True)
    assert tiny.arrived["/stream?n=2&gate=dropped"].wait(10)
    messages = iter(handle)
    assert isinstance(next(messages), Started)
    del handle
    gc.collect()
    assert pool.statistics().in_flight == 1, "the iterator keeps it"
    del messages
    gc.collect()
    assert tiny.gone["/stream?n=2&gate=dropped"].wait(10)


def test_a_dropped_upload_is_aborted_or_finished(pool: katipo.Pool, tiny: TinyServer) -> None:
    """on_abandon says which; the worker is free either way."""
    box = katipo.Mailbox()
    for on_abandon in ("abort", "finish"):
        handle = pool.async_post(f"{tiny.url}/ok", stream_body=True, on_abandon=on_abandon, reply_to=box)
        handle.send_body(b"half")
        del handle
        gc.collect()
        message = box.receive(10)
        if on_abandon == "abort":
            assert isinstance(message, katipo.Failed)
            assert isinstance(message.error, Cancelled)
        else:
            assert isinstance(message, katipo.Responded)
            assert message.response.content == b"half"
    assert pool.get(f"{tiny.url}/ok").status_code == 200


def test_a_dropped_buffered_request_runs_to_its_end(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Fire and forget."""
    pool.async_get(f"{tiny.url}/ok?forget&gate=forget")
    gc.collect()
    tiny.open("forget")
    wait_until(lambda: pool.statistics().completed == 1)


def test_a_handle_keeps_its_pool(tiny: TinyServer) -> None:
    """A pool whose variable is gone serves the handles that are left, and warns when they are gone too."""
    handle = katipo.Pool().async_get(f"{tiny.url}/ok?gate=keeps")
    gc.collect()
    tiny.open("keeps")
    assert handle.result(10).status_code == 200
    handles = [handle]
    del handle
    with pytest.warns(ResourceWarning, match="unclosed <Pool"):
        handles.clear()
