"""Clients through proxies: every kind, with and without a login, from the environment, and when not."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

import katipo
from tests.support.proxy import HTTPProxy, Proxy, Socks4Proxy, SocksProxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.certs import Certificates
    from tests.support.clients import ClientMaker
    from tests.support.origin import Origin

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests has no say."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def held() -> Iterator[contextlib.ExitStack]:
    """Proxies of one test."""
    with contextlib.ExitStack() as stack:
        yield stack


def with_login(proxy: Proxy, user: str = "me", password: str = "p%40ss") -> str:
    return proxy.url.replace("://", f"://{user}:{password}@")


KINDS = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def make_proxy(kind: str, held: contextlib.ExitStack, certs: Certificates) -> tuple[Proxy, str]:
    """A proxy of that kind, and its URL."""
    makers: dict[str, Callable[[], Proxy]] = {
        "http": HTTPProxy,
        "https": lambda: HTTPProxy(tls=certs.localhost),
        "socks4": Socks4Proxy,
        "socks4a": Socks4Proxy,
        "socks5": SocksProxy,
        "socks5h": SocksProxy,
    }
    proxy = held.enter_context(makers[kind]())
    return proxy, f"{kind}://{proxy.url.partition('://')[2]}"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.core
def test_every_kind_of_proxy(
    clients: ClientMaker, origin: Origin, certs: Certificates, held: contextlib.ExitStack, kind: str, secure: bool
) -> None:
    """The proxy is asked for the origin, by name where it is to look names up."""
    proxy, url = make_proxy(kind, held, certs)
    base = origin.strict_https if secure else origin.strict_http
    client = clients(proxy=url, verify=certs.ca, curl_options={"PROXY_CAINFO": str(certs.ca), "IPRESOLVE": 1})
    assert client.post(base + "/echo", content=b"through").content == b"through"
    (asked,) = proxy.requests
    port = base.rpartition(":")[2]
    if kind.startswith("socks"):
        by_name = kind in ("socks4a", "socks5h")
        assert asked.target == f"localhost:{port}" if by_name else asked.target.endswith(f":{port}")
        assert by_name or not asked.target.startswith("localhost")
    else:
        assert (asked.method, asked.target) == (
            ("CONNECT", f"localhost:{port}") if secure else ("POST", base + "/echo")
        )


def test_an_https_proxy_is_verified(
    clients: ClientMaker,
    origin: Origin,
    certs: Certificates,
    held: contextlib.ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the default trust, which SSL_CERT_FILE names; `verify` is for servers."""
    proxy = held.enter_context(HTTPProxy(tls=certs.localhost))
    url = origin.strict_http + "/count"
    with pytest.raises(katipo.ProxyError):
        clients(proxy=proxy.url, verify=False).get(url)
    assert proxy.requests == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certs.ca))
    assert clients(proxy=proxy.url, trust_env=True).get(url).status_code == 200


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_login_at_an_http_proxy(
    clients: ClientMaker, origin: Origin, certs: Certificates, held: contextlib.ExitStack, secure: bool
) -> None:
    """Percent-decoded; wrong or missing, it is the proxy's 407; the origin never sees it."""
    proxy = held.enter_context(HTTPProxy(auth=("me", "p@ss")))
    base = origin.strict_https if secure else origin.strict_http
    client = clients(proxy=with_login(proxy), verify=certs.ca)
    seen = client.get(base + "/headers").json()["headers"]
    assert "proxy-authorization" not in {name.lower() for name, _ in seen}
    assert proxy.requests[-1].authorization == "Basic " + base64.b64encode(b"me:p@ss").decode()
    for wrong in (proxy.url, with_login(proxy, password="no")):
        other = clients(proxy=wrong, verify=certs.ca)
        if secure:
            with pytest.raises(katipo.ProxyError) as caught:
                other.get(base + "/headers")
            assert "no" not in str(caught.value).replace("not", "").split()
        else:
            assert other.get(base + "/headers").status_code == 407


def test_a_login_at_a_socks_proxy(clients: ClientMaker, origin: Origin, held: contextlib.ExitStack) -> None:
    """RFC 1929; a wrong one is a ProxyError."""
    proxy = held.enter_context(SocksProxy(auth=("me", "p@ss")))
    assert clients(proxy=with_login(proxy)).get(origin.strict_http + "/count").status_code == 200
    with pytest.raises(katipo.ProxyError):
        clients(proxy=with_login(proxy, password="no")).get(origin.strict_http + "/count")


