"""The part of the tests' origin that the tests of FakePool use, as a handler: the same answers to the same requests."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from katipo import Request, Response
from tests.support.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import Callable

OCTETS = {"content-type": "application/octet-stream"}


def _big(request: Request, query: dict[str, str]) -> Response:
    return Response(200, headers=OCTETS, content=pattern(0, int(query["size"])))


def _coded(request: Request, query: dict[str, str]) -> Response:
    size = int(query["size"])
    data = bytes(size) if query.get("fill") == "zero" else pattern(0, size)
    return Response(200, headers={**OCTETS, "content-encoding": "gzip"}, content=gzip.compress(data))


def _status(request: Request, query: dict[str, str]) -> Response:
    code = int(request.url.path.rpartition("/")[2])
    return Response(code, content=b"" if code in (204, 304) else b"status")


def _set_headers(request: Request, query: dict[str, str]) -> Response:
    pairs = [(name.lower(), value) for name, value in parse_qsl(request.url.query.decode())]
    return Response(200, headers=pairs, content=b"headers")


def _cookies(request: Request, query: dict[str, str]) -> Response:
    if request.url.path.endswith("/set"):
        pairs = [("set-cookie", f"{name}={value}; Path=/") for name, value in query.items()]
        return Response(200, headers=pairs, content=b"cookies")
    found = [item.strip().partition("=") for item in request.headers.get("cookie", "").split(";") if item.strip()]
    return Response(200, json={"cookies": {name: value for name, _, value in found}})


def _upload(request: Request, query: dict[str, str]) -> Response:
    body = request.content or b""
    return Response(200, json={"length": len(body), "sha256": hashlib.sha256(body).hexdigest()})


def _headers(request: Request, query: dict[str, str]) -> Response:
    pairs = [[name.lower(), value] for name, value in request.headers.multi_items()]
    return Response(200, content=json.dumps({"headers": pairs, "method": request.method}))


_ROUTES: dict[str, Callable[[Request, dict[str, str]], Response]] = {
    "big": _big,
    "coded": _coded,
    "status": _status,
    "set-headers": _set_headers,
    "cookies": _cookies,
    "upload": _upload,
    "headers": _headers,
}


def fake_origin(request: Request) -> Response:
    """The handler."""
    route = request.url.path.split("/")[1]
    return _ROUTES[route](request, dict(parse_qsl(request.url.query.decode())))


async def fake_origin_async(request: Request) -> Response:
    """The same, for who wants to await it."""
    return fake_origin(request)
