"""Mailbox: order, many consumers, cancelled ones, and closing."""

import asyncio
import gc
import threading
import time
from collections import defaultdict

import pytest

import katipo
from katipo import (
    AwaitTimeout,
    BadOptions,
    Cancelled,
    Chunk,
    Done,
    Failed,
    Mailbox,
    MailboxClosed,
    Overload,
    Responded,
    Started,
    StreamError,
)
from tests.support.waiting import wait_until
from tests.unit.tiny_server import TinyServer

TERMINAL = (Responded, Done, Failed)


def take_terminals(box: Mailbox, count: int) -> dict[object, list[katipo.Message]]:
    """Messages by reference, until `count` requests have ended."""
    found: dict[object, list[katipo.Message]] = defaultdict(list)
    while count:
        message = box.receive(10)
        found[message.ref].append(message)
        count -= isinstance(message, TERMINAL)
    return found


def test_buffered_requests_arrive_as_one_message_each(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Responded or Failed, and nothing else."""
    box = Mailbox()
    for i in range(20):
        pool.async_get(f"{tiny.url}/ok?i={i}", reply_to=box, ref=i)
    pool.async_get(f"{tiny.url}/cut", reply_to=box, ref="cut")
    found = take_terminals(box, 21)
    assert [type(message) for message in found.pop("cut")] == [Failed]
    for ref, (message,) in found.items():
        assert isinstance(message, Responded)
        assert message.response.content == f"GET /ok?i={ref}".encode()
    assert len(box) == 0


def test_messages_of_one_request_keep_their_order(pool: katipo.Pool, tiny: TinyServer) -> None:
    """However many consumers there are, and whether they are decoded or not."""
    box = Mailbox()
    found: dict[object, list[katipo.Message]] = defaultdict(list)
    lock = threading.Lock()
    # What a consumer took last is put down before it takes again: order among consumers is not the mailbox's matter.
    taking = threading.Lock()

    def consume() -> None:
        while True:
            with taking:
                try:
                    message = box.receive(10)
                except MailboxClosed:
                    return
                with lock:
                    found[message.ref].append(message)

    consumers = [threading.Thread(target=consume) for _ in range(4)]
    for consumer in consumers:
        consumer.start()
    handles = []
    for i in range(10):
        handles.append(
            pool.async_get(f"{tiny.url}/stream?n=20&size=50000", stream=True, stream_window=1, reply_to=box, ref=i)
        )
        handles.append(
            pool.async_get(f"{tiny.url}/coded?size=400000", stream=True, stream_window=1, reply_to=box, ref=i + 10)
        )
    wait_until(lambda: sum(isinstance(messages[-1], TERMINAL) for messages in list(found.values())) == 20)
    box.close()
    for consumer in consumers:
        consumer.join()
    for ref, messages in found.items():
        started, *chunks, done = messages
        assert isinstance(started, Started)
        assert isinstance(done, Done)
        data = b"".join(chunk.data for chunk in chunks if isinstance(chunk, Chunk))
        assert isinstance(ref, int)
        assert data == (b"".join(b"%d" % (i % 10) * 50000 for i in range(20)) if ref < 10 else bytes(400000))


def test_each_message_goes_to_one_consumer(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Threads and tasks together lose nothing and get nothing twice."""
    box = Mailbox()
    refs: list[object] = []

    def blocked() -> None:
        for message in box:
            refs.append(message.ref)

    async def awaiting() -> None:
        async def one() -> None:
            async for message in box:
                refs.append(message.ref)

        await asyncio.gather(*(one() for _ in range(3)))

    threads = [threading.Thread(target=blocked) for _ in range(3)]
    threads.append(threading.Thread(target=lambda: asyncio.run(awaiting())))
    for thread in threads:
        thread.start()
    for i in range(300):
        pool.async_get(f"{tiny.url}/ok", reply_to=box, ref=i)
    wait_until(lambda: len(refs) == 300)
    box.close()
    for thread in threads:
        thread.join()
    assert sorted(refs) == list(range(300))  # type: ignore[type-var]


def test_a_cancelled_areceive_loses_nothing(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Also where it has been woken already when it is cancelled."""

    async def main() -> None:
        box = Mailbox()
        for turn in range(50):
            tasks = [asyncio.ensure_future(box.areceive()) for _ in range(4)]
            await asyncio.sleep(0)
            for i in range(4):
                pool.async_get(f"{tiny.url}/ok", reply_to=box, ref=(turn, i))
            if turn % 2:
                await asyncio.sleep(0.001 * (turn % 5))
            tasks[0].cancel()
            tasks[2].cancel()
            got = list(await asyncio.gather(*tasks, return_exceptions=True))
            refs = [each.ref for each in got if not isinstance(each, BaseException)]
            while len(refs) < 4:
                refs.append((await asyncio.wait_for(box.areceive(), 10)).ref)
            assert sorted(refs) == [(turn, i) for i in range(4)]

    asyncio.run(main())


def test_receive_runs_out_of_time(pool: katipo.Pool, tiny: TinyServer) -> None:
    """timeout=0 polls."""
    box = Mailbox()
    for timeout in (0, 0.02):
        with pytest.raises(AwaitTimeout):
            box.receive(timeout)
    pool.async_get(f"{tiny.url}/ok", reply_to=box).cancel()
    assert isinstance(box.receive(0), Failed)


def test_close_cancels_and_leaves_what_is_queued(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Then receive raises and iteration ends."""
    box = Mailbox()
    done = pool.async_get(f"{tiny.url}/ok", reply_to=box, ref="done")
    wait_until(done.done)
    pool.async_get(f"{tiny.url}/hang", reply_to=box, ref="hang")
    assert len(box) == 1
    box.close()
    box.close()
    messages = {message.ref: message for message in box}
    assert isinstance(messages["done"], Responded)
    failed = messages["hang"]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, Cancelled)
    with pytest.raises(MailboxClosed):
        box.receive()

    async def main() -> None:
        assert [message async for message in box] == []
        with pytest.raises(MailboxClosed):
            await box.areceive()

    asyncio.run(main())


def test_close_wakes_every_consumer(pool: katipo.Pool) -> None:
    """Blocked threads and waiting tasks."""
    box = Mailbox()
    ended = []
    threads = [threading.Thread(target=lambda: ended.append(list(box))) for _ in range(3)]
    for thread in threads:
        thread.start()

    async def main() -> None:
        task = asyncio.ensure_future(box.areceive())
        await asyncio.sleep(0)
        box.close()
        with pytest.raises(MailboxClosed):
            await task

    asyncio.run(main())
    for thread in threads:
        thread.join(10)
    assert ended == [[], [], []]


def test_a_mailbox_without_references_counts_as_closed(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Its requests are cancelled, although their handles are there."""
    box = Mailbox()
    handle = pool.async_get(f"{tiny.url}/hang", reply_to=box)
    assert not handle.done()
    del box
    gc.collect()
    assert handle.done()


def test_the_answer_goes_to_the_mailbox_and_nowhere_else(pool: katipo.Pool, tiny: TinyServer) -> None:
    """result, await and iteration raise StreamError; done, cancel and the body's methods work."""
    box = Mailbox()
    handle = pool.async_post(f"{tiny.url}/echo", stream=True, stream_body=True, reply_to=box, flow_control="manual")

    async def main() -> None:
        with pytest.raises(StreamError, match="mailbox"):
            await handle
        with pytest.raises(StreamError, match="mailbox"):
            handle.__aiter__()

    asyncio.run(main())
    with pytest.raises(StreamError, match="mailbox"):
        handle.result()
    with pytest.raises(StreamError, match="mailbox"):
        iter(handle)
    handle.send_body(b"abc")
    handle.update_flow(3)
    handle.finish_body()
    messages = take_terminals(box, 1)[handle.ref]
    assert [type(message) for message in messages] == [Started, Chunk, Done]
    assert handle.done()
    handle.cancel()
    assert len(box) == 0


def test_no_message_after_a_cancel_but_its_terminal(pool: katipo.Pool, tiny: TinyServer) -> None:
    """What was decoded and not taken is dropped too."""
    box = Mailbox()
    handle = pool.async_get(f"{tiny.url}/coded?size=50000000", stream=True, stream_window=1, reply_to=box)
    assert isinstance(box.receive(10), Started)
    assert isinstance(box.receive(10), Chunk)
    handle.cancel()
    message = box.receive(10)
    assert isinstance(message, Failed)
    assert isinstance(message.error, Cancelled)
    with pytest.raises(AwaitTimeout):
        box.receive(0.05)


def test_a_bad_reply_to_is_refused(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Anything but an open mailbox."""
    box = Mailbox()
    box.close()
    for bad in (box, "box", object()):
        with pytest.raises(BadOptions, match="reply_to"):
            pool.async_get(f"{tiny.url}/ok", reply_to=bad)  # type: ignore[arg-type]
    with pytest.raises(BadOptions, match="reply_to requires async_request"):
        pool.get(f"{tiny.url}/ok", reply_to=Mailbox())  # type: ignore[call-arg]


def test_a_refused_request_leaves_nothing_in_the_mailbox(tiny: TinyServer) -> None:
    """No message follows a call that raised, and no state stays."""
    box = Mailbox()
    with katipo.Pool(max_in_flight=1) as pool:
        pool.async_get(f"{tiny.url}/hang", reply_to=box)
        for _ in range(5):
            with pytest.raises(Overload):
                pool.async_get(f"{tiny.url}/ok", reply_to=box)
        assert len(box._deliveries) == 1
    assert len(take_terminals(box, 1)) == 1
    assert not box._deliveries


def test_it_knows_when_to_look_for_a_wedged_worker(pool: katipo.Pool, tiny: TinyServer) -> None:
    """A second and a bit past the earliest deadline of what replies to it, and again for what is left."""
    box = Mailbox()
    assert box._overdue.overdue_at() == float("inf")
    pool.async_get(f"{tiny.url}/hang", reply_to=box, timeout_ms=5000)
    pool.async_get(f"{tiny.url}/hang", reply_to=box, timeout_ms=60000)
    assert box._overdue.overdue_at() == pytest.approx(time.monotonic() + 6.1, abs=1)
    box._overdue.at = 0.0
    box._overdue.fail_overdue()
    assert len(box) == 0, "nothing is overdue"
    assert box._overdue.overdue_at() == pytest.approx(time.monotonic() + 6.1, abs=1)


def test_len_and_truth() -> None:
    """An empty mailbox is still one."""
    box = Mailbox()
    assert len(box) == 0
    assert box
    assert repr(box) == "<Mailbox 0 messages>"
    box.close()
    assert repr(box) == "<Mailbox closed, 0 messages>"
