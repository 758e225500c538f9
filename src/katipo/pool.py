"""Requests in flight on native workers: the pool.

A pool checks a request's options, gives it to the engine, and hands out what the caller waits on. It keeps no list of
requests and no state of its own: the engine has both.

The path of a plain request is short on purpose: no options means no dictionary, no check and one shared configuration.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final

from . import _engine, waiting
from ._compat import Self, Unpack
from ._engine import ACCEPTED, NOT_PLAIN, ON_IDLE, ON_STOPPED
from ._frozen import dataclass
from ._library import LoadedLibrary, find_libcurl
from ._request_options import AsyncRequestOptions, RequestOptions
from ._verbose import VerboseLog
from .errors import BadOptions, Error, Overload, PoolClosed, TransportError, WorkerDied
from .handle import Answer, Delivery, Handle, Transfer, observe
from .mailbox import Mailbox, attach, detach, engine_mailbox
from .observers import listeners
from .options import (
    Compiled,
    check_pool_options,
    compile_options,
    with_headers,
)
from .request import Request, check_method, request_from_parts
from .response import Response
from .url import URL, prepare

if TYPE_CHECKING:
    from ._request_headers import Header
    from ._watch import Watch

__all__ = [
    "Pool",
    "PoolStatistics",
    "Prepared",
    "engine_fault",
    "loaded_library",
    "prepare_request",
    "start_plain",
    "start_request",
]

_WEDGED_SECONDS: Final = 2.0
"""How long close and exit wait for a worker that does not come out of libcurl."""
_CONFIGS_KEPT: Final = 256
"""As many as `options` keeps settings. Arbitrary: a program uses a handful."""

_PER_REQUEST: Final = frozenset({"body", "cookiejar", "headers", "ref", "reply_to"})
"""Options that differ from request to request: a call with one of them is compiled afresh."""

_FLAGS: Final = {
    "follow": _engine.FOLLOW,
    "may_retry_auth": _engine.MAY_RETRY_AUTH,
    "negotiate": _engine.NEGOTIATE,
    "proxied": _engine.PROXIED,
    "has_cookies": _engine.HAS_COOKIES,
    "verbose": _engine.VERBOSE,
    "own_accept": _engine.OWN_ACCEPT,
}
_FAULTS: Final = {"poller": 1, "memory": 2, "multi": 3}

_tokens = itertools.count(1)
"""What the engine, and a caller without a `ref`, know a request by: unique in the process."""

# ---------------------------------------------------------------------------------------------------- the process

_library: LoadedLibrary | None = None
_loading = threading.Lock()


def loaded_library() -> LoadedLibrary:
    """libcurl, loaded when it is first needed; with it come the hooks that fork and exit need.

    Raises:
        ImportError: there is none, or it lacks something.
    """
    global _library
    if _library is None:
        with _loading:
            if _library is None:
                _engine.load(find_libcurl())
                library = LoadedLibrary(_engine.library(), _engine.option)
                os.register_at_fork(
                    before=_before_fork,
                    after_in_parent=_engine.fork_parent,
                    after_in_child=_after_fork_in_child,
                )
                # After libcurl's own initialisation, so that it runs before whatever that registered.
                atexit.register(_at_exit)
                _library = library
    return _library


_IMPORTED_LATER: Final = (
    *(
        "base64",
        "brotli",
        "contextvars",
        "copy",
        "datetime",
        "difflib",
        "email.utils",
        "fcntl",
        "hashlib",
        "http",
        "idna",
    ),
    *(
        "importlib.util",
        "io",
        "ipaddress",
        "json",
        "logging",
        "mimetypes",
        "netrc",
        "pathlib",
        "struct",
        "urllib.parse",
    ),
    *("zlib", "katipo._environment", "katipo._multipart", "katipo._sigv4", "katipo._watch", "katipo.decoding"),
    *("katipo._download", "katipo._download_many"),
)
"""What requests import when they first need it."""


def _before_fork() -> None:
    _finish_imports()
    _engine.fork_prepare()
    _finish_imports()  # of what began while workers were parked


def _finish_imports() -> None:
    """Wait for whoever is importing one of these: a module that is half there stays locked in the child for ever."""
    for name in _IMPORTED_LATER:
        if name in sys.modules:
            __import__(name)


def _after_fork_in_child() -> None:
    # In this order: giving back what the parent's threads waited with takes the locks that fork_child() lets go.
    _engine.fork_child()
    waiting.after_fork_in_child()
    _log.after_fork_in_child()


def _at_exit() -> None:
    waiting.exit_has_begun()
    _engine.stop_all(_WEDGED_SECONDS)
    _log.flush()


_log: Final = VerboseLog(_engine.log_take, lambda waiter, mask: _engine.log_register(waiter))

# ---------------------------------------------------------------------------------------------------- configurations


def _config_of(compiled: Compiled, added: list[Header] | None = None) -> _engine.Config:
    """`added`: headers that the compiled options do not have, of observers."""
    try:
        return _engine.Config(
            compiled.curl if added is None else with_headers(compiled, added, library=loaded_library()),
            identity=compiled.identity,
            flags=sum(_FLAGS[flag] for flag in compiled.flags),
            connect_timeout_ms=compiled.connect_timeout_ms,
            timeout_ms=compiled.timeout_ms,
            read_timeout_ms=compiled.read_timeout_ms,
            write_timeout_ms=compiled.write_timeout_ms,
            pool_timeout_ms=compiled.pool_timeout_ms,
            # Bytes on the wire say nothing of a stream that is decoded where it is taken: it is counted there.
            max_bytes=-1 if compiled.stream and compiled.decode else compiled.max_bytes,
        )
    except ValueError as error:
        raise BadOptions(str(error)) from None


class Prepared:
    """A call's options, compiled, for the calls that repeat them."""

    __slots__ = ("call", "compiled", "config", "headers", "method")

    def __init__(self, method: bytes, compiled: Compiled, config: _engine.Config) -> None:
        self.method = method.decode("ascii")
        self.compiled = compiled
        self.config = config
        self.headers = compiled.headers or None
        usual = not (compiled.stream or compiled.stream_body or compiled.reply_to)
        self.call: _engine.Call | None = None
        """None: not one of the usual requests, which take the short way."""
        if usual and compiled.ref is None and "verbose" not in compiled.flags:
            self.call = _engine.Call(config, method, 0, compiled.body, compiled.upload_window)


