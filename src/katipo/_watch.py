"""One observed request: what its observers are told, once each and in order.

Imported when somebody listens. It assumes that a stream's messages have one taker at a time, and nothing of who else looks
at the request meanwhile: a cancel, a second waiter, a finalizer. They are kept apart by a lock that nobody waits for:
whoever finds it taken leaves the outcome to its holder, or to the next who looks.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Hashable, Sequence
from time import time
from typing import TYPE_CHECKING, Any

from . import observers
from ._request_headers import Header, addable_headers
from .errors import Error, RequestError
from .handle import Delivery, Transfer
from .messages import Chunk, Done, Failed, Informational, Message, Responded, Started
from .metrics import Metrics
from .request import Request

if TYPE_CHECKING:
    from . import _engine
    from .observers import Observer
    from .pool import Pool

__all__ = ["ObservedDelivery", "Watch", "begin"]


class Watch:
    """What observers have been told of a request. Held by whoever can take its answer; when that goes, so does this."""

    __slots__ = ("_ended", "_observers", "_pid", "_received", "_started", "_turn", "headers", "transfer")

    def __init__(self, started: observers.RequestStarted) -> None:
        self._started = started
        self._received: observers.HeadersReceived | None = None
        self._observers: list[Observer] = []
        self._ended = False
        self._turn = threading.Lock()
        self._pid = os.getpid()
        self.headers: list[Header] = []
        """To be sent with the request: no name twice."""
        self.transfer: Transfer | None = None
        """Of an accepted request. Not of one with a mailbox, which must not be kept."""

    def start(self, observer: Observer) -> None:
        """Tell it of the start, and keep what it wants sent."""
        self._observers.append(observer)  # before the call: interrupted in it, it has seen the request
        try:
            more = observer.request_started(self._started)
            if more is not None:
                known = {lower for _, lower, _ in self.headers}
                self.headers += [header for header in addable_headers(more) if header[1] not in known]
        except Exception as error:
            _log(observer, "request_started", error)

    def delivery(self, ref: Hashable, request: Request, *, decode: bool, window: int, limit: int) -> ObservedDelivery:
        """As Delivery's constructor."""
        return ObservedDelivery(self, ref, request, decode=decode, window=window, limit=limit)

    def saw(self, message: Message) -> None:
        """A message of the request has been made public."""
        if self._ended or not self._turn.acquire(blocking=False):
            return
        try:
            # Again, now that nobody else can end it. In a forked child the request is its parent's to report.
            if not self._ended and self._pid == os.getpid():
                self._tell(message)
        finally:
            self._turn.release()

    def failed(self, error: Error) -> None:
        """The request has failed with this, whatever the engine says of it."""
        self.saw(Failed(self._started.ref, error))

    def look(self) -> None:
        """The request may have been cancelled, with nobody to take the message that says so."""
        if not self._ended and isinstance(message := self._outcome(), Failed):
            self.saw(message)

    def _outcome(self) -> Message | None:
        """The terminal message, without taking it; None: not known."""
        terminal = None if self.transfer is None else self.transfer.terminal()
        if self.transfer is None or terminal is None:
            return None
        delivery = Delivery(self._started.ref, self._started.request, decode=False, window=-1, limit=-1)
        return delivery.next(self.transfer, terminal)

    def _tell(self, message: Message) -> None:
        if isinstance(message, Started):
            self._receive(message)
        elif isinstance(message, Responded):
            self._receive(message.response)
            self._finish(message.response.metrics, None)
        elif isinstance(message, Done):
            self._finish(message.metrics, None)
        elif isinstance(message, Failed):
            error = message.error
            self._finish(error.metrics if isinstance(error, RequestError) else None, error)

    def _receive(self, head: Any) -> None:
        event = observers.HeadersReceived(self._started, head.status_code, head.headers, head.http_version)
        self._received = event
        _call(self._observers, "headers_received", event)

    def _finish(self, metrics: Metrics | None, error: Error | None) -> None:
        self._ended = True  # first: it is told once, whatever comes of it
        event = observers.RequestFinished(self._started, self._received, metrics, error)
        _call(self._observers, "request_finished", event)

    def __del__(self) -> None:
        # At the interpreter's end, what an observer needs may be gone already.
        if self._ended or self._pid != os.getpid() or sys.is_finalizing():
            return
        message = self._outcome()
        if message is None:
            self._finish(None, None)
        else:
            self._tell(message)


def begin(token: int, ref: Hashable, pool: Pool, request: Request) -> Watch:
    """Tell all who listen that the request starts."""
    watch = Watch(observers.RequestStarted(token, ref, pool, request, time()))
    for observer in observers.listeners.copy().values():
        watch.start(observer)
    return watch


def _call(
    listening: Sequence[Observer], method: str, event: observers.HeadersReceived | observers.RequestFinished
) -> None:
    for index, observer in enumerate(listening):
        try:
            getattr(observer, method)(event)
        except Exception as error:
            _log(observer, method, error)
        except BaseException:  # Ctrl-C in one of them: the others are told all the same
            _call(listening[index + 1 :], method, event)
            raise


def _log(observer: Observer, method: str, error: Exception) -> None:
    import logging

    logger = logging.getLogger("katipo")
    logger.error("the observer %s raised in %s", type(observer).__name__, method, exc_info=error)


class ObservedDelivery(Delivery):
    """A Delivery whose messages are observed."""

    __slots__ = ("_watch",)

    def __init__(self, watch: Watch, ref: Hashable, request: Request, *, decode: bool, window: int, limit: int) -> None:
        super().__init__(ref, request, decode=decode, window=window, limit=limit)
        self._watch = watch

    def next(self, source: Any, message: _engine.Message | None) -> Message | None:
        public = super().next(source, message)
        if public is not None and not isinstance(public, (Chunk, Informational)):
            self._watch.saw(public)
        return public
