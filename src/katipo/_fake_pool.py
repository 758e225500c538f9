"""A pool without workers: a Python function answers its requests.

The engine's record is where a request's two sides meet. Here Python plays the other side: everything above the record
(handles, mailboxes, waits, windows, credit, cancels) is the real pool's own code. What differs is `Pool._engine`.

Where a handler runs: a plain one in the thread that makes the request, or that ends its streamed body. One that returns
an awaitable becomes a task of the event loop that runs in that thread, asyncio's or trio's; without one, or when that
thread is about to block on it, it is run to its end there, in an asyncio loop of its own.

No thread is started, no descriptor opened, but for that loop's. Handlers may run in several threads at once.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias, cast

from . import _engine, waiting
from ._engine import ACCEPTED, NOT_PLAIN
from ._fake_wire import (
    OptionNumbers,
    body_as_delivered,
    cookie_lines_after,
    header_block,
    header_lines,
    request_headers,
)
from .errors import BadOptions, DecodingError, ResponseTooLarge
from .pool import Pool, loaded_library
from .request import Request, request_from_parts
from .response import Response
from .url import URL

__all__ = ["FakePool", "Handler"]

Handler: TypeAlias = Callable[[Request], "Response | Awaitable[Response]"]

_CURL: Final = _engine.OUTCOMES["curl"]
_TOO_LARGE: Final = _engine.OUTCOMES["too_large"]
_TOTAL: Final = _engine.CLOCKS["total"]
_READ: Final = _engine.CLOCKS["read"]
_BAD_CONTENT_ENCODING: Final = 61
_FILESIZE_EXCEEDED: Final = 63


class _Runner(Protocol):
    """Where an awaitable runs."""

    def cancel(self) -> None:
        """Have it cancelled; any thread, and also when it has ended."""


class _Play(_engine.Player):
    """One request, from its server's side."""

    def __init__(
        self, handler: Handler, numbers: OptionNumbers, config: _engine.Config, method: str, url: str, flags: int
    ) -> None:
        super().__init__()
        self._handler = handler
        self._numbers = numbers
        self._config = config
        self._method = method
        self._url = url
        self._streamed = bool(flags & _engine.STREAM)
        self._has_body = bool(flags & (_engine.HAS_BODY | _engine.STREAM_BODY))
        self._length: int | None = None  # of a streamed body, as it was declared
        self._runner: _Runner | None = None

    def called(self, body: bytes) -> None:
        """The whole request is there: have the handler answer it. What it raises is the request's failure."""
        self.begin()
        try:
            result: object = self._handler(self._request(body))
        except BaseException as error:  # also what is no Exception: whoever takes the result is to have it
            self.raised(_shortened(error))
            return
        if hasattr(result, "__await__"):
            self._start(cast("Awaitable[object]", result))
        else:
            self.answered(result)

    def _request(self, body: bytes) -> Request:
        url = URL(self._url)
        length = (len(body) if self._length is None else self._length) if self._has_body else None
        headers = request_headers(self._numbers, self._config.options, url, length)
        return request_from_parts(self._method, url, headers, body if self._has_body else None)

    def declare(self, length: int) -> None:
        """The length of a streamed body, as its headers have it; -1: they have none."""
        self._length = length

    # ------------------------------------------------------------------------------------------------ answering

    def answered(self, result: object) -> None:
        """What the handler returned."""
        try:
            if not isinstance(result, Response):
                raise TypeError(f"the handler of a FakePool must return a Response, not {type(result).__name__}")
            self._respond(result)
        except Exception as error:
            self.raised(_shortened(error))

    def _respond(self, response: Response) -> None:
        config = self._config
        # Streams are decoded and counted where they are taken, as ever.
        offered = any(number == self._numbers.accept_encoding for number, _ in config.options)
        limit = -1 if self._streamed else config.max_bytes
        try:
            content = body_as_delivered(
                response, method=self._method, decode=offered and not self._streamed, limit=limit
            )
        except DecodingError as error:
            self.fail(_CURL, _BAD_CONTENT_ENCODING, error.message.encode())
            return
        except ResponseTooLarge as error:
            self.fail(_TOO_LARGE, _FILESIZE_EXCEEDED, error.message.encode())
            return
        cookies = cookie_lines_after(self._numbers, config.options, response.headers, URL(self._url))
        self.respond(
            response.status_code,
            header_block(response),
            content,
            header_lines(response.trailers),
            b"".join(line + b"\n" for line in cookies),
        )

    # ------------------------------------------------------------------------------------------------ handlers that wait

    def _start(self, awaitable: Awaitable[object]) -> None:
        trio = waiting.in_trio()
        if trio is not None:
            self._runner = _InTrio(trio, self, awaitable)
            return
        loop = _running_loop()
        if loop is None:
            self.run_to_end(awaitable)
        else:
            self._runner = _InLoop(loop, self, awaitable)

    def run_to_end(self, awaitable: Awaitable[object]) -> None:
        """In this thread, whatever runs here."""
        self._runner = runner = _InThread()
        runner.run(self, awaitable)

    def settled(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()

    def deadline(self) -> tuple[float | None, int]:
        """Seconds until one of the request's clocks runs out, and which it is. Only what waits can be interrupted."""
        total, read_ms = self.seconds_left(), self._config.read_timeout_ms
        if read_ms and (total is None or read_ms / 1000 < total):
            return read_ms / 1000, _READ
        return total, _TOTAL

    async def drive(self, awaitable: Awaitable[object], cancelled: Callable[[], object] | None = None) -> None:
        """Await the handler's result, and answer with it. `cancelled`: settles the request when the await is."""
        try:
            result = await awaitable
        except BaseException as error:
            if not _is_cancel(error):
                self.raised(_shortened(error))
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                return
            if cancelled is not None:
                cancelled()
            self.cancel(b"the task that ran the handler was cancelled")
            raise
        self.answered(result)


def _shortened(error: BaseException) -> BaseException:
    """Without the frame that caught it, which nobody wants to read."""
    return error.with_traceback(None if error.__traceback__ is None else error.__traceback__.tb_next)


def _is_cancel(error: BaseException) -> bool:
    kinds = [GeneratorExit]
    for module, name in (("asyncio", "CancelledError"), ("trio", "Cancelled")):
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return isinstance(error, tuple(kinds))


# ---------------------------------------------------------------------------------------------------- event loops


def _running_loop() -> Any:
    """The asyncio loop that runs in this thread, or None. Does not import asyncio: without it none runs."""
    events: Any = sys.modules.get("asyncio.events")
    return None if events is None else events._get_running_loop()


async def _timed(loop: Any, play: _Play, awaitable: Awaitable[object]) -> None:
    """Drive it in an asyncio loop, until one of the request's clocks runs out."""
    seconds, clock = play.deadline()
    timer = None if seconds is None else loop.call_later(seconds, play.expire, clock)
    try:
        await play.drive(awaitable)
    finally:
        if timer is not None:
            timer.cancel()


def _cancel_task(loop: Any, task: Any) -> None:
    if _running_loop() is loop:
        task.cancel()
        return
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:  # the loop is closed, and has taken the task with it
        return


class _Task:
    """A handler's awaitable that an event loop is to run. Until the loop comes to it somebody else may."""

    __slots__ = ("_awaitable", "_play", "_thread")

    def __init__(self, play: _Play, awaitable: Awaitable[object]) -> None:
        self._play = play
        self._awaitable = awaitable
        self._thread = threading.get_ident()
        _not_begun.append(self)
        waiting.run_before_blocking(_run_what_would_stand_still)

    def _take(self) -> bool:
        """Whoever gets True is to await it, or to let go of it."""
        try:
            _not_begun.remove(self)
        except ValueError:
            return False
        return True

    def _let_go(self) -> None:
        """It will not be awaited; without a warning."""
        close = getattr(self._awaitable, "close", None)
        if self._take() and close is not None:
            close()

    def run_here(self) -> None:
        """This thread is about to block. If the loop is this thread's it would stand still: run it without."""
        if self._thread == threading.get_ident() and self._take():
            self._play.run_to_end(self._awaitable)


_not_begun: list[_Task] = []
"""Tasks that their loops have not come to. Changed by single operations, which the GIL makes atomic."""


def _run_what_would_stand_still() -> None:
    for each in list(_not_begun):
        each.run_here()


class _InLoop(_Task):
    """As a task of the running asyncio loop."""

    __slots__ = ("_loop", "_task")

    def __init__(self, loop: Any, play: _Play, awaitable: Awaitable[object]) -> None:
        super().__init__(play, awaitable)
        self._loop = loop
        self._task: Any = loop.create_task(self._run())

    async def _run(self) -> None:
        if self._take():
            await _timed(self._loop, self._play, self._awaitable)

    def cancel(self) -> None:
        self._let_go()
        _cancel_task(self._loop, self._task)


class _InTrio(_Task):
    """As a system task of the running trio run."""

    __slots__ = ("_scope", "_token", "_trio")

    def __init__(self, trio: Any, play: _Play, awaitable: Awaitable[object]) -> None:
        super().__init__(play, awaitable)
        self._trio = trio
        self._scope: Any = trio.CancelScope()
        self._token: Any = trio.lowlevel.current_trio_token()
        trio.lowlevel.spawn_system_task(self._run)

    async def _run(self) -> None:
        if not self._take():
            return
        seconds, clock = self._play.deadline()
        if seconds is not None:
            self._scope.deadline = self._trio.current_time() + seconds

        def cancelled() -> None:
            if self._trio.current_time() >= self._scope.deadline:
                self._play.expire(clock)

        with self._scope:
            try:
                await self._play.drive(self._awaitable, cancelled)
            except (KeyboardInterrupt, SystemExit):
                return  # whoever takes the response gets it; in a system task it would end the whole run

    def cancel(self) -> None:
        self._let_go()
        try:
            self._token.run_sync_soon(self._scope.cancel)
        except RuntimeError:  # trio.RunFinishedError: the run is over, and has taken the task with it
            return


class _InThread:
    """A handler's awaitable in an asyncio loop of its own, in this thread, where another loop may be running."""

    __slots__ = ("_loop", "_task")

    def __init__(self) -> None:
        self._loop: Any = None
        self._task: Any = None

    def run(self, play: _Play, awaitable: Awaitable[object]) -> None:
        import asyncio

        events: Any = asyncio.events
        running = events._get_running_loop()
        events._set_running_loop(None)
        self._loop = loop = asyncio.new_event_loop()
        try:
            self._task = loop.create_task(_timed(loop, play, awaitable))
            try:
                loop.run_until_complete(self._task)
            except asyncio.CancelledError:  # the request is settled
                pass
            except BaseException as error:  # Ctrl-C
                if not play.raised(error) and play.error is not error:
                    raise
            finally:
                left = asyncio.all_tasks(loop)
                for task in left:
                    task.cancel()
                if left:
                    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
                loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
            events._set_running_loop(running)

    def cancel(self) -> None:
        if self._task is not None:
            _cancel_task(self._loop, self._task)


# ---------------------------------------------------------------------------------------------------- the pool


class _Stage(_engine.Pool):
    """What a pool calls its engine, for requests that a handler answers. The counting, the closing and what waits for it
    are the engine's."""

    handler: Handler
    numbers: OptionNumbers

    def start(self, transfer: _engine.Transfer[Any], call: _engine.Call, url: object, token: int) -> int:
        plain = _engine.plain_url(url) if type(url) is str else None
        if plain is None:
            return NOT_PLAIN
        body = call.body
        return self.submit(
            transfer,
            call.config,
            call.method,
            *plain,
            call.flags,
            body,
            call.body_length,
            -1,
            call.upload_window,
            None,
            token,
        )

    def submit(
        self,
        transfer: _engine.Transfer[Any],
        config: _engine.Config,
        method: bytes,
        url: bytes,
        origin: bytes,
        flags: int,
        body: Any,
        body_length: int,
        window: int,
        upload_window: int,
        mailbox: _engine.Mailbox | None,
        token: int,
    ) -> int:
        if config.flags & _engine.FOLLOW:
            raise BadOptions(
                "followlocation: a FakePool follows no redirects; its handler may answer with what they lead to"
            )
        if body is not None:
            flags |= _engine.HAS_BODY
            body = bytes(body)
        play = _Play(self.handler, self.numbers, config, method.decode("ascii"), url.decode("ascii"), flags)
        answer = self.play(
            transfer,
            play,
            config,
            method,
            url,
            origin,
            flags,
            body,
            body_length,
            window,
            upload_window,
            mailbox,
            token,
        )
        if answer == ACCEPTED and not play.done:
            if flags & _engine.STREAM_BODY:
                play.declare(body_length)
                play.read()
            else:
                play.called(body or b"")
        return answer


def _stage(handler: Handler) -> _Stage:
    stage = _Stage(
        workers=1,
        multiplexing=True,
        max_total_connections=0,
        max_host_connections=0,
        max_idle_connections=-1,
        max_concurrent_streams=100,
        max_in_flight=0,
        name=b"",
    )
    stage.handler = handler
    stage.numbers = OptionNumbers(loaded_library().option)
    return stage


class FakePool(Pool):
    """A pool whose requests are answered by a function, with no thread and no socket: `Client(pool=FakePool(handler))`.

    `handler(request)` gets a katipo.Request, with the headers that would be sent and the whole body (a streamed one when
    it has ended), and returns a katipo.Response, or an awaitable of one. A plain handler runs in the thread that makes
    the request or ends its body. An awaitable becomes a task of that thread's event loop (asyncio, trio); without one,
    or when a blocking call would hold that loop up, it is run to its end in the thread. Only what waits can be
    interrupted: cancelling the request cancels the task, and the total and the read clock run for tasks alone.

    What the handler raises comes to whoever takes the response: an Error of katipo's as it is, with `request` set;
    anything else as it is too, but in a mailbox as the `__cause__` of a TransportError ("handler_raised").

    All else is as in a real pool: options are checked, streams come under their windows, bodies are decoded by their
    Content-Encoding. Not there: `followlocation` (BadOptions), answers before a streamed body has ended, informational
    responses, authentication by challenge. `connections` and `workers` are 0, and metrics know only the times of the
    handler and the sizes of bodies.

    Raises:
        BadOptions: `handler` cannot be called.
    """

    __slots__ = ()

    def __init__(self, handler: Handler, *, name: str | None = None) -> None:
        if not callable(handler):
            raise BadOptions("handler: must be a function of a request")
        super().__init__(name=name)
        self._engine = _stage(handler)
