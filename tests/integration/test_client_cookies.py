"""Cookies from end to end: set by servers and by callers, sent where they belong, and nowhere else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import Peer, PeerClosed, response, serve, serve_forever

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.clients import AnyClient, ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.hostile import ScriptedServer
    from tests.support.origin import Origin


def setting(*lines: str, status: int = 200, location: str = "") -> bytes:
    """The bytes of a response that sets cookies."""
    headers = [("Set-Cookie", line) for line in lines]
    return response(b"set", status, [*headers, ("Location", location)] if location else headers)


def asked(server: ScriptedServer, connection: int = 0) -> str | None:
    """The Cookie header of the last request on a connection."""
    head = server.peer(connection).head
    assert head is not None
    return head.get("Cookie")


@pytest.mark.core
def test_cookies_go_round(clients: ClientMaker, endpoint: Endpoint) -> None:
    """What one response sets, the next request sends; what it deletes or what is over, no more."""
    client = clients(**endpoint.client_options)

    def sent() -> dict[str, str]:
        found: dict[str, str] = client.get(endpoint("/cookies")).json()["cookies"]
        return found

    assert sent() == {}
    answer = client.get(endpoint("/cookies/set", a="1", b="two"))
    assert dict(answer.cookies) == {"a": "1", "b": "two"}
    assert answer.cookiejar is None
    assert (sent(), dict(client.cookies)) == ({"a": "1", "b": "two"}, {"a": "1", "b": "two"})
    client.get(endpoint("/cookies/set", a="changed"))
    assert sent() == {"a": "changed", "b": "two"}
    client.get(endpoint("/cookies/delete", a=""))
    assert sent() == {"b": "two"}
    client.get(endpoint("/cookies/set", b="gone", max_age="0"))
    assert (sent(), len(client.cookies)) == ({}, 0)


@pytest.mark.parametrize("how", ["quick", "long", "stream", "hooked"])
def test_every_kind_of_call_keeps_cookies(clients: ClientMaker, hostile: Hostile, how: str) -> None:
    """A streamed response sets them before its body is read."""
    server = hostile(serve(setting("a=1"), response(b"ok")))
    client = clients()
    if how == "stream":
        with client.stream("GET", server.url) as streamed:
            assert dict(client.cookies) == {"a": "1"}
            streamed.read()
    elif how == "hooked":
        client.client.event_hooks = {"informational": [client.hook(lambda *_: None)]}
        client.get(server.url)
    else:
        client.get(server.url, **({} if how == "quick" else {"params": {"x": "y"}}))
    assert dict(client.cookies) == {"a": "1"}
    client.get(server.url)
    assert asked(server) == "a=1"


def test_cookies_of_every_hop_count(clients: ClientMaker, hostile: Hostile) -> None:
    """Redirects set cookies, which the next hop sends already; a 401 too."""
    server = hostile(
        serve(
            setting("a=1", status=302, location="/2"),
            setting("b=2", "a=; Max-Age=0", status=307, location="/3"),
            response(b"end"),
            response(b"end"),
        )
    )
    client = clients(follow_redirects=True)
    answer = client.get(f"{server.url}/1")
    assert [each.request.headers.get("cookie") for each in [*answer.history, answer]] == [None, "a=1", "b=2"]
    assert (asked(server), dict(client.cookies)) == ("b=2", {"b": "2"})
    client.get(server.url)
    assert asked(server) == "b=2"


def test_paths(clients: ClientMaker, hostile: Hostile) -> None:
    """A cookie goes to its path and below; the longest path first; without a path, to the folder of the request."""
    first = setting("a=root; Path=/", "b=deep; Path=/x/y", "c=default")
    server = hostile(serve(first, *[response(b"ok")] * 4))
    client = clients()
    client.get(f"{server.url}/x/page")
    wanted = {
        "/": "a=root",
        "/x": "c=default; a=root",
        "/x/yy": "c=default; a=root",
        "/x/y/z": "b=deep; c=default; a=root",
    }
    for path, expected in wanted.items():
        client.get(server.url + path)
        assert asked(server) == expected, path


def test_secure_cookies(clients: ClientMaker, hostile: Hostile, certs: Certificates) -> None:
    """Only https sets and gets them, http://localhost no less than others; http cannot put one in their place."""
    plain = hostile(then=serve_forever(setting("s=http; Secure", "t=over; Path=/")))
    safe = hostile(then=serve_forever(setting("s=1; Secure", "t=1; Secure; Path=/")), tls=certs.localhost)
    client = clients(verify=str(certs.ca))
    client.get(plain.url)
    assert dict(client.cookies) == {"t": "over"}
    client.cookies.clear()
    client.get(safe.url)
    client.get(plain.url)
    assert asked(plain) is None
    client.get(safe.url)
    assert asked(safe) == "s=1; t=1"