@pytest.fixture
def environment(held: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> tuple[HTTPProxy, HTTPProxy]:
    """Proxies that the environment names: for http, and for https."""
    plain, tunnel = held.enter_context(HTTPProxy()), held.enter_context(HTTPProxy())
    monkeypatch.setenv("http_proxy", plain.url)
    monkeypatch.setenv("https_proxy", tunnel.url)
    return plain, tunnel


@pytest.mark.core
def test_the_environments_proxies(
    clients: ClientMaker,
    origin: Origin,
    certs: Certificates,
    environment: tuple[HTTPProxy, HTTPProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read when the client is made, if it trusts the environment; by scheme, but for NO_PROXY; "" is direct."""
    plain, tunnel = environment
    http, https = origin.strict_http + "/count", origin.strict_https + "/count"
    client = clients(trust_env=True, verify=certs.ca)
    untrusting, direct = clients(verify=certs.ca), clients(trust_env=True, proxy="", verify=certs.ca)
    monkeypatch.setenv("no_proxy", "localhost")
    exempt = clients(trust_env=True, verify=certs.ca)
    for other in (untrusting, direct, exempt):
        assert other.get(http).status_code == other.get(https).status_code == 200
    assert client.get(http, proxy="").status_code == 200
    assert (len(plain.requests), len(tunnel.requests)) == (0, 0)
    assert client.get(http).status_code == client.get(https).status_code == 200
    assert (len(plain.requests), len(tunnel.requests)) == (1, 1)
    assert client.get(http, proxy=tunnel.url).status_code == client.get(http, proxy=None).status_code == 200
    assert (len(plain.requests), len(tunnel.requests)) == (2, 2)


def test_each_hop_of_a_redirect_has_its_own_proxy(
    clients: ClientMaker, origin: Origin, certs: Certificates, environment: tuple[HTTPProxy, HTTPProxy]
) -> None:
    """The environment is asked for each URL."""
    plain, tunnel = environment
    client = clients(trust_env=True, verify=certs.ca, follow_redirects=True)
    to = origin.strict_https + "/count"
    assert client.get(origin.strict_http + "/redirect/302", params={"to": to}).url == to
    assert [each.method for each in (*plain.requests, *tunnel.requests)] == ["GET", "CONNECT"]


def test_what_goes_wrong_at_a_proxy_is_a_proxy_error(
    clients: ClientMaker, origin: Origin, certs: Certificates, held: contextlib.ExitStack
) -> None:
    """A refused tunnel, one that nobody serves, a login that is shown nowhere."""
    refusing = held.enter_context(HTTPProxy(refuse=403))
    with pytest.raises(katipo.ProxyError):
        clients(proxy=refusing.url, verify=certs.ca).get(origin.strict_https + "/count")
    gone = HTTPProxy()
    gone.close()
    client = clients(proxy=with_login(gone, password="hush"))
    with pytest.raises(katipo.ProxyError) as caught:
        client.get(origin.strict_http + "/count")
    assert caught.value.request_sent is False
    for shown in (str(caught.value), repr(caught.value), repr(client.client), repr(caught.value.request)):
        assert "hush" not in shown


@pytest.mark.parametrize("proxy", ["ftp://x", "http://", "http://h:99999", "http://user:hush@h/path", 5])
def test_what_is_no_proxy_is_refused(clients: ClientMaker, origin: Origin, proxy: str) -> None:
    """When the client is made, and when the request is."""
    with pytest.raises(katipo.BadOptions, match="proxy") as caught:
        clients(proxy=proxy)
    assert "hush" not in str(caught.value)
    with pytest.raises(katipo.BadOptions, match="proxy"):
        clients().get(origin.strict_http + "/count", proxy=proxy)


def test_a_unix_socket(clients: ClientMaker, tmp_path: Path) -> None:
    """The pool's own options that a client has no argument for are taken in `curl_options`."""
    import socket
    import threading

    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with listening.accept()[0] as peer:
                while b"\r\n\r\n" not in peer.recv(65536):
                    pass
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix")

        thread = threading.Thread(target=serve)
        thread.start()
        client = clients(curl_options={"UNIX_SOCKET_PATH": str(path)})
        assert client.get("http://anything.example/").content == b"unix"
        thread.join()
