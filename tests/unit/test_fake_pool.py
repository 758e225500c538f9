"""FakePool's handlers: where they run, what becomes of what they raise, and what a fake pool does without."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from typing import Any

import pytest
import trio

import katipo
from katipo import Request, Response, _engine
from katipo.messages import Failed, Informational, Started
from katipo.testing import FakePool, kill_worker
from tests.support.procs import open_descriptors, threads

HANG = 30.0
URL = "http://example.test/"


def ok(request: Request) -> Response:
    return Response(200, text=request.url.path)


class Oops(Exception):
    """No error of katipo's."""


class Beyond(BaseException):
    """Not even an Exception, as pytest's own outcomes."""


def raising(error: BaseException) -> Any:
    def handler(request: Request) -> Response:
        raise error

    return handler


def raising_late(error: BaseException) -> Any:
    async def handler(request: Request) -> Response:
        await asyncio.sleep(0)
        raise error

    return handler


# ---------------------------------------------------------------------------------------------------- what is raised


@pytest.mark.parametrize("make", [raising, raising_late])
@pytest.mark.parametrize("kind", [Oops, Beyond, KeyboardInterrupt])
def test_what_a_handler_raises_is_what_the_caller_gets(make: Any, kind: type[BaseException]) -> None:
    """The very object, from a blocking call, result() and iteration; the pool goes on."""
    error = kind()
    with FakePool(make(error)) as pool:
        for stream in (False, True):
            handle = pool.async_get(URL, stream=stream)
            with pytest.raises(kind) as caught:
                list(handle) if stream else handle.result()
            assert caught.value is error
        with pytest.raises(kind):
            pool.get(URL)
        assert pool.statistics().failed == 3


@pytest.mark.parametrize("make", [raising, raising_late])
def test_an_error_of_katipos_is_the_requests_own(make: Any) -> None:
    """Class, code and message stay; the request is set."""
    error = katipo.ConnectTimeout("too slow", code="mine")
    with FakePool(make(error)) as pool, pytest.raises(katipo.ConnectTimeout) as caught:
        pool.get(URL)
    assert caught.value is error
    assert (error.code, error.message) == ("mine", "too slow")
    assert error.request is not None
    assert str(error.request.url) == URL


def test_a_mailbox_gets_it_as_a_failure() -> None:
    """katipo's own as it is; any other as the cause of a TransportError."""
    box = katipo.Mailbox()
    with FakePool(raising(Oops("mine"))) as pool:
        pool.async_get(URL, reply_to=box, ref="a")
        message = box.receive(HANG)
    assert isinstance(message, Failed)
    assert type(message.error) is katipo.TransportError
    assert (message.ref, message.error.code) == ("a", "handler_raised")
    assert "mine" not in message.error.message, "it may hold anything"
    assert isinstance(message.error.__cause__, Oops)
    error = katipo.ReadError("gone")
    with FakePool(raising(error)) as pool:
        pool.async_get(URL, reply_to=box)
        message = box.receive(HANG)
    assert isinstance(message, Failed)
    assert message.error is error


def test_an_exception_in_an_exchange_stops_the_sender() -> None:
    """What is sent after the handler has failed raises its error."""
    with FakePool(raising(Oops("mine"))) as pool:
        handle = pool.async_post(URL, stream_body=True)
        handle.send_body(b"x")
        handle.finish_body()
        with pytest.raises(Oops):
            handle.send_body(b"y")


def test_a_handler_must_return_a_response() -> None:
    """Anything else is a TypeError to the caller, naming its type."""
    wrong: Any = lambda request: b"body"  # noqa: E731
    with FakePool(wrong) as pool, pytest.raises(TypeError, match="must return a Response, not bytes"):
        pool.get(URL)


def test_what_was_raised_is_let_go() -> None:
    """A cycle through the traceback is no leak: the engine holds no Python object."""

    def handler(request: Request) -> Response:
        raise Oops

    with FakePool(handler) as pool:
        handle = pool.async_get(URL)
        with pytest.raises(Oops):
            handle.result()
        gc.collect()
        before = _engine.counts()["transfers"]
        del handle
        gc.collect()
        assert _engine.counts()["transfers"] == before - 1


