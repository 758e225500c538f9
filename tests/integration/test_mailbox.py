"""Mailboxes: the messages of many requests in one place, each to exactly one consumer, in order."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from katipo.messages import Chunk, Done, Failed, Message, Responded, Started
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0


# ---------------------------------------------------------------------------------------------------- arriving


@pytest.mark.core
def test_another_thread_serves_the_mailbox(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A thread that made none of the requests gets the answer of each, known by its reference."""
    box = katipo.Mailbox()
    answers: dict[object, bytes] = {}

    def serve() -> None:
        for message in box:
            assert isinstance(message, Responded)
            answers[message.ref] = message.response.content
            if len(answers) == 50:
                box.close()

    thread = threading.Thread(target=serve)
    thread.start()
    for index in range(50):
        pool.async_post(endpoint("/echo"), body=pattern(index, 100), reply_to=box, ref=index, **endpoint.options)
    thread.join(HANG)
    assert answers == {index: pattern(index, 100) for index in range(50)}


@pytest.mark.core
def test_the_handle_of_a_mailed_request_has_no_answer(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """result, await and iteration raise StreamError; done and cancel work."""
    box = katipo.Mailbox()
    handle = pool.async_get(endpoint("/count"), reply_to=box, **endpoint.options)
    with pytest.raises(katipo.StreamError):
        handle.result(0)
    with pytest.raises(katipo.StreamError):
        iter(handle)

    async def awaiting() -> None:
        await handle

    with pytest.raises(katipo.StreamError):
        asyncio.run(awaiting())
    assert isinstance(box.receive(HANG), Responded)
    assert handle.done()
    handle.cancel()


@pytest.mark.core
def test_a_request_without_a_handle_still_replies(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Nobody needs to keep the handle of a mailed request, buffered or streamed."""
    box, gate = katipo.Mailbox(), origin.fresh_id()
    pool.async_get(endpoint("/drip", n=1, gate=gate), reply_to=box, **endpoint.options)
    pool.async_get(endpoint("/drip", n=1, gate=gate), reply_to=box, stream=True, **endpoint.options)
    gc.collect()
    origin.open_gate(gate, None)
    kinds = sorted(type(box.receive(HANG)).__name__ for _ in range(4))
    assert kinds == ["Chunk", "Done", "Responded", "Started"]


def test_an_error_is_a_message(pool: katipo.Pool, hostile: Hostile) -> None:
    """A request that fails is one Failed with its reference and its error."""
    box = katipo.Mailbox()
    pool.async_get(f"http://127.0.0.1:{hostile.refused_port()}/", reply_to=box, ref=("any", "hashable"))
    message = box.receive(HANG)
    assert isinstance(message, Failed)
    assert message.ref == ("any", "hashable")
    assert isinstance(message.error, katipo.ConnectError)
    assert len(box) == 0


def test_uploads_are_driven_by_the_handle_and_answered_in_the_mailbox(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """send_body and finish_body work beside reply_to; the echo arrives in the mailbox."""
    box = katipo.Mailbox()
    handle = pool.async_post(endpoint("/echo"), stream=True, stream_body=True, reply_to=box, **endpoint.options)
    assert isinstance(box.receive(HANG), Started)
    for index in range(10):
        handle.send_body(b"piece %d" % index)
        received = b""
        while len(received) < 7:
            message = box.receive(HANG)
            assert isinstance(message, Chunk)
            received += message.data
        assert received == b"piece %d" % index
    handle.finish_body()
    assert isinstance(box.receive(HANG), Done)


# ---------------------------------------------------------------------------------------------------- order, consumers


def collect(messages: list[Message]) -> dict[object, list[Message]]:
    by_ref: dict[object, list[Message]] = defaultdict(list)
    for message in messages:
        by_ref[message.ref].append(message)
    return by_ref


@pytest.mark.core
def test_the_messages_of_each_request_keep_their_order(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Streams that arrive interleaved are each Started, Chunks in order, Done."""
    box = katipo.Mailbox()
    for index in range(20):
        pool.async_get(
            endpoint("/big", size=30_000 + index),
            stream=True,
            stream_window=5000,
            reply_to=box,
            ref=index,
            **endpoint.options,
        )
    messages: list[Message] = []
    while sum(isinstance(message, Done) for message in messages) < 20:
        messages.append(box.receive(HANG))
    for ref, mine in collect(messages).items():
        assert isinstance(ref, int)
        assert isinstance(mine[0], Started)
        assert isinstance(mine[-1], Done)
        chunks = mine[1:-1]
        assert b"".join(message.data for message in chunks if isinstance(message, Chunk)) == pattern(0, 30_000 + ref)
        assert all(isinstance(message, Chunk) for message in chunks)


@pytest.mark.core
def test_each_message_goes_to_exactly_one_of_many_consumers(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Eight threads share a mailbox: together they get every message once, and none is left waiting at the end."""
    box, lock = katipo.Mailbox(), threading.Lock()
    seen: list[object] = []

    def consume() -> None:
        for message in box:
            with lock:
                seen.append(message.ref)
                if len(seen) == 200:
                    box.close()

    threads = [threading.Thread(target=consume) for _ in range(8)]
    for thread in threads:
        thread.start()
    for index in range(200):
        pool.async_get(endpoint("/count"), reply_to=box, ref=index, **endpoint.options)
    for thread in threads:
        thread.join(HANG)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(seen, key=str) == sorted(range(200), key=str)


def test_a_request_shared_by_consumers_keeps_its_order(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """However many take the chunks of one stream, each chunk is taken after the one before it."""
    box, lock = katipo.Mailbox(), threading.Lock()
    taken: list[bytes] = []
    pool.async_get(endpoint("/big", size=500_000), stream=True, stream_window=1, reply_to=box, **endpoint.options)

    def consume() -> None:
        for message in box:
            if isinstance(message, Chunk):
                with lock:
                    taken.append(message.data)
            if isinstance(message, Done):
                box.close()

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    # Which of two consumers comes to note its chunk first is theirs: the pieces are those of the body all the same.
    assert sum(map(len, taken)) == 500_000
    assert sorted(b"".join(taken)) == sorted(pattern(0, 500_000))


def test_threads_and_loops_may_share_a_mailbox(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A blocked thread and a task in a loop take from the same mailbox, and neither misses what is its turn."""
    box = katipo.Mailbox()
    seen: list[object] = []

    def consume() -> None:
        seen.extend(message.ref for message in box)

    async def aconsume() -> None:
        seen.extend([message.ref async for message in box])

    threads = [threading.Thread(target=consume), threading.Thread(target=lambda: asyncio.run(aconsume()))]
    for thread in threads:
        thread.start()
    handles = [pool.async_get(endpoint("/count"), reply_to=box, ref=index, **endpoint.options) for index in range(60)]
    wait_until(lambda: all(handle.done() for handle in handles) and len(box) == 0)
    box.close()
    for thread in threads:
        thread.join(HANG)
    assert sorted(seen, key=str) == sorted(range(60), key=str)


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True}), "trio"])
async def test_a_mailbox_is_received_from_in_an_event_loop(
    pool: katipo.Pool, endpoint: Endpoint, anyio_backend: object
) -> None:
    """areceive and async iteration work on asyncio, uvloop and trio."""
    box = katipo.Mailbox()
    for index in range(10):
        pool.async_get(endpoint("/count"), reply_to=box, ref=index, **endpoint.options)
    refs = [(await box.areceive()).ref]
    async for message in box:
        refs.append(message.ref)
        if len(refs) == 10:
            box.close()
    assert sorted(refs) == list(range(10))


