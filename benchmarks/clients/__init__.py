"""The clients under measurement: one module each, with a class `Client` that does as `Adapter` says.

An adapter is what a careful user of that client would write: one session for everything, handles and connections
reused, no option that makes it do more than the others. A response's body always arrives in Python and is counted
there.
"""

import importlib
import importlib.util
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol

from typing_extensions import Self

Pause = Callable[[int], Awaitable[None]]
"""Awaited after each chunk of a download, with the number of bytes so far: a consumer that takes its time."""

NAMES = {
    "katipo": ("katipo", "katipo_client"),
    "katipo-pool": ("katipo", "katipo_pool"),
    "wreq": ("wreq", "wreq_client"),
    "pycurl": ("pycurl", "pycurl_multi"),
    "aiohttp": ("aiohttp", "aiohttp_session"),
    "httpx": ("httpx", "httpx_client"),
}
"""By name: the package to be imported, and the module of the adapter."""


class Adapter(Protocol):
    """What a scenario asks of a client; every method returns a number of bytes, which the scenario checks."""

    def __init__(self, authority: str | None) -> None:
        """Take the file with the CA that signed the servers' certificates; None where no TLS is spoken."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def get(self, url: str) -> int:
        """GET, buffered: the length of the body."""
        ...

    async def download(self, url: str, pause: Pause | None = None) -> int:
        """GET, streamed and thrown away chunk by chunk: the length of the body."""
        ...

    async def upload(self, url: str, piece: bytes, count: int) -> int:
        """POST a streamed body of `count` times `piece`, its length not announced: the length that the server saw."""
        ...


def installed() -> list[str]:
    """Return the names of the clients that can be imported here."""
    return [name for name, (package, _) in NAMES.items() if importlib.util.find_spec(package)]


def load(name: str) -> type[Adapter]:
    """Return the adapter class of client `name`."""
    adapter: type[Adapter] = importlib.import_module(f"{__name__}.{NAMES[name][1]}").Client
    return adapter
