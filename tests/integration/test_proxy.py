"""Proxies: HTTP and SOCKS, with and without credentials, reached and not; and that the environment is not read."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.proxy import HTTPProxy, SocksProxy, Tinyproxy

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

MakeProxy = Callable[..., HTTPProxy]
MakeSocks = Callable[..., SocksProxy]
BASIC = "Basic " + base64.b64encode(b"me:hunter2").decode()


def with_userinfo(url: str, userinfo: str) -> str:
    """The proxy's URL with user and password."""
    return url.replace("://", f"://{userinfo}@")


def test_a_plain_request_goes_through_the_proxy(pool: katipo.Pool, origin: Origin, http_proxy: MakeProxy) -> None:
    """An http URL is asked of the proxy by its absolute form."""
    proxy = http_proxy()
    url = origin.strict_http + "/headers?x=1"
    answer = pool.get(url, proxy=proxy.url)
    assert (answer.status_code, answer.json()["query"]) == (200, "x=1")
    assert [(each.method, each.target) for each in proxy.requests] == [("GET", url)]
    assert proxy.tunnels == 0


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_tls_goes_through_a_tunnel(
    pool: katipo.Pool, origin: Origin, certs: Any, http_proxy: MakeProxy, version: Any
) -> None:
    """An https URL makes a tunnel, in which HTTP/1.1 and 2 are spoken; CONNECT's headers do not show."""
    proxy = http_proxy()
    port = origin.strict_https.rpartition(":")[2]
    answer = pool.get(origin.strict_https + "/headers", proxy=proxy.url, cacert=certs.ca, http_version=version)
    assert (answer.status_code, answer.json()["http_version"]) == (200, version)
    assert answer.reason_phrase != "Connection established"
    assert [(each.method, each.target) for each in proxy.requests] == [("CONNECT", f"localhost:{port}")]
    assert proxy.tunnels == 1


def test_a_real_proxy(pool: katipo.Pool, origin: Origin, certs: Any, tinyproxy: Tinyproxy) -> None:
    """tinyproxy forwards plain requests and tunnels the others."""
    assert pool.get(origin.strict_http + "/count", proxy=tinyproxy.url).status_code == 200
    answer = pool.get(origin.strict_https + "/count", proxy=tinyproxy.url, cacert=certs.ca)
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    tinyproxy.wait_logged("CONNECT")


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("auth", [("me", "hunter2"), ("me@home", "p:w/d")])
def test_the_proxy_s_credentials(
    pool: katipo.Pool, origin: Origin, certs: Any, http_proxy: MakeProxy, secure: bool, auth: tuple[str, str]
) -> None:
    """User and password of the proxy's URL are for the proxy, percent-decoded, and never reach the origin."""
    proxy = http_proxy(auth=auth)
    userinfo = ":".join(part.replace("@", "%40").replace("/", "%2F").replace(":", "%3A") for part in auth)
    url = (origin.strict_https if secure else origin.strict_http) + "/headers"
    answer = pool.get(url, proxy=with_userinfo(proxy.url, userinfo), cacert=certs.ca)
    assert answer.status_code == 200
    assert "proxy-authorization" not in {name.lower() for name, _ in answer.json()["headers"]}
    wanted = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
    assert proxy.requests[-1].authorization == wanted


@pytest.mark.parametrize("userinfo", ["", "me:wrong"])
def test_wrong_credentials_for_the_proxy(
    pool: katipo.Pool, origin: Origin, certs: Any, http_proxy: MakeProxy, userinfo: str
) -> None:
    """A plain request gets the proxy's 407; a tunnel that is refused is a ProxyError, nothing having been sent."""
    proxy = http_proxy(auth=("me", "hunter2"))
    url = with_userinfo(proxy.url, userinfo) if userinfo else proxy.url
    assert pool.get(origin.strict_http + "/count", proxy=url).status_code == 407
    with pytest.raises(katipo.ProxyError) as caught:
        pool.get(origin.strict_https + "/count", proxy=url, cacert=certs.ca)
    assert caught.value.request_sent is False
    assert "wrong" not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("status", [403, 502, 503])
