"""waiting: blocked threads, asyncio, uvloop and trio, and what they leave behind."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import katipo
from katipo import _engine, waiting
from tests.support.waiting import wait_until
from tests.unit.tiny_server import TinyServer

uvloop = pytest.importorskip("uvloop")
trio = pytest.importorskip("trio")
trio_testing = pytest.importorskip("trio.testing")

uvloop.new_event_loop().close()  # the first makes a pipe that libuv keeps for ever

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


def run_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def run_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(main())


def run_trio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    trio.run(main)


loops = pytest.mark.parametrize("run", [run_asyncio, run_uvloop, run_trio], ids=["asyncio", "uvloop", "trio"])


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def settles(count: Callable[[], int], expected: int) -> None:
    """The worker that woke a queue lets go of it a moment after its owner may have."""
    wait_until(lambda: count() == expected, message=f"{count()} where {expected} were expected")


class Late:
    """A transfer whose worker seems wedged: overdue at once, and failing it cancels the request."""

    def __init__(self, handle: katipo.Handle) -> None:
        self.handle = handle
        self.asked = 0

    def overdue_at(self) -> float:
        return float("inf") if self.handle.done() else time.monotonic() + 0.01

    def fail_overdue(self) -> None:
        self.asked += 1
        self.handle.cancel()


# ---------------------------------------------------------------------------------------------------- blocked threads


def test_block_gives_up_and_leaves_nothing_registered(pool: katipo.Pool, tiny: TinyServer) -> None:
    """False when its time is over."""
    handle = pool.async_get(f"{tiny.url}/hang")
    before = _engine.counts()["waiters"]
    start = time.monotonic()
    assert not waiting.block(handle._transfer.register, _engine.ON_TERMINAL, 0.05)
    assert 0.05 <= time.monotonic() - start < 1
    assert _engine.counts()["waiters"] == before


def test_a_wait_within_a_wait(pool: katipo.Pool, tiny: TinyServer) -> None:
    """A signal's handler that waits itself takes nothing from the wait that it interrupted."""
    handle = pool.async_get(f"{tiny.url}/ok?gate=within")
    inner: list[bytes] = []

    def handler(signum: int, frame: object) -> None:
        tiny.open("within")
        inner.append(pool.get(f"{tiny.url}/ok?inner").content)
        while not handle.done():
            time.sleep(0.001)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        assert handle.result(10).status_code == 200
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert inner == [b"GET /ok?inner"]


def test_ctrl_c_interrupts_and_cancels(pool: katipo.Pool, tiny: TinyServer) -> None:
    """KeyboardInterrupt within 0.2 s, and the server sees the request go."""
    pressed = 0.0

    def press() -> None:
        nonlocal pressed
        assert tiny.arrived["/hang?ctrl-c"].wait(10)
        pressed = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pool.get(f"{tiny.url}/hang?ctrl-c")
    assert time.monotonic() - pressed < 0.2
    thread.join()
    assert tiny.gone["/hang?ctrl-c"].wait(10)
    assert pool.get(f"{tiny.url}/ok").status_code == 200


