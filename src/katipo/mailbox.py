"""One place where the messages of many requests arrive, for any number of consumers.

The engine's mailbox is a list of requests that have news. A consumer checks a request out, takes a message of it, and
gives it back; until then nobody else sees it, so the messages of one request keep their order however many consumers
there are. What makes a message public (its reference, a decoder half way through a body) is kept here by the request's
token, from before the request is submitted until its terminal message is taken.

When the last reference to a Mailbox goes, it counts as closed: that is the engine's to do, and nothing here refers back
to it.
"""

from __future__ import annotations

from time import monotonic

from . import _engine, waiting
from ._compat import Self
from .errors import AwaitTimeout, MailboxClosed
from .handle import Delivery
from .messages import Done, Failed, Message, Responded

__all__ = ["Mailbox", "attach", "detach", "engine_mailbox"]

_TERMINAL = (Responded, Failed, Done)
_MARGIN = 1.1
"""Seconds past its deadline after which a request is looked at: the engine calls it overdue after one."""


class _Overdue:
    """When the next request that replies to a mailbox may turn out to be held by a wedged worker. See waiting.Watched."""

    __slots__ = ("_box", "at")

    def __init__(self, box: _engine.Mailbox) -> None:
        self._box = box
        self.at = waiting.FOREVER  # monotonic seconds; too early is harmless

    def expect(self, timeout_ms: int) -> None:
        if timeout_ms > 0:
            self.at = min(self.at, monotonic() + timeout_ms / 1000 + _MARGIN)

    def overdue_at(self) -> float:
        return self.at

    def fail_overdue(self) -> None:
        if self.at <= monotonic():
            self.at = waiting.FOREVER  # before the engine looks: another thread may submit meanwhile
            seconds = self._box.fail_overdue()
            if seconds is not None:
                self.at = min(self.at, monotonic() + seconds + _MARGIN - 1)


class Mailbox:
    """Where requests made with `reply_to` send their messages.

    Any number of threads and tasks may take from it; each message goes to exactly one, and those of one request keep
    their order. When its last reference goes it counts as closed.
    """

    __slots__ = ("__weakref__", "_box", "_deliveries", "_overdue")

    def __init__(self) -> None:
        self._box = _engine.Mailbox()
        self._deliveries: dict[int, Delivery] = {}  # by the request's token
        self._overdue = _Overdue(self._box)

    def receive(self, timeout: float | None = None) -> Message:
        """The next message; blocks the calling thread, but not the GIL, until there is one.

        `timeout`: seconds to wait; None: for ever, 0: not at all.

        Raises:
            AwaitTimeout: `timeout` is over.
            MailboxClosed: the mailbox is closed, and everything in it has been taken.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while (message := self._take()) is None:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            try:
                woken = waiting.block(self._register, 0, left, self._overdue)
            except BaseException:
                self._box.pass_on()
                raise
            if not woken:
                raise AwaitTimeout(f"no message within {timeout} s")
        return message

    async def areceive(self) -> Message:
        """The next message, waiting in the running event loop. Cancelled, it loses nothing.

        Raises:
            MailboxClosed: the mailbox is closed, and everything in it has been taken.
        """
        while (message := self._take()) is None:
            try:
                await waiting.until(self._register, 0, self._overdue)
            except BaseException:
                self._box.pass_on()  # this one may have been woken, and nobody else for the same news
                raise
        return message

    def _register(self, waiter: _engine.Waiter, mask: int) -> bool:
        return self._box.register(waiter)

    def _take(self) -> Message | None:
        """A message, or None: wait. Raises MailboxClosed."""
        while True:
            # Looked at before taking: what is queued when it closes is there to be taken afterwards.
            closed = self._box.closed
            taken = self._box.take()
            if taken is None:
                if closed:
                    raise MailboxClosed("the mailbox is closed")
                return None
            delivery = self._deliveries[taken.token]
            more = True
            try:
                message = delivery.next(taken, taken.message)
                more = delivery.holding
                if isinstance(message, _TERMINAL):
                    del self._deliveries[taken.token]
            finally:
                taken.give_back(more=more)
            if message is not None:
                return message

    def close(self) -> None:
        """Cancel the requests that reply here. What is queued can still be taken. Idempotent."""
        self._box.close()

    def __len__(self) -> int:
        """How many messages are there to be taken; more may come of what is still to be decoded."""
        return len(self._box)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        state = "closed, " if self._box.closed else ""
        return f"<Mailbox {state}{len(self._box)} messages>"

    def __iter__(self) -> Self:
        """Messages until the mailbox is closed and empty."""
        return self

    def __next__(self) -> Message:
        try:
            return self.receive()
        except MailboxClosed:
            raise StopIteration from None

    def __aiter__(self) -> Self:
        """Messages until the mailbox is closed and empty."""
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.areceive()
        except MailboxClosed:
            raise StopAsyncIteration from None


# For the pool, which submits; a Mailbox shows nothing of this to its users.


def engine_mailbox(mailbox: Mailbox) -> _engine.Mailbox:
    """What the engine knows it by."""
    return mailbox._box  # pyright: ignore[reportPrivateUsage]


def attach(mailbox: Mailbox, token: int, delivery: Delivery, timeout_ms: int) -> None:
    """Before the request is submitted: its first message may be there before the call returns."""
    mailbox._overdue.expect(timeout_ms)  # pyright: ignore[reportPrivateUsage]
    mailbox._deliveries[token] = delivery  # pyright: ignore[reportPrivateUsage]


def detach(mailbox: Mailbox, token: int) -> None:
    """The request was refused after all."""
    mailbox._deliveries.pop(token, None)  # pyright: ignore[reportPrivateUsage]
