"""Redirects as libcurl follows them for the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import katipo
from tests.support.hostile import response, serve
from tests.support.pattern import pattern

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

CODES = (301, 302, 303, 307, 308)


@pytest.mark.parametrize("code", CODES)
def test_a_redirect_is_an_answer_unless_asked_otherwise(pool: katipo.Pool, endpoint: Endpoint, code: int) -> None:
    """Without `followlocation` the redirect itself is delivered, and nothing else is requested."""
    answer = pool.get(endpoint(f"/redirect/{code}", to="/count"), **endpoint.options)
    assert (answer.status_code, answer.content) == (code, b"elsewhere")
    assert answer.headers["location"] == "/count"
    assert answer.is_redirect
    assert answer.url == endpoint(f"/redirect/{code}", to="/count")


@pytest.mark.parametrize("code", CODES)
def test_a_get_is_redirected(pool: katipo.Pool, endpoint: Endpoint, code: int) -> None:
    """The response is the last one's alone: its status, headers, body and URL."""
    answer = pool.get(endpoint(f"/redirect/{code}", to="/headers?x=1"), followlocation=True, **endpoint.options)
    assert (answer.status_code, answer.json()["query"]) == (200, "x=1")
    assert "location" not in answer.headers
    assert answer.url == endpoint("/headers", x=1)
    assert answer.request.url == endpoint(f"/redirect/{code}", to="/headers?x=1")
    assert answer.history == []
    assert answer.metrics.redirect_time > 0


@pytest.mark.parametrize(
    ("code", "method", "then"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "DELETE", "GET"),
        (301, "PUT", "PUT"),
        (302, "PATCH", "PATCH"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (307, "DELETE", "DELETE"),
    ],
)
def test_method_and_body_after_a_redirect(
    pool: katipo.Pool, endpoint: Endpoint, code: int, method: str, then: str
) -> None:
    """The method stays or becomes GET as RFC 9110 15.4 has it, and the body stays with its method."""
    body = pattern(0, 50_000)
    answer = pool.request(
        method,
        endpoint(f"/redirect/{code}", to="/upload", read="all"),
        body=body,
        followlocation=True,
        **endpoint.options,
    )
    seen = answer.json()
    assert seen["method"] == then
    assert seen["length"] == (0 if then == "GET" else len(body))


def test_a_head_stays_a_head(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """HEAD is redirected as HEAD, also by 303."""
    for code in (302, 303):
        answer = pool.head(endpoint(f"/redirect/{code}", to="/big?size=77"), followlocation=True, **endpoint.options)
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "77")


def chain(endpoint: Endpoint, hops: int) -> str:
    """A URL that redirects `hops` times."""
    target = "/count"
    for _ in range(hops):
        target = endpoint("/redirect/302", to=target).removeprefix(endpoint.base)
    return endpoint.base + target


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_the_limit_of_redirects(pool: katipo.Pool, endpoint: Endpoint, limit: int) -> None:
    """As many redirects as allowed are followed, and one more is an error."""
    options = endpoint.options
    assert pool.get(chain(endpoint, limit), followlocation=True, maxredirs=limit, **options).status_code == 200
    with pytest.raises(katipo.TooManyRedirects) as caught:
        pool.get(chain(endpoint, limit + 1), followlocation=True, maxredirs=limit, **options)
    assert (caught.value.code, caught.value.curl_code) == ("too_many_redirects", 47)
    assert caught.value.request is not None
    assert caught.value.request.url == chain(endpoint, limit + 1)


def test_nine_redirects_are_followed_by_default(pool: katipo.Pool, web: Endpoint) -> None:
    """The default limit is 9, against a real server."""
    assert pool.get(web("/relative-redirect/9"), followlocation=True, **web.options).status_code == 200
    with pytest.raises(katipo.TooManyRedirects):
        pool.get(web("/relative-redirect/10"), followlocation=True, **web.options)


def test_the_limit_can_be_taken_away(pool: katipo.Pool, web: Endpoint) -> None:
    """`maxredirs=-1` follows any number."""
    assert pool.get(web("/relative-redirect/25"), followlocation=True, maxredirs=-1, **web.options).status_code == 200


def test_an_endless_loop_ends(pool: katipo.Pool, hostile: Hostile) -> None:
    """A URL that redirects to itself ends at the limit."""
    server = hostile(serve(*[response(status=302, headers=[("Location", "/again")])] * 10))
    with pytest.raises(katipo.TooManyRedirects):
        pool.get(server.url + "/again", followlocation=True)
    assert server.peer(0).received.count(b"GET /again ") == 10


def test_a_streamed_response_starts_after_the_redirects(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A stream shows one Started, the final one's, and only the final body."""
    messages = list(pool.async_get(chain(endpoint, 3), followlocation=True, stream=True, **endpoint.options))
    started = [message for message in messages if isinstance(message, katipo.Started)]
    assert [each.status_code for each in started] == [200]
    assert started[0].url == endpoint("/count")
    assert b"".join(m.data for m in messages if isinstance(m, katipo.Chunk)) == b'{"id": null, "count": 1}'


def test_a_redirect_without_a_location_is_the_answer(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """There is nowhere to go: the response is delivered."""
    for code in (302, 304, 300):
        assert pool.get(endpoint(f"/status/{code}"), followlocation=True, **endpoint.options).status_code == code


def test_credentials_do_not_go_to_another_origin(pool: katipo.Pool, hostile: Hostile) -> None:
    """Authorization, credentials of options and cookies stay with the host that they were given for."""
    other = hostile(serve(response(b"ok")))
    first = hostile(
        serve(
            response(
                status=302,
                headers=[("Location", other.url.replace("localhost", "127.0.0.1")), ("Set-Cookie", "c=hunter2")],
            )
        )
    )
    pool.get(first.url, followlocation=True, username="user", password="hunter2")
    seen = other.peer(0).received.lower()
    assert b"authorization" in first.peer(0).received.lower()
    assert b"authorization" not in seen
    assert b"cookie" not in seen


def test_a_caller_s_authorization_does_not_go_to_another_origin(pool: katipo.Pool, hostile: Hostile) -> None:
    """The same of an Authorization and a Cookie header, where only the port differs."""
    other = hostile(serve(response(b"ok")))
    first = hostile(serve(response(status=302, headers=[("Location", other.url)])))
    pool.get(first.url, followlocation=True, headers={"Authorization": "Bearer hunter2", "Cookie": "c=hunter2"})
    assert first.peer(0).received.count(b"hunter2") == 2
    assert b"hunter2" not in other.peer(0).received


def test_from_http_to_https(pool: katipo.Pool, origin: Origin, endpoint: Endpoint) -> None:
    """A redirect from plain HTTP to TLS is followed, and the response says what it came over."""
    answer = pool.get(
        f"{origin.strict_http}/redirect/302?to={endpoint('/count')}",
        followlocation=True,
        cacert=endpoint.options["cacert"],
        http_version="none",
    )
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    assert answer.url == endpoint("/count")
