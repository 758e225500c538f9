"""The only place that waits: a blocked thread, an asyncio (or uvloop) event loop, a trio run.

Whoever waits registers a waiter with a source of the engine (a transfer, a mailbox, a pool, the log). The waiter is
woken once, and arrives in a wake queue that the waiting thread or loop owns:

    thread      a queue of its own while it is blocked, kept for its next wait
    asyncio     one queue per loop, read by the loop as a descriptor: one wake-up resolves the futures of a whole batch
    trio        one queue per run, read by one system task

A queue goes with its owner. A thread's is thread-local. A loop's is referenced by nothing but the loop's reader, so
closing the loop closes it, with no hook and no finalizer of ours; `pool_closed` gives it back earlier, when a pool is
closed. Tables that finalizers may meet are changed by single operations that the GIL makes atomic: no lock is held
here, ever.

A wedged worker never wakes anyone. Who waits for one of its transfers therefore bounds the wait: see `Watched`.
"""

from __future__ import annotations

import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Coroutine, Generator
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from . import _engine

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "Interrupt",
    "Job",
    "Register",
    "Watched",
    "after_fork_in_child",
    "block",
    "block_unless",
    "exit_has_begun",
    "hold_daemon",
    "in_thread",
    "is_cancellation",
    "pool_closed",
    "pool_opened",
    "run_before_blocking",
    "shielded",
    "side_by_side",
    "steps",
    "until",
    "until_or_timeout",
]

Register = Callable[[_engine.Waiter, int], bool]
"""What a source offers: register a waiter for the conditions of a mask. True: one holds, nothing was registered."""


FOREVER: Final = float("inf")
_T = TypeVar("_T")


class Watched(Protocol):
    """Something whose worker may be wedged inside libcurl, so that nobody but the waiter can notice."""

    def overdue_at(self) -> float:
        """When, on monotonic()'s clock, `fail_overdue` may have something to do; infinity: never."""
        ...

    def fail_overdue(self) -> None:
        """Fail what is more than a second past its deadline; that wakes whoever waits for it."""


# ---------------------------------------------------------------------------------------------------- blocked threads


class _Free(list[_engine.WakeQueue]):
    """Wake queues of a thread that nobody waits on: normally one.

    A list, because a wait can be interrupted by a signal's Python handler that waits itself: it must not empty the
    queue of the wait below it.
    """

    __slots__ = ("__weakref__",)


_before_blocking: Callable[[], None] | None = None


def run_before_blocking(function: Callable[[], None]) -> None:
    """Have a thread call `function` each time before it blocks: for what its event loop would do, which then stands
    still."""
    global _before_blocking
    _before_blocking = function


class _Thread(threading.local):
    def __init__(self) -> None:
        self.free = _Free()
        key = id(self.free)
        _by_thread[key] = weakref.ref(self.free, lambda _: _by_thread.pop(key, None))


_by_thread: dict[int, weakref.ref[_Free]] = {}
"""Every thread's free queues, by id(). They go with their thread."""

_thread = _Thread()

_open: set[int] = set()
"""Pools that are open, by id(). Without any, threads keep no queues."""


def block(register: Register, mask: int, timeout: float | None = None, watched: Watched | None = None) -> bool:
    """Block the calling thread until a condition in `mask` holds; False when `timeout` seconds are over first.

    Ctrl-C interrupts it on the main thread: KeyboardInterrupt is raised with nothing left registered.
    """
    free = _thread.free
    queue = free.pop() if free else _engine.WakeQueue()
    try:
        waiter = _engine.Waiter(queue)
        if register(waiter, mask):
            return True
        try:
            if _before_blocking is not None:
                _before_blocking()
            return _block(queue, waiter, timeout, watched)
        except BaseException:
            waiter.cancel()
            raise
    finally:
        if _open:
            free.append(queue)
        else:
            queue.close()