def _flags_of(compiled: Compiled) -> int:
    flags = 0
    if compiled.body is not None:
        flags |= _engine.HAS_BODY
    if compiled.stream:
        flags |= _engine.STREAM
        if compiled.manual:
            flags |= _engine.MANUAL_CREDIT
        if compiled.informational:
            flags |= _engine.KEEP_INFORMATIONAL
    if compiled.stream_body:
        flags |= _engine.STREAM_BODY
        if compiled.finish_on_abandon:
            flags |= _engine.FINISH_ON_ABANDON
    return flags


def _check_reply_to(value: object) -> str | None:
    if not isinstance(value, Mailbox):
        return f"must be a Mailbox, not {type(value).__name__}"
    return "the mailbox is closed" if engine_mailbox(value).closed else None


# ---------------------------------------------------------------------------------------------------- the pool


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What a pool is doing, and has done."""

    workers: int
    """Threads alive."""
    in_flight: int
    """Requests accepted whose transfer has not ended, `queued` included."""
    queued: int
    """Of those, waiting for their turn."""
    connections: int
    """Open ones, idle ones included."""
    restarts: int
    """Workers that died and were replaced."""
    completed: int
    """Requests that ended with a response."""
    failed: int
    """Requests that ended without one, cancelled ones included."""


class Pool:
    """Native workers that drive requests, and the connections that they share. Any number of threads and event loops
    may use it at once. Nothing is started before the first request.

    `workers`: threads. The limits on connections hold for all of them together; 0: as many as file descriptors allow,
    less a reserve. `max_idle_connections` None: all are kept. `max_concurrent_streams`: on one HTTP/2 or 3 connection.
    `max_in_flight`: requests per worker, beyond which a request is refused with Overload; None: no limit.
    `multiplexing`: whether several requests share an HTTP/2 or 3 connection. `name`: shown in threads' names.

    Obligation: close it. One that is dropped instead stops when what is in flight has ended, and warns
    (ResourceWarning).

    Raises:
        BadOptions: naming every bad value.
        ImportError: there is no libcurl to load.
    """

    __slots__ = ("__weakref__", "_closed", "_configs", "_engine", "_kept", "_name", "_workers")

    def __init__(
        self,
        workers: int = 1,
        *,
        multiplexing: bool = True,
        max_total_connections: int = 0,
        max_host_connections: int = 0,
        max_idle_connections: int | None = None,
        max_concurrent_streams: int = 100,
        max_in_flight: int | None = None,
        name: str | None = None,
    ) -> None:
        options = check_pool_options(
            workers,
            multiplexing=multiplexing,
            max_total_connections=max_total_connections,
            max_host_connections=max_host_connections,
            max_idle_connections=max_idle_connections,
            max_concurrent_streams=max_concurrent_streams,
            max_in_flight=max_in_flight,
            name=name,
        )
        loaded_library()
        self._closed = False
        self._name = name
        self._workers = workers
        self._engine = _engine.Pool(**options)
        self._configs: dict[Hashable, _engine.Config] = {}
        self._kept: dict[Hashable, Prepared] = {}
        waiting.pool_opened(self)

    def __repr__(self) -> str:
        counts = self.statistics()
        name = "" if self._name is None else f" {self._name!r}"
        state = "closed" if self._closed else f"{counts.workers} workers"
        return f"<Pool{name} {state}, {counts.in_flight} in flight, {counts.connections} connections>"

    # ------------------------------------------------------------------------------------------------ blocking

    def request(self, method: str, url: str | URL, **options: Unpack[RequestOptions]) -> Response:
        """Send a request and block the calling thread, but not the GIL, until its response is there.

        Ctrl-C interrupts it and cancels the request.

        Raises:
            BadOptions, InvalidURL, UnsupportedProtocol, Overload, PoolClosed: nothing was sent.
            Error: the request's own, when it failed.
        """
        return self._wait(check_method(method, has_body="body" in options), url, options)

    def get(self, url: str | URL, **options: Unpack[RequestOptions]) -> Response:
        """`request` with GET."""
        return self._wait(b"GET", url, options)

    def post(self, url: str | URL, **options: Unpack[RequestOptions]) -> Response:
        """`request` with POST."""
        return self._wait(b"POST", url, options)

    def put(self, url: str | URL, **options: Unpack[RequestOptions]) -> Response:
        """`request` with PUT."""
        return self._wait(b"PUT", url, options)

    def patch(self, url: str | URL, **options: Unpack[RequestOptions]) -> Response:
        """`request` with PATCH."""
        return self._wait(b"PATCH", url, options)

    def delete(self, url: str | URL, **options: Unpack[RequestOptions]) -> Response:
        """`request` with DELETE."""
        return self._wait(b"DELETE", url, options)

    def head(self, url: str | URL, **options: Unpack[RequestOptions]) -> Response:
        """`request` with HEAD."""
        return self._wait(b"HEAD", url, options)

    def options(self, url: str | URL, **options: Unpack[RequestOptions]) -> Response:
        """`request` with OPTIONS."""
        return self._wait(b"OPTIONS", url, options)

    def _wait(self, method: bytes, url: str | URL, options: RequestOptions) -> Response:
        handle = self._submit(method, url, options, True)
        try:
            return handle.result()
        except BaseException:  # a signal's handler raised; nothing happens to a request that has ended
            handle.cancel()
            raise

    # ------------------------------------------------------------------------------------------------ asynchronous

    def async_request(self, method: str, url: str | URL, **options: Unpack[AsyncRequestOptions]) -> Handle:
        """Send a request and return at once: await the handle, ask it for the result, iterate it, or send it a body.

        Raises:
            BadOptions, InvalidURL, UnsupportedProtocol, Overload, PoolClosed: nothing was sent.
        """
        has_body = "body" in options or "stream_body" in options
        checked = check_method(method, has_body=has_body)
        return self._submit(checked, url, options, False)

    def async_get(self, url: str | URL, **options: Unpack[AsyncRequestOptions]) -> Handle:
        """`async_request` with GET."""
        return self._submit(b"GET", url, options, False)

    def async_post(self, url: str | URL, **options: Unpack[AsyncRequestOptions]) -> Handle:
        """`async_request` with POST."""
        return self._submit(b"POST", url, options, False)

    def async_put(self, url: str | URL, **options: Unpack[AsyncRequestOptions]) -> Handle:
        """`async_request` with PUT."""
        return self._submit(b"PUT", url, options, False)

    def async_patch(self, url: str | URL, **options: Unpack[AsyncRequestOptions]) -> Handle:
        """`async_request` with PATCH."""
        return self._submit(b"PATCH", url, options, False)

    def async_delete(self, url: str | URL, **options: Unpack[AsyncRequestOptions]) -> Handle:
        """`async_request` with DELETE."""
        return self._submit(b"DELETE", url, options, False)

    def async_head(self, url: str | URL, **options: Unpack[AsyncRequestOptions]) -> Handle:
        """`async_request` with HEAD."""
        return self._submit(b"HEAD", url, options, False)

    def async_options(self, url: str | URL, **options: Unpack[AsyncRequestOptions]) -> Handle:
        """`async_request` with OPTIONS."""
        return self._submit(b"OPTIONS", url, options, False)

    # ------------------------------------------------------------------------------------------------ submitting

    def check_options(self, **options: Unpack[AsyncRequestOptions]) -> None:
        """Check request options as a request would, and send nothing.

        Raises:
            BadOptions: naming every offender.
        """
        self._compile(b"GET", options, False)

    def _compile(self, method: bytes, options: Mapping[str, object], blocking: bool) -> Compiled:
        return compile_options(
            options, blocking=blocking, method=method, library=loaded_library(), check_reply_to=_check_reply_to
        )

    def _config_of(self, compiled: Compiled) -> _engine.Config:
        key = compiled.config_key
        config = None if key is None else self._configs.get(key)
        if config is None:
            config = _config_of(compiled)
            if key is not None:
                if len(self._configs) >= _CONFIGS_KEPT:
                    self._configs.clear()
                self._configs[key] = config
        return config

    def _kept_for(self, method: bytes, options: Mapping[str, object], blocking: bool) -> Prepared:
        """The options of a call, checked and compiled; those that programs repeat from call to call are kept."""
        key: Hashable = method
        if options:
            if not _PER_REQUEST.isdisjoint(options):
                return self._fresh(method, options, blocking)
            # With their types, because 1 and True are equal, and one of them may be wrong.
            key = (method, blocking, *((name, type(value), value) for name, value in options.items()))
        try:
            kept = self._kept.get(key)
        except TypeError:  # a value that cannot be hashed
            return self._fresh(method, options, blocking)
        if kept is None:
            kept = self._fresh(method, options, blocking)
            if "negotiate" in kept.compiled.flags:
                return kept  # whose tickets there are is asked anew each time
            if len(self._kept) >= _CONFIGS_KEPT:
                self._kept.clear()
            self._kept[key] = kept
        return kept

    def _fresh(self, method: bytes, options: Mapping[str, object], blocking: bool) -> Prepared:
        compiled = self._compile(method, options, blocking)
        return Prepared(method, compiled, self._config_of(compiled))

    def _submit(self, method: bytes, url: str | URL, options: Mapping[str, object], blocking: bool) -> Handle:
        kept = (self._kept.get(method) if not options else None) or self._kept_for(method, options, blocking)
        return self._start(kept, url)

    def _start(self, kept: Prepared, url: str | URL) -> Handle:
        handle = None if kept.call is None else self._start_plain(kept, kept.call, url)
        return self._submit_any(kept, url, None) if handle is None else handle

    def _start_plain(self, kept: Prepared, call: _engine.Call, url: str | URL) -> Handle | None:
        """The short way: one call into the engine, and a Request only for who looks at it. None: not a plain URL."""
        if listeners:
            observable = type(url) is str and _engine.plain_url(url) is not None
            return self._submit_any(kept, url, None) if observable else None
        token = next(_tokens)
        transfer = Transfer()
        answer = self._engine.start(transfer, call, url, token)
        if answer == ACCEPTED:
            return Handle(self, transfer, (kept.method, url, kept.headers, kept.compiled.body), token)
        if answer == NOT_PLAIN:
            return None
        raise self._refused(answer, request_from_parts(kept.method, url, kept.headers, kept.compiled.body), None)

    def _submit_any(self, kept: Prepared, url: str | URL, request: Request | None) -> Handle:
        """`request`: as its messages and errors are to show it; None: made of the call."""
        compiled = kept.compiled
        prepared, origin = (type(url) is str and _engine.plain_url(url)) or prepare(url)
        if request is None:
            request = request_from_parts(kept.method, url, compiled.headers, compiled.body)
        token = next(_tokens)
        ref = token if compiled.ref is None else compiled.ref
        watch = self._watched(token, ref, request) if listeners else None
        flush = self._verbose() if "verbose" in compiled.flags else None
        mailbox: Mailbox | None = compiled.reply_to
        delivery: Delivery | None = None
        if compiled.stream or mailbox is not None:
            make = Delivery if watch is None else watch.delivery
            limit = compiled.max_bytes if compiled.stream and compiled.decode else -1
            decode = compiled.stream and compiled.decode
            delivery = make(ref, request, decode=decode, window=compiled.window, limit=limit)
        if mailbox is not None and delivery is not None:
            attach(mailbox, token, delivery, compiled.timeout_ms)
        transfer = Transfer()
        answer = -1
        try:
            answer = self._engine.submit(
                transfer,
                kept.config if watch is None or not watch.headers else _config_of(compiled, watch.headers),
                kept.method.encode("ascii"),
                prepared,
                origin,
                _flags_of(compiled),
                compiled.body,
                compiled.body_length,
                compiled.window,
                compiled.upload_window,
                None if mailbox is None else engine_mailbox(mailbox),
                token,
            )
            if answer != ACCEPTED:
                raise self._refused(answer, request, mailbox)
        except Error as error:
            if watch is not None:
                watch.failed(error)
            raise
        finally:
            if mailbox is not None and answer != ACCEPTED:
                detach(mailbox, token)
        if mailbox is not None:
            kind, delivery = Answer.MAILED, None  # the mailbox has it: a handle must not be in its way
        else:
            kind = Answer.STREAMED if compiled.stream else Answer.BUFFERED
        handle = Handle(self, transfer, request, ref, kind, compiled.stream_body, delivery, flush)
        if watch is not None and mailbox is None:
            watch.transfer = transfer
            observe(handle, watch)
        return handle

    def _watched(self, token: int, ref: Hashable, request: Request) -> Watch:
        from ._watch import begin  # not needed by programs where nobody listens

        return begin(token, ref, self, request)

    def _verbose(self) -> Callable[[], None]:
        _log.start()
        return _log.flush

    def _refused(self, answer: int, request: Request, mailbox: Mailbox | None) -> Error:
        if answer == _engine.OVERLOAD:
            return Overload("every worker has max_in_flight requests", request=request)
        if answer == _engine.CLOSED:
            if mailbox is not None and engine_mailbox(mailbox).closed:
                return BadOptions("reply_to: the mailbox is closed")
            waiting.hold_daemon()
            return PoolClosed("the pool is closed")
        if answer == _engine.NO_MEMORY:
            return TransportError("out of memory", code="out_of_memory", request=request, request_sent=False)
        if answer == _engine.NO_THREAD:
            text = "no worker could be started: no thread or no file descriptor is to be had"
            return WorkerDied(text, request=request, request_sent=False)
        return WorkerDied("workers died too often in a short time", request=request, request_sent=False)

    # ------------------------------------------------------------------------------------------------ the end

    def statistics(self) -> PoolStatistics:
        """What the pool is doing."""
        return PoolStatistics(*self._engine.statistics())

    def close(self, *, drain: float = 0.0) -> None:
        """Refuse new requests, give those in flight `drain` seconds, fail the rest with PoolClosed, and end the
        threads.

        It blocks the calling thread, but not the GIL. A worker stuck inside libcurl is waited for two seconds, and then
        left. Idempotent.

        Raises:
            BadOptions: `drain` is negative, or no number.
        """
        seconds = _checked_drain(drain)
        self._closed = True
        engine = self._engine
        engine.refuse()
        try:
            if seconds != 0:
                waiting.block(engine.register, ON_IDLE, seconds)
        finally:
            engine.stop()
        self._ended(waiting.block(engine.register, ON_STOPPED, _WEDGED_SECONDS))
        _log.join()

    async def aclose(self, *, drain: float = 0.0) -> None:
        """As close(), waiting in the running event loop. Cancelled, it has failed what is in flight all the same."""
        seconds = _checked_drain(drain)
        self._closed = True
        engine = self._engine
        engine.refuse()
        try:
            if seconds != 0:
                await waiting.until_or_timeout(engine.register, ON_IDLE, seconds)
        finally:
            engine.stop()
        self._ended(await waiting.until_or_timeout(engine.register, ON_STOPPED, _WEDGED_SECONDS))

    def _ended(self, stopped: bool) -> None:
        # Stopped workers have left their loops: their threads end at once.
        self._engine.join(_WEDGED_SECONDS if stopped else 0.0)
        self._kept.clear()
        self._configs.clear()
        self._release()

    def _release(self) -> None:
        if waiting.pool_closed(self):
            _log.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_closed", True):  # missing where __init__ raised
            return
        workers = self._engine.statistics()[0]
        self._engine.abandon()
        self._release()
        if workers:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)


def _checked_drain(drain: object) -> float | None:
    """Seconds, None for ever."""
    if isinstance(drain, bool) or not isinstance(drain, (int, float)) or not drain >= 0:
        raise BadOptions("drain: must be a number of seconds, 0 or more")
    return None if drain == waiting.FOREVER else float(drain)


# What the clients call: requests whose options they have compiled themselves.


def prepare_request(pool: Pool, method: bytes, compiled: Compiled) -> Prepared:
    """What a client's request comes to in this pool; for as many requests as repeat it."""
    return Prepared(method, compiled, pool._config_of(compiled))  # pyright: ignore[reportPrivateUsage]


def start_plain(pool: Pool, prepared: Prepared, url: str) -> Handle | None:
    """Send it to `url`, if that is a URL with nothing to be looked at first: None if not. Raises as the pool's calls do."""
    call = prepared.call
    return None if call is None else pool._start_plain(prepared, call, url)  # pyright: ignore[reportPrivateUsage]


def start_request(pool: Pool, prepared: Prepared, request: Request) -> Handle:
    """Send it to the request's URL; the request itself is what messages and errors show."""
    return pool._submit_any(prepared, request.url, request)  # pyright: ignore[reportPrivateUsage]


def engine_fault(pool: Pool, index: int | None, how: str) -> bool:
    """For `katipo.testing.kill_worker`."""
    fault = pool._engine.fault  # pyright: ignore[reportPrivateUsage]
    if index is not None:
        return fault(index, _FAULTS[how])
    return any(fault(each, _FAULTS[how]) for each in range(pool._workers))  # pyright: ignore[reportPrivateUsage]
