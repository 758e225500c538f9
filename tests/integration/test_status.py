"""Every class of status, and responses that have no body."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING

import pytest

import katipo
from tests.support.hostile import response, serve

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.nginx import Nginx

CODES = [200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 410,
         413, 418, 421, 422, 425, 429, 451, 500, 501, 502, 503, 504, 507, 511, 599]  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_every_status_is_an_answer(pool: katipo.Pool, endpoint: Endpoint, code: int) -> None:
    """Whatever the server says is delivered as a response, with what its class means; nothing is raised."""
    answer = pool.get(endpoint(f"/status/{code}"), **endpoint.options)
    assert answer.status_code == code
    assert answer.content == (b"" if code in (204, 205, 304) else b"status %d" % code)
    kinds = (answer.is_success, answer.is_redirect, answer.is_client_error, answer.is_server_error)
    assert kinds == tuple(code // 100 == first for first in (2, 3, 4, 5))
    assert answer.is_error == (code >= 400)


@pytest.mark.parametrize("code", [200, 204, 304, 404, 500, 502, 503])
def test_a_real_server_s_status(pool: katipo.Pool, web: Endpoint, code: int) -> None:
    """httpbin's statuses come through nginx and Caddy."""
    assert pool.get(web(f"/status/{code}"), **web.options).status_code == code


def test_nginx_answers_with_all_of_its_statuses(pool: katipo.Pool, nginx: Nginx) -> None:
    """Statuses as nginx makes them itself, on one connection."""
    for code in (200, 201, 204, 206, 301, 304, 400, 404, 405, 413, 416, 431, 500, 503, 505, 508):
        assert pool.get(f"{nginx.http}/return/{code}").status_code == code


@pytest.mark.parametrize("code", [204, 304])
def test_a_response_without_a_body_ends_at_its_headers(pool: katipo.Pool, endpoint: Endpoint, code: int) -> None:
    """204 and 304 have no body, and the connection serves the next request."""
    answer = pool.get(endpoint(f"/status/{code}"), **endpoint.options)
    assert (answer.content, len(answer.trailers)) == (b"", 0)
    following = pool.get(endpoint("/count"), **endpoint.options)
    assert (following.status_code, following.metrics.connections_opened) == (200, 0)


@pytest.mark.parametrize("code", [204, 304])
def test_a_stream_without_a_body_is_started_and_done(pool: katipo.Pool, endpoint: Endpoint, code: int) -> None:
    """A streamed response without a body is two messages."""
    messages = list(pool.async_get(endpoint(f"/status/{code}"), stream=True, **endpoint.options))
    assert [type(message) for message in messages] == [katipo.Started, katipo.Done]
    assert isinstance(messages[0], katipo.Started)
    assert messages[0].status_code == code


def test_a_length_on_a_response_without_a_body_is_no_body(pool: katipo.Pool, hostile: Hostile) -> None:
    """A Content-Length on 304 or on an answer to HEAD says what there would have been."""
    block = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"
    server = hostile(serve(block, block.replace(b"304 Not Modified", b"200 OK"), response(b"last")))
    assert pool.get(server.url).content == b""
    assert pool.head(server.url).content == b""
    assert pool.get(server.url).content == b"last"
    assert server.accepted == 1


@pytest.mark.parametrize("code", [101, 599, 299, 999])
def test_unheard_of_final_statuses(pool: katipo.Pool, hostile: Hostile, code: int) -> None:
    """A final status that nobody has defined is delivered, by its number; 101 unasked for is the server's error."""
    server = hostile(serve(response(b"x", status=code)))
    server.ignore_errors()
    if code == 101:
        with pytest.raises(katipo.RequestError):
            pool.get(server.url, timeout_ms=1000)
        return
    answer = pool.get(server.url)
    assert (answer.status_code, answer.content) == (code, b"x")


def test_reasons(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """HTTP/1.1 has the server's own words, 2 and 3 the standard ones."""
    answer = pool.get(endpoint("/status/404", reason="Lost in space"), **endpoint.options)
    expected = "Lost in space" if endpoint.version == "1.1" else http.HTTPStatus(404).phrase
    assert answer.reason_phrase == expected


@pytest.mark.parametrize("code", [200, 302, 404, 503])
def test_raise_for_status(pool: katipo.Pool, endpoint: Endpoint, code: int) -> None:
    """Outside 2xx `raise_for_status` raises, with the response and its request; within it returns the response."""
    answer = pool.get(endpoint(f"/status/{code}"), **endpoint.options)
    if code == 200:
        assert answer.raise_for_status() is answer
        return
    with pytest.raises(katipo.HTTPStatusError, match=str(code)) as caught:
        answer.raise_for_status()
    assert caught.value.response is answer
    assert caught.value.request is answer.request


def test_an_http_1_0_response_is_read_to_the_close(pool: katipo.Pool, hostile: Hostile) -> None:
    """Without a length the body ends with the connection, and the version is the server's."""
    server = hostile(
        [
            lambda peer: peer.read_head(),
            lambda peer: peer.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the close"),
            lambda peer: peer.close(),
        ]
    )
    answer = pool.get(server.url)
    assert (answer.http_version, answer.content) == ("HTTP/1.0", b"until the close")
