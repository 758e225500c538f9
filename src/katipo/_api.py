"""One-off requests: a client for each call, on one process-wide pool that is closed at exit.

No cookie outlives a call. The environment is read by each, as by a new client.
"""

from __future__ import annotations

import atexit
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, cast

from ._arguments import ClientOptions, OneOffOptions
from ._compat import Unpack
from .client import Client
from .config import Limits
from .pool import Pool
from .response import Response
from .streaming import StreamingResponse
from .url import URL

__all__ = ["delete", "get", "head", "options", "patch", "post", "put", "request", "stream"]


_OF_THE_CLIENT: Final = frozenset(OneOffOptions.__annotations__) - frozenset(ClientOptions.__annotations__)

_shared: dict[str, Pool] = {}
"""The one pool, under "pool"; setdefault() is what makes it one."""


def _pool() -> Pool:
    pool = _shared.get("pool")
    if pool is None:
        made = Pool(**Limits().for_pool(), name="katipo")
        pool = _shared.setdefault("pool", made)
        if pool is made:
            atexit.register(made.close)
        else:
            made.close()  # another thread was first
    return pool


def _split(options: OneOffOptions) -> tuple[Client, ClientOptions]:
    given = cast("dict[str, Any]", options)
    arguments = {name: given[name] for name in given if name in _OF_THE_CLIENT}
    rest = {name: given[name] for name in given if name not in _OF_THE_CLIENT}
    return Client(pool=_pool(), **arguments), cast("ClientOptions", rest)


def request(method: str, url: str | URL, **options: Unpack[OneOffOptions]) -> Response:
    """Send one request, as Client.request does; takes `verify`, `cert`, `tls`, `trust_env`, `http1`, `http2`, `http3`,
    `max_redirects` and `default_encoding` as well.
    """
    client, rest = _split(options)
    with client:
        return client.request(method, url, **rest)


def get(url: str | URL, **options: Unpack[OneOffOptions]) -> Response:
    """`request` with GET."""
    return request("GET", url, **options)


def head(url: str | URL, **options: Unpack[OneOffOptions]) -> Response:
    """`request` with HEAD."""
    return request("HEAD", url, **options)


def options(url: str | URL, **options: Unpack[OneOffOptions]) -> Response:
    """`request` with OPTIONS."""
    return request("OPTIONS", url, **options)


def post(url: str | URL, **options: Unpack[OneOffOptions]) -> Response:
    """`request` with POST."""
    return request("POST", url, **options)


def put(url: str | URL, **options: Unpack[OneOffOptions]) -> Response:
    """`request` with PUT."""
    return request("PUT", url, **options)


def patch(url: str | URL, **options: Unpack[OneOffOptions]) -> Response:
    """`request` with PATCH."""
    return request("PATCH", url, **options)


def delete(url: str | URL, **options: Unpack[OneOffOptions]) -> Response:
    """`request` with DELETE."""
    return request("DELETE", url, **options)


@contextmanager
def stream(method: str, url: str | URL, **options: Unpack[OneOffOptions]) -> Generator[StreamingResponse, None, None]:
    """Send one request, and read its response as it comes, as Client.stream does."""
    client, rest = _split(options)
    with client, client.stream(method, url, **rest) as response:
        yield response