def test_a_tunnel_that_is_refused(
    pool: katipo.Pool, origin: Origin, certs: Any, http_proxy: MakeProxy, status: int
) -> None:
    """Whatever the proxy answers CONNECT with, but for success, is a ProxyError that says so."""
    proxy = http_proxy(refuse=status)
    with pytest.raises(katipo.ProxyError, match=str(status)) as caught:
        pool.get(origin.strict_https + "/count", proxy=proxy.url, cacert=certs.ca)
    assert isinstance(caught.value, katipo.TransportError)
    assert caught.value.request_sent is False
    assert pool.get(origin.strict_http + "/count", proxy=proxy.url).status_code == status


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks5"])
def test_a_proxy_that_is_not_there(
    pool: katipo.Pool, origin: Origin, certs: Any, hostile: Hostile, scheme: str
) -> None:
    """Not reaching the proxy is a ProxyError, whatever the origin."""
    proxy = f"{scheme}://127.0.0.1:{hostile.refused_port()}"
    for base in (origin.strict_http, origin.strict_https):
        with pytest.raises(katipo.ProxyError) as caught:
            pool.get(base + "/count", proxy=proxy, cacert=certs.ca)
        assert caught.value.request_sent is False


def test_a_proxy_whose_name_is_not_known(pool: katipo.Pool, origin: Origin) -> None:
    """A lookup of the proxy's name that fails is a ProxyError."""
    with pytest.raises(katipo.ProxyError) as caught:
        pool.get(origin.strict_http + "/count", proxy="http://no-such-host.invalid:3128", timeout_ms=20000)
    assert (caught.value.code, caught.value.request_sent) == ("couldnt_resolve_proxy", False)


def test_an_origin_behind_the_proxy_that_is_not_there(
    pool: katipo.Pool, certs: Any, hostile: Hostile, http_proxy: MakeProxy
) -> None:
    """The proxy's 502 to CONNECT is a ProxyError; to a plain request it is the answer."""
    proxy, port = http_proxy(), hostile.refused_port()
    assert pool.get(f"http://127.0.0.1:{port}/", proxy=proxy.url).status_code == 502
    with pytest.raises(katipo.ProxyError):
        pool.get(f"https://127.0.0.1:{port}/", proxy=proxy.url, cacert=certs.ca)


def test_a_proxy_that_hangs_runs_into_the_connect_timeout(
    pool: katipo.Pool, origin: Origin, certs: Any, http_proxy: MakeProxy
) -> None:
    """CONNECT is a part of connecting."""
    proxy = http_proxy(hang=True)
    with pytest.raises(katipo.ConnectTimeout) as caught:
        pool.get(origin.strict_https + "/count", proxy=proxy.url, cacert=certs.ca, connecttimeout_ms=300)
    assert caught.value.request_sent is False


@pytest.mark.parametrize("secure", [False, True])
def test_socks(pool: katipo.Pool, origin: Origin, certs: Any, socks_proxy: MakeSocks, secure: bool) -> None:
    """SOCKS5 carries plain HTTP and TLS, with the name left to the proxy."""
    proxy = socks_proxy()
    base = origin.strict_https if secure else origin.strict_http
    answer = pool.get(base + "/count", proxy=proxy.url, cacert=certs.ca)
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if secure else "HTTP/1.1")
    assert [each.target for each in proxy.requests] == [base.partition("://")[2]]


