"""Methods, with bodies and without, and the URL as it reaches the server."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.pattern import pattern

if TYPE_CHECKING:
    from tests.support.endpoints import Endpoint

pytestmark = pytest.mark.core

WITH_BODY = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")
SHORTCUTS = ("get", "post", "put", "patch", "delete", "head", "options")


def received(response: katipo.Response) -> dict[str, list[str]]:
    """The request's headers as the server got them, by name in lower case."""
    found: dict[str, list[str]] = {}
    for name, value in response.json()["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


@pytest.mark.parametrize("method", WITH_BODY)
def test_every_method_carries_a_body(pool: katipo.Pool, endpoint: Endpoint, method: str) -> None:
    """A body goes out whole with any method that may have one, those that rarely do included."""
    body = pattern(7, 100_000)
    response = pool.request(method, endpoint("/upload"), body=body, **endpoint.options)
    seen = response.json()
    assert (seen["method"], seen["length"], seen["sha256"]) == (method, len(body), hashlib.sha256(body).hexdigest())
    assert response.http_version == endpoint.http_version
    assert received(response)["content-length"] == [str(len(body))]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_method_that_means_content_says_that_there_is_none(
    pool: katipo.Pool, endpoint: Endpoint, method: str
) -> None:
    """POST, PUT and PATCH without a body are sent with a length of 0."""
    response = pool.request(method, endpoint("/upload"), **endpoint.options)
    assert (response.json()["method"], response.json()["length"]) == (method, 0)
    assert received(response)["content-length"] == ["0"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PROPFIND"])
def test_other_methods_without_a_body_are_sent_without_a_length(
    pool: katipo.Pool, endpoint: Endpoint, method: str
) -> None:
    """A request without content has neither Content-Length nor Transfer-Encoding nor a type."""
    response = pool.request(method, endpoint("/headers"), **endpoint.options)
    assert response.json()["method"] == method
    assert not {"content-length", "transfer-encoding", "content-type"} & received(response).keys()


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
def test_an_empty_body_is_a_body_of_length_zero(pool: katipo.Pool, endpoint: Endpoint, method: str) -> None:
    """`body=b""` is sent as content of no bytes, whatever the method."""
    response = pool.request(method, endpoint("/upload"), body=b"", **endpoint.options)
    assert response.json()["length"] == 0
    assert received(response)["content-length"] == ["0"]


@pytest.mark.parametrize("name", SHORTCUTS)
def test_each_blocking_shortcut_sends_its_method(pool: katipo.Pool, web: Endpoint, name: str) -> None:
    """`pool.get` and its like send the method they are named after, to a real server."""
    path = f"/anything/{name}" if name not in ("head", "options") else "/get"
    response = getattr(pool, name)(web(path), **web.options)
    assert response.status_code == 200
    assert response.request.method == name.upper()
    if name == "options":
        assert "OPTIONS" in response.headers["allow"]
    elif name == "head":
        assert response.content == b""
        assert int(response.headers["content-length"]) > 0
    else:
        assert response.json()["method"] == name.upper()


@pytest.mark.parametrize("name", SHORTCUTS)
async def test_each_asynchronous_shortcut_sends_its_method(pool: katipo.Pool, endpoint: Endpoint, name: str) -> None:
    """`pool.async_get` and its like send the method they are named after."""
    handle: katipo.Handle = getattr(pool, f"async_{name}")(endpoint("/headers"), **endpoint.options)
    response = await handle
    assert response.status_code == 200
    assert response.content == b"" if name == "head" else response.json()["method"] == name.upper()


def test_a_method_is_sent_in_upper_case(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A method written in lower case is sent as httpx sends it."""
    response = pool.request("report", endpoint("/headers"), **endpoint.options)
    assert response.json()["method"] == "REPORT"
    assert response.request.method == "REPORT"


def test_head_has_the_length_and_no_body_and_the_connection_goes_on(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The answer to HEAD ends at its headers, so that the next request finds the connection clean."""
    head = pool.head(endpoint("/big", size=5000), **endpoint.options)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "5000")
    following = pool.get(endpoint("/big", size=5000), **endpoint.options)
    assert following.content == pattern(0, 5000)
    assert following.metrics.connections_opened == 0


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        ("/headers?a=1&a=2&b=", "/headers", "a=1&a=2&b="),
        ("/headers?q=x%20y%26z", "/headers", "q=x%20y%26z"),
        ("/headers?q=ä b", "/headers", "q=%C3%A4%20b"),
        ("/headers/x/../y?z#fragment", "/headers/y", "z"),
        ("/headers?", "/headers", ""),
        ("/headers/%2Fetc%20x", "/headers/%2Fetc%20x", ""),
    ],
)
def test_path_and_query_reach_the_server_as_written(
    pool: katipo.Pool, endpoint: Endpoint, url: str, path: str, query: str
) -> None:
    """Escapes stay, what must be escaped is, dot segments are resolved, and the fragment stays here."""
    seen: dict[str, Any] = pool.get(endpoint("") + url, **endpoint.options).json()
    assert (seen["path"], seen["query"]) == (path, query)


def test_a_katipo_url_is_as_good_as_its_text(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A URL object can be given wherever a str can, parameters added."""
    url = katipo.URL(endpoint("/headers"), params=[("n", 1), ("name", "a b")])
    response = pool.get(url, **endpoint.options)
    assert response.json()["query"] == "n=1&name=a+b"
    assert response.url == url


def test_trace_and_connect(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """TRACE is sent, without a body only; CONNECT is for proxies and refused."""
    assert pool.request("TRACE", endpoint("/headers"), **endpoint.options).json()["method"] == "TRACE"
    with pytest.raises(katipo.BadOptions, match="TRACE"):
        pool.request("TRACE", endpoint("/headers"), body=b"x", **endpoint.options)
    with pytest.raises(katipo.BadOptions, match="CONNECT"):
        pool.request("CONNECT", endpoint("/headers"), **endpoint.options)
