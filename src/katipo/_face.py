"""How a client waits: blocking its thread, or in an event loop. The one difference between the two clients.

What they share is written once, as coroutines that wait through a face and through nothing else. The blocking face's
coroutines never suspend: `run` drives what stands on them to its end in one step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final, Protocol, TypeVar

from . import waiting
from ._compat import Buffer
from .errors import BadOptions
from .handle import Handle, MessageIterator, block_until_files_closed, until_files_closed
from .messages import Chunk, Done, Informational, Started
from .response import Response

__all__ = ["BLOCKING", "LOOP", "Face", "run"]

_T = TypeVar("_T")

_LAST_WRITE_SECONDS: Final = 2.0
"""How long a cancelled download waits for a disk that does not answer. Arbitrary."""


class Face(Protocol):
    """What shared code may wait for."""

    @property
    def is_async(self) -> bool:
        """Whether it waits in an event loop."""
        ...

    async def response(self, handle: Handle) -> Response:
        """The whole response of a buffered request. Interrupted, the request goes on."""
        ...

    async def message(
        self, messages: MessageIterator, timeout: float | None = None
    ) -> Informational | Started | Chunk | Done | None:
        """A streamed response's next message; None: `timeout` seconds were over first."""
        ...

    async def send(self, handle: Handle, data: Buffer) -> None:
        """Send a piece of the request's body, when there is room."""
        ...

    async def next(self, pieces: Iterator[_T] | AsyncIterator[_T]) -> _T | None:
        """The next of the caller's own items; None: there are no more."""
        ...

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of the caller's, plain or async."""
        ...

    async def in_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run a function of ours that may block on files."""
        ...

    async def files_closed(self, handle: Handle) -> None:
        """Wait until the worker has let go of a request's files; the request has ended. Also for one that was cancelled."""
        ...


class _Blocking:
    """Blocks the calling thread; Ctrl-C comes through."""

    @property
    def is_async(self) -> bool:
        return False

    async def response(self, handle: Handle) -> Response:
        return handle.result()

    async def message(
        self, messages: MessageIterator, timeout: float | None = None
    ) -> Informational | Started | Chunk | Done | None:
        while (message := messages.poll()) is None:
            if not messages.block(timeout):
                return None
        return message

    async def send(self, handle: Handle, data: Buffer) -> None:
        handle.send_body(data)

    async def next(self, pieces: Iterator[_T] | AsyncIterator[_T]) -> _T | None:
        assert isinstance(pieces, Iterator)
        return next(pieces, None)

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        result = function(*args)
        if hasattr(result, "__await__"):
            if hasattr(result, "close"):
                result.close()  # or it would warn that it was never awaited
            raise BadOptions("an async function was given to a blocking client: use AsyncClient")
        return result

    async def in_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        return function(*args)

    async def files_closed(self, handle: Handle) -> None:
        block_until_files_closed(handle, _LAST_WRITE_SECONDS)


class _Loop:
    """Waits in the running event loop: asyncio's, uvloop's, trio's."""

    @property
    def is_async(self) -> bool:
        return True

    async def response(self, handle: Handle) -> Response:
        return await handle

    async def message(
        self, messages: MessageIterator, timeout: float | None = None
    ) -> Informational | Started | Chunk | Done | None:
        if timeout is None:
            return await messages.__anext__()
        while (message := messages.poll()) is None:
            if not await messages.until(timeout):
                return None
        return message

    async def send(self, handle: Handle, data: Buffer) -> None:
        await handle.asend_body(data)

    async def next(self, pieces: Iterator[_T] | AsyncIterator[_T]) -> _T | None:
        if isinstance(pieces, AsyncIterator):
            return await anext(pieces, None)
        return next(pieces, None)

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        result = function(*args)
        return await result if hasattr(result, "__await__") else result

    async def in_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        return await waiting.in_thread(function, *args)

    async def files_closed(self, handle: Handle) -> None:
        await waiting.shielded(until_files_closed, handle, _LAST_WRITE_SECONDS)


BLOCKING: Final[Face] = _Blocking()
LOOP: Final[Face] = _Loop()


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that waits through the blocking face only."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a blocking client's coroutine waited in an event loop")