async def test_a_cancelled_areceive_loses_nothing(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Consumers cancelled just when a message comes pass it on to those who stay."""
    box, gate = katipo.Mailbox(), origin.fresh_id()
    for index in range(50):
        pool.async_get(endpoint("/drip", n=1, gate=gate), reply_to=box, ref=index, **endpoint.options)
    seen: list[object] = []

    async def consume() -> None:
        while True:
            seen.append((await box.areceive()).ref)

    async def until_all_are_seen() -> None:
        while len(seen) < 50:
            tasks = [asyncio.ensure_future(consume()) for _ in range(4)]
            await asyncio.sleep(0.001)  # any moment will do
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    origin.open_gate(gate, None)
    await asyncio.wait_for(until_all_are_seen(), HANG)
    assert sorted(seen, key=str) == sorted(range(50), key=str)
    assert len(box) == 0


async def test_a_cancelled_consumer_passes_its_wake_up_on(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """Of two waiting consumers the one that was woken is cancelled before it runs: the other one gets the message."""
    box, gate = katipo.Mailbox(), origin.fresh_id()
    first, second = (asyncio.ensure_future(box.areceive()) for _ in range(2))
    await asyncio.sleep(0)
    handle = pool.async_get(endpoint("/drip", n=1, gate=gate), reply_to=box, ref="it", **endpoint.options)
    origin.open_gate(gate)
    wait_until(handle.done)  # the loop does not run meanwhile, so the one that is woken has not noticed
    first.cancel()
    assert (await asyncio.wait_for(second, HANG)).ref == "it"
    with pytest.raises(asyncio.CancelledError):
        await first


# ---------------------------------------------------------------------------------------------------- waiting, closing


def test_receive_runs_out_of_time(pool: katipo.Pool) -> None:
    """timeout=0 polls, a timeout waits so long: AwaitTimeout."""
    box = katipo.Mailbox()
    for timeout in (0, 0.05):
        with pytest.raises(katipo.AwaitTimeout) as raised:
            box.receive(timeout)
        assert raised.value.code == "await_timeout"


@pytest.mark.core
def test_len_counts_what_can_be_taken(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """len() is the number of messages that receive(0) would give."""
    box = katipo.Mailbox()
    handles = [pool.async_get(endpoint("/count"), reply_to=box, **endpoint.options) for _ in range(5)]
    wait_until(lambda: all(handle.done() for handle in handles))
    for left in range(5, 0, -1):
        assert len(box) == left
        box.receive(0)
    assert len(box) == 0
    assert bool(box)


@pytest.mark.core
def test_closing_cancels_what_is_in_flight_and_keeps_what_is_queued(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """After close() the queued messages and one Cancelled for each request in flight can be taken, then MailboxClosed."""
    box, name = katipo.Mailbox(), origin.fresh_id()
    first = pool.async_get(endpoint("/count"), reply_to=box, ref="answered", **endpoint.options)
    wait_until(first.done)
    second = pool.async_get(endpoint("/hang", id=name), reply_to=box, ref="in flight", **endpoint.options)
    origin.journal(name, until="started")
    box.close()
    box.close()
    assert second.done()
    messages = {message.ref: message for message in (box.receive(0), box.receive(0))}
    assert isinstance(messages["answered"], Responded)
    failed = messages["in flight"]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, katipo.Cancelled)
    with pytest.raises(katipo.MailboxClosed) as raised:
        box.receive()
    assert raised.value.code == "mailbox_closed"
    assert list(box) == []
    origin.journal(name, until="disconnected")


def test_closing_wakes_every_consumer(pool: katipo.Pool) -> None:
    """Threads blocked in receive() and in iteration end."""
    box = katipo.Mailbox()
    ended: list[str] = []

    def receive() -> None:
        with pytest.raises(katipo.MailboxClosed):
            box.receive()
        ended.append("receive")

    def iterate() -> None:
        ended.extend("message" for _ in box)
        ended.append("iterate")

    threads = [threading.Thread(target=target) for target in (receive, iterate, receive)]
    for thread in threads:
        thread.start()
    box.close()
    for thread in threads:
        thread.join(HANG)
    assert sorted(ended) == ["iterate", "receive", "receive"]


async def test_closing_wakes_tasks(pool: katipo.Pool) -> None:
    """So do tasks."""
    box = katipo.Mailbox()
    tasks = [asyncio.ensure_future(box.areceive()) for _ in range(3)]
    await asyncio.sleep(0)
    box.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [katipo.MailboxClosed] * 3


def test_a_dropped_mailbox_counts_as_closed(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """When the last reference goes, its requests are cancelled and the server sees it."""
    box, name = katipo.Mailbox(), origin.fresh_id()
    handle = pool.async_get(endpoint("/hang", id=name), reply_to=box, **endpoint.options)
    origin.journal(name, until="started")
    del box
    gc.collect()
    assert handle.done()
    origin.journal(name, until="disconnected")


@pytest.mark.core
@pytest.mark.parametrize("wrong", [42, "box", object(), [], print], ids=repr)
def test_a_bad_reply_to_is_bad_options(pool: katipo.Pool, endpoint: Endpoint, wrong: Any) -> None:
    """Anything but a Mailbox is refused at the call, and nothing is started for it."""
    with pytest.raises(katipo.BadOptions, match="reply_to"):
        pool.async_get(endpoint("/count"), reply_to=wrong, **endpoint.options)
    assert pool.statistics().workers == 0


def test_a_closed_mailbox_is_bad_options(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """reply_to a mailbox that is closed is refused at the call."""
    box = katipo.Mailbox()
    box.close()
    with pytest.raises(katipo.BadOptions, match="reply_to"):
        pool.async_get(endpoint("/count"), reply_to=box, **endpoint.options)


def test_closing_while_requests_are_submitted_loses_none(
    make_pool: Callable[..., katipo.Pool], endpoint: Endpoint
) -> None:
    """A mailbox closed in the middle of a burst: each accepted request has one terminal, the others raise."""
    pool = make_pool()
    box = katipo.Mailbox()
    accepted: list[object] = []
    thread = threading.Thread(target=box.close)
    for index in range(300):
        if index == 100:
            thread.start()
        try:
            pool.async_get(endpoint("/count"), reply_to=box, ref=index, **endpoint.options)
        except katipo.BadOptions:
            continue
        accepted.append(index)
    thread.join()
    assert sorted(message.ref for message in box) == accepted