@pytest.mark.parametrize(
    "line",
    [
        "a=1; Domain=com",
        "a=1; Domain=example.com",
        "a=1; Domain=other.localhost",
        "__Host-a=1; Secure; Path=/",
        "__Secure-a=1",
        "=a=1",
        "a=1\x01",
        "; a=1",
        "a=1; Max-Age=0",
        "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    ],
)
def test_cookies_that_are_refused(clients: ClientMaker, hostile: Hostile, line: str) -> None:
    """Those of other sites, of public suffixes, of a prefix that they do not keep, and those that are over."""
    server = hostile(serve(setting(line), response(b"ok")))
    client = clients()
    client.get(server.url)
    assert len(client.cookies) == 0
    client.get(server.url)
    assert asked(server) is None


def test_a_servers_cookies_are_its_hosts(clients: ClientMaker, hostile: Hostile) -> None:
    """Another host gets none of them, also where a redirect leads there."""
    other = hostile(then=serve_forever(response(b"other")))
    server = hostile(
        serve(setting("a=1"), setting("b=2", status=302, location=f"http://127.0.0.1:{other.port}/"), response(b"ok"))
    )
    client = clients(follow_redirects=True)
    client.get(server.url)
    client.get(server.url)
    assert other.accepted == 1
    assert asked(other) is None
    client.get(f"http://127.0.0.1:{other.port}/")
    assert asked(other) is None
    client.get(server.url)
    assert asked(server) == "a=1; b=2"


def test_a_target_gets_its_own_cookies(clients: ClientMaker, hostile: Hostile) -> None:
    """Those that the second server set before, and those that the caller set for its domain."""
    other = hostile(then=serve_forever(setting("theirs=1")))
    server = hostile(then=serve_forever(response(b"", 302, [("Location", f"http://127.0.0.1:{other.port}/")])))
    client = clients(follow_redirects=True, cookies={"mine": "m"})
    client.cookies.set("for_them", "2", domain="127.0.0.1")
    client.get(server.url)
    assert asked(server) == "mine=m"
    assert asked(other) == "for_them=2"
    client.get(server.url)
    assert asked(other) == "for_them=2; theirs=1"


def test_httpbin_sets_and_deletes_cookies(clients: ClientMaker, web: Endpoint) -> None:
    """A server that is not ours, in a redirect on the way."""
    client = clients(follow_redirects=True, cookies={"own": "1"}, **web.client_options)
    assert client.get(web("/cookies/set", sid="abc")).json()["cookies"] == {"own": "1", "sid": "abc"}
    assert client.cookies["sid"] == "abc"
    assert client.get(web("/cookies/delete", sid="")).json()["cookies"] == {"own": "1"}
    assert "sid" not in client.cookies


def test_cookies_know_no_ports(clients: ClientMaker, hostile: Hostile) -> None:
    """A redirect to another port of the host takes the server's cookies along, and not the caller's (RFC 6265bis 8.5)."""
    other = hostile(serve(response(b"ok")))
    server = hostile(serve(setting("sid=1"), response(b"", 302, [("Location", other.url)])))
    client = clients(follow_redirects=True, cookies={"own": "1"})
    client.get(server.url)
    client.get(server.url, cookies={"x": "y"})
    assert (asked(server), asked(other)) == ("own=1; sid=1; x=y", "sid=1")


# The caller's own


@pytest.mark.core
def test_cookies_of_a_call_are_sent_once(clients: ClientMaker, endpoint: Endpoint) -> None:
    """They go beside the client's, in place of those of the same name, and are not kept."""
    client = clients(cookies={"a": "client", "b": "client"}, **endpoint.client_options)
    url = endpoint("/cookies")
    assert client.get(url, cookies={"a": "call", "c": "call"}).json()["cookies"] == {
        "a": "call",
        "b": "client",
        "c": "call",
    }
    assert client.get(url).json()["cookies"] == {"a": "client", "b": "client"}
    assert dict(client.cookies) == {"a": "client", "b": "client"}
    assert client.get(url, cookies=None).json()["cookies"] == {"a": "client", "b": "client"}
    assert client.get(url, cookies=[("d", "pair")]).json()["cookies"]["d"] == "pair"


def test_cookies_of_a_call_follow_within_the_origin(clients: ClientMaker, endpoint: Endpoint) -> None:
    """A redirect there has them still."""
    client = clients(follow_redirects=True, **endpoint.client_options)
    answer = client.get(endpoint("/redirect/302", to="/cookies"), cookies={"a": "1"})
    assert answer.json()["cookies"] == {"a": "1"}


def test_the_clients_cookies_may_be_changed(clients: ClientMaker, origin: Origin) -> None:
    """Set, deleted, replaced as a whole; the next request sees it."""
    client = clients()
    url = f"{origin.strict_http}/cookies"

    def sent() -> dict[str, str]:
        found: dict[str, str] = client.get(url).json()["cookies"]
        return found

    client.cookies["a"] = "1"
    client.cookies.set("b", "2", domain="localhost", path="/cookies")
    client.cookies.set("c", "3", domain="example.com")
    assert sent() == {"a": "1", "b": "2"}
    del client.cookies["a"]
    assert sent() == {"b": "2"}
    client.client.cookies = {"d": "4"}
    assert sent() == {"d": "4"}
    client.client.cookies.clear()
    assert sent() == {}


def test_a_cookie_header_of_the_callers_is_all_that_is_sent(clients: ClientMaker, hostile: Hostile) -> None:
    """As in httpx; of the call or of the client; what the server sets is kept all the same."""
    server = hostile(then=serve_forever(setting("b=2")))
    client = clients(cookies={"a": "1"})
    client.get(server.url, headers={"Cookie": "mine=1"})
    assert asked(server) == "mine=1"
    assert dict(client.cookies) == {"a": "1", "b": "2"}
    client.get(server.url)
    assert asked(server) == "a=1; b=2"
    client.get(server.url, headers={"Cookie": None})
    assert asked(server) is None
    without = clients(headers={"Cookie": None}, cookies={"a": "1"})
    without.get(server.url, cookies={"c": "3"})
    assert asked(server, 1) is None


def test_cookies_show_in_no_repr(clients: ClientMaker, hostile: Hostile) -> None:
    """Neither the client's nor a response's nor a request's."""
    server = hostile(then=serve_forever(setting("a=hush")))
    client = clients(cookies={"b": "hush"})
    answer = client.get(server.url)
    shown = (
        client.cookies,
        client.client,
        answer,
        answer.headers,
        answer.cookies,
        answer.request,
        answer.request.headers,
    )
    for each in shown:
        assert "hush" not in repr(each)


# Many at once


def test_one_jar_under_threads(hostile: Hostile) -> None:
    """Sixteen threads at once: every cookie that was set is there, and no request ever sent a broken or foreign one."""
    rounds, threads = 20, 16
    seen: list[str] = []

    def script(peer: Peer) -> None:
        try:
            while True:
                head = peer.read_head()
                seen.append(head.get("Cookie") or "")
                _, _, name = head.target.partition("?")
                peer.send(setting(f"{name}; Path=/"))
        except (PeerClosed, ConnectionError):
            return

    server = hostile(then=script)
    errors: list[BaseException] = []
    barrier = threading.Barrier(threads)
    with katipo.Client(trust_env=False) as client:

        def work(number: int) -> None:
            try:
                barrier.wait(30)
                for index in range(rounds):
                    client.get(f"{server.url}/?t{number}={index}")
                    client.cookies[f"own{number}"] = str(index)
                    assert client.cookies.get(f"t{number}") == str(index)
            except BaseException as error:
                errors.append(error)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert not errors, errors[0]
        last = str(rounds - 1)
        assert dict(client.cookies) == {f"{kind}{n}": last for kind in ("t", "own") for n in range(threads)}
    assert len(seen) == rounds * threads
    for header in seen:
        pairs = [pair.split("=") for pair in header.split("; ")] if header else []
        assert all(len(pair) == 2 and pair[1].isdigit() for pair in pairs)
        assert len({pair[0] for pair in pairs}) == len(pairs)


def test_clients_on_one_pool_keep_cookies_apart(clients: ClientMaker, endpoint: Endpoint) -> None:
    """They share connections, and nothing else."""
    with katipo.Pool() as pool:
        options: dict[str, Any] = {"pool": pool, **endpoint.client_options}
        first, second = clients(**options), clients(cookies={"own": "2"}, **options)
        first.get(endpoint("/cookies/set", a="1"))
        assert second.get(endpoint("/cookies")).json()["cookies"] == {"own": "2"}
        assert first.get(endpoint("/cookies")).json()["cookies"] == {"a": "1"}
        first.close()
        second.close()


def test_no_cookies_cost_no_parsing(clients: ClientMaker, hostile: Hostile) -> None:
    """A header that only looks like one of cookies sets none."""
    server = hostile(then=serve_forever(response(b"ok", headers=[("X-Set-Cookie", "a=1"), ("X", "set-cookie: b=2")])))
    client: AnyClient = clients()
    for _ in range(2):
        assert dict(client.get(server.url).cookies) == {}
    assert client.cookies.empty
    assert asked(server) is None