def test_socks_with_credentials(pool: katipo.Pool, origin: Origin, socks_proxy: MakeSocks) -> None:
    """Right credentials pass, wrong ones are a ProxyError without a trace of the password."""
    proxy = socks_proxy(auth=("me", "hunter2"))
    url = origin.strict_http + "/count"
    assert pool.get(url, proxy=with_userinfo(proxy.url, "me:hunter2")).status_code == 200
    for userinfo in ("me:wrong", ""):
        with pytest.raises(katipo.ProxyError) as caught:
            pool.get(url, proxy=with_userinfo(proxy.url, userinfo) if userinfo else proxy.url)
        assert "wrong" not in f"{caught.value} {caught.value!r}"
        assert caught.value.request_sent is False


def test_a_socks_proxy_that_refuses(pool: katipo.Pool, origin: Origin, socks_proxy: MakeSocks) -> None:
    """A refusal of the SOCKS proxy is a ProxyError."""
    with pytest.raises(katipo.ProxyError) as caught:
        pool.get(origin.strict_http + "/count", proxy=socks_proxy(refuse=2).url)
    assert caught.value.request_sent is False


@pytest.mark.parametrize("proxy", [None, ""])
def test_the_environment_is_not_read(
    pool: katipo.Pool, origin: Origin, hostile: Hostile, monkeypatch: pytest.MonkeyPatch, proxy: str | None
) -> None:
    """Proxy variables of the environment, in any case, mean nothing to the core."""
    nowhere = f"http://127.0.0.1:{hostile.refused_port()}"
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, nowhere)
    assert pool.get(origin.strict_http + "/count", proxy=proxy).status_code == 200
    assert pool.get(origin.strict_http + "/count").status_code == 200


def test_no_proxy_of_the_environment_is_not_read(
    pool: katipo.Pool, origin: Origin, http_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that is given is used, whatever NO_PROXY says."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    proxy = http_proxy()
    assert pool.get(origin.strict_http + "/count", proxy=proxy.url).status_code == 200
    assert len(proxy.requests) == 1


def test_a_proxy_s_connection_is_not_used_without_it(
    pool: katipo.Pool, origin: Origin, certs: Any, http_proxy: MakeProxy
) -> None:
    """Direct requests, and those of other credentials, do not go through a tunnel that is there."""
    first, second = http_proxy(), http_proxy(auth=("me", "hunter2"))
    url = origin.strict_https + "/count"
    ways: list[Any] = [first.url, None, with_userinfo(second.url, "me:hunter2")]
    for _ in range(2):
        for way in ways:
            assert pool.get(url, proxy=way, cacert=certs.ca).status_code == 200
        with pytest.raises(katipo.ProxyError):
            pool.get(url, proxy=with_userinfo(second.url, "me:wrong"), cacert=certs.ca)
    assert (first.tunnels, second.tunnels) == (1, 1), "each way keeps its connection"


@pytest.mark.parametrize("endpoint", ["1.1", "2"], indirect=True)
def test_a_challenge_of_the_origin_is_not_the_proxy_s(
    pool: katipo.Pool, endpoint: Endpoint, http_proxy: MakeProxy
) -> None:
    """Through a tunnel, which HTTP/3 does not use, an origin's own statuses, 407 among them, are answers."""
    proxy = http_proxy()
    for code in (401, 407, 502):
        answer = pool.get(endpoint(f"/status/{code}"), proxy=proxy.url, **endpoint.options)
        assert (answer.status_code, answer.content) == (code, b"status %d" % code)


def test_the_proxy_of_a_handle_shows_no_password(origin: Origin, pool: katipo.Pool, http_proxy: MakeProxy) -> None:
    """Errors and reprs of a request through a proxy with credentials do not show them."""
    proxy = http_proxy(refuse=403)
    handle = pool.async_get(
        origin.strict_https + "/count", proxy=with_userinfo(proxy.url, "me:hunter2"), ssl_verifypeer=False
    )
    with pytest.raises(katipo.ProxyError) as caught:
        handle.result(30)
    assert proxy.requests[0].authorization == BASIC
    shown = f"{caught.value} {caught.value!r} {handle!r} {pool!r} {caught.value.request!r}"
    assert "hunter2" not in shown
    assert BASIC not in shown