def _block(queue: _engine.WakeQueue, waiter: _engine.Waiter, timeout: float | None, watched: Watched | None) -> bool:
    deadline = FOREVER if timeout is None else monotonic() + timeout
    while True:
        until = deadline if watched is None else min(deadline, watched.overdue_at())
        if queue.wait(None if until == FOREVER else max(0.0, until - monotonic())) == _engine.WOKEN:
            # Nothing but this wait's waiter can be on the queue; an empty one is a wake-up left over from an
            # interrupted wait.
            if queue.drain():
                return True
        elif watched is not None:
            watched.fail_overdue()
        if monotonic() >= deadline:
            return waiter.cancel()  # True: woken between the wait's end and here


class Interrupt:
    """Ends a `block_unless` from another thread, for good."""

    __slots__ = ("_box",)

    def __init__(self) -> None:
        self._box = _engine.Mailbox()  # what the engine has that Python can set off: closing it wakes who waits for it

    def set(self) -> None:
        self._box.close()

    def register(self, waiter: _engine.Waiter) -> bool:
        return self._box.register(waiter)


def block_unless(register: Register, interrupt: Interrupt) -> bool:
    """Block the calling thread until what `register` is for has come (True), or the interrupt is set (False)."""
    queue = _engine.WakeQueue()
    waiter, interrupted = _engine.Waiter(queue), _engine.Waiter(queue)
    try:
        if interrupt.register(interrupted):
            return False
        woken = [waiter] if register(waiter, 0) else []
        while not woken:
            queue.wait(None)
            woken = queue.drain()
        return interrupted not in woken
    finally:
        waiter.cancel()
        interrupted.cancel()
        queue.close()


# ---------------------------------------------------------------------------------------------------- asyncio, uvloop