# ---------------------------------------------------------------------------------------------------- where it runs


def test_a_plain_handler_runs_in_the_callers_thread() -> None:
    """At submission, or where the body ends."""
    ran: list[int] = []

    def handler(request: Request) -> Response:
        ran.append(threading.get_ident())
        return Response(200, content=request.content)

    with FakePool(handler) as pool:
        assert pool.async_get(URL).done()
        handle = pool.async_post(URL, stream_body=True)
        thread = threading.Thread(target=handle.finish_body)
        thread.start()
        thread.join()
        assert handle.done()
        assert ran == [threading.get_ident(), thread.ident]


def test_an_awaitable_is_a_task_of_the_running_loop() -> None:
    """It waits while others go on, and answers when it is ready."""

    async def main() -> None:
        gate = asyncio.Event()

        async def handler(request: Request) -> Response:
            await gate.wait()
            return Response(200, text="late")

        with FakePool(handler) as pool:
            handles = [pool.async_get(URL) for _ in range(3)]
            await asyncio.sleep(0)
            assert pool.statistics().in_flight == 3
            gate.set()
            assert [response.text for response in await asyncio.gather(*handles)] == ["late"] * 3

    asyncio.run(main())


def test_an_awaitable_is_a_task_of_the_trio_run() -> None:
    """With trio's own primitives."""

    async def main() -> None:
        gate = trio.Event()

        async def handler(request: Request) -> Response:
            await gate.wait()
            return Response(200, text="late")

        with FakePool(handler) as pool:
            handle = pool.async_get(URL)
            await trio.lowlevel.checkpoint()
            assert not handle.done()
            gate.set()
            assert (await handle).text == "late"

    trio.run(main)


def test_a_cancel_cancels_the_task() -> None:
    """In asyncio, from the loop and from another thread; what the handler cleans up runs."""

    async def main(elsewhere: bool) -> None:
        begun, cleaned = asyncio.Event(), asyncio.Event()

        async def handler(request: Request) -> Response:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.set()
            raise AssertionError

        with FakePool(handler) as pool:
            handle = pool.async_get(URL)
            await begun.wait()
            if elsewhere:
                await asyncio.to_thread(handle.cancel)
            else:
                handle.cancel()
            with pytest.raises(katipo.Cancelled):
                await handle
            await asyncio.wait_for(cleaned.wait(), HANG)
            pool.async_get(URL).cancel()  # one that has not begun: without a warning

    asyncio.run(main(False))
    asyncio.run(main(True))


def test_a_cancel_cancels_the_trio_task() -> None:
    """And so does the end of the pool."""

    async def main(close: bool) -> None:
        begun, cleaned = trio.Event(), trio.Event()

        async def handler(request: Request) -> Response:
            begun.set()
            try:
                await trio.sleep_forever()
            finally:
                cleaned.set()
            raise AssertionError

        pool = FakePool(handler)
        handle = pool.async_get(URL)
        await begun.wait()
        if close:
            await pool.aclose()
        else:
            handle.cancel()
        with pytest.raises(katipo.PoolClosed if close else katipo.Cancelled):
            await handle
        with trio.fail_after(HANG):
            await cleaned.wait()
        await pool.aclose()

    trio.run(main, False)
    trio.run(main, True)


