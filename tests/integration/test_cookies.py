"""Cookies: kept by the caller as a `cookiejar`, from one response to the next request."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import Peer, response, serve

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin


def cookies(pool: katipo.Pool, endpoint: Endpoint, jar: katipo.CookieJar | None, path: str = "/cookies") -> object:
    """The cookies that the server gets with this jar."""
    return pool.get(endpoint(path), cookiejar=jar, **endpoint.options).json()["cookies"]


def test_cookies_are_set_sent_replaced_and_deleted(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A jar takes what a response sets, and each response's jar is the one before with its changes."""
    first = pool.get(endpoint("/cookies/set", a="1", b="2"), **endpoint.options)
    assert dict(first.cookies) == {"a": "1", "b": "2"}
    assert cookies(pool, endpoint, first.cookiejar) == {"a": "1", "b": "2"}

    second = pool.get(endpoint("/cookies/set", a="new", c="3"), cookiejar=first.cookiejar, **endpoint.options)
    assert cookies(pool, endpoint, second.cookiejar) == {"a": "new", "b": "2", "c": "3"}

    third = pool.get(endpoint("/cookies/delete") + "?a", cookiejar=second.cookiejar, **endpoint.options)
    assert cookies(pool, endpoint, third.cookiejar) == {"b": "2", "c": "3"}

    assert cookies(pool, endpoint, first.cookiejar) == {"a": "1", "b": "2"}, "a jar does not change"


def test_without_a_jar_nothing_is_remembered(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Cookies go from request to request through the caller only, though the connection is the same."""
    pool.get(endpoint("/cookies/set", a="1"), **endpoint.options)
    seen = pool.get(endpoint("/cookies"), **endpoint.options)
    assert seen.json()["cookies"] == {}
    assert seen.metrics.connections_opened == 0


def test_a_jar_passes_through_a_response_that_sets_nothing(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The jar of a response holds what was sent, so that it can be handed on."""
    jar = pool.get(endpoint("/cookies/set", a="1"), **endpoint.options).cookiejar
    jar = pool.get(endpoint("/count"), cookiejar=jar, **endpoint.options).cookiejar
    assert cookies(pool, endpoint, jar) == {"a": "1"}


def test_a_real_server_sets_and_gets_cookies(pool: katipo.Pool, web: Endpoint) -> None:
    """httpbin sets a cookie on a redirect; the jar has it, and gives it back."""
    answer = pool.get(web("/cookies/set/flavour/plain"), followlocation=True, **web.options)
    assert answer.json()["cookies"] == {"flavour": "plain"}, "also sent along the redirect"
    assert cookies(pool, web, answer.cookiejar) == {"flavour": "plain"}


def test_a_path_limits_where_a_cookie_goes(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A cookie for another path is kept and not sent."""
    jar = pool.get(endpoint("/cookies/set") + "?a=1&path=/elsewhere", **endpoint.options).cookiejar
    assert jar is not None
    assert len(jar) == 1
    assert cookies(pool, endpoint, jar) == {}


def test_a_cookie_stays_with_its_host(pool: katipo.Pool, origin: Origin) -> None:
    """A jar from `localhost` gives nothing to `127.0.0.1`."""
    jar = pool.get(origin.strict_http + "/cookies/set?a=1").cookiejar
    other = origin.strict_http.replace("localhost", "127.0.0.1")
    assert pool.get(other + "/cookies", cookiejar=jar).json()["cookies"] == {}
    assert pool.get(origin.strict_http + "/cookies", cookiejar=jar).json()["cookies"] == {"a": "1"}


def test_a_secure_cookie_is_not_sent_in_the_clear(pool: katipo.Pool, endpoint: Endpoint, hostile: Hostile) -> None:
    """A Secure cookie of an https origin does not go to an http port of the same host."""
    plain = hostile(serve(response(b"ok")))
    # libcurl takes localhost for secure whatever the scheme, so the host needs another name.
    port = endpoint.base.rpartition(":")[2]
    base = f"https://cookies.test:{port}"
    resolve: Any = {"RESOLVE": [f"cookies.test:{each}:127.0.0.1" for each in (port, plain.port)]}
    options: Any = {**endpoint.options, "ssl_verifyhost": False, "curl_options": resolve}
    jar = pool.get(base + "/set-headers?set-cookie=s%3D1%3B%20Secure%3B%20Path%3D/", **options).cookiejar
    assert pool.get(base + "/cookies", cookiejar=jar, **options).json()["cookies"] == {"s": "1"}
    pool.get(f"http://cookies.test:{plain.port}/", cookiejar=jar, curl_options=resolve)
    assert b"cookie:" not in plain.peer(0).received.lower()


def test_a_cookie_header_of_the_callers_is_sent_as_it_is(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A Cookie header needs no jar, and does not become one."""
    answer = pool.get(endpoint("/cookies"), headers={"Cookie": "x=1; y=2"}, **endpoint.options)
    assert answer.json()["cookies"] == {"x": "1", "y": "2"}
    assert answer.cookiejar is not None
    assert len(answer.cookiejar) == 0


def test_a_stream_has_the_jar_at_its_start_and_end(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Started and Done carry the cookies known by then."""
    messages = list(pool.async_get(endpoint("/cookies/set", a="1"), stream=True, **endpoint.options))
    started, done = messages[0], messages[-1]
    assert isinstance(started, katipo.Started)
    assert isinstance(done, katipo.Done)
    for jar in (started.cookiejar, done.cookiejar):
        assert cookies(pool, endpoint, jar) == {"a": "1"}


def test_many_cookies_with_odd_values_survive(pool: katipo.Pool, hostile: Hostile) -> None:
    """Fifty cookies with values of every allowed kind come back as they were set."""
    wanted = {f"n{number}": f"v{number}=!#$%&'()*+-./:<>?@[]^_`{{|}}~" for number in range(50)}
    headers = [("Set-Cookie", f"{name}={value}; Path=/; HttpOnly") for name, value in wanted.items()]

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(response(b"", headers=headers))
        peer.read_request()
        peer.send(response(b""))

    server = hostile(script)
    jar = pool.get(server.url).cookiejar
    assert jar is not None
    assert len(jar) == 50
    pool.get(server.url, cookiejar=jar)
    line = next(
        line for line in server.peer(0).received.decode("latin-1").split("\r\n") if line.lower().startswith("cookie:")
    )
    sent = dict(pair.split("=", 1) for pair in line.partition(": ")[2].split("; "))
    assert sent == wanted


def test_a_jar_pickles_and_shows_no_value(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A jar can be stored, and its repr says how many there are and no more."""
    jar = pool.get(endpoint("/cookies/set", token="hunter2"), **endpoint.options).cookiejar
    assert cookies(pool, endpoint, pickle.loads(pickle.dumps(jar))) == {"token": "hunter2"}
    assert "hunter2" not in repr(jar)


@pytest.mark.parametrize("jar", [{"a": "1"}, "a=1", [b"x"]])
def test_only_a_jar_is_a_jar(pool: katipo.Pool, jar: object) -> None:
    """A mapping or text in place of a response's cookiejar is refused at the call."""
    with pytest.raises(katipo.BadOptions, match="cookiejar"):
        pool.get("http://localhost/", cookiejar=jar)  # type: ignore[arg-type]