class _LoopQueue:
    """An asyncio loop's wake queue. Used by its loop's thread only, but for `abandon`."""

    __slots__ = ("__weakref__", "loop", "new_future", "pid", "queue", "timer", "timer_at", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from asyncio import Future

        self.loop = loop
        self.new_future: Callable[..., asyncio.Future[None]] = Future  # what create_future() makes, a call later
        self.queue = _engine.WakeQueue()
        self.waiting: dict[_engine.Waiter, Watched | None] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at = FOREVER
        self.pid = os.getpid()
        loop.add_reader(self.queue.fileno(), self.wake)

    def wake(self) -> None:
        waiting = self.waiting
        for waiter in self.queue.drain():
            waiting.pop(waiter, None)
            future = waiter.token
            if not future.done():  # its task may have been cancelled since
                future.set_result(None)

    def set_timer(self, at: float) -> None:
        """Have the one timer fire at `at`, which is before it would."""
        if self.timer is not None:
            self.timer.cancel()
        # Not a bound method: that would make a cycle, and keep the queue when the loop is closed.
        self.timer = self.loop.call_later(max(0.0, at - monotonic()), _look, id(self.loop))
        self.timer_at = at

    def look(self) -> None:
        self.timer, self.timer_at = None, FOREVER
        watched = [each for each in self.waiting.values() if each is not None]
        for each in watched:
            each.fail_overdue()
        now = monotonic()
        next_at = min((at for each in watched if (at := each.overdue_at()) > now), default=FOREVER)
        if next_at < FOREVER:
            self.set_timer(next_at)

    def release(self) -> None:
        """Close it unless somebody waits. Thread: the loop's."""
        if self.waiting or self.pid != os.getpid():  # in a forked child the loop's epoll set is the parent's too
            return
        if self.timer is not None:
            self.timer.cancel()
        if not self.loop.is_closed():
            self.loop.remove_reader(self.queue.fileno())
        _by_loop.pop(id(self.loop), None)
        self.queue.close()

    def abandon(self) -> None:
        """Close it although waiters are registered: its loop is closed. Any thread."""
        for waiter in list(self.waiting):
            waiter.cancel()
        self.waiting.clear()
        _by_loop.pop(id(self.loop), None)
        self.queue.close()


class _LoopQueueRef(weakref.ref[_LoopQueue]):
    __slots__ = ("key",)
    key: int  # set by _adopt


_by_loop: dict[int, _LoopQueueRef] = {}
"""By id() of the loop. The weak reference makes the loop's reader the only owner of the queue."""


def _look(key: int) -> None:
    ref = _by_loop.get(key)
    queue = None if ref is None else ref()
    if queue is not None:
        queue.look()


def _gone(ref: _LoopQueueRef) -> None:
    if _by_loop.get(ref.key) is ref:
        _by_loop.pop(ref.key, None)


def _adopt(loop: asyncio.AbstractEventLoop) -> _LoopQueue:
    """Make a loop's queue, and clean up after loops that were closed while somebody waited."""
    _sweep()
    queue = _LoopQueue(loop)
    ref = _LoopQueueRef(queue, _gone)
    ref.key = id(loop)
    _by_loop[ref.key] = ref
    return queue


def _sweep() -> None:
    for ref in list(_by_loop.values()):
        queue = ref()
        if queue is not None and queue.loop.is_closed():
            queue.abandon()


def _import_get_running_loop() -> asyncio.AbstractEventLoop:
    """asyncio.get_running_loop, which it becomes: importing asyncio costs more than the rest of katipo."""
    global _running_loop
    from asyncio import get_running_loop

    _running_loop = get_running_loop
    return get_running_loop()


_running_loop: Callable[[], asyncio.AbstractEventLoop] = _import_get_running_loop


def enter(register: Register, mask: int, watched: Watched | None) -> _engine.Waiter | None:
    """Register with a source in the running asyncio loop. None: nothing to wait for.

    Otherwise the caller waits for the waiter's `token`, a future, and calls `leave` when that is interrupted. It is not
    for trio: ask `in_trio` first.
    """
    loop = _running_loop()
    ref = _by_loop.get(id(loop))
    mine = ref() if ref is not None else None
    if mine is None or mine.loop is not loop:
        mine = _adopt(loop)
    waiter = _engine.Waiter(mine.queue, mine.new_future(loop=loop))
    if register(waiter, mask):
        return None
    waiter.owner = mine
    mine.waiting[waiter] = watched
    if watched is not None and (at := watched.overdue_at()) < mine.timer_at:
        mine.set_timer(at)
    return waiter


def leave(waiter: _engine.Waiter) -> None:
    """Take the registration of an interrupted wait back; harmless when it has been woken."""
    waiter.cancel()
    waiter.owner.waiting.pop(waiter, None)


def in_trio() -> Any:
    """The module trio, when the calling code runs in a task of it; None otherwise."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and _in_trio_task(trio) else None


def steps(register: Register, mask: int, watched: Watched | None = None) -> Generator[Any, Any, None]:
    """Wait in the running event loop until a condition in `mask` holds.

    Cancelled, it leaves nothing registered, and it is as if nobody had waited; but a mailbox's waiter may have been
    woken by then, so its caller must pass the news on.
    """
    trio = in_trio()
    if trio is not None:
        yield from _until_in_trio(trio, register, mask, watched).__await__()
        return
    waiter = enter(register, mask, watched)
    if waiter is not None:
        try:
            yield from waiter.token
        except BaseException:
            leave(waiter)
            raise


until = types.coroutine(steps)
"""`steps` to be awaited; itself it is for `yield from` in an `__await__`."""


async def until_or_timeout(register: Register, mask: int, timeout: float | None) -> bool:
    """As `until`; False when `timeout` seconds are over first. Costs a task: for the rare waits."""
    if timeout is None:
        await until(register, mask)
        return True
    trio = in_trio()
    if trio is not None:
        with trio.move_on_after(timeout):
            await until(register, mask)
            return True
        return False
    import asyncio

    async def wait() -> None:
        await until(register, mask)

    try:
        await asyncio.wait_for(wait(), timeout)
    except asyncio.TimeoutError:
        return False
    return True


# ---------------------------------------------------------------------------------------------------- beside the caller


class Job:
    """A coroutine that runs beside its caller, in the caller's event loop, until it ends or is stopped.

    It must not raise. Obligation: stop it, and wait for that, before what it uses is gone.
    """

    __slots__ = ("_ended", "_scope", "_task", "_trio")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._trio = trio = in_trio()
        if trio is None:
            import asyncio

            self._task: asyncio.Task[None] = asyncio.ensure_future(coroutine)
            return
        self._scope: Any = trio.CancelScope()
        self._ended: Any = trio.Event()
        from contextvars import copy_context

        # Not a nursery's: the caller's `async with` block may end in another order, and must raise what it raises.
        trio.lowlevel.spawn_system_task(self._in_trio, coroutine, context=copy_context())

    async def _in_trio(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            with self._scope:
                await coroutine
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Cancel it, and wait until it has ended, even if the caller is cancelled meanwhile."""
        if self._trio is not None:
            self._scope.cancel()
            with self._trio.CancelScope(shield=True):
                await self._ended.wait()
            return
        import asyncio

        self._task.cancel()
        cancelled: asyncio.CancelledError | None = None
        while not self._task.done():
            try:
                await asyncio.wait((self._task,))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled


def is_cancellation(error: BaseException) -> bool:
    """Whether it says that a task was cancelled, and nothing else; groups of such included."""
    kinds = tuple(
        module.CancelledError if name == "asyncio" else module.Cancelled
        for name in ("asyncio", "trio")
        if (module := sys.modules.get(name)) is not None
    )
    if isinstance(error, kinds):
        return True
    # An exception group, which Python 3.10 does not have: of a trio nursery's, in the caller's iterable.
    split = getattr(error, "split", None) if type(error).__name__.endswith("ExceptionGroup") else None
    return split is not None and split(kinds)[1] is None


async def side_by_side(functions: list[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Run coroutines beside each other until all have ended.

    The first exception of one, or a cancel of the caller's, cancels the others, and is raised when they have ended.
    """
    trio = in_trio()
    if trio is not None:
        first: list[BaseException] = []

        async def one(function: Callable[[], Coroutine[Any, Any, None]], scope: Any) -> None:
            try:
                await function()
            except trio.Cancelled:
                raise
            except BaseException as error:  # raised below as it is, and not in a group of the nursery's
                first.append(error)
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(one, function, nursery.cancel_scope)
        if first:
            raise first[0]
        return
    import asyncio

    tasks = [asyncio.ensure_future(function()) for function in functions]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def shielded(function: Callable[..., Coroutine[Any, Any, _T]], *args: Any) -> _T:
    """Await a coroutine function to its end, within trio's cancelled scopes too: for what is short and must be done.

    In asyncio, where a cancel comes once, a second one interrupts it.
    """
    trio = in_trio()
    if trio is None:
        return await function(*args)
    with trio.CancelScope(shield=True):
        return await function(*args)


async def in_thread(function: Callable[..., _T], *args: Any) -> _T:
    """Run a function that may block in a thread of the event loop's, and wait for it."""
    trio = in_trio()
    if trio is not None:
        result: _T = await trio.to_thread.run_sync(function, *args)
        return result
    import asyncio

    return await asyncio.to_thread(function, *args)


# ---------------------------------------------------------------------------------------------------- trio
# trio is looked at only where the caller has imported it, hence the `Any`s.


class _TrioQueue:
    """A trio run's wake queue and the system task that reads it."""

    __slots__ = ("queue", "scope", "trio", "waiting")

    def __init__(self, trio: Any) -> None:
        self.trio = trio
        self.queue = _engine.WakeQueue()
        self.waiting: dict[_engine.Waiter, Watched | None] = {}
        self.scope: Any = trio.CancelScope()

    async def pump(self) -> None:
        """Until the run ends, or `release` found nobody waiting."""
        lowlevel = self.trio.lowlevel
        try:
            while True:
                self.scope = self.trio.CancelScope()
                for watched in self.waiting.values():
                    self.watch(watched)
                with self.scope:
                    await lowlevel.wait_readable(self.queue.fileno())
                for waiter in self.queue.drain():
                    if self.waiting.pop(waiter, self) is not self:
                        lowlevel.reschedule(waiter.token)
                if self.scope.cancelled_caught:
                    for watched in list(self.waiting.values()):
                        if watched is not None:
                            watched.fail_overdue()
                    if not self.waiting:
                        return
        finally:
            _trio_run(self.trio).set(None)
            self.queue.close()

    def watch(self, watched: Watched | None) -> None:
        if watched is not None and (at := watched.overdue_at()) < FOREVER:
            self.scope.deadline = min(self.scope.deadline, self.trio.current_time() + max(0.0, at - monotonic()))

    def release(self) -> None:
        if not self.waiting:
            self.scope.cancel()


_trio_run_variable: Any = None


def _trio_run(trio: Any) -> Any:
    """The variable, one value per trio run, that holds its queue."""
    global _trio_run_variable
    if _trio_run_variable is None:
        _trio_run_variable = trio.lowlevel.RunVar("katipo wake queue", default=None)
    return _trio_run_variable


def _in_trio_task(trio: Any) -> bool:
    try:
        trio.lowlevel.current_task()
    except (RuntimeError, AttributeError):  # AttributeError: trio is just being imported
        return False
    return True


async def _until_in_trio(trio: Any, register: Register, mask: int, watched: Watched | None) -> None:
    await trio.lowlevel.checkpoint_if_cancelled()
    variable = _trio_run(trio)
    mine: _TrioQueue | None = variable.get()
    if mine is None:
        mine = _TrioQueue(trio)
        variable.set(mine)
        trio.lowlevel.spawn_system_task(mine.pump)
    waiter = _engine.Waiter(mine.queue, trio.lowlevel.current_task())
    if register(waiter, mask):
        await trio.lowlevel.cancel_shielded_checkpoint()
        return
    mine.waiting[waiter] = watched
    mine.watch(watched)

    def abort(_: object) -> Any:
        waiter.cancel()
        mine.waiting.pop(waiter, None)
        return trio.lowlevel.Abort.SUCCEEDED

    await trio.lowlevel.wait_task_rescheduled(abort)


# ---------------------------------------------------------------------------------------------------- the exit

_exiting = False
_HELD_SECONDS = 2.0
"""As long as the exit waits for a worker that is stuck. Not for ever: an exit handler may wait for the thread."""


def exit_has_begun() -> None:
    """From here on pools close because the interpreter ends."""
    global _exiting
    _exiting = True


def hold_daemon() -> None:
    """Keep a daemon thread that learns of a closed pool at the interpreter's end from making an error of it.

    Python stops such threads where they are, without a word, once the exit handlers have run.
    """
    if _exiting and threading.current_thread().daemon:
        threading.Event().wait(_HELD_SECONDS)


# ---------------------------------------------------------------------------------------------------- cleaning up


def pool_opened(pool: object) -> None:
    """From now on threads keep their wake queues for the next wait."""
    _open.add(id(pool))


def pool_closed(pool: object) -> bool:
    """Where no other pool is open, give back the queues that nobody waits on, and answer True."""
    _open.discard(id(pool))
    if _open:
        return False
    _release_idle()
    return True


def _release_idle() -> None:
    for free_ref in list(_by_thread.values()):
        free = free_ref()
        if free is not None:
            free.clear()
    _sweep()
    trio = in_trio()
    if trio is not None:
        mine: _TrioQueue | None = _trio_run(trio).get()
        if mine is not None:
            mine.release()
    if not _by_loop:
        return
    try:
        running: object = _running_loop()
    except RuntimeError:
        running = None
    for ref in list(_by_loop.values()):
        queue = ref()
        if queue is None:
            continue
        if queue.loop is running:
            queue.release()
            continue
        try:
            queue.loop.call_soon_threadsafe(queue.release)
        except RuntimeError:  # closed since: its queue went with it
            continue


def after_fork_in_child() -> None:
    """Let go of what the parent's loops and blocked threads waited with. After the engine's own hook."""
    global _thread
    _by_thread.clear()
    _thread = _Thread()
    _by_loop.clear()