def test_a_loop_that_ends_takes_its_requests_along() -> None:
    """Their tasks are cancelled with it, and they fail with Cancelled."""
    handles: list[katipo.Handle] = []

    async def handler(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def main(pool: katipo.Pool) -> None:
        handles.append(pool.async_get(URL))
        await asyncio.sleep(0)
        handles.append(pool.async_get(URL))

    with FakePool(handler) as pool:
        asyncio.run(main(pool))
        with pytest.raises(katipo.Cancelled):
            handles[0].result(HANG)
        handles[1].cancel()


def test_a_blocking_call_in_a_loop_runs_the_handler_itself() -> None:
    """The loop stands still meanwhile; it is as it was afterwards."""

    async def handler(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(200, text="here")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with FakePool(handler) as pool:
            assert pool.get(URL).text == "here"
            box = katipo.Mailbox()
            pool.async_get(URL, reply_to=box)
            assert isinstance(box.receive(HANG), katipo.Responded)
            assert asyncio.get_running_loop() is loop
            assert (await pool.async_get(URL)).text == "here"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "error"), [({"timeout_ms": 20}, katipo.TotalTimeout), ({"read_timeout_ms": 20}, katipo.ReadTimeout)]
)
def test_the_clocks_run_for_awaitables(options: dict[str, Any], error: type[katipo.Error]) -> None:
    """In a thread, in asyncio, in trio: total from submission, read while nothing comes."""

    async def in_asyncio(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def in_trio(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async def main(handler: Any) -> None:
        with FakePool(handler) as pool:
            box = katipo.Mailbox()
            pool.async_get(URL, reply_to=box, **options)
            message = await box.areceive()
            assert isinstance(message, Failed)
            assert type(message.error) is error
            with pytest.raises(error):
                await pool.async_get(URL, **options)

    with FakePool(in_asyncio) as pool, pytest.raises(error):
        pool.get(URL, **options)
    asyncio.run(main(in_asyncio))
    trio.run(main, in_trio)


def test_an_awaitable_in_a_thread_is_cancelled_from_another() -> None:
    """The blocked submission returns, with a request that is cancelled."""
    begun = threading.Event()

    async def handler(request: Request) -> Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    with FakePool(handler) as pool:

        def close() -> None:
            begun.wait(HANG)
            pool.close()

        closing = threading.Thread(target=close)
        closing.start()
        with pytest.raises(katipo.PoolClosed):
            pool.get(URL)
        closing.join()


# ---------------------------------------------------------------------------------------------------- what it lacks


def test_nothing_is_opened_and_nothing_started() -> None:
    """No thread; no descriptor but the wake queue of who waits."""
    before, descriptors = threads(), open_descriptors()
    with FakePool(ok) as pool:
        pool.get(URL)
        handle = pool.async_get(URL, stream=True)
        list(handle)
        assert threads() <= before  # an earlier test's may end meanwhile
        assert len(open_descriptors()) <= len(descriptors)
        statistics = pool.statistics()
        assert (statistics.workers, statistics.connections, statistics.queued) == (0, 0, 0)
        with pytest.raises(katipo.BadOptions, match="no worker runs"):
            kill_worker(pool)


def test_redirects_are_not_followed_by_it() -> None:
    """followlocation says so instead of doing something else."""
    with FakePool(ok) as pool:
        with pytest.raises(katipo.BadOptions, match="followlocation: a FakePool follows no redirects"):
            pool.get(URL, followlocation=True)
        assert pool.statistics().completed == 0


def test_informational_responses_do_not_come() -> None:
    """The option is accepted."""
    with FakePool(ok) as pool:
        messages = list(pool.async_get(URL, stream=True, informational=True))
    assert isinstance(messages[0], Started)
    assert not [message for message in messages if isinstance(message, Informational)]


def test_a_handler_must_be_callable() -> None:
    """BadOptions, without the value."""
    wrong: Any = "secret"
    with pytest.raises(katipo.BadOptions, match="handler") as caught:
        FakePool(wrong)
    assert "secret" not in str(caught.value)


def test_a_forked_child_has_lost_the_requests_and_makes_new_ones() -> None:
    """Those of the parent fail with WorkerDied there, and go on in the parent."""
    with FakePool(ok) as pool:
        handle = pool.async_post(URL, stream_body=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on: other tests may have left a thread
            child = os.fork()
        if child == 0:
            status = 1
            try:
                try:
                    handle.result(HANG)
                except katipo.WorkerDied:
                    status = 0 if pool.get(URL).status_code == 200 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        handle.finish_body()
        assert handle.result(HANG).status_code == 200


def test_handlers_may_use_the_pool() -> None:
    """A handler that asks another pool, or the same, as a gateway does."""

    def gateway(request: Request) -> Response:
        return Response(200, content=pool.get(URL + "inner").content if request.url.path == "/" else b"inside")

    with FakePool(gateway) as pool:
        assert pool.get(URL).content == b"inside"
