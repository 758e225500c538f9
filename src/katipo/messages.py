"""What arrives for a request in flight, made for `match`.

A streamed request: one Started, Chunks in order, one Done; where they were asked for, Informationals before them. A
buffered one: one Responded. Either: Failed, at any point and last. Each carries the request's reference, `ref`. No repr
shows a body, a cookie or a credential.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from ._frozen import dataclass
from .cookies import CookieJar
from .errors import Error
from .headers import Headers
from .metrics import Metrics
from .response import Response
from .url import URL

__all__ = ["Chunk", "Done", "Failed", "Informational", "Message", "Responded", "Started"]


@dataclass(frozen=True, slots=True)
class Informational:
    """Streamed, with `informational=True`: an informational (1xx) response, before Started, as it comes."""

    ref: Any
    status_code: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class Started:
    """Streamed: the final response's status and headers, before any Chunk."""

    ref: Any
    status_code: int
    headers: Headers
    cookiejar: CookieJar | None
    http_version: str
    url: URL


@dataclass(frozen=True, slots=True)
class Chunk:
    """Streamed: a piece of the body, never empty. Its boundaries mean nothing."""

    ref: Any
    data: bytes

    def __repr__(self) -> str:
        return f"Chunk(ref={self.ref!r}, data=<{len(self.data)} bytes>)"


@dataclass(frozen=True, slots=True)
class Done:
    """Streamed: the body has ended as it should. Terminal."""

    ref: Any
    metrics: Metrics
    cookiejar: CookieJar | None
    trailers: Headers


@dataclass(frozen=True, slots=True)
class Responded:
    """Buffered: the whole response. Terminal."""

    ref: Any
    response: Response


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed with `error`. Terminal."""

    ref: Any
    error: Error


Message: TypeAlias = Informational | Started | Chunk | Done | Responded | Failed
