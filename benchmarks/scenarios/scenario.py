"""The shape of a scenario."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.clients import Adapter


@dataclass(frozen=True)
class Effort:
    """How long a scenario of requests goes on (seconds), and how large the body of a stream is (bytes)."""

    seconds: float
    size: int


@dataclass(frozen=True)
class Scenario:
    """A scenario: `run` returns the requests that were answered, or the bytes that were moved."""

    name: str
    title: str
    unit: Literal["requests", "bytes"]
    server: Literal["plain", "http2"]
    warm_up: Callable[[Adapter, str], Awaitable[None]]
    run: Callable[[Adapter, str, Effort], Awaitable[int]]
    clients: tuple[str, ...] | None = None
    """The clients that can take part; None: all."""


def check(got: int, expected: int) -> None:
    """Raise RuntimeError when a client did not deliver what it was given."""
    if got != expected:
        raise RuntimeError(f"{got} bytes where {expected} were sent")