def test_a_blocked_thread_fails_what_is_overdue(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Nobody else would wake it."""
    handle = pool.async_get(f"{tiny.url}/hang")
    late = Late(handle)
    assert waiting.block(handle._transfer.register, _engine.ON_TERMINAL, None, late)
    assert late.asked == 1


def test_threads_give_their_queues_back(pool: katipo.Pool, tiny: TinyServer) -> None:
    """A thread's queue goes with the thread."""
    pool.get(f"{tiny.url}/ok")
    before = _engine.counts()["queues"]
    threads = [threading.Thread(target=pool.get, args=(f"{tiny.url}/ok",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settles(lambda: _engine.counts()["queues"], before)


# ---------------------------------------------------------------------------------------------------- event loops


@loops
def test_many_at_once(pool: katipo.Pool, tiny: TinyServer, run: Run) -> None:
    """One queue for all of them."""

    async def main() -> None:
        async def get(i: int) -> None:
            assert (await pool.async_get(f"{tiny.url}/ok?i={i}")).content == f"GET /ok?i={i}".encode()
            assert _engine.counts()["queues"] == before + 1

        async with trio.open_nursery() if run is run_trio else Nursery() as nursery:
            for i in range(200):
                nursery.start_soon(get, i)

    before = _engine.counts()["queues"]
    run(main)
    settles(lambda: _engine.counts()["queues"], before)


class Nursery:
    """As much of trio's as the tests need."""

    async def __aenter__(self) -> "Nursery":
        self.tasks: list[asyncio.Task[None]] = []
        return self

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        self.tasks.append(asyncio.ensure_future(function(*args)))

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self.tasks)


@loops
def test_a_cancelled_wait_leaves_nothing_registered(pool: katipo.Pool, tiny: TinyServer, run: Run) -> None:
    """And the request goes on."""

    async def main() -> None:
        handle = pool.async_get(f"{tiny.url}/ok?gate=cancelled")
        before = _engine.counts()["waiters"]
        for _ in range(3):
            if run is run_trio:
                with trio.move_on_after(0.02) as scope:
                    await handle
                assert scope.cancelled_caught
            else:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(handle, 0.02)
        gc.collect()
        # trio, and asyncio from Python 3.13 on, keep the last exception that cancelled, and its traceback our frame.
        assert _engine.counts()["waiters"] <= before + 1
        tiny.open("cancelled")
        assert (await handle).status_code == 200

    run(main)


@loops
def test_a_loop_fails_what_is_overdue(pool: katipo.Pool, tiny: TinyServer, run: Run) -> None:
    """One timer for all that wait in it."""

    async def main() -> None:
        async def wait(handle: katipo.Handle) -> None:
            late = Late(handle)
            await waiting.until(handle._transfer.register, _engine.ON_TERMINAL, late)
            assert late.asked == 1

        async with trio.open_nursery() if run is run_trio else Nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(wait, pool.async_get(f"{tiny.url}/hang"))

    run(main)


@loops
def test_streams_uploads_and_mailboxes(pool: katipo.Pool, tiny: TinyServer, run: Run) -> None:
    """All that can be waited for."""

    async def main() -> None:
        async with pool.async_post(f"{tiny.url}/echo", stream=True, stream_body=True, upload_window=1) as handle:
            for _ in range(10):
                await handle.asend_body(b"x" * 1000)
            handle.finish_body()
            assert sum([len(m.data) async for m in handle if isinstance(m, katipo.Chunk)]) == 10000
        box = katipo.Mailbox()
        for i in range(10):
            pool.async_get(f"{tiny.url}/ok", reply_to=box, ref=i)
        assert {(await box.areceive()).ref for _ in range(10)} == set(range(10))

    run(main)


@loops
def test_until_or_timeout(pool: katipo.Pool, tiny: TinyServer, run: Run) -> None:
    """True when the condition came, False when the time was over."""

    async def main() -> None:
        register = pool.async_get(f"{tiny.url}/ok?gate=until")._transfer.register
        assert not await waiting.until_or_timeout(register, _engine.ON_TERMINAL, 0.02)
        tiny.open("until")
        assert await waiting.until_or_timeout(register, _engine.ON_TERMINAL, 10)
        assert await waiting.until_or_timeout(register, _engine.ON_TERMINAL, None)

    run(main)


@loops
def test_runs_leave_no_descriptor(pool: katipo.Pool, tiny: TinyServer, run: Run) -> None:
    """A loop's queue goes with its loop."""

    async def main() -> None:
        assert (await pool.async_get(f"{tiny.url}/ok")).status_code == 200

    for _ in range(3):
        run(main)
    settles(lambda: _engine.counts()["queues"], 0)
    before = descriptors()
    for _ in range(30 if run is run_trio else 200):
        run(main)
    settles(lambda: _engine.counts()["queues"], 0)
    settles(descriptors, before)


@loops
def test_closing_the_last_pool_gives_the_loop_s_queue_back(tiny: TinyServer, run: Run) -> None:
    """The loop goes on without it."""

    async def main() -> None:
        before = _engine.counts()["queues"]
        async with katipo.Pool() as pool:
            await pool.async_get(f"{tiny.url}/ok")
            assert _engine.counts()["queues"] == before + 1
        if run is run_trio:
            await trio_testing.wait_all_tasks_blocked()
        settles(lambda: _engine.counts()["queues"], before)

    run(main)


def test_a_loop_closed_while_somebody_waits(pool: katipo.Pool, tiny: TinyServer) -> None:
    """Its queue is found when the next loop's is made; the request can be awaited there."""
    handle = pool.async_get(f"{tiny.url}/ok?gate=closed-loop")

    async def wait() -> None:
        await handle

    loop = asyncio.new_event_loop()
    coroutine = wait()
    task = loop.create_task(coroutine)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    before = _engine.counts()["queues"], _engine.counts()["waiters"]
    tiny.open("closed-loop")
    asyncio.run(wait())
    wait_until(lambda: _engine.counts()["queues"] <= before[0])
    wait_until(lambda: _engine.counts()["waiters"] <= before[1])
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine.close()


def test_two_loops_at_once(pool: katipo.Pool, tiny: TinyServer) -> None:
    """In two threads, on one handle."""
    handle = pool.async_get(f"{tiny.url}/ok?gate=two")
    found: list[katipo.Response] = []

    async def main() -> None:
        task = asyncio.ensure_future(handle)
        await asyncio.sleep(0)
        barrier.wait()
        found.append(await task)

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    tiny.open("two")
    for thread in threads:
        thread.join()
    assert found[0] is found[1]


def test_a_result_while_the_submitting_loop_is_blocked(pool: katipo.Pool, tiny: TinyServer) -> None:
    """The record is the meeting point, not the loop."""

    async def main() -> None:
        handle = pool.async_get(f"{tiny.url}/ok")
        thread = threading.Thread(target=lambda: found.append(handle.result(10)))
        thread.start()
        thread.join()
        assert (await handle) is found[0]

    found: list[katipo.Response] = []
    asyncio.run(main())


def test_without_a_loop_there_is_nothing_to_wait_in(pool: katipo.Pool, tiny: TinyServer) -> None:
    """RuntimeError, as asyncio has it."""
    with pytest.raises(RuntimeError):
        next(pool.async_get(f"{tiny.url}/hang").__await__())


FORK = """
import asyncio, os, sys, threading, warnings
import katipo
from katipo import _engine
warnings.simplefilter("ignore")
url = sys.argv[1]
pool = katipo.Pool()

async def main():
    return (await pool.async_get(url + "/ok")).status_code

async def outer():
    assert await main() == 200
    hanging = pool.async_get(url + "/hang")
    assert pool.get(url + "/ok").status_code == 200
    pid = os.fork()
    if pid == 0:
        try:
            try:
                hanging.result(5)
            except katipo.WorkerDied:
                pass
            else:
                os._exit(2)
            asyncio._set_running_loop(None)
            assert pool.get(url + "/ok").status_code == 200
            assert asyncio.run(main()) == 200
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    assert await main() == 200
    assert os.waitpid(pid, 0)[1] == 0
    assert await main() == 200
    hanging.cancel()

asyncio.run(outer())
pool.close()
"""


FINALIZED = """
import gc, os, sys, warnings
import katipo
warnings.simplefilter("ignore")
# Registered before katipo's, so called between katipo's hooks and the fork, with all of the engine's locks taken.
os.register_at_fork(before=gc.collect, after_in_parent=lambda: None)
pool = katipo.Pool()
class Cycle: pass
cycle = Cycle()
cycle.itself, cycle.handle = cycle, pool.async_get(sys.argv[1] + "/hang", stream=True)
gc.disable()
del cycle
pid = os.fork()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert pool.get(sys.argv[1] + "/ok").status_code == 200
pool.close()
"""


def test_a_finalizer_runs_while_a_fork_is_prepared(tiny: TinyServer) -> None:
    """What it asks of the engine must not wait for locks that its own thread holds."""
    command = [sys.executable, "-X", "faulthandler", "-c", FINALIZED, tiny.url]
    finished = subprocess.run(command, timeout=20, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_a_forked_child_waits_with_queues_of_its_own(tiny: TinyServer) -> None:
    """And takes no wake-up from its parent."""
    program = textwrap.dedent(FORK)
    command = [sys.executable, "-X", "faulthandler", "-c", program, tiny.url]
    finished = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
