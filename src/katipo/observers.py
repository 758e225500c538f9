"""Observers: told of every request that starts, gets its headers and ends, in this process. Tracing and metrics hang on it.

Nobody listening costs a request one look at an empty dictionary. While somebody listens, every request takes the pool's
long way, and one that an observer adds headers to is compiled afresh.

Observers are called in whatever thread or task learns of what they are told: they must be quick, and must not wait. What
one of them raises is logged to `katipo`, and the request goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ._frozen import Frozen
from .errors import BadOptions, Error
from .headers import Headers
from .metrics import Metrics
from .request import Request

if TYPE_CHECKING:
    from .pool import Pool

__all__ = [
    "HeadersReceived",
    "Observer",
    "RequestFinished",
    "RequestStarted",
    "add_observer",
    "listeners",
    "remove_observer",
]

# ruff: noqa: RUF023 - the order of __slots__ is that of repr and of _set


class RequestStarted(Frozen):
    """A request is about to be handed to its pool."""

    __slots__ = ("id", "ref", "pool", "request", "started_at")

    id: int
    """Unique in the process: what tells one request's events from another's."""
    ref: Any
    """The handle's: what the caller gave as `ref`, else the same as `id`."""
    pool: Pool
    request: Request
    """As its messages and errors show it; without what observers add. Not to be changed."""
    started_at: float
    """Seconds of the epoch, as time.time() has them."""

    def __init__(self, id: int, ref: object, pool: Pool, request: Request, started_at: float) -> None:
        self._set(id, ref, pool, request, started_at)


class HeadersReceived(Frozen):
    """The final response's headers have been taken: of a stream when it starts, of a buffered response with all of it."""

    __slots__ = ("id", "ref", "pool", "request", "started_at", "status_code", "headers", "http_version")

    id: int
    ref: Any
    pool: Pool
    request: Request
    started_at: float
    status_code: int
    headers: Headers
    """Not to be changed."""
    http_version: str
    """"HTTP/1.1", "HTTP/2", "HTTP/3"."""

    def __init__(self, started: RequestStarted, status_code: int, headers: Headers, http_version: str) -> None:
        self._set(*started._values(), status_code, headers, http_version)


class RequestFinished(Frozen):
    """The request has ended, as far as it is known.

    `error` None and `metrics` there: well. `error` there: it failed with that, and `metrics` are there if libcurl had come
    to it. Both None: not known, for nobody holds the request any more: it was in flight when its handle was dropped, or
    its answer was in a mailbox that was dropped.
    """

    __slots__ = (
        "id",
        "ref",
        "pool",
        "request",
        "started_at",
        "status_code",
        "headers",
        "http_version",
        "metrics",
        "error",
    )

    id: int
    ref: Any
    pool: Pool
    request: Request
    started_at: float
    status_code: int | None
    """None, like `headers` and `http_version`: none were taken."""
    headers: Headers | None
    http_version: str | None
    metrics: Metrics | None
    error: Error | None

    def __init__(
        self, started: RequestStarted, received: HeadersReceived | None, metrics: Metrics | None, error: Error | None
    ) -> None:
        head = (
            (None, None, None) if received is None else (received.status_code, received.headers, received.http_version)
        )
        self._set(*started._values(), *head, metrics, error)


class Observer:
    """The base of observers, whose methods do nothing. Override those that you want; then `add_observer`.

    For each request: `request_started`, `headers_received` if there are any, `request_finished` once. The calls for one
    request do not overlap; those for different requests come from any number of threads at once.
    """

    __slots__ = ("__weakref__",)

    def request_started(self, event: RequestStarted, /) -> Mapping[str, str] | None:
        """In the thread or task that makes the request, before anything of it is sent.

        May return headers to be sent with it, to propagate a trace's context. A name that the request has already is left
        as it is. Those that say how the message is framed or read (Host, Connection, Content-Length, Content-Type,
        Transfer-Encoding, Expect, Accept-Encoding, User-Agent) cannot be added.
        """
        return None

    def headers_received(self, event: HeadersReceived, /) -> None:
        """In the thread or task that takes them."""

    def request_finished(self, event: RequestFinished, /) -> None:
        """In whatever thread first learns of the outcome; where the request was dropped, that is a finalizer's."""


listeners: Final[dict[int, Observer]] = {}
"""By their id(), in the order in which they were added. Changed and copied by single operations, which are atomic."""


def add_observer(observer: Observer) -> None:
    """From now on, tell it of every request that starts in this process, and in children that it forks. Idempotent.

    Raises:
        BadOptions: it is no Observer.
    """
    listeners[id(_checked(observer))] = observer


def remove_observer(observer: Observer) -> None:
    """Tell it of no further requests: those that it has seen start it will see finish. Idempotent.

    Raises:
        BadOptions: it is no Observer.
    """
    listeners.pop(id(_checked(observer)), None)


def _checked(observer: Observer) -> Observer:
    if isinstance(observer, Observer):  # pyright: ignore[reportUnnecessaryIsInstance]
        return observer
    raise BadOptions(f"observer: must be an Observer, not {type(observer).__name__}")
